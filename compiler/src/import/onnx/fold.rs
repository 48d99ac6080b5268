//! Elementwise folding of small constants: what shape arithmetic needs of floats and of odd integer types. The
//! `fold` pass does the rest.

use bertc_ir::{BinaryOp, CmpOp, DType, Scalar, Tensor, UnaryOp};

/// Larger constants are left to the passes.
pub const LIMIT: usize = 4096;

/// The broadcast shape of two constant shapes, if they broadcast and the result is small.
fn shape(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |j| s[j]);
    let s: Vec<usize> = (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y || y == 1 => Some(x),
            (1, y) => Some(y),
            _ => None,
        })
        .collect::<Option<_>>()?;
    (s.iter().try_fold(1usize, |n, &d| n.checked_mul(d))? <= LIMIT).then_some(s)
}

/// Element number of `src` under element `i` of the larger shape `dst`.
fn index(src: &[usize], dst: &[usize], mut i: usize) -> usize {
    let (mut at, mut stride) = (0, 1);
    for (k, &d) in dst.iter().enumerate().rev() {
        let x = i % d;
        i /= d;
        if let Some(j) = (k + src.len()).checked_sub(dst.len()) {
            if src[j] != 1 {
                at += x * stride;
            }
            stride *= src[j];
        }
    }
    at
}

fn zip(dtype: DType, a: &Tensor, b: &Tensor, f: impl Fn(Scalar, Scalar) -> Option<Scalar>) -> Option<Tensor> {
    let s = shape(a.shape(), b.shape())?;
    let n = s.iter().product();
    let v: Vec<Scalar> =
        (0..n).map(|i| f(a.get(index(a.shape(), &s, i)), b.get(index(b.shape(), &s, i)))).collect::<Option<_>>()?;
    Some(Tensor::from_scalars(dtype, s, v))
}

/// `op` on two constants; `None` where it isn't folded here.
pub fn binary(op: BinaryOp, a: &Tensor, b: &Tensor) -> Option<Tensor> {
    zip(a.dtype(), a, b, |x, y| match (x, y) {
        (Scalar::Int(x), Scalar::Int(y)) => int(op, x, y).map(Scalar::Int),
        _ => float(op, x.to_f64(), y.to_f64()).map(Scalar::Float),
    })
}

fn int(op: BinaryOp, x: i128, y: i128) -> Option<i128> {
    Some(match op {
        BinaryOp::Add => x + y,
        BinaryOp::Sub => x - y,
        BinaryOp::Mul => x.wrapping_mul(y),
        BinaryOp::Div => x.checked_div(y).unwrap_or(0),
        BinaryOp::Rem => x.checked_rem(y).unwrap_or(0),
        BinaryOp::Mod if y == 0 => 0,
        BinaryOp::Mod => ((x % y) + y) % y,
        BinaryOp::Pow => return None,
        BinaryOp::Min => x.min(y),
        BinaryOp::Max => x.max(y),
        BinaryOp::And => x & y,
        BinaryOp::Or => x | y,
        BinaryOp::Xor => x ^ y,
        BinaryOp::Shl | BinaryOp::Shr => return None,
    })
}

fn float(op: BinaryOp, x: f64, y: f64) -> Option<f64> {
    Some(match op {
        BinaryOp::Add => x + y,
        BinaryOp::Sub => x - y,
        BinaryOp::Mul => x * y,
        BinaryOp::Div => x / y,
        BinaryOp::Pow => x.powf(y),
        BinaryOp::Min if x.is_nan() || y.is_nan() => f64::NAN,
        BinaryOp::Max if x.is_nan() || y.is_nan() => f64::NAN,
        BinaryOp::Min => x.min(y),
        BinaryOp::Max => x.max(y),
        _ => return None,
    })
}

/// A comparison of two constants.
pub fn compare(op: CmpOp, a: &Tensor, b: &Tensor) -> Option<Tensor> {
    fn holds<T: PartialOrd>(op: CmpOp, x: &T, y: &T) -> bool {
        match op {
            CmpOp::Eq => x == y,
            CmpOp::Ne => x != y,
            CmpOp::Lt => x < y,
            CmpOp::Le => x <= y,
            CmpOp::Gt => x > y,
            CmpOp::Ge => x >= y,
        }
    }
    zip(DType::Bool, a, b, |x, y| {
        let r = match (x, y) {
            (Scalar::Int(x), Scalar::Int(y)) => holds(op, &x, &y),
            _ => holds(op, &x.to_f64(), &y.to_f64()),
        };
        Some(Scalar::Int(r.into()))
    })
}

/// `op` on a constant; `None` where it isn't folded here.
pub fn unary(op: UnaryOp, a: &Tensor) -> Option<Tensor> {
    if a.len() > LIMIT {
        return None;
    }
    let boolean = a.dtype() == DType::Bool;
    let f = |s: Scalar| -> Option<Scalar> {
        Some(match (op, s) {
            (UnaryOp::Not, Scalar::Int(x)) => Scalar::Int(if boolean { 1 - x } else { !x }),
            (UnaryOp::Neg, Scalar::Int(x)) => Scalar::Int(-x),
            (UnaryOp::Abs, Scalar::Int(x)) => Scalar::Int(x.abs()),
            (UnaryOp::Sign, Scalar::Int(x)) => Scalar::Int(x.signum()),
            (UnaryOp::Relu, Scalar::Int(x)) => Scalar::Int(x.max(0)),
            (UnaryOp::Neg, Scalar::Float(x)) => Scalar::Float(-x),
            (UnaryOp::Abs, Scalar::Float(x)) => Scalar::Float(x.abs()),
            (UnaryOp::Recip, Scalar::Float(x)) => Scalar::Float(1.0 / x),
            (UnaryOp::Sqrt, Scalar::Float(x)) => Scalar::Float(x.sqrt()),
            (UnaryOp::Floor, Scalar::Float(x)) => Scalar::Float(x.floor()),
            (UnaryOp::Ceil, Scalar::Float(x)) => Scalar::Float(x.ceil()),
            (UnaryOp::Round, Scalar::Float(x)) => Scalar::Float(x.round_ties_even()),
            _ => return None,
        })
    };
    let v: Vec<Scalar> = a.iter().map(f).collect::<Option<_>>()?;
    Some(Tensor::from_scalars(a.dtype(), a.shape().to_vec(), v))
}

/// A conversion; floats saturate at the ends of integer types.
pub fn cast(to: DType, a: &Tensor) -> Option<Tensor> {
    if a.len() > LIMIT {
        return None;
    }
    let (lo, hi) = int_range(to);
    let f = |s: Scalar| match s {
        Scalar::Float(x) if to.is_int() => Scalar::Int((x as i128).clamp(lo, hi)),
        s => s,
    };
    Some(Tensor::from_scalars(to, a.shape().to_vec(), a.iter().map(f)))
}

/// Smallest and largest value of an integer type.
pub fn int_range(d: DType) -> (i128, i128) {
    let bits = 8 * d.size() as u32;
    if d.is_signed_int() { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}

/// The elements of `a` under the larger shape `to`.
pub fn expand(a: &Tensor, to: &[usize]) -> Option<Tensor> {
    let s = shape(a.shape(), to)?;
    let n: usize = s.iter().product();
    let v: Vec<Scalar> = (0..n).map(|i| a.get(index(a.shape(), &s, i))).collect();
    Some(Tensor::from_scalars(a.dtype(), s, v))
}
