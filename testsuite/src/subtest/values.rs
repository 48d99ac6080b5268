//! Random inputs of graphs, and the comparison of results.

use bertc_ir::{Dim, Graph, Port, Scalar, SymbolId, Tensor};

/// A generator with a fixed seed (Marsaglia's xorshift64*): a failing test fails again.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new() -> Random {
        Random(0x9e37_79b9_7f4a_7c15)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// Inputs of a graph: floats in -2..2, integers in `ints` (the end excluded).
pub(super) fn inputs(g: &Graph, dims: &[i64], ints: (i64, i64), r: &mut Random) -> Result<Vec<Tensor>, String> {
    let tensor = |p: &Port| {
        let ty = g.ty(p.value);
        let size = |d: &Dim| d.eval(dims).and_then(|v| usize::try_from(v).ok());
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

/// Values of the symbols: those given by name, or in round 0 the smallest, then values a little above.
pub(super) fn dims(g: &Graph, given: Option<&[(String, i64)]>, round: i64) -> Result<Vec<i64>, String> {
    let value = |(id, s): (SymbolId, &bertc_ir::dims::Symbol)| match given {
        None => Ok(s.min.saturating_add(round * (2 + i64::from(id.0))).min(s.max)),
        Some(d) => {
            let v = d.iter().find(|(n, _)| *n == s.name).map(|(_, v)| *v);
            v.ok_or_else(|| format!("dims= lacks '{}'", s.name))
        }
    };
    g.symbols.iter().map(value).collect()
}

/// Whether `b` is `a` within `tol` times the largest value; integers must be equal.
pub(super) fn close(a: &Tensor, b: &Tensor, tol: f64) -> bool {
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
