//! Reads a whole program: kernels by the parser of kernel IR, the rest by the tensor IR's [`Reader`]. What is read is
//! verified. A statement that is wrong is reported and skipped; its name stays known, so that its uses aren't errors too.

use std::collections::HashMap;

use bertc_ir::kernel::{self, Kernel};
use bertc_ir::text::{Constant, Reader};
use bertc_ir::{DType, Diag, Dim, Loc, Tensor, TensorType};

use super::print::rounded_type;
use super::verify::{Place, violations};
use crate::plan::{Arg, Buffer, Chunk, ConstData, ConstLayout, Lane, Part, PortSpec, Program, Slot, SparseArray, Step};
use crate::sparse::Blocks;

/// Errors after which parsing ends.
const MAX_ERRORS: usize = 100;

/// The program of `src`. `resources` gives the elements of constants by their keys; those it doesn't know stay
/// [elided](Part::Elided), and everything but writing an object works without them.
///
/// # Errors
/// Everything that is wrong with the text, or with the program where the text is readable, each with the bytes it
/// concerns (`Loc::Text`).
pub fn parse(src: &str, resources: &dyn Fn(&str) -> Option<Tensor>) -> Result<Program, Vec<Diag>> {
    let start = program_start(src);
    let (kernels, mut errors) = match kernel::parse(&src[..start]) {
        Ok(k) => (Some(k), Vec::new()),
        Err(e) => (None, e),
    };
    let mut p = Parser::new(Reader::new(src, start, resources), kernels);
    errors.extend(p.reader.unreadable());
    if let Err(d) = p.file() {
        p.errors.push(d);
    }
    errors.append(&mut p.errors);
    if errors.is_empty() {
        errors = violations(&p.program).into_iter().map(|(place, m)| Diag::new(m).at(p.loc(place))).collect();
    }
    if errors.is_empty() {
        return Ok(p.program);
    }
    errors.sort_by_key(|d| if let Loc::Text { start, .. } = d.loc { start } else { 0 });
    Err(errors)
}

/// Where the kernels end: the first line that begins with `dims` or `program`, as no line of a kernel does.
fn program_start(src: &str) -> usize {
    let mut at = 0;
    for line in src.split_inclusive('\n') {
        let word = line.trim_start();
        let is = |w: &str| {
            word.strip_prefix(w).is_some_and(|rest| rest.starts_with(|c: char| c.is_whitespace() || c == '@'))
        };
        if is("dims") || is("program") {
            return at;
        }
        at += line.len();
    }
    src.len()
}

/// What a name stands for.
#[derive(Clone, Copy)]
enum Entity {
    Input(usize),
    Output(usize),
    Const(usize),
    Slot(usize),
    Buffer(usize),
}

struct Parser<'a> {
    reader: Reader<'a>,
    program: Program,
    /// Kernels by name; `None` if they couldn't be read.
    kernels: Option<HashMap<String, usize>>,
    names: HashMap<String, Entity>,
    errors: Vec<Diag>,
    head: Loc,
    outputs: Vec<Loc>,
    consts: Vec<Loc>,
    buffers: Vec<Loc>,
    steps: Vec<Loc>,
}

type Parsed<T> = Result<T, Diag>;

impl<'a> Parser<'a> {
    fn new(reader: Reader<'a>, kernels: Option<Vec<Kernel>>) -> Self {
        let by_name = |k: &Vec<Kernel>| k.iter().enumerate().map(|(i, k)| (k.name.clone(), i)).collect();
        let program = Program {
            name: String::new(),
            symbols: Default::default(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            consts: Vec::new(),
            buffers: Vec::new(),
            slots: Vec::new(),
            steps: Vec::new(),
            kernels: Vec::new(),
        };
        let known = kernels.as_ref().map(by_name);
        Parser {
            reader,
            program: Program { kernels: kernels.unwrap_or_default(), ..program },
            kernels: known,
            names: HashMap::new(),
            errors: Vec::new(),
            head: Loc::Unknown,
            outputs: Vec::new(),
            consts: Vec::new(),
            buffers: Vec::new(),
            steps: Vec::new(),
        }
    }

    /// The place of a violation in the text.
    fn loc(&self, place: Place) -> Loc {
        match place {
            // The kernels' own parser finds names that aren't distinct.
            Place::Kernel(_) => self.head.clone(),
            Place::Const(i) => self.consts[i].clone(),
            Place::Buffer(i) => self.buffers[i].clone(),
            Place::Output(i) => self.outputs[i].clone(),
            Place::Step(i) => self.steps[i].clone(),
        }
    }

    fn file(&mut self) -> Parsed<()> {
        while self.reader.is_word("dims") {
            let mark = self.reader.mark();
            if let Err(d) = self.reader.dims() {
                self.errors.push(d);
                self.reader.skip_line(mark);
            }
        }
        self.program.symbols = self.reader.symbols().clone();
        let start = self.reader.start();
        self.reader.expect_word("program")?;
        self.program.name = self.reader.func()?;
        self.head = self.reader.span(start);
        self.reader.expect("(")?;
        self.ports(false)?;
        self.reader.expect("->")?;
        self.reader.expect("(")?;
        self.ports(true)?;
        self.reader.expect("{")?;
        while !self.reader.eat("}") {
            if self.reader.at_end() || self.errors.len() >= MAX_ERRORS {
                return Err(self.reader.expected("a statement or '}'"));
            }
            let mark = self.reader.mark();
            if let Err(d) = self.statement() {
                self.errors.push(d);
                self.reader.skip_line(mark);
            }
        }
        if self.reader.at_end() { Ok(()) } else { Err(self.reader.expected("the end: a file holds one program")) }
    }

    /// Inputs or outputs up to the closing parenthesis.
    fn ports(&mut self, out: bool) -> Parsed<()> {
        if self.reader.eat(")") {
            return Ok(());
        }
        loop {
            let start = self.reader.start();
            let n = if out { self.program.outputs.len() } else { self.program.inputs.len() };
            let id = self.define(if out { Entity::Output(n) } else { Entity::Input(n) })?;
            let name = if self.reader.is_string() { self.reader.string("a name")? } else { id };
            self.reader.expect(":")?;
            let port = PortSpec { name, ty: self.reader.ty()? };
            if out {
                self.program.outputs.push(port);
                self.outputs.push(self.reader.span(start));
            } else {
                self.program.inputs.push(port);
            }
            if self.reader.eat(")") {
                return Ok(());
            }
            if !self.reader.eat(",") {
                return Err(self.reader.expected("',' or ')'"));
            }
        }
    }

    /// A new name.
    fn define(&mut self, entity: Entity) -> Parsed<String> {
        let start = self.reader.start();
        let name = self.reader.value().ok_or_else(|| self.reader.expected("'%' and a name"))?;
        if self.names.insert(name.clone(), entity).is_some() {
            return Err(Diag::new(format!("'%{name}' is defined twice")).at(self.reader.span(start)));
        }
        Ok(name)
    }

    fn find(&mut self, what: &str) -> Parsed<Entity> {
        let start = self.reader.start();
        let name = self.reader.value().ok_or_else(|| self.reader.expected(what))?;
        let at = self.reader.span(start);
        self.names.get(&name).copied().ok_or_else(|| Diag::new(format!("'%{name}' is not defined")).at(at))
    }

    fn statement(&mut self) -> Parsed<()> {
        let start = self.reader.start();
        if self.reader.eat_word("const") {
            self.constant(start)
        } else if self.reader.eat_word("slot") {
            self.slot()
        } else if self.reader.eat_word("buffer") {
            self.buffer(start)
        } else if self.reader.eat_word("step") {
            self.step(start)
        } else {
            Err(self.reader.expected("'const', 'slot', 'buffer', 'step' or '}'"))
        }
    }

    fn constant(&mut self, start: usize) -> Parsed<()> {
        self.define(Entity::Const(self.program.consts.len()))?;
        // It exists from here on, whatever is wrong with it.
        self.program.consts.push(ConstData { parts: Vec::new(), layout: ConstLayout::Plain });
        self.consts.push(self.reader.span(start));
        self.reader.expect(":")?;
        let at = self.reader.start();
        let read = match () {
            () if self.reader.is_word("tensor") => self.plain()?,
            () if self.reader.is_word("rounded") => self.rounded(at)?,
            () => self.matrix(at)?,
        };
        if let Some(last) = self.program.consts.last_mut() {
            *last = read;
        }
        if let Some(last) = self.consts.last_mut() {
            *last = self.reader.span(start);
        }
        Ok(())
    }

    fn plain(&mut self) -> Parsed<ConstData> {
        let ty = self.reader.ty()?;
        self.reader.expect("=")?;
        Ok(ConstData { parts: vec![part(self.reader.constant(Some(&ty))?)], layout: ConstLayout::Plain })
    }

    /// A tensor rounded to bf16; its type is at byte `at`.
    fn rounded(&mut self, at: usize) -> Parsed<ConstData> {
        self.reader.expect_word("rounded")?;
        self.reader.expect("<")?;
        let mut shape = Vec::new();
        while !self.reader.eat_word("bf16") {
            shape.push(self.reader.index()?);
            self.reader.expect_word("x")?;
        }
        self.reader.expect(">")?;
        let loc = self.reader.span(at);
        self.reader.expect("=")?;
        let parts = vec![part(self.reader.constant(None)?)];
        checked(ConstData { parts, layout: ConstLayout::Rounded }, &rounded_type(&shape), loc)
    }

    /// A matrix in a layout of its own; its type is at byte `at`.
    fn matrix(&mut self, at: usize) -> Parsed<ConstData> {
        let layouts = ["packed", "sums", "sparse"];
        let Some(kind) = layouts.into_iter().find(|w| self.reader.eat_word(w)) else {
            let what = "a type: 'tensor<…>', 'rounded<…>', 'packed<…>', 'sums<…>' or 'sparse<…>'";
            return Err(self.reader.expected(what));
        };
        self.reader.expect("<")?;
        let k = self.reader.index()?;
        self.reader.expect_word("x")?;
        let n = self.reader.index()?;
        let mut ty = format!("{kind}<{k} x {n}");
        let mut lane = Lane::One;
        if kind != "sums" {
            self.reader.expect_word("x")?;
            let elems = [DType::F32, DType::I32, DType::BF16, DType::I8];
            let elem = elems.into_iter().find(|d| self.reader.eat_word(d.name()));
            let elem = elem.ok_or_else(|| self.reader.expected("'f32', 'i32', 'bf16' or 'i8'"))?;
            lane = match elem {
                DType::BF16 => Lane::Bf16x2,
                DType::I8 => Lane::I8x4,
                _ => Lane::One,
            };
            ty = format!("{ty} x {elem}");
        }
        let mut layout = match kind {
            "sums" => ConstLayout::Sums { trans: false },
            "packed" => ConstLayout::Packed { trans: false, lane },
            _ => {
                let (blocks, count, array) = self.blocks(lane)?;
                ty = format!("{ty}, {count} of {blocks}, {}", array.name());
                ConstLayout::Sparse { trans: false, lane, blocks, count, array }
            }
        };
        self.reader.expect(">")?;
        let loc = self.reader.span(at);
        self.reader.expect("=")?;
        if let ConstLayout::Packed { trans, .. } | ConstLayout::Sums { trans } | ConstLayout::Sparse { trans, .. } =
            &mut layout
        {
            *trans = self.reader.eat_word("transpose");
        }
        let mut parts = vec![part(self.reader.constant(None)?)];
        while self.reader.eat(",") {
            parts.push(part(self.reader.constant(None)?));
        }
        checked(ConstData { parts, layout }, &format!("{ty}>"), loc)
    }

    /// What a sparse matrix' type says of its blocks, behind the type of its elements.
    fn blocks(&mut self, lane: Lane) -> Parsed<(Blocks, u32, SparseArray)> {
        self.reader.expect(",")?;
        let count = self.reader.index()?;
        let count = u32::try_from(count).map_err(|_| self.reader.expected("a number of blocks of 32 bits"))?;
        self.reader.expect_word("of")?;
        let rows = self.reader.index()?;
        self.reader.expect_word("x")?;
        let steps = self.reader.index()?;
        let all = Blocks::all(lane);
        let same = |b: &&Blocks| usize::from(b.rows) == rows && usize::from(b.steps) == steps;
        let Some(&blocks) = all.iter().find(same) else {
            let all: Vec<String> = all.iter().map(Blocks::to_string).collect();
            return Err(self.reader.expected(&format!("a size of blocks: {}", all.join(", "))));
        };
        self.reader.expect(",")?;
        let array = SparseArray::ALL.into_iter().find(|a| self.reader.eat_word(a.name()));
        let array = array.ok_or_else(|| self.reader.expected("'starts', 'indices' or 'values'"))?;
        Ok((blocks, count, array))
    }

    /// Bytes between angle brackets.
    fn bytes<T>(&mut self, inner: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        self.reader.expect(":")?;
        self.reader.expect_word("bytes")?;
        self.reader.expect("<")?;
        let v = inner(self)?;
        self.reader.expect(">")?;
        Ok(v)
    }

    fn slot(&mut self) -> Parsed<()> {
        let n = self.program.slots.len();
        self.define(Entity::Slot(n))?;
        self.program.slots.push(Slot::default());
        self.program.slots[n].sizes = self.bytes(|p| {
            if !p.reader.is_call("max", "(") {
                return Ok(vec![p.reader.dim()?]);
            }
            p.reader.eat_word("max");
            p.reader.expect("(")?;
            p.reader.list(")", Reader::dim)
        })?;
        Ok(())
    }

    fn buffer(&mut self, start: usize) -> Parsed<()> {
        let n = self.program.buffers.len();
        self.define(Entity::Buffer(n))?;
        let unused = Buffer { bytes: Dim::default(), slot: 0, first: usize::MAX, last: 0 };
        self.program.buffers.push(unused);
        self.buffers.push(self.reader.span(start));
        self.program.buffers[n].bytes = self.bytes(|p| p.reader.dim())?;
        if self.reader.eat_word("in") {
            let e = self.reader.expected("a slot");
            let Entity::Slot(slot) = self.find("a slot")? else { return Err(e) };
            self.reader.expect_word("live")?;
            let first = self.reader.index()?;
            self.reader.expect("..=")?;
            let last = self.reader.index()?;
            self.program.buffers[n] = Buffer { slot, first, last, ..self.program.buffers[n].clone() };
        }
        self.buffers[n] = self.reader.span(start);
        Ok(())
    }

    fn step(&mut self, start: usize) -> Parsed<()> {
        let n = self.program.steps.len();
        let step = Step {
            kernel: 0,
            args: Vec::new(),
            tasks: Vec::new(),
            fallible: false,
            in_place: Vec::new(),
            source: String::new(),
        };
        self.program.steps.push(step.clone());
        self.steps.push(self.reader.span(start));
        if self.reader.is_number() {
            let e = self.reader.error(format!("this is step {n}"));
            if self.reader.index()? != n {
                return Err(e);
            }
        }
        let at = self.reader.start();
        let name = self.reader.func()?;
        let kernel = match &self.kernels {
            Some(kernels) => *kernels.get(&name).ok_or_else(|| {
                Diag::new(format!("there is no kernel '@{name}'"))
                    .at(self.reader.span(at))
                    .note("define it above the program")
            })?,
            None => 0,
        };
        self.reader.expect("(")?;
        let mut args = Vec::new();
        if !self.reader.eat(")") {
            loop {
                args.push(self.arg()?);
                if self.reader.eat(")") {
                    break;
                }
                if !self.reader.eat(",") {
                    return Err(self.reader.expected("',' or ')'"));
                }
            }
        }
        let mut step = Step { kernel, args, ..step };
        if self.reader.eat_word("tasks") {
            self.reader.expect("[")?;
            step.tasks = self.reader.list("]", chunked)?;
        }
        step.fallible = self.reader.eat_word("may_fail");
        if self.reader.eat_word("in_place") {
            self.reader.expect("[")?;
            step.in_place = self.reader.list("]", |r| {
                let over = r.index()?;
                r.expect_word("over")?;
                Ok((over, r.index()?))
            })?;
        }
        if self.reader.eat_word("source") {
            step.source = self.reader.string("a string")?;
        }
        self.program.steps[n] = step;
        self.steps[n] = self.reader.span(start);
        Ok(())
    }

    fn arg(&mut self) -> Parsed<Arg> {
        let r = &mut self.reader;
        if r.is_call("scratch", "<") {
            r.eat_word("scratch");
            r.expect("<")?;
            let bytes = r.index()? as u64;
            r.expect(">")?;
            return Ok(Arg::Scratch(bytes));
        }
        if r.is_call("again", "<") {
            r.eat_word("again");
            r.expect("<")?;
            let i = r.index()?;
            r.expect(">")?;
            return Ok(Arg::Again(i));
        }
        if r.is_call("chunk", "<") {
            r.eat_word("chunk");
            r.expect("<")?;
            let (d, c) = chunked(r)?;
            r.expect(">")?;
            return Ok(Arg::Chunk(d, c));
        }
        if !r.is_value() {
            return Ok(Arg::Int(r.dim()?));
        }
        let e = r.error("a slot is no argument: name a buffer in it");
        Ok(match self.find("an argument")? {
            Entity::Input(n) => Arg::Input(n),
            Entity::Output(n) => Arg::Output(n),
            Entity::Const(n) => Arg::Const(n),
            Entity::Buffer(n) => Arg::Buffer(n),
            Entity::Slot(_) => return Err(e),
        })
    }
}

/// `c`, if its layout's type is the one that was written.
fn checked(c: ConstData, written: &str, loc: Loc) -> Parsed<ConstData> {
    match c.layout_type() {
        Some(real) if real != written => {
            Err(Diag::new(format!("the type is {written}, the sources make {real}")).at(loc))
        }
        // What is wrong with the sources, if so, the verifier finds.
        _ => Ok(c),
    }
}

fn part(c: Constant) -> Part {
    match c {
        Constant::Tensor(t) => Part::Tensor(t),
        Constant::Missing(key, TensorType { dtype, shape }) => {
            // The reader has checked that the dims are constants, and sizes.
            let shape = shape.iter().filter_map(|d| usize::try_from(d.as_const()?).ok()).collect();
            Part::Elided { dtype, shape, key }
        }
    }
}

/// `extent by chunk`.
fn chunked(r: &mut Reader<'_>) -> Parsed<(Dim, Chunk)> {
    let extent = r.dim()?;
    r.expect_word("by")?;
    if !r.eat_word("share") {
        return Ok((extent, Chunk::Fixed(r.integer()?)));
    }
    r.expect("(")?;
    let multiple = r.integer()?;
    r.expect(",")?;
    let most = r.integer()?;
    r.expect(")")?;
    Ok((extent, Chunk::Share { multiple, most }))
}
