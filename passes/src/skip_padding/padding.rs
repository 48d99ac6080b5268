//! Which input tells tokens from padding, and what values are where it is 0.

use bertc_ir::eval::eval_op;
use bertc_ir::{Attention, DType, Dim, Graph, Op, Scalar, Tensor, TensorType, ValueId};

use crate::build::is_one;
use crate::info::Infos;

/// Added to a score up to 1e29, this leaves a probability of exactly 0 beside one that isn't masked.
pub const EXACTLY_ZERO: f64 = -1e30;
/// The same for scores up to some thousands: exporters wrote -10000 once.
pub const ABOUT_ZERO: f64 = -9e3;

/// A bound on the ops between an input and what is made of it.
const MAX_DEPTH: usize = 64;

/// What is known of padding.
#[derive(Clone, Debug)]
pub struct Padding {
    /// `[batch, seq]`, 0 at padding: an input.
    pub input: ValueId,
    /// What an attention adds to its scores: the same for all heads and queries, a function of `input`.
    pub mask: ValueId,
    /// A key is masked where the mask is not above this.
    pub limit: f64,
    /// First dim of `input`.
    pub batch: Dim,
    /// Second dim.
    pub seq: Dim,
}

impl Padding {
    /// The padding that the mask of the attention `v` is made of.
    ///
    /// # Errors
    /// Why its mask tells nothing.
    pub fn of(g: &Graph, v: ValueId, a: Attention, limit: f64) -> Result<Padding, String> {
        let mask = a.mask_at().map(|at| g.operands(v)[at]).ok_or("no mask tells tokens from padding")?;
        let shape = &g.ty(mask).shape;
        let axes = [0, 3].map(|i| (!is_one(&shape[i])).then_some(i));
        let (input, value) = at_zero(g, mask, axes)?;
        let input = input.ok_or("the mask doesn't depend on an input")?;
        let value = value.get(0).to_f64();
        if value > limit {
            return Err(format!("where the input is 0, the mask is {value}: that doesn't rule a key out"));
        }
        let [batch, seq] = &g.ty(input).shape[..] else { return Err("the mask's input isn't a matrix".into()) };
        let (batch, seq) = (batch.clone(), seq.clone());
        let keys = &g.ty(g.operands(v)[1]).shape;
        if keys[0] != batch || keys[1] != seq {
            return Err("the keys aren't the tokens of the mask's input".into());
        }
        Ok(Padding { input, mask, limit, batch, seq })
    }

    /// Whether the first dims are batch and sequence.
    pub fn is_rows(&self, g: &Graph, v: ValueId) -> bool {
        matches!(&g.ty(v).shape[..], [b, s, ..] if *b == self.batch && *s == self.seq)
    }

    /// The value of all elements (b, s, …) of `v` where the input is 0, if it depends on the input's (b, s) alone.
    pub fn at_padding(&self, g: &Graph, v: ValueId) -> Option<Scalar> {
        if g.ty(v).rank() < 2 || !self.is_rows(g, v) {
            return None;
        }
        let axes = [(0, &self.batch), (1, &self.seq)].map(|(i, d)| (!is_one(d)).then_some(i));
        let (input, value) = at_zero(g, v, axes).ok()?;
        (input == Some(self.input)).then(|| value.get(0))
    }
}

/// Axes of a value along which the input's batch and sequence run; none for one of size 1.
type Axes = [Option<usize>; 2];

/// The value of `v` as a function of an input's element, there 0; and that input, if it isn't constant.
fn at_zero(g: &Graph, v: ValueId, axes: Axes) -> Result<(Option<ValueId>, Tensor), String> {
    follow(g, &mut Infos::default(), v, axes, MAX_DEPTH)
}

fn follow(
    g: &Graph,
    infos: &mut Infos,
    v: ValueId,
    axes: Axes,
    depth: usize,
) -> Result<(Option<ValueId>, Tensor), String> {
    let node = g.node(v);
    if let Some(s) = infos.get(g, v).splat {
        return Ok((None, Tensor::scalar(node.ty.dtype, s)));
    }
    if depth == 0 {
        return Err("the mask has too many ops".into());
    }
    let shape = &node.ty.shape;
    match &node.op {
        Op::Input { .. } => {
            let expected: Axes = [0, 1].map(|i| shape.get(i).filter(|d| !is_one(d)).map(|_| i));
            if shape.len() != 2 || axes != expected {
                return Err("the mask is no function of an input of shape [batch, sequence]".into());
            }
            let zero = if node.ty.dtype.is_float() { Scalar::Float(0.0) } else { Scalar::Int(0) };
            return Ok((Some(v), Tensor::scalar(node.ty.dtype, zero)));
        }
        Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Cast(_) => {}
        Op::Broadcast { .. } | Op::Reshape { .. } | Op::Transpose { .. } => {
            let o = node.operands[0];
            let below = match &node.op {
                Op::Transpose { perm } => axes.map(|a| a.map(|a| perm[a])),
                Op::Reshape { .. } => through_reshape(shape, &g.ty(o).shape, axes)?,
                _ => aligned(g, v, o, axes),
            };
            return follow(g, infos, o, below, depth - 1);
        }
        Op::Slice { axis, .. } if !axes.contains(&Some(*axis)) => {
            return follow(g, infos, node.operands[0], axes, depth - 1);
        }
        op => return Err(format!("'{}' in the mask isn't elementwise", op.name())),
    }
    let (mut input, mut values) = (None, Vec::new());
    for &o in &node.operands {
        let (from, value) = follow(g, infos, o, aligned(g, v, o, axes), depth - 1)?;
        if input.is_some() && from.is_some() && input != from {
            return Err("the mask depends on two inputs".into());
        }
        input = input.or(from);
        values.push(value);
    }
    let ty = TensorType::new(node.ty.dtype, Vec::new());
    let value = eval_op(&node.op, &ty, &[], &values.iter().collect::<Vec<_>>())?;
    Ok((input, value))
}

/// Axes of the operand `o` that broadcasts to `v`.
fn aligned(g: &Graph, v: ValueId, o: ValueId, axes: Axes) -> Axes {
    let shape = &g.ty(o).shape;
    let shift = g.ty(v).rank() - shape.len();
    axes.map(|a| a.and_then(|a| a.checked_sub(shift)).filter(|&a| !is_one(&shape[a])))
}

/// Axes before a reshape that adds or removes dims of size 1.
fn through_reshape(to: &[Dim], from: &[Dim], axes: Axes) -> Result<Axes, String> {
    let large = |s: &[Dim]| (0..s.len()).filter(|&i| !is_one(&s[i])).collect::<Vec<_>>();
    let (a, b) = (large(to), large(from));
    if a.len() != b.len() || a.iter().zip(&b).any(|(&i, &j)| to[i] != from[j]) {
        return Err("a reshape in the mask mixes dims".into());
    }
    Ok(axes.map(|x| x.and_then(|x| a.iter().position(|&i| i == x)).map(|n| b[n])))
}

/// Whether `v` is a bool that is false where the input is 0 (or true, as asked).
pub fn is_bool(p: &Padding, g: &Graph, v: ValueId, want: bool) -> bool {
    g.ty(v).dtype == DType::Bool && p.at_padding(g, v) == Some(Scalar::Int(want.into()))
}
