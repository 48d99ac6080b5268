//! Activation functions, decomposed.

use bertc_ir::{BinaryOp, CmpOp, UnaryOp};

use crate::import::onnx::cx::Cx;
use crate::import::onnx::value::{R, Stop, V};

impl Cx<'_> {
    /// `x op k` with a constant of x's type.
    fn with(&mut self, op: BinaryOp, x: &V, k: f64) -> R<V> {
        let k = self.b.scalar(x.dtype, k);
        self.b.binary(op, x, &k)
    }

    /// `x > 0 ? a : b`.
    fn if_positive(&mut self, x: &V, a: &V, b: &V) -> R<V> {
        let zero = self.b.scalar(x.dtype, 0.0);
        let p = self.b.compare(CmpOp::Gt, x, &zero)?;
        self.b.select(&p, a, b)
    }
}

/// `Gelu`, exact or by tanh.
pub fn gelu(c: &mut Cx<'_>) -> R<Vec<V>> {
    let x = c.input(0)?;
    let op = match c.string("approximate", "none")?.as_str() {
        "none" => UnaryOp::Gelu,
        "tanh" => UnaryOp::GeluTanh,
        a => return Err(Stop::Fail(format!("approximate='{a}' is not supported"))),
    };
    Ok(vec![c.b.unary(op, &x)?])
}

/// `alpha · (e^(min(x, 0)/scale) - 1)`: the exponent is clamped so that the branch not taken stays finite.
fn expm1(c: &mut Cx<'_>, x: &V, alpha: f64, scale: f64) -> R<V> {
    let m = c.with(BinaryOp::Min, x, 0.0)?;
    let m = if scale == 1.0 { m } else { c.with(BinaryOp::Div, &m, scale)? };
    let e = c.b.unary(UnaryOp::Exp, &m)?;
    let e = c.with(BinaryOp::Sub, &e, 1.0)?;
    c.with(BinaryOp::Mul, &e, alpha)
}

/// `Elu`: x > 0 ? x : alpha · (e^x - 1).
pub fn elu(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (x, alpha) = (c.input(0)?, c.float("alpha", 1.0)?);
    let e = expm1(c, &x, alpha.into(), 1.0)?;
    Ok(vec![c.if_positive(&x, &x, &e)?])
}

/// `Celu`: max(0, x) + min(0, alpha · (e^(x/alpha) - 1)).
pub fn celu(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (x, alpha) = (c.input(0)?, c.float("alpha", 1.0)?);
    let e = expm1(c, &x, alpha.into(), alpha.into())?;
    Ok(vec![c.if_positive(&x, &x, &e)?])
}

/// `Selu`: gamma · (x > 0 ? x : alpha · (e^x - 1)).
pub fn selu(c: &mut Cx<'_>) -> R<Vec<V>> {
    let x = c.input(0)?;
    let (alpha, gamma) = (c.float("alpha", 1.673_263_2)?, c.float("gamma", 1.050_701)?);
    let e = expm1(c, &x, alpha.into(), 1.0)?;
    let r = c.if_positive(&x, &x, &e)?;
    Ok(vec![c.with(BinaryOp::Mul, &r, gamma.into())?])
}

/// `LeakyRelu`: x < 0 ? alpha · x : x.
pub fn leaky_relu(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (x, alpha) = (c.input(0)?, c.float("alpha", 0.01)?);
    let a = c.with(BinaryOp::Mul, &x, alpha.into())?;
    Ok(vec![c.if_positive(&x, &x, &a)?])
}

/// `PRelu`: x < 0 ? slope · x : x.
pub fn prelu(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (x, slope) = (c.input(0)?, c.input(1)?);
    let a = c.b.binary(BinaryOp::Mul, &x, &slope)?;
    if a.shape != x.shape {
        return Err("the slope doesn't broadcast to the input's shape".into());
    }
    Ok(vec![c.if_positive(&x, &x, &a)?])
}

/// `ThresholdedRelu`: x > alpha ? x : 0.
pub fn thresholded_relu(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (x, alpha) = (c.input(0)?, c.float("alpha", 1.0)?);
    let (alpha, zero) = (c.b.scalar(x.dtype, alpha.into()), c.b.scalar(x.dtype, 0.0));
    let p = c.b.compare(CmpOp::Gt, &x, &alpha)?;
    Ok(vec![c.b.select(&p, &x, &zero)?])
}

/// clamp(alpha · x + beta, 0, 1).
fn hard(c: &mut Cx<'_>, x: &V, alpha: f64, beta: f64) -> R<V> {
    let r = c.with(BinaryOp::Mul, x, alpha)?;
    let r = c.with(BinaryOp::Add, &r, beta)?;
    let r = c.with(BinaryOp::Max, &r, 0.0)?;
    c.with(BinaryOp::Min, &r, 1.0)
}

/// `HardSigmoid`.
pub fn hard_sigmoid(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (x, alpha, beta) = (c.input(0)?, c.float("alpha", 0.2)?, c.float("beta", 0.5)?);
    Ok(vec![hard(c, &x, alpha.into(), beta.into())?])
}

/// `HardSwish`: x · clamp(x/6 + 1/2, 0, 1).
pub fn hard_swish(c: &mut Cx<'_>) -> R<Vec<V>> {
    let x = c.input(0)?;
    let h = hard(c, &x, 1.0 / 6.0, 0.5)?;
    Ok(vec![c.b.binary(BinaryOp::Mul, &x, &h)?])
}

/// log(1 + e^x) = max(x, 0) + log(1 + e^-|x|), which can't overflow.
fn log1p_exp(c: &mut Cx<'_>, x: &V) -> R<V> {
    let a = c.b.unary(UnaryOp::Abs, x)?;
    let a = c.b.unary(UnaryOp::Neg, &a)?;
    let e = c.b.unary(UnaryOp::Exp, &a)?;
    let e = c.with(BinaryOp::Add, &e, 1.0)?;
    let l = c.b.unary(UnaryOp::Log, &e)?;
    let m = c.b.unary(UnaryOp::Relu, x)?;
    c.b.binary(BinaryOp::Add, &m, &l)
}

/// `Softplus`.
pub fn softplus(c: &mut Cx<'_>) -> R<Vec<V>> {
    let x = c.input(0)?;
    Ok(vec![log1p_exp(c, &x)?])
}

/// `Mish`: x · tanh(softplus(x)).
pub fn mish(c: &mut Cx<'_>) -> R<Vec<V>> {
    let x = c.input(0)?;
    let s = log1p_exp(c, &x)?;
    let t = c.b.unary(UnaryOp::Tanh, &s)?;
    Ok(vec![c.b.binary(BinaryOp::Mul, &x, &t)?])
}

/// `Softsign`: x / (1 + |x|).
pub fn softsign(c: &mut Cx<'_>) -> R<Vec<V>> {
    let x = c.input(0)?;
    let a = c.b.unary(UnaryOp::Abs, &x)?;
    let a = c.with(BinaryOp::Add, &a, 1.0)?;
    Ok(vec![c.b.binary(BinaryOp::Div, &x, &a)?])
}

/// x · sigmoid(alpha · x).
pub fn sigmoid_gate(c: &mut Cx<'_>, alpha: f64) -> R<Vec<V>> {
    let x = c.input(0)?;
    let s = if alpha == 1.0 { x.clone() } else { c.with(BinaryOp::Mul, &x, alpha)? };
    let s = c.b.unary(UnaryOp::Sigmoid, &s)?;
    Ok(vec![c.b.binary(BinaryOp::Mul, &x, &s)?])
}

/// `Swish`.
pub fn swish(c: &mut Cx<'_>) -> R<Vec<V>> {
    let alpha = c.float("alpha", 1.0)?;
    sigmoid_gate(c, alpha.into())
}
