//! Integer index arithmetic: values that are decided or affine, and gathers at affine positions.

use bertc_ir::{Dim, Graph, Loc, Op, Scalar, ValueId};

use crate::affine::Affine;
use crate::build::{add, broadcast, cast, reshape, slice, splat, transpose};
use crate::info::Infos;

pub fn rewrite(g: &mut Graph, infos: &mut Infos, v: ValueId) -> Option<ValueId> {
    decided(g, infos, v)
        .or_else(|| arithmetic(g, infos, v))
        .or_else(|| uniform_gather(g, infos, v))
        .or_else(|| gather(g, infos, v))
}

/// Ops that only name or move a value: they are what the rules here produce.
fn is_plain(op: &Op) -> bool {
    matches!(
        op,
        Op::Input { .. }
            | Op::Constant(_)
            | Op::Dim(_)
            | Op::Broadcast { .. }
            | Op::Reshape { .. }
            | Op::Transpose { .. }
    )
}

/// An integer or bool value whose bounds meet is a constant.
fn decided(g: &mut Graph, infos: &mut Infos, v: ValueId) -> Option<ValueId> {
    if is_plain(g.op(v)) {
        return None;
    }
    let (lo, hi) = infos.get(g, v).range.as_ref()?;
    let value = lo.as_const().filter(|c| hi.as_const() == Some(*c))?;
    let node = g.node(v).clone();
    splat(g, Scalar::Int(value.into()), &node.ty, &node.loc)
}

/// An affine value of at most one index becomes a dim or an iota.
fn arithmetic(g: &mut Graph, infos: &mut Infos, v: ValueId) -> Option<ValueId> {
    let op = g.op(v);
    if is_plain(op) || matches!(op, Op::Cast(_)) {
        return None;
    }
    let affine = infos.get(g, v).affine.clone()?;
    let node = g.node(v).clone();
    let dims = affine.dims();
    if matches!(node.op, Op::Iota { .. }) && !dims.is_empty() {
        return None;
    }
    let rank = node.ty.rank();
    let x = match dims[..] {
        [] => add(g, Op::Dim(affine.base), &[], &node.loc)?,
        [d] => {
            let len = node.ty.shape[d].clone();
            let op = Op::Iota { len: len.clone(), start: affine.base, step: affine.coef[d].clone() };
            let x = add(g, op, &[], &node.loc)?;
            // Trailing units put the index at its dim.
            let mut shape = vec![Dim::constant(1); rank - d];
            shape[0] = len;
            reshape(g, x, shape, &node.loc)?
        }
        _ => return None,
    };
    // `affine` proved that the values fit the type.
    let x = cast(g, x, node.ty.dtype, &node.loc)?;
    broadcast(g, x, node.ty.shape.clone(), &node.loc)
}

/// Elements of a tensor that repeats one value are that value, wherever they are.
fn uniform_gather(g: &mut Graph, infos: &mut Infos, v: ValueId) -> Option<ValueId> {
    if !matches!(g.op(v), Op::Gather { .. } | Op::GatherElements { .. } | Op::GatherNd { .. }) {
        return None;
    }
    let data = g.operands(v)[0];
    let value = infos.get(g, data).splat?;
    let node = g.node(v).clone();
    splat(g, value, &node.ty, &node.loc)
}

/// A gather whose every index is affine becomes slices, a reshape and a broadcast.
fn gather(g: &mut Graph, infos: &mut Infos, v: ValueId) -> Option<ValueId> {
    if !matches!(g.op(v), Op::Gather { .. } | Op::GatherElements { .. } | Op::GatherNd { .. }) {
        return None;
    }
    let node = g.node(v).clone();
    let (data, indices) = (node.operands[0], node.operands[1]);
    let out = &node.ty.shape;
    let (drank, irank) = (g.ty(data).rank(), g.ty(indices).rank());
    // The position read along each dim of the data, as a function of the result's index.
    let same = |dim: usize| Affine::index(dim, out);
    let at = match node.op {
        Op::Gather { axis } => {
            let index = infos.get(g, indices).affine.clone()?;
            // The result's dims are data's before the axis, those of the indices, data's after it.
            let mut coef = vec![Dim::constant(0); axis];
            coef.extend(index.coef);
            coef.resize(out.len(), Dim::constant(0));
            let index = Affine { base: index.base, coef };
            (0..drank)
                .map(|d| match d {
                    _ if d < axis => same(d),
                    _ if d == axis => index.clone(),
                    _ => same(d + irank - 1),
                })
                .collect()
        }
        Op::GatherElements { axis } => {
            let index = infos.get(g, indices).affine.clone()?;
            (0..drank).map(|d| if d == axis { index.clone() } else { same(d) }).collect()
        }
        Op::GatherNd { batch_dims } => {
            let tuple = usize::try_from(g.ty(indices).shape[irank - 1].as_const()?).ok()?;
            let mut at: Vec<Affine> = (0..batch_dims).map(same).collect();
            for j in 0..tuple {
                let mut index = component(g, infos, indices, j)?;
                index.coef.resize(out.len(), Dim::constant(0));
                at.push(index);
            }
            at.extend((batch_dims + tuple..drank).map(|d| same(irank - 1 + d - batch_dims - tuple)));
            at
        }
        _ => return None,
    };
    take(g, data, at, out, &node.loc)
}

/// Element `j` of the index tuples along the last dim, as a function of the other dims.
fn component(g: &Graph, infos: &mut Infos, indices: ValueId, j: usize) -> Option<Affine> {
    let (mut v, mut j) = (indices, j);
    // Operands precede their users, so this ends.
    loop {
        if let Some(a) = &infos.get(g, v).affine {
            return a.at_last(j);
        }
        let last = g.ty(v).rank().checked_sub(1)?;
        match g.op(v) {
            Op::Concat { axis } if *axis == last => {
                let mut found = None;
                for &o in g.operands(v) {
                    let n = usize::try_from(g.ty(o).shape[last].as_const()?).ok()?;
                    if j < n {
                        found = Some(o);
                        break;
                    }
                    j -= n;
                }
                v = found?;
            }
            _ => return None,
        }
    }
}

/// `result[i] = data[at[0](i), at[1](i), …]` by slices, where every index of the result moves along one dim of the
/// data, or several ones along one dim as a row-major position. The slices' own proofs keep it in bounds.
fn take(g: &mut Graph, data: ValueId, at: Vec<Affine>, out: &[Dim], loc: &Loc) -> Option<ValueId> {
    let mut x = data;
    let mut used = Vec::new();
    for (axis, a) in at.into_iter().enumerate() {
        let dims = a.dims();
        let mut start = a.base.clone();
        // Negative positions count from the end.
        let (_, hi) = a.range(out, &g.symbols)?;
        if Dim::constant(-1).proven_ge(&hi, &g.symbols) {
            start = start.add(&g.ty(x).shape[axis])?;
        }
        let mut len = Dim::constant(1);
        let mut step = 1;
        for (n, &d) in dims.iter().rev().enumerate() {
            if n == 0 {
                step = a.coef[d].as_const()?;
            }
            // A further dim's index advances by as many elements as the ones behind it take.
            if a.coef[d] != len.mul(&step.into())? {
                return None;
            }
            len = len.mul(&out[d])?;
        }
        x = slice(g, x, axis, start, len, step, loc)?;
        used.extend(dims);
    }
    let mut perm: Vec<usize> = (0..used.len()).collect();
    perm.sort_by_key(|&i| used[i]);
    if perm.windows(2).any(|w| used[w[0]] == used[w[1]]) {
        // A diagonal.
        return None;
    }
    x = reshape(g, x, used.iter().map(|&d| out[d].clone()).collect(), loc)?;
    x = transpose(g, x, perm, loc)?;
    let unit = |d: usize| if used.contains(&d) { out[d].clone() } else { Dim::constant(1) };
    x = reshape(g, x, (0..out.len()).map(unit).collect(), loc)?;
    broadcast(g, x, out.to_vec(), loc)
}
