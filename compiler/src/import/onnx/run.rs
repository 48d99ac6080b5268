//! One walk over a decoded model.

mod bodies;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use bertc_ir::{Diag, Dim, Graph, Loc, TensorType};

use super::ImportOptions;
use super::build::Builder;
use super::cx::Cx;
use super::load::External;
use super::ops;
use super::proto::tensor_shape_proto::dimension::Value as DimValue;
use super::proto::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, type_proto};
use super::small::Small;
use super::tensor::{Element, constant};
use super::unsupported::{self, grouped};
use super::value::{R, Stop, V};
pub use bodies::find;
use bodies::{Call, Functions};

/// Range of a dim that the user says nothing about.
const DEFAULT_RANGE: (i64, i64) = (1, 65536);

/// What a symbol is replaced by.
#[derive(Clone, Debug, PartialEq)]
pub enum Replacement {
    /// A number.
    Const(i64),
    /// Another symbol.
    Symbol(String),
}

/// Why a walk ended early.
pub enum Failure {
    /// Errors.
    Diags(Vec<Diag>),
    /// Symbol `from` must be `to`: walk again.
    Equate { from: String, to: Replacement, note: String },
}

/// Number of dims of a model input.
pub fn rank(i: &ValueInfoProto) -> usize {
    tensor_type(i).and_then(|t| t.shape.as_ref()).map_or(0, |s| s.dim.len())
}

fn tensor_type(i: &ValueInfoProto) -> Option<&type_proto::Tensor> {
    match i.r#type.as_ref()?.value.as_ref()? {
        type_proto::Value::TensorType(t) => Some(t),
        _ => None,
    }
}

/// The names that are in scope: values, initializers not looked at yet, and what failed.
#[derive(Default)]
struct Scope<'a> {
    values: HashMap<&'a str, V>,
    initializers: HashMap<&'a str, &'a TensorProto>,
    poisoned: BTreeSet<&'a str>,
    /// Inputs of the function that its call leaves out.
    absent: BTreeSet<&'a str>,
}

struct Run<'a> {
    b: Builder,
    /// The versions of the operator sets; in a function they are its own.
    opset: Cow<'a, BTreeMap<String, i64>>,
    /// The functions of the model, and the calls of them that the walk is in.
    functions: Functions<'a>,
    calls: Vec<Call<'a>>,
    external: External,
    scope: Scope<'a>,
    dim_names: DimNames,
    errors: Vec<Diag>,
}

/// Imports `graph` with symbols replaced by `subst`.
pub fn run(
    model: &ModelProto,
    graph: &GraphProto,
    opset: &BTreeMap<String, i64>,
    base_dir: Option<&Path>,
    opts: &ImportOptions,
    subst: &BTreeMap<String, Replacement>,
) -> Result<(Graph, Vec<String>), Failure> {
    let name = if graph.name().is_empty() { "main".to_string() } else { identifier(graph.name()) };
    let b = Builder { graph: Graph::new(name), notes: Vec::new(), loc: Loc::Unknown };
    let mut r = Run {
        b,
        opset: Cow::Borrowed(opset),
        functions: Functions::of(model),
        calls: Vec::new(),
        external: External::new(base_dir),
        scope: Scope::default(),
        dim_names: DimNames::default(),
        errors: Vec::new(),
    };
    if !graph.sparse_initializer.is_empty() {
        r.errors.push(Diag::new("sparse initializers are not supported"));
    }
    r.add_initializers(graph);
    r.inputs(graph, opts, subst);
    r.nodes(&graph.node)?;
    r.outputs(graph)?;
    if r.errors.is_empty() {
        r.b.graph.remove_dead();
        Ok((r.b.graph, r.b.notes))
    } else {
        Err(Failure::Diags(grouped(r.errors)))
    }
}

/// What is wrong with the name of an input or output, behind those in `seen`.
fn bad_name<'a>(what: &str, name: &'a str, seen: &mut BTreeSet<&'a str>) -> Option<String> {
    if name.is_empty() {
        Some(format!("an {what} has no name"))
    } else if !seen.insert(name) {
        Some(format!("two {what}s are called '{name}'"))
    } else {
        None
    }
}

/// How messages name the version of an operator set.
fn version(opset: Option<i64>) -> String {
    opset.map_or_else(String::new, |v| format!(" (opset {v})"))
}

/// What a port of a type that the IR doesn't have is instead.
fn small_port(what: &str, name: &str, s: Small) -> String {
    let held = if s.is_float() { "codes" } else { "integers" };
    format!("{what} '{name}' of {} is a tensor of {} in compiled code: {held}, one a byte", s.name(), s.dtype())
}

/// `name` with everything that an identifier can't have replaced by `_`.
fn identifier(name: &str) -> String {
    let mut s: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if s.is_empty() || s.starts_with(|c: char| c.is_ascii_digit()) {
        s.insert(0, '_');
    }
    s
}

impl<'a> Run<'a> {
    fn add_initializers(&mut self, graph: &'a GraphProto) {
        for t in &graph.initializer {
            self.scope.initializers.insert(t.name(), t);
        }
    }

    fn inputs(&mut self, graph: &'a GraphProto, opts: &ImportOptions, subst: &BTreeMap<String, Replacement>) {
        let inputs: Vec<_> = graph.input.iter().filter(|i| !self.scope.initializers.contains_key(i.name())).collect();
        self.dim_names = DimNames::new(&inputs);
        // The pins first: a dim that one input fixes is fixed in all of them.
        let mut pins: BTreeMap<String, i64> = BTreeMap::new();
        for (name, shape) in &opts.shapes {
            match inputs.iter().find(|i| i.name() == name) {
                Some(i) => self.pin(i, shape, &mut pins),
                None => {
                    let known: Vec<&str> = inputs.iter().map(|i| i.name()).collect();
                    let d = Diag::new(format!("a shape is given for '{name}', which is not an input"));
                    self.errors.push(d.note(format!("inputs: {}", known.join(", "))));
                }
            }
        }
        let mut names = BTreeSet::new();
        for i in &inputs {
            if let Some(m) = bad_name("input", i.name(), &mut names) {
                self.scope.poisoned.insert(i.name());
                self.errors.push(Diag::new(m));
                continue;
            }
            match self.input_type(i, opts, subst, &pins) {
                Ok((ty, small)) => {
                    let id = self.b.graph.add_input(i.name(), ty);
                    let v = self.b.wrap(id);
                    v.small.set(small);
                    if let Some(s) = small {
                        self.b.notes.push(small_port("input", i.name(), s));
                    }
                    self.scope.values.insert(i.name(), v);
                }
                Err(m) => {
                    self.scope.poisoned.insert(i.name());
                    self.errors.push(Diag::new(format!("input '{}': {m}", i.name())));
                }
            }
        }
        for (name, ..) in &opts.dims {
            let known = inputs.iter().any(|i| (0..rank(i)).any(|k| self.dim_names.get(i, k) == Some(name.as_str())));
            if !known {
                let all: Vec<&str> = self.b.graph.symbols.iter().map(|(_, s)| s.name.as_str()).collect();
                let d = Diag::new(format!("a range is given for '{name}', which is not a dim of an input"));
                self.errors.push(d.note(format!("dims: {}", all.join(", "))));
            }
        }
    }

    fn pin(&mut self, i: &ValueInfoProto, shape: &[i64], pins: &mut BTreeMap<String, i64>) {
        if shape.len() != rank(i) {
            let m = format!("input '{}' has {} dims, the given shape {}", i.name(), rank(i), shape.len());
            self.errors.push(Diag::new(m));
            return;
        }
        for (k, &n) in shape.iter().enumerate() {
            let had = match self.dim_names.get(i, k) {
                Some(name) => pins.insert(name.to_string(), n),
                None => const_dim(i, k),
            };
            if n < 0 || had.is_some_and(|h| h != n) {
                let expected = had.map_or_else(|| "a size".to_string(), |h| h.to_string());
                let m = format!("dim {k} of input '{}' is {n}, expected {expected}", i.name());
                self.errors.push(Diag::new(m));
            }
        }
    }

    fn input_type(
        &mut self,
        i: &ValueInfoProto,
        opts: &ImportOptions,
        subst: &BTreeMap<String, Replacement>,
        pins: &BTreeMap<String, i64>,
    ) -> Result<(TensorType, Option<Small>), String> {
        let t = tensor_type(i).ok_or("only tensors are supported")?;
        let Element { dtype, small } = Element::of(t.elem_type())?;
        if t.shape.is_none() {
            return Err("its rank is unknown".to_string());
        }
        if rank(i) > bertc_ir::infer::MAX_RANK {
            return Err(format!("rank {} is above the limit of {}", rank(i), bertc_ir::infer::MAX_RANK));
        }
        let mut shape = Vec::new();
        for k in 0..rank(i) {
            let Some(mut name) = self.dim_names.get(i, k).map(str::to_string) else {
                shape.push(Dim::constant(const_dim(i, k).unwrap_or(0)));
                continue;
            };
            // A replaced symbol keeps what was said about its own range.
            let (mut lo, mut hi) = DEFAULT_RANGE;
            let mut fixed = None;
            loop {
                fixed = fixed.or_else(|| pins.get(&name).copied());
                for (_, a, b) in opts.dims.iter().filter(|d| d.0 == name) {
                    // Without a word from the user the default is a guess; with one it counts alone.
                    (lo, hi) = if (lo, hi) == DEFAULT_RANGE { (*a, *b) } else { (lo.max(*a), hi.min(*b)) };
                }
                match subst.get(&name) {
                    Some(Replacement::Const(c)) => {
                        if fixed.is_some_and(|f| f != *c) {
                            return Err(format!("dim {k} ('{name}') must be {c}"));
                        }
                        fixed = Some(*c);
                        break;
                    }
                    Some(Replacement::Symbol(s)) => name = s.clone(),
                    None => break,
                }
            }
            if let Some(c) = fixed {
                shape.push(Dim::constant(c));
                continue;
            }
            if lo < 0 || lo > hi {
                return Err(format!("dim {k} ('{name}') has the empty range {lo}..={hi}"));
            }
            let known = self.b.graph.symbols.find(&name);
            // Ranges of the same symbol in several inputs: the default gives way to a stated one.
            let (lo, hi) = match known.map(|s| self.b.graph.symbols.get(s)) {
                Some(s) if (lo, hi) == DEFAULT_RANGE => (s.min, s.max),
                _ => (lo, hi),
            };
            let s = self.b.graph.symbols.intern(&name, lo, hi);
            if known.is_some_and(|k| {
                let k = self.b.graph.symbols.get(k);
                k.min > k.max
            }) {
                return Err(format!("dim {k} ('{name}') has an empty range"));
            }
            shape.push(Dim::symbol(s));
        }
        let ty = TensorType::new(dtype, shape);
        bertc_ir::infer::check_type(&ty, &self.b.graph.symbols)?;
        Ok((ty, small))
    }

    fn nodes(&mut self, nodes: &'a [NodeProto]) -> Result<(), Failure> {
        nodes.iter().try_for_each(|n| self.node(n))
    }

    fn node(&mut self, n: &'a NodeProto) -> Result<(), Failure> {
        let domain = if n.domain() == "ai.onnx" { "" } else { n.domain() };
        let op = if domain.is_empty() { n.op_type().to_string() } else { format!("{domain}.{}", n.op_type()) };
        let name = if n.name().is_empty() { n.output.first().cloned().unwrap_or_default() } else { n.name().into() };
        let name = self.calls.iter().rev().fold(name, |name, call| format!("{}/{name}", call.name));
        self.b.loc = Loc::node(name, op).output(n.output.first().map_or("", String::as_str));
        // What a failed node feeds fails for no reason of its own.
        let mut poisoned = n.input.iter().any(|i| self.scope.poisoned.contains(i.as_str()));
        let known = ops::find(domain, n.op_type());
        let opset = self.opset.get(domain).copied();
        let is_if = domain.is_empty() && n.op_type() == "If";
        let is_call = self.functions.find(domain, n).is_some();
        let result = match (known, opset) {
            _ if is_if && !poisoned => return self.branch(n),
            _ if is_call && !poisoned => return self.call(domain, n),
            // An operator that doesn't exist here is reported even behind a failed node: all of them at once.
            (None, _) if !is_if && !is_call => {
                let d = unsupported::operator(domain, n.op_type(), &version(opset));
                self.errors.push(d.at(self.b.loc.clone()));
                poisoned = true;
                Ok(Vec::new())
            }
            (Some(_), None) => Err(Stop::Fail(format!("the model names no version of the operator set '{domain}'"))),
            (Some(f), Some(v)) if !poisoned => self.lower(n, f, v),
            _ => Ok(Vec::new()),
        };
        let ok = match result {
            Ok(outs) if !poisoned => {
                for (name, v) in n.output.iter().zip(outs).filter(|(name, _)| !name.is_empty()) {
                    self.scope.values.insert(name, v);
                }
                true
            }
            Ok(_) => false,
            Err(e) => {
                self.fail(e, opset.or_else(|| self.opset.get("").copied()))?;
                false
            }
        };
        for o in n.output.iter().filter(|o| !o.is_empty()) {
            if !ok || !self.scope.values.contains_key(o.as_str()) {
                self.scope.poisoned.insert(o);
                if ok {
                    let d = Diag::new(format!("output '{o}' is not supported")).at(self.b.loc.clone());
                    self.errors.push(d);
                }
            }
        }
        Ok(())
    }

    fn lower(&mut self, n: &'a NodeProto, f: ops::Lower, opset: i64) -> R<Vec<V>> {
        let mut ins = Vec::with_capacity(n.input.len());
        for i in &n.input {
            ins.push(self.optional(i)?);
        }
        let small = ins.iter().flatten().find_map(|v| v.small.get());
        if let Some(s) = small
            && !ops::takes_small(n.op_type())
        {
            let others = "`Cast` and `DequantizeLinear` make others of them";
            return Err(Stop::Fail(format!("operands of {} are not supported: {others}", s.name())));
        }
        let given = self.calls.last().map_or(&[][..], |c| &c.attributes);
        let mut cx = Cx::new(&mut self.b, n, opset, ins, &mut self.external).in_function(given);
        let outs = f(&mut cx)?;
        cx.finish()?;
        if let Some(s) = small.filter(|_| ops::moves(n.op_type())) {
            outs.iter().for_each(|o| o.small.set(Some(s)));
        }
        Ok(outs)
    }

    fn value(&mut self, name: &'a str) -> R<V> {
        if let Some(v) = self.scope.values.get(name) {
            return Ok(v.clone());
        }
        let t = self.scope.initializers.get(name);
        let t = t.ok_or_else(|| Stop::Fail(format!("value '{name}' is used before it is defined")))?;
        let v = constant(t, &mut self.external).map_err(|m| Stop::Fail(format!("initializer '{name}': {m}")))?;
        self.scope.values.insert(name, v.clone());
        Ok(v)
    }

    fn outputs(&mut self, graph: &'a GraphProto) -> Result<(), Failure> {
        if graph.output.is_empty() {
            self.errors.push(Diag::new("the model has no outputs"));
        }
        let mut names = BTreeSet::new();
        for o in &graph.output {
            if let Some(m) = bad_name("output", o.name(), &mut names) {
                self.errors.push(Diag::new(m));
                continue;
            }
            if self.scope.poisoned.contains(o.name()) {
                continue;
            }
            self.b.loc = Loc::Unknown;
            let v = self.value(o.name()).and_then(|v| {
                if let Some(s) = v.small.get() {
                    self.b.notes.push(small_port("output", o.name(), s));
                }
                self.b.get(&v)
            });
            match v {
                Ok(id) => self.b.graph.add_output(o.name(), id),
                Err(Stop::Fail(m)) => self.errors.push(Diag::new(format!("output '{}': {m}", o.name()))),
                Err(e) => self.fail(e, None)?,
            }
        }
        Ok(())
    }

    /// Records an error at the current node, or asks for another walk.
    fn fail(&mut self, e: Stop, opset: Option<i64>) -> Result<(), Failure> {
        match e {
            Stop::Fail(m) => {
                self.errors.push(Diag::new(format!("{m}{}", version(opset))).at(self.b.loc.clone()));
                Ok(())
            }
            Stop::Equate(from, to) => {
                let s = &self.b.graph.symbols;
                let name = |d: &Dim| d.as_symbol().map(|i| s.get(i).name.clone());
                let to_text = to.display(s).to_string();
                match (name(&from), to.as_const(), name(&to)) {
                    (Some(f), Some(c), _) => {
                        let note = format!("dim {f} is fixed to {c}: {} needs it", self.b.loc);
                        Err(Failure::Equate { from: f, to: Replacement::Const(c), note })
                    }
                    (Some(f), _, Some(t)) => {
                        let note = format!("dim {f} is taken as equal to {t}: {} needs it", self.b.loc);
                        Err(Failure::Equate { from: f, to: Replacement::Symbol(t), note })
                    }
                    _ => {
                        let m = format!("dims {} and {to_text} differ", from.display(s));
                        self.errors.push(Diag::new(m).at(self.b.loc.clone()));
                        Ok(())
                    }
                }
            }
        }
    }
}

/// The size of dim `k`, if it is fixed.
fn const_dim(i: &ValueInfoProto, k: usize) -> Option<i64> {
    match tensor_type(i)?.shape.as_ref()?.dim.get(k)?.value {
        // Some tools write unknown dims as 0 or -1.
        Some(DimValue::DimValue(v)) if v > 0 => Some(v),
        _ => None,
    }
}

/// How the model's symbolic dims are called: identifiers, different ones for different dims.
#[derive(Default)]
struct DimNames(HashMap<String, String>);

impl DimNames {
    fn new(inputs: &[&ValueInfoProto]) -> Self {
        let mut names = DimNames::default();
        let mut taken = BTreeSet::new();
        for i in inputs {
            for original in (0..rank(i)).filter_map(|k| original_name(i, k)) {
                names.0.entry(original).or_insert_with_key(|original| {
                    let name = identifier(original);
                    let others = (2..).map(|n| format!("{name}_{n}"));
                    let mut all = std::iter::once(name.clone()).chain(others);
                    all.find(|n| taken.insert(n.clone())).unwrap_or(name)
                });
            }
        }
        names
    }

    /// The symbol of dim `k`, if it isn't fixed.
    fn get(&self, i: &ValueInfoProto, k: usize) -> Option<&str> {
        self.0.get(&original_name(i, k)?).map(String::as_str)
    }
}

/// What the model calls dim `k`, if it isn't fixed; one without a name is called after its input.
fn original_name(i: &ValueInfoProto, k: usize) -> Option<String> {
    let d = tensor_type(i)?.shape.as_ref()?.dim.get(k)?;
    if const_dim(i, k).is_some() {
        return None;
    }
    Some(match &d.value {
        Some(DimValue::DimParam(p)) if !p.is_empty() => p.clone(),
        _ => format!("{}_dim{k}", i.name()),
    })
}
