//! `run tol=1e-5 [ints=0..2] [dims=seq:3,batch:2]`: evaluates the graph before and after the passes on the same random
//! inputs. Outputs may differ by `tol` times the largest value; integers not at all. Without `dims`, each symbol takes
//! its smallest value, then values a little above it.

use crate::filetest::Command;
use bertc_ir::eval::eval;
use bertc_ir::{Graph, Scalar, SymbolId, Tensor};

struct Options {
    tol: f64,
    ints: (i64, i64),
    dims: Option<Vec<(String, i64)>>,
}

fn options(c: &Command) -> Result<Options, String> {
    let mut o = Options { tol: f64::NAN, ints: (0, 2), dims: None };
    for a in &c.args {
        let bad = || format!("bad option '{a}' of 'run'");
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
            _ => return Err(bad()),
        }
    }
    if o.tol >= 0.0 { Ok(o) } else { Err("'run' needs tol=, for example tol=1e-5".to_string()) }
}

/// A generator with a fixed seed (Marsaglia's xorshift64*): a failing test fails again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

fn inputs(g: &Graph, dims: &[i64], ints: (i64, i64), r: &mut Random) -> Result<Vec<Tensor>, String> {
    let tensor = |p: &bertc_ir::Port| {
        let ty = g.ty(p.value);
        let size = |d: &bertc_ir::Dim| d.eval(dims).and_then(|v| usize::try_from(v).ok());
        let shape: Vec<usize> = ty.shape.iter().map(size).collect::<Option<_>>().ok_or("a dim has no size")?;
        let n: usize = shape.iter().product();
        let range = ints.1.abs_diff(ints.0);
        let elements = (0..n).map(|_| {
            let v = r.next() >> 11;
            if ty.dtype.is_float() {
                // 53 random bits, in -2..2.
                Scalar::Float(v as f64 / (1u64 << 51) as f64 - 2.0)
            } else {
                Scalar::Int(i128::from(ints.0) + i128::from(v % range))
            }
        });
        Ok(Tensor::from_scalars(ty.dtype, shape, elements))
    };
    g.inputs().iter().map(tensor).collect()
}

/// Whether `b` is `a` within `tol`.
fn close(a: &Tensor, b: &Tensor, tol: f64) -> bool {
    if a.dtype() != b.dtype() || a.shape() != b.shape() {
        return false;
    }
    if !a.dtype().is_float() {
        return a == b;
    }
    let (a, b) = (a.to_f64_vec(), b.to_f64_vec());
    let largest = a.iter().filter(|v| v.is_finite()).fold(0.0f64, |m, v| m.max(v.abs()));
    let same = |x: f64, y: f64| x == y || x.is_nan() && y.is_nan() || (x - y).abs() <= tol * largest;
    a.iter().zip(&b).all(|(&x, &y)| same(x, y))
}

pub(super) fn run(before: &Graph, after: &Graph, c: &Command) -> Result<(), String> {
    let o = options(c)?;
    let mut r = Random(0x9e37_79b9_7f4a_7c15);
    let rounds = if o.dims.is_some() { 1 } else { 3 };
    for round in 0..rounds {
        let value = |(id, s): (SymbolId, &bertc_ir::dims::Symbol)| match &o.dims {
            None => Ok(s.min.saturating_add(round * (2 + i64::from(id.0))).min(s.max)),
            Some(d) => {
                let v = d.iter().find(|(n, _)| *n == s.name).map(|(_, v)| *v);
                v.ok_or_else(|| format!("dims= lacks '{}'", s.name))
            }
        };
        let dims = before.symbols.iter().map(value).collect::<Result<Vec<_>, _>>()?;
        let x = inputs(before, &dims, o.ints, &mut r)?;
        let evaluated =
            |g: &Graph, when: &str| eval(g, &dims, &x).map_err(|d| format!("{when} the passes, dims {dims:?}: {d}"));
        let (a, b) = (evaluated(before, "before")?, evaluated(after, "after")?);
        if a.len() != b.len() {
            return Err("the passes changed the number of outputs".to_string());
        }
        for ((a, b), p) in a.iter().zip(&b).zip(before.outputs()) {
            if !close(a, b, o.tol) {
                return Err(format!("output '{}' differs for dims {dims:?}:\nbefore {a:?}\nafter  {b:?}", p.name));
            }
        }
    }
    Ok(())
}
