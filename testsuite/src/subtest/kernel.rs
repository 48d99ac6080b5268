//! Kernels of `.kir` files: the values of their `run:` lines, and the program of one step that calls a kernel.

use bertc_backends::plan::{Arg, PortSpec, Program, Step};
use bertc_ir::kernel::{Block, Inst, Kernel, Param};
use bertc_ir::{DType, Dim, Scalar, Symbols, Tensor, TensorType};

use super::lower::NAME;

/// What a `run:` line binds a parameter to.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Value {
    Int(i64),
    Buffer(Tensor),
}

/// What a `run:` line expects.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Expected {
    /// The buffers afterwards, `None` where anything will do, and the error flag.
    Buffers(Vec<Option<Tensor>>, bool),
    /// The interpreter refuses, with a message that contains this.
    Error(String),
}

/// A `run:` line: `VALUES => BUFFERS [fails]` or `VALUES => error: TEXT`. Values are numbers and lists of them;
/// `0 x 16` in a list is sixteen zeros.
pub(super) fn line(k: &Kernel, text: &str) -> Result<(Vec<Value>, Expected), String> {
    let (given, wanted) = text.split_once("=>").ok_or("a run line needs '=>'")?;
    let given = items(given);
    if given.len() != k.params.len() {
        return Err(format!("{} values for {} parameters", given.len(), k.params.len()));
    }
    let (mut values, mut dtypes) = (Vec::new(), Vec::new());
    for (text, p) in given.iter().zip(&k.params) {
        values.push(match p {
            Param::Int { .. } => Value::Int(text.parse().map_err(|_| format!("'{text}' is not an integer"))?),
            Param::Ptr { dtype, .. } => {
                dtypes.push(*dtype);
                Value::Buffer(buffer(*dtype, text)?)
            }
        });
    }
    if let Some(message) = wanted.trim().strip_prefix("error: ") {
        return Ok((values, Expected::Error(message.to_string())));
    }
    let (wanted, fails) = match wanted.trim().strip_suffix("fails") {
        Some(w) => (w, true),
        None => (wanted, false),
    };
    let wanted = items(wanted);
    if wanted.len() > dtypes.len() {
        return Err(format!("{} results for {} buffers", wanted.len(), dtypes.len()));
    }
    let both = wanted.iter().zip(dtypes);
    let buffers = both.map(|(text, d)| if *text == "_" { Ok(None) } else { buffer(d, text).map(Some) });
    Ok((values, Expected::Buffers(buffers.collect::<Result<_, String>>()?, fails)))
}

/// `[1, 2], 3, _` split at its outer commas.
fn items(list: &str) -> Vec<&str> {
    let mut depth = 0;
    let split = |c| {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => (),
        }
        c == ',' && depth == 0
    };
    let all = list.split(split).map(str::trim).collect::<Vec<_>>();
    if all == [""] { Vec::new() } else { all }
}

fn buffer(dtype: DType, text: &str) -> Result<Tensor, String> {
    let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let inner = inner.ok_or_else(|| format!("'{text}' is not a list"))?;
    let mut v = Vec::new();
    for item in inner.split(',').map(str::trim).filter(|i| !i.is_empty()) {
        let bad = || format!("'{item}' is not a number");
        let (value, count) = match item.split_once(" x ") {
            Some((value, n)) => (value.trim(), n.trim().parse().map_err(|_| bad())?),
            None => (item, 1),
        };
        let value = if dtype.is_float() {
            Scalar::Float(value.parse().map_err(|_| bad())?)
        } else {
            Scalar::Int(value.parse().map_err(|_| bad())?)
        };
        v.extend(std::iter::repeat_n(value, count));
    }
    Ok(Tensor::from_scalars(dtype, vec![v.len()], v))
}

fn can_fail(b: &Block) -> bool {
    b.insts.iter().any(|i| match i {
        Inst::Fail => true,
        Inst::For { body, .. } => can_fail(body),
        Inst::If { then, otherwise, .. } => can_fail(then) || can_fail(otherwise),
        _ => false,
    })
}

/// A program that calls the kernel once for each task: what it only reads are inputs, what it writes outputs, and
/// integers constants. Without values, buffers are of one element and integers 0.
pub(super) fn program(k: &Kernel, values: &[Value], tasks: i64) -> Result<Program, String> {
    let (mut inputs, mut outputs, mut args) = (Vec::new(), Vec::new(), Vec::new());
    for (i, p) in k.params.iter().enumerate() {
        match p {
            Param::Int { .. } => {
                let v = if let Some(Value::Int(v)) = values.get(i) { *v } else { 0 };
                args.push(Arg::Int(Dim::constant(v)));
            }
            Param::Ptr { name, dtype, write } => {
                let n = if let Some(Value::Buffer(t)) = values.get(i) { t.len() } else { 1 };
                let n = i64::try_from(n).map_err(|e| e.to_string())?;
                let ports = if *write { &mut outputs } else { &mut inputs };
                args.push(if *write { Arg::Output(ports.len()) } else { Arg::Input(ports.len()) });
                ports.push(PortSpec { name: name.clone(), ty: TensorType::new(*dtype, vec![Dim::constant(n)]) });
            }
        }
    }
    let tasks = vec![(Dim::constant(tasks), 1.into())];
    let step =
        Step { kernel: 0, args, tasks, fallible: can_fail(&k.body), in_place: Vec::new(), source: k.name.clone() };
    Ok(Program {
        name: NAME.to_string(),
        symbols: Symbols::default(),
        inputs,
        outputs,
        kernels: vec![k.clone()],
        consts: Vec::new(),
        buffers: Vec::new(),
        slots: Vec::new(),
        steps: vec![step],
    })
}
