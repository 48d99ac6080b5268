//! Data movement: compositions and no-ops.

use bertc_ir::{Dim, Graph, Node, Op, ValueId};

use crate::affine::groups;
use crate::build::{add, broadcast, is_one, padded, reshape, slice, transpose};
use crate::info::Infos;

pub fn rewrite(g: &mut Graph, _: &mut Infos, v: ValueId) -> Option<ValueId> {
    let node = g.node(v).clone();
    let x = *node.operands.first()?;
    match &node.op {
        Op::Reshape { .. } => reshape_of(g, &node, x),
        Op::Transpose { perm } => transpose_of(g, &node, x, perm),
        Op::Broadcast { shape } => match g.op(x) {
            _ if g.ty(x).shape == *shape => Some(x),
            Op::Broadcast { .. } => {
                let y = g.operands(x)[0];
                broadcast(g, y, shape.clone(), &node.loc)
            }
            _ => None,
        },
        Op::Slice { .. } => slice_of(g, &node, x),
        Op::Concat { axis } => concat(g, &node, *axis),
        Op::MatMul { trans_b } => matmul(g, &node, *trans_b),
        _ => None,
    }
}

fn reshape_of(g: &mut Graph, node: &Node, x: ValueId) -> Option<ValueId> {
    let shape = &node.ty.shape;
    if g.ty(x).shape == *shape {
        return Some(x);
    }
    let inner = *g.operands(x).first()?;
    match g.op(x).clone() {
        Op::Reshape { .. } => reshape(g, inner, shape.clone(), &node.loc),
        Op::Broadcast { shape: from } => {
            // Only where the reshape moves nothing but dims of size 1: the broadcast dims keep their meaning.
            let small = padded(&g.ty(inner).shape, from.len());
            let mut to = vec![Dim::constant(1); shape.len()];
            for (src, dst) in groups(&from, shape)? {
                let ([s], [d]) = (&src[..], &dst[..]) else { return None };
                to[*d] = small[*s].clone();
            }
            let y = reshape(g, inner, to, &node.loc)?;
            broadcast(g, y, shape.clone(), &node.loc)
        }
        Op::Transpose { perm } => {
            // Where each group of dims of the result comes from neighbours before the transpose, in order, the
            // reshape can go first; there it may merge with another.
            let from = g.ty(inner).shape.clone();
            // Runs of the result's dims that come from the operand's dim `s`, by `s`.
            let mut runs: Vec<Vec<usize>> = vec![Vec::new(); from.len()];
            for (src, dst) in groups(&g.ty(x).shape, shape)? {
                let src: Vec<_> = src.iter().map(|&i| perm[i]).collect();
                if src.windows(2).any(|w| w[1] != w[0] + 1) {
                    return None;
                }
                runs[*src.first()?] = dst;
            }
            // Units of the result stay where they are put: at the end, before the transpose.
            let mut order: Vec<usize> = runs.concat();
            order.extend((0..shape.len()).filter(|&i| is_one(&shape[i])));
            let mut back = vec![0; order.len()];
            for (at, &d) in order.iter().enumerate() {
                back[d] = at;
            }
            let y = reshape(g, inner, order.iter().map(|&d| shape[d].clone()).collect(), &node.loc)?;
            transpose(g, y, back, &node.loc)
        }
        _ => None,
    }
}

fn transpose_of(g: &mut Graph, node: &Node, x: ValueId, perm: &[usize]) -> Option<ValueId> {
    if perm.is_sorted() {
        return Some(x);
    }
    // Moving dims of size 1 only is a reshape.
    let from = &g.ty(x).shape;
    if perm.iter().filter(|&&p| !is_one(&from[p])).is_sorted() {
        return reshape(g, x, node.ty.shape.clone(), &node.loc);
    }
    let inner = *g.operands(x).first()?;
    match g.op(x).clone() {
        Op::Transpose { perm: first } => transpose(g, inner, perm.iter().map(|&p| first[p]).collect(), &node.loc),
        Op::Broadcast { shape } => {
            let small = padded(&g.ty(inner).shape, shape.len());
            let y = reshape(g, inner, small, &node.loc)?;
            let y = transpose(g, y, perm.to_vec(), &node.loc)?;
            broadcast(g, y, node.ty.shape.clone(), &node.loc)
        }
        _ => None,
    }
}

fn slice_of(g: &mut Graph, node: &Node, x: ValueId) -> Option<ValueId> {
    let Op::Slice { axis, start, len, step } = &node.op else { return None };
    if start.as_const() == Some(0) && *step == 1 && g.ty(x).shape[*axis] == *len {
        return Some(x);
    }
    let inner = *g.operands(x).first()?;
    match g.op(x).clone() {
        Op::Slice { axis: a, start: s, step: t, .. } if a == *axis => {
            let start = start.mul(&t.into())?.add(&s)?;
            slice(g, inner, a, start, len.clone(), step.checked_mul(t)?, &node.loc)
        }
        Op::Broadcast { shape } => {
            let small = &g.ty(inner).shape;
            let y = match axis.checked_sub(shape.len() - small.len()) {
                Some(a) if !is_one(&small[a]) => slice(g, inner, a, start.clone(), len.clone(), *step, &node.loc)?,
                _ => inner,
            };
            broadcast(g, y, node.ty.shape.clone(), &node.loc)
        }
        _ => None,
    }
}

fn concat(g: &mut Graph, node: &Node, axis: usize) -> Option<ValueId> {
    if let [x] = node.operands[..] {
        return Some(x);
    }
    let some: Vec<_> = node.operands.iter().copied().filter(|&o| g.ty(o).shape[axis].as_const() != Some(0)).collect();
    if some.is_empty() || some.len() == node.operands.len() {
        return None;
    }
    add(g, node.op.clone(), &some, &node.loc)
}

fn matmul(g: &mut Graph, node: &Node, trans_b: bool) -> Option<ValueId> {
    let (a, b) = (node.operands[0], node.operands[1]);
    let inner = *g.operands(b).first()?;
    match g.op(b).clone() {
        // The dim that is contiguous in memory becomes a row: swap it back and multiply by the transposed matrix.
        Op::Transpose { mut perm } if perm[perm.len() - 2] == perm.len() - 1 => {
            let n = perm.len();
            perm.swap(n - 2, n - 1);
            let b = transpose(g, inner, perm, &node.loc)?;
            add(g, Op::MatMul { trans_b: !trans_b }, &[a, b], &node.loc)
        }
        // Copies of one matrix along the batch dims; the op broadcasts by itself.
        Op::Broadcast { shape } => {
            let small = &g.ty(inner).shape;
            if small.len() < 2 || small[small.len() - 2..] != shape[shape.len() - 2..] {
                return None;
            }
            let m = add(g, node.op.clone(), &[a, inner], &node.loc)?;
            (*g.ty(m) == node.ty).then_some(m)
        }
        _ => None,
    }
}
