//! `run [compiled] tol=1e-5 [ints=0..2] [dims=seq:3,batch:2] [cpu=a,b] [emitter=clif]`: evaluates the graph before and
//! after the passes on the same random inputs; with `compiled`, what comes after is compiled for each CPU and run in
//! this process, serially and by two threads. Outputs may differ by `tol` times the largest value; integers not at
//! all. Without `dims`, each symbol takes its smallest value, then values a little above it.
//!
//! In a kernel's file, `run compiled` compares compiled code with the interpreter on each `run:` line.

use bertc_ir::eval::eval;
use bertc_ir::{Graph, Tensor};

use super::compiled::Compiled;
use super::values::{Random, close, dims, inputs};
use super::{Outcome, State, interp, lower};
use crate::filetest::{Command, Kind};

pub(super) struct Options {
    compiled: bool,
    pub(super) tol: f64,
    ints: (i64, i64),
    dims: Option<Vec<(String, i64)>>,
    cpus: Vec<String>,
    emitter: String,
}

fn options(c: &Command) -> Result<Options, String> {
    let (cpus, emitter) = (vec!["native".to_string()], "auto".to_string());
    let mut o = Options { compiled: false, tol: f64::NAN, ints: (0, 2), dims: None, cpus, emitter };
    for a in &c.args {
        let bad = || format!("bad option '{a}' of 'run'");
        if a == "compiled" {
            o.compiled = true;
            continue;
        }
        let (key, value) = a.split_once('=').ok_or_else(bad)?;
        let int = |s: &str| s.parse::<i64>().map_err(|_| bad());
        match key {
            "tol" => o.tol = value.parse().map_err(|_| bad())?,
            "ints" => {
                let (lo, hi) = value.split_once("..").ok_or_else(bad)?;
                o.ints = (int(lo)?, int(hi)?);
                if o.ints.0 >= o.ints.1 {
                    return Err(bad());
                }
            }
            "dims" => {
                let pair = |p: &str| {
                    let (name, v) = p.split_once(':').ok_or_else(bad)?;
                    Ok::<_, String>((name.to_string(), int(v)?))
                };
                o.dims = Some(value.split(',').map(pair).collect::<Result<_, _>>()?);
            }
            "cpu" if o.compiled => o.cpus = value.split(',').map(str::to_string).collect(),
            "emitter" if o.compiled => o.emitter = value.to_string(),
            _ => return Err(bad()),
        }
    }
    if o.tol >= 0.0 { Ok(o) } else { Err("'run' needs tol=, for example tol=1e-5".to_string()) }
}

/// What computes the results that are compared with the evaluator's.
enum Machine {
    Evaluator(Graph),
    Compiled(Box<Compiled>),
}

impl Machine {
    fn run(&self, dims: &[i64], x: &[Tensor]) -> Result<Vec<Tensor>, String> {
        match self {
            Machine::Evaluator(g) => eval(g, dims, x).map_err(|d| format!("after the passes, dims {dims:?}: {d}")),
            Machine::Compiled(c) => c.run(dims, x),
        }
    }
}

pub(super) fn run(s: &mut State<'_>, c: &Command) -> Outcome<String> {
    let o = options(c)?;
    let mut targets = Vec::new();
    if o.compiled {
        for cpu in &o.cpus {
            targets.push(lower::target("native", cpu, &o.emitter)?);
        }
    }
    if s.test.kind == Kind::Kir {
        return if o.compiled { interp::compiled(s, &targets, &o) } else { Err("a kernel runs by 'interp'".into()) };
    }
    if !s.made && !o.compiled {
        return Err("'run' compares with what 'opt' or 'lower' made: put one before it, or 'run compiled'".into());
    }
    let after = s.graph()?;
    let machines = if o.compiled {
        let mut all = Vec::new();
        for t in &targets {
            let p = lower::program(after.clone(), t)?;
            all.extend(Compiled::new(&p, t)?.map(|c| Machine::Compiled(Box::new(c))));
        }
        all
    } else {
        vec![Machine::Evaluator(after)]
    };
    let source = s.source()?;
    machines.iter().try_for_each(|m| compare(source, m, &o))?;
    Ok(String::new())
}

fn compare(source: &Graph, machine: &Machine, o: &Options) -> Result<(), String> {
    let mut r = Random::new();
    let rounds = if o.dims.is_some() { 1 } else { 3 };
    for round in 0..rounds {
        let dims = dims(source, o.dims.as_deref(), round)?;
        let x = inputs(source, &dims, o.ints, &mut r)?;
        let a = eval(source, &dims, &x).map_err(|d| format!("before the passes, dims {dims:?}: {d}"))?;
        let b = machine.run(&dims, &x)?;
        if a.len() != b.len() {
            return Err("the passes changed the number of outputs".to_string());
        }
        for ((a, b), p) in a.iter().zip(&b).zip(source.outputs()) {
            if !close(a, b, o.tol) {
                return Err(format!("output '{}' differs for dims {dims:?}:\nbefore {a:?}\nafter  {b:?}", p.name));
            }
        }
    }
    Ok(())
}
