//! The glue of a compiled model, as CLIF: what `run` and its sisters do around the kernels.
//!
//! `run` checks its arguments, computes where the slots of the arena lie, and keeps what the steps need in the
//! workspace's [`Header`]. The steps themselves are cut into functions of [`CHUNK`] steps, so that a long model compiles
//! in linear time. A step fills the one argument block (calls are synchronous) and hands its kernel to `launch`.

mod entry;
mod steps;

use std::collections::HashMap;

use bertc_ir::Dim;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I32, I64};
use cranelift_codegen::ir::{
    AbiParam, Block, ExternalName, FuncRef, Function, GlobalValueData, InstBuilder, MemFlagsData, SigRef, Signature,
    Type, UserExternalName, UserFuncName, Value,
};
use cranelift_codegen::isa::TargetIsa;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};

use crate::plan::{ALIGN, Program};

/// Namespace of function references: the index is a position in the list of functions.
pub(crate) const FUNCTIONS: u32 = 0;
/// Namespace of data references: the index is [`WEIGHTS`], [`ERRORS`] or [`LEVEL`].
pub(crate) const DATA: u32 = 1;
/// The constants, all in one section.
pub(crate) const WEIGHTS: u32 = 0;
/// The table of error messages' addresses.
pub(crate) const ERRORS: u32 = 1;
/// Which code suits the CPU: 32 bits, 0 as long as nobody has asked.
pub(crate) const LEVEL: u32 = 2;

/// Error codes and their messages, in the order of the codes. The last message is for any other code.
pub(crate) const ERROR_TEXT: [&str; 10] = [
    "ok",
    "a required pointer is NULL",
    "a dim is out of its range",
    "the workspace is too small",
    "the workspace is not aligned to 64 bytes",
    "an index of an input is out of range",
    "the parallel struct is invalid",
    "the options struct is invalid",
    "this CPU lacks a feature that the model was compiled for",
    "unknown error code",
];

/// Error codes of the C interface.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Code {
    Ok = 0,
    NullPointer = 1,
    DimOutOfRange = 2,
    WorkspaceTooSmall = 3,
    WorkspaceMisaligned = 4,
    IndexOutOfRange = 5,
    BadParallel = 6,
    BadOptions = 7,
    CpuUnsupported = 8,
}

/// Steps in one function.
const CHUNK: usize = 16;

/// A function of the driver.
pub(crate) struct DriverFunction {
    /// Its symbol, without the model's prefix.
    pub name: String,
    /// Whether it is part of the C interface.
    pub export: bool,
    /// Its code.
    pub body: Function,
}

/// Offsets in bytes of what the workspace starts with. The error flag is at 0 in a cache line of its own, because tasks
/// may write it while others read their arguments.
struct Header {
    args: i32,
    dims: i32,
    inputs: i32,
    outputs: i32,
    /// Addresses of the slots, behind them of the scratch memory, and then the number of workers.
    slots: i32,
    /// Size of it all, a multiple of [`ALIGN`].
    size: i64,
}

impl Header {
    fn new(p: &Program) -> Header {
        let words = |n: usize| 8 * n as u64;
        let most = p.steps.iter().map(|s| s.args.len()).max().unwrap_or(0);
        let args = ALIGN;
        let dims = args + words(1 + most);
        let inputs = dims + words(p.symbols.len());
        let outputs = inputs + words(p.inputs.len());
        let slots = outputs + words(p.outputs.len());
        let size = (slots + words(p.slots.len() + 2)).next_multiple_of(ALIGN) as i64;
        let at = |x: u64| i32::try_from(x).expect("a header of less than 2 GB");
        Header { args: at(args), dims: at(dims), inputs: at(inputs), outputs: at(outputs), slots: at(slots), size }
    }
}

/// What all functions of the driver share.
struct Driver<'a> {
    program: &'a Program,
    isa: &'a dyn TargetIsa,
    /// Offset of each constant from [`WEIGHTS`].
    consts: &'a [u64],
    header: Header,
    /// Position of `launch`.
    launch: u32,
    options: Options,
}

/// Where a driver is and what it has beside the steps. Positions are those in the list of functions.
#[derive(Clone, Copy, Default)]
pub(crate) struct Options {
    /// Position of the first kernel; the others follow.
    pub kernels: usize,
    /// Position of the driver's first function.
    pub first: usize,
    /// Position of [`cpu_level`], where `run` has to ask whether the CPU will do.
    pub cpu_level: Option<usize>,
    /// Every step goes through the caller's `parallel_for`, if there is one.
    pub profile: bool,
}

/// The driver of `program`. `consts` are the constants' offsets.
pub(crate) fn emit(program: &Program, isa: &dyn TargetIsa, consts: &[u64], options: Options) -> Vec<DriverFunction> {
    let d = Driver::new(program, isa, consts, options);
    let mut out = d.inside();
    out.push(d.strerror());
    out.push(d.output_shape());
    for (name, f) in INTERFACE.iter().zip(out.iter_mut().rev()) {
        debug_assert_eq!(*name, f.name);
        f.export = true;
    }
    numbered(out, options.first)
}

/// The driver of one of several variants of `program`, without the interface: `workspace_size` and `run` are the last
/// two of its functions.
pub(crate) fn emit_variant(
    program: &Program,
    isa: &dyn TargetIsa,
    consts: &[u64],
    options: Options,
) -> Vec<DriverFunction> {
    numbered(Driver::new(program, isa, consts, options).inside(), options.first)
}

/// The interface of several variants of one model. `entries` are the positions of each one's `workspace_size` and `run`,
/// `checks` those of what asks the CPU, if it is asked; `options.cpu_level` is needed.
pub(crate) fn emit_dispatch(
    program: &Program,
    isa: &dyn TargetIsa,
    entries: &[[u32; 2]],
    checks: &[Option<u32>],
    options: Options,
) -> Vec<DriverFunction> {
    let d = Driver::new(program, isa, &[], options);
    let [sizes, runs] = [0, 1].map(|k| entries.iter().map(|e| e[k]).collect::<Vec<u32>>());
    let mut out = vec![
        local("workspace_size", d.dispatch(&[I64, I32], I64, &sizes)),
        local("run", d.dispatch(&[I64; 7], I32, &runs)),
        d.strerror(),
        d.output_shape(),
        local("select_variant", entry::select_variant(isa, checks)),
    ];
    out.iter_mut().for_each(|f| f.export = true);
    numbered(out, options.first)
}

/// `fn() -> i32`: the number of the last check that succeeds, counted from 1, or 0. Where nothing is to be checked there
/// is none. CPUID takes long in virtual machines, so the answer is kept.
pub(crate) fn cpu_level(isa: &dyn TargetIsa, checks: &[Option<u32>], position: usize) -> DriverFunction {
    let mut f = local("cpu_level", entry::cpu_level(isa, checks));
    f.body.name = UserFuncName::user(FUNCTIONS, position as u32);
    f
}

/// The functions of the C interface, the last of a driver's first.
const INTERFACE: [&str; 4] = ["output_shape", "strerror", "run", "workspace_size"];

fn numbered(mut functions: Vec<DriverFunction>, first: usize) -> Vec<DriverFunction> {
    for (i, f) in functions.iter_mut().enumerate() {
        f.body.name = UserFuncName::user(FUNCTIONS, (first + i) as u32);
    }
    functions
}

fn local(name: &str, body: Function) -> DriverFunction {
    DriverFunction { name: name.into(), export: false, body }
}

fn signature(isa: &dyn TargetIsa, params: &[Type], returns: &[Type]) -> Signature {
    let mut s = Signature::new(isa.default_call_conv());
    s.params = params.iter().map(|&t| AbiParam::new(t)).collect();
    s.returns = returns.iter().map(|&t| AbiParam::new(t)).collect();
    s
}

/// Builds a function; `body` gets its parameters and ends every block it opens.
fn function(
    isa: &dyn TargetIsa,
    params: &[Type],
    returns: &[Type],
    body: impl FnOnce(&mut Builder<'_>, &[Value]),
) -> Function {
    let mut f = Function::with_name_signature(UserFuncName::default(), signature(isa, params, returns));
    let mut ctx = FunctionBuilderContext::new();
    let mut b = FunctionBuilder::new(&mut f, &mut ctx);
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    let values = b.block_params(entry).to_vec();
    let mut c = Builder { b, functions: HashMap::new() };
    body(&mut c, &values);
    c.b.seal_all_blocks();
    c.b.finalize(isa.frontend_config());
    f
}

impl<'a> Driver<'a> {
    fn new(program: &'a Program, isa: &'a dyn TargetIsa, consts: &'a [u64], options: Options) -> Driver<'a> {
        Driver { program, isa, consts, header: Header::new(program), launch: options.first as u32, options }
    }

    /// Steps, `workspace_size` and `run`.
    fn inside(&self) -> Vec<DriverFunction> {
        let chunks = self.program.steps.len().div_ceil(CHUNK);
        let mut out = vec![local("launch", self.launch())];
        for c in 0..chunks {
            let range = c * CHUNK..self.program.steps.len().min((c + 1) * CHUNK);
            out.push(local(&format!("steps_{c}"), self.steps(range)));
        }
        out.push(local("workspace_size", self.workspace_size()));
        out.push(local("run", self.run(self.launch + 1..self.launch + 1 + chunks as u32)));
        out
    }

    fn signature(&self, params: &[Type], returns: &[Type]) -> Signature {
        signature(self.isa, params, returns)
    }

    /// The type of kernels: `fn(args: pointer, task: u64, worker: u32)`.
    fn kernel_signature(&self) -> Signature {
        self.signature(&[I64, I64, I32], &[])
    }

    fn function(&self, params: &[Type], returns: &[Type], body: impl FnOnce(&mut Builder<'_>, &[Value])) -> Function {
        function(self.isa, params, returns, body)
    }
}

/// A function under construction, with the few instructions the driver is made of.
struct Builder<'a> {
    b: FunctionBuilder<'a>,
    functions: HashMap<u32, FuncRef>,
}

impl Builder<'_> {
    fn int(&mut self, v: i64) -> Value {
        self.b.ins().iconst(I64, v)
    }

    fn load(&mut self, t: Type, base: Value, offset: i32) -> Value {
        self.b.ins().load(t, MemFlagsData::trusted(), base, offset)
    }

    fn store(&mut self, v: Value, base: Value, offset: i32) {
        self.b.ins().store(MemFlagsData::trusted(), v, base, offset);
    }

    fn offset(&mut self, base: Value, offset: i64) -> Value {
        if offset == 0 {
            return base;
        }
        let o = self.int(offset);
        self.b.ins().iadd(base, o)
    }

    /// The comparison of an integer with a constant.
    fn cmp(&mut self, cc: IntCC, v: Value, c: i64) -> Value {
        let t = self.b.func.dfg.value_type(v);
        let c = self.b.ins().iconst(t, c);
        self.b.ins().icmp(cc, v, c)
    }

    /// Continues in a new block unless `cond`; returns `code` if so.
    fn return_if(&mut self, cond: Value, code: Code) {
        let stop = self.branch_out(cond);
        let next = self.b.current_block().expect("an open block");
        self.b.switch_to_block(stop);
        self.return_code(code);
        self.b.switch_to_block(next);
    }

    /// Jumps to a new block if `cond`, which the caller fills; goes on in another new block.
    fn branch_out(&mut self, cond: Value) -> Block {
        let (stop, next) = (self.b.create_block(), self.b.create_block());
        self.b.ins().brif(cond, stop, &[], next, &[]);
        self.b.set_cold_block(stop);
        self.b.switch_to_block(next);
        stop
    }

    fn return_code(&mut self, code: Code) {
        let v = self.b.ins().iconst(I32, code as i64);
        self.b.ins().return_(&[v]);
    }

    /// The function at a position of the list.
    fn function(&mut self, index: u32, sig: Signature) -> FuncRef {
        if let Some(&f) = self.functions.get(&index) {
            return f;
        }
        let signature = self.signature(sig);
        let name = self.name(FUNCTIONS, index);
        let data = cranelift_codegen::ir::ExtFuncData { name, signature, colocated: true, patchable: false };
        let f = self.b.import_function(data);
        self.functions.insert(index, f);
        f
    }

    /// A reference to a signature, shared by equal ones.
    fn signature(&mut self, sig: Signature) -> SigRef {
        let known = self.b.func.dfg.signatures.iter().find(|(_, s)| **s == sig).map(|(r, _)| r);
        known.unwrap_or_else(|| self.b.import_signature(sig))
    }

    fn name(&mut self, namespace: u32, index: u32) -> ExternalName {
        ExternalName::user(self.b.func.declare_imported_user_function(UserExternalName { namespace, index }))
    }

    /// The address of a data object of the same object file.
    fn data(&mut self, index: u32) -> Value {
        let name = self.name(DATA, index);
        let data = GlobalValueData::Symbol { name, offset: 0.into(), colocated: true, tls: false };
        let g = self.b.create_global_value(data);
        self.b.ins().symbol_value(I64, g)
    }

    /// The value of a polynomial. Wrapping arithmetic is exact, since the result is known to fit.
    fn eval(&mut self, d: &Dim, dim: &mut dyn FnMut(&mut Self, usize) -> Value) -> Value {
        let mut sum: Option<Value> = None;
        let mut constant = 0;
        for (c, factors) in d.iter() {
            let mut term: Option<Value> = None;
            for &(s, power) in factors {
                let v = dim(self, s.0 as usize);
                for _ in 0..power {
                    term = Some(term.map_or(v, |t| self.b.ins().imul(t, v)));
                }
            }
            let Some(mut t) = term else {
                constant = c;
                continue;
            };
            if c != 1 {
                let c = self.int(c);
                t = self.b.ins().imul(t, c);
            }
            sum = Some(sum.map_or(t, |s| self.b.ins().iadd(s, t)));
        }
        match sum {
            Some(s) => self.offset(s, constant),
            None => self.int(constant),
        }
    }
}
