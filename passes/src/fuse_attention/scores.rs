//! From the softmax back to the product of queries and keys, whose batch and heads may be one dim there.
//!
//! Masks are added, or filled in by a select. A fill becomes an added mask: 0 where the score is kept, M elsewhere.
//!
//! - A fill with -∞ gives M = -∞: the same scores.
//! - A fill with a finite c ≤ -10,000 gives M = -3.4e38 (the smallest f32). Where a row keeps a score, the filled keys
//!   get the probability 0 either way, provided that the largest kept score is above c + 104 (e^-104 is 0 in f32), which
//!   scores of a trained model are by far. Where a row keeps none, adding M absorbs every score below 1e31, so that all
//!   keys are equally probable, as after the fill.
//! - Any other fill is refused, and so is a mask added to filled scores, which would tell filled keys apart.

use bertc_ir::{BinaryOp, DType, Dim, Graph, Loc, Op, Scalar, Tensor, ValueId};

use crate::build;
use crate::pattern::{binary, reshape, scalar, scaled};

/// How many ops lie between product and softmax at most.
const DEPTH: usize = 16;

/// A fill with a larger finite value than this is no mask.
const FILL: f64 = -1e4;

/// Something done to the scores.
enum Mask {
    /// A value is added, times a number; to scores of rank 3 if batch and heads were one dim by then.
    Add { value: ValueId, factor: f64, merged: bool },
    /// Scores are kept where the condition is `keep`, else replaced.
    Fill { cond: ValueId, keep: bool, value: f64 },
}

/// What is between the product and the softmax.
pub struct Scores {
    /// The product of queries and keys.
    pub product: ValueId,
    /// The factor of the product.
    pub scale: f64,
    /// The values on the way, with the product.
    pub inside: Vec<ValueId>,
    /// Batch and heads, where they are one dim of the product.
    pub merged: Option<[Dim; 2]>,
    /// Nearest to the softmax first.
    masks: Vec<Mask>,
}

/// What `v` is with its first two dims as one, if it is such a value in another shape.
fn merged(g: &Graph, v: ValueId) -> Option<ValueId> {
    let (Op::Reshape { .. }, [x]) = (g.op(v), g.operands(v)) else { return None };
    joins(g, v, *x).then_some(*x)
}

/// Whether two shapes differ in that the first two dims of the `whole` are one.
pub fn joins(g: &Graph, whole: ValueId, one: ValueId) -> bool {
    let (whole, one) = (&g.ty(whole).shape, &g.ty(one).shape);
    whole.len() == 4 && one.len() == 3 && whole[2..] == one[1..]
}

/// Whether scores `v` come from a product.
fn leads(g: &Graph, v: ValueId, depth: usize) -> bool {
    let Some(depth) = depth.checked_sub(1) else { return false };
    if let Op::MatMul { .. } = g.op(v) {
        return true;
    }
    if let Some((x, _)) = scaled(g, v) {
        return leads(g, x, depth);
    }
    if let Some(x) = merged(g, v) {
        return leads(g, x, depth);
    }
    let full = |x: ValueId| g.ty(x) == g.ty(v) && leads(g, x, depth);
    match g.op(v) {
        Op::Binary(BinaryOp::Add) => g.operands(v).iter().any(|&x| full(x)),
        Op::Select => g.operands(v)[1..].iter().any(|&x| full(x)),
        _ => false,
    }
}

/// The way from the softmax's operand to the product.
pub fn find(g: &Graph, v: ValueId) -> Result<Scores, String> {
    let mut s = Scores { product: v, scale: 1.0, inside: Vec::new(), merged: None, masks: Vec::new() };
    for _ in 0..DEPTH {
        let at = s.product;
        s.inside.push(at);
        let full = |x: ValueId| g.ty(x) == g.ty(at) && leads(g, x, DEPTH);
        if let Op::MatMul { .. } = g.op(at) {
            return Ok(s);
        } else if let Some((x, c)) = scaled(g, at) {
            s.scale *= c;
            s.product = x;
        } else if let Some(x) = merged(g, at) {
            s.merged = Some([g.ty(at).shape[0].clone(), g.ty(at).shape[1].clone()]);
            s.product = x;
        } else if let Some((a, b)) = binary(g, at, BinaryOp::Add) {
            let (x, mask) = if full(a) { (a, b) } else { (b, a) };
            s.masks.push(Mask::Add { value: mask, factor: s.scale, merged: s.merged.is_some() });
            s.product = x;
        } else if let (Op::Select, [cond, x, y], None) = (g.op(at), g.operands(at), &s.merged) {
            let keep = full(*x);
            let (kept, other) = if keep { (*x, *y) } else { (*y, *x) };
            let value = scalar(g, other).ok_or("the scores are replaced by something that is no constant")?;
            s.masks.push(Mask::Fill { cond: *cond, keep, value: value * s.scale });
            s.product = kept;
        } else {
            return Err(format!("the scores come from '{}', not from a product", g.op(at).name()));
        }
    }
    Err("the scores are too far from a product".to_string())
}

fn number(g: &mut Graph, v: f32, loc: &Loc) -> Result<ValueId, String> {
    g.add_const(Tensor::scalar(DType::F32, Scalar::Float(v.into())), loc).map_err(|d| d.message)
}

/// `m` without broadcasts, with as many dims as the scores; scores of rank 3 are one head.
fn aligned(g: &mut Graph, mut m: ValueId, rank: usize, loc: &Loc) -> Result<ValueId, String> {
    while let Op::Broadcast { .. } = g.op(m) {
        m = g.operands(m)[0];
    }
    let mut shape = build::padded(&g.ty(m).shape, rank);
    if rank == 3 {
        shape.insert(1, Dim::constant(1));
    }
    reshape(g, m, shape, loc).ok_or_else(|| "the mask can't be reshaped".to_string())
}

/// The same for what is added where batch and heads are one dim.
fn split(g: &mut Graph, mut m: ValueId, lead: &[Dim; 2], loc: &Loc) -> Result<ValueId, String> {
    while let Op::Broadcast { .. } = g.op(m) {
        m = g.operands(m)[0];
    }
    let one = Dim::constant(1);
    let shape = build::padded(&g.ty(m).shape, 3);
    let lead = if shape[0] == one { [one.clone(), one] } else { lead.clone() };
    let shape = lead.into_iter().chain(shape[1..].iter().cloned()).collect();
    reshape(g, m, shape, loc).ok_or_else(|| "the mask can't be reshaped".to_string())
}

/// The mask to add to the scaled scores, if there is one.
pub fn mask(g: &mut Graph, s: &Scores, rank: usize, loc: &Loc) -> Result<Option<ValueId>, String> {
    let mut sum = None;
    let mut filled = false;
    // In the order of execution.
    for m in s.masks.iter().rev() {
        let new = match *m {
            Mask::Add { .. } if filled => return Err("a mask is added to filled scores".to_string()),
            Mask::Add { value, factor, merged } => {
                let mut m = match &s.merged {
                    Some(lead) if merged => split(g, value, lead, loc)?,
                    _ => aligned(g, value, rank, loc)?,
                };
                if factor != 1.0 {
                    let c = number(g, factor as f32, loc)?;
                    m = g.add(Op::Binary(BinaryOp::Mul), &[m, c], loc).map_err(|d| d.message)?;
                }
                match sum {
                    Some(sum) => g.add(Op::Binary(BinaryOp::Add), &[sum, m], loc).map_err(|d| d.message)?,
                    None => m,
                }
            }
            Mask::Fill { cond, keep, value } => {
                let hidden = match value {
                    f64::NEG_INFINITY => f32::NEG_INFINITY,
                    v if v <= FILL && v.is_finite() => f32::MIN,
                    v => return Err(format!("the scores are filled with {v}, which is neither -inf nor below {FILL}")),
                };
                filled = true;
                let cond = aligned(g, cond, rank, loc)?;
                let hidden = number(g, hidden, loc)?;
                let kept = match sum {
                    Some(sum) => sum,
                    None => number(g, 0.0, loc)?,
                };
                let (x, y) = if keep { (kept, hidden) } else { (hidden, kept) };
                g.add(Op::Select, &[cond, x, y], loc).map_err(|d| d.message)?
            }
        };
        sum = Some(new);
    }
    Ok(sum)
}
