//! `interp [tasks=1]`: runs kernels by the interpreter as the `run:` lines above each of them say. `run compiled` on the
//! same lines compares compiled code with the interpreter; written buffers start as zeros there, as they must in the
//! lines.

use bertc_backends::target::Target;
use bertc_ir::Tensor;
use bertc_ir::kernel::interp::{Arg, Memory};
use bertc_ir::kernel::{Kernel, Param};

use super::compiled::Compiled;
use super::kernel::{Expected, Value, line, program};
use super::run::Options;
use super::values::close;
use super::{Outcome, State, kernels};
use crate::filetest::{Command, Kind};

/// A kernel's `run:` line.
struct Case {
    kernel: Kernel,
    line: usize,
    values: Vec<Value>,
    expected: Expected,
}

/// Each `run:` line with the kernel that follows it.
fn cases(s: &State<'_>) -> Outcome<Vec<Case>> {
    let all = kernels(s.test)?;
    let lines = s.test.source.lines().enumerate();
    let heads: Vec<usize> = lines.filter(|(_, l)| l.starts_with("kernel")).map(|(i, _)| i + 1).collect();
    let mut cases = Vec::new();
    for (n, text) in &s.test.runs {
        let k = heads.iter().position(|h| h > n).and_then(|i| all.get(i));
        let k = k.ok_or_else(|| format!("no kernel follows the 'run:' in line {n}"))?;
        let (values, expected) = line(k, text).map_err(|m| format!("line {n}: {m}"))?;
        cases.push(Case { kernel: k.clone(), line: *n, values, expected });
    }
    if let Some(k) = all.iter().find(|k| cases.iter().all(|c| c.kernel.name != k.name)) {
        return Err(format!("kernel '{}' has no 'run:' line above it", k.name).into());
    }
    Ok(cases)
}

/// The buffers that the interpreter leaves behind, and the error flag.
fn interpret(c: &Case, tasks: u64) -> Result<(Vec<Tensor>, bool), String> {
    let (mut memory, mut args, mut given) = (Memory::default(), Vec::new(), Vec::new());
    for v in &c.values {
        args.push(match v {
            Value::Int(i) => Arg::Int(*i),
            Value::Buffer(t) => {
                given.push(t);
                Arg::buffer(memory.add(t.bytes().to_vec()))
            }
        });
    }
    let ran = bertc_ir::kernel::interp::run(&c.kernel, &mut memory, &args, 0..tasks)?;
    let tensors = given.iter().zip(memory.buffers);
    let tensors = tensors.map(|(t, b)| Tensor::new(t.dtype(), t.shape().to_vec(), b.into()));
    Ok((tensors.collect::<Option<_>>().ok_or("a buffer changed its size")?, ran.failed))
}

fn check(c: &Case, tasks: u64) -> Result<(), String> {
    let bad = |m: String| Err(format!("line {}: {m}", c.line));
    let (failed, fails) = match (&c.expected, interpret(c, tasks)) {
        (Expected::Error(text), Err(m)) if m.contains(text) => return Ok(()),
        (_, Err(m)) => return bad(m),
        (Expected::Error(text), Ok(_)) => return bad(format!("no error, expected '{text}'")),
        (Expected::Buffers(wanted, fails), Ok((got, failed))) => {
            for (i, (w, g)) in wanted.iter().zip(&got).enumerate() {
                if let Some(w) = w
                    && !close(w, g, 0.0)
                {
                    return bad(format!("buffer {i} is {:?}, expected {:?}", g.to_f64_vec(), w.to_f64_vec()));
                }
            }
            (failed, *fails)
        }
    };
    if failed == fails { Ok(()) } else { bad(format!("the error flag is {failed}, expected {fails}")) }
}

pub(super) fn run(s: &mut State<'_>, c: &Command) -> Outcome<String> {
    s.only(c, Kind::Kir, ".kir")?;
    let tasks = tasks(c)?;
    cases(s)?.iter().try_for_each(|c| check(c, tasks))?;
    Ok(String::new())
}

fn tasks(c: &Command) -> Result<u64, String> {
    match c.args.as_slice() {
        [] => Ok(1),
        [a] => {
            let n = a.strip_prefix("tasks=").and_then(|n| n.parse().ok());
            n.ok_or_else(|| format!("bad option '{a}' of 'interp'"))
        }
        _ => Err("usage: interp [tasks=N]".to_string()),
    }
}

/// `run compiled` of kernels: as many tasks as `interp` runs.
pub(super) fn compiled(s: &mut State<'_>, targets: &[Target], o: &Options) -> Outcome<String> {
    let interp = s.test.commands.iter().find(|c| c.name == "interp").ok_or("'run compiled' goes with 'interp'")?;
    let tasks = tasks(interp)?;
    for c in cases(s)? {
        let (got, failed) = match interpret(&c, tasks) {
            Ok(r) => r,
            // What the interpreter refuses has no meaning to compare with.
            Err(_) => continue,
        };
        let written = |p: &Param| matches!(p, Param::Ptr { write: true, .. });
        let pointers = c.kernel.params.iter().zip(&c.values).filter_map(|(p, v)| match v {
            Value::Buffer(t) => Some((written(p), t)),
            Value::Int(_) => None,
        });
        let pointers: Vec<(bool, &Tensor)> = pointers.collect();
        if pointers.iter().any(|(w, t)| *w && t.bytes().iter().any(|&b| b != 0)) {
            return Err(format!("line {}: written buffers start as zeros", c.line).into());
        }
        let inputs: Vec<Tensor> = pointers.iter().filter(|(w, _)| !w).map(|(_, t)| (*t).clone()).collect();
        let wanted: Vec<&Tensor> = pointers.iter().zip(&got).filter(|((w, _), _)| *w).map(|(_, t)| t).collect();
        let p = program(&c.kernel, &c.values, i64::try_from(tasks).map_err(|e| e.to_string())?)?;
        for t in targets {
            let Some(code) = Compiled::new(&p, t)? else { continue };
            match code.try_run(&[], &inputs)? {
                Err(e) if !failed => return Err(format!("line {}: {}: {e}", c.line, code.what()).into()),
                Err(_) => {}
                Ok(_) if failed => return Err(format!("line {}: {} sets no error", c.line, code.what()).into()),
                Ok(out) => {
                    for (w, g) in wanted.iter().zip(&out) {
                        if !close(w, g, o.tol) {
                            let m =
                                format!("{} gives {:?}, expected {:?}", code.what(), g.to_f64_vec(), w.to_f64_vec());
                            return Err(format!("line {}: {m}", c.line).into());
                        }
                    }
                }
            }
        }
    }
    Ok(String::new())
}
