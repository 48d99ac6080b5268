//! What is known of a value: whether it repeats one element, whether it is affine in its indices, and its bounds.
//!
//! Facts are computed once a value. They stay true while a graph is rewritten, because a [`ValueId`] is never reused
//! and a replaced operand is equal to its replacement.

use std::collections::HashMap;

use bertc_ir::{BinaryOp, CmpOp, DType, Dim, Graph, Op, ReduceOp, Scalar, Symbols, Tensor, UnaryOp, ValueId};

use crate::affine::{Affine, Range, fits};

/// The facts about one value.
#[derive(Clone, Default, Debug)]
pub struct Info {
    /// The element, if all are bitwise equal (and there is one).
    pub splat: Option<Scalar>,
    /// The affine form of an integer value.
    pub affine: Option<Affine>,
    /// Bounds of an integer or bool value.
    pub range: Option<Range>,
    /// A float value known to hold no negative number and no -0 (NaN is possible).
    pub nonneg: bool,
}

/// Facts by value, computed on demand.
#[derive(Default)]
pub struct Infos(HashMap<ValueId, Info>);

/// Constants larger than this, in bytes, are not scanned.
const MAX_SCAN: usize = 1 << 20;

impl Infos {
    /// The facts about a live value.
    pub fn get(&mut self, g: &Graph, v: ValueId) -> &Info {
        // Depth first without recursion: the chain of operands may be as long as the graph.
        let mut stack = vec![v];
        while let Some(&x) = stack.last() {
            if self.0.contains_key(&x) {
                stack.pop();
                continue;
            }
            let missing: Vec<_> = g.operands(x).iter().copied().filter(|o| !self.0.contains_key(o)).collect();
            if missing.is_empty() {
                let info = self.compute(g, x);
                self.0.insert(x, info);
                stack.pop();
            } else {
                stack.extend(missing);
            }
        }
        &self.0[&v]
    }

    fn compute(&self, g: &Graph, v: ValueId) -> Info {
        let o: Vec<&Info> = g.operands(v).iter().map(|x| &self.0[x]).collect();
        let ty = g.ty(v);
        let splat = splat(g.op(v), &o);
        let affine = ty.dtype.is_int().then(|| affine(g, v, &o)).flatten();
        let affine = affine.and_then(|a| a.checked(ty.dtype, &ty.shape, &g.symbols));
        let range = match &affine {
            Some(a) => a.range(&ty.shape, &g.symbols),
            None if ty.dtype.is_float() => None,
            None => range(g, v, &o).filter(|r| fits(r, ty.dtype, &g.symbols)),
        };
        let range = range.or_else(|| (ty.dtype == DType::Bool).then(|| (0.into(), 1.into())));
        Info { splat, affine, range, nonneg: ty.dtype.is_float() && nonneg(g, v, &o) }
    }
}

/// The element of a constant whose elements are all bitwise equal.
fn uniform(t: &Tensor) -> Option<Scalar> {
    let (b, s) = (t.bytes(), t.dtype().size());
    if b.is_empty() || b.len() > MAX_SCAN {
        return None;
    }
    b.chunks_exact(s).all(|c| c == &b[..s]).then(|| t.get(0))
}

fn splat(op: &Op, o: &[&Info]) -> Option<Scalar> {
    match op {
        Op::Constant(t) => uniform(t),
        Op::Broadcast { .. } | Op::Reshape { .. } | Op::Transpose { .. } | Op::Slice { .. } => o[0].splat,
        _ => None,
    }
}

fn affine(g: &Graph, v: ValueId, o: &[&Info]) -> Option<Affine> {
    let ty = g.ty(v);
    let of = |i: usize| o[i].affine.as_ref();
    let operand_shape = |i: usize| &g.ty(g.operands(v)[i]).shape;
    match g.op(v) {
        Op::Constant(t) => Affine::of_constant(t),
        Op::Dim(d) => Some(Affine::uniform(d.clone(), 0)),
        Op::Iota { start, step, .. } => Some(Affine { base: start.clone(), coef: vec![step.clone()] }),
        Op::Unary(UnaryOp::Neg) => of(0)?.scale(&(-1).into()),
        Op::Binary(BinaryOp::Add) => of(0)?.add(of(1)?, ty.rank()),
        Op::Binary(BinaryOp::Sub) => of(0)?.add(&of(1)?.scale(&(-1).into())?, ty.rank()),
        Op::Binary(BinaryOp::Mul) => of(0)?.mul(of(1)?, ty.rank()),
        Op::Cast(_) => of(0).cloned(),
        Op::Broadcast { .. } => Some(of(0)?.broadcast(ty.rank())),
        Op::Transpose { perm } => Some(of(0)?.transpose(perm)),
        Op::Slice { axis, start, step, .. } => of(0)?.slice(*axis, start, *step),
        Op::Reshape { shape } => of(0)?.reshape(operand_shape(0), shape),
        Op::Gather { axis } => {
            // Composition: the index must be proven in range.
            let (data, index, n) = (of(0)?, of(1)?, &operand_shape(0)[*axis]);
            let (lo, hi) = o[1].range.as_ref()?;
            let inside = lo.proven_ge(&0.into(), &g.symbols) && n.sub(&1.into())?.proven_ge(hi, &g.symbols);
            let at = index.scale(&data.coef[*axis])?;
            let mut coef = data.coef[..*axis].to_vec();
            coef.extend(at.coef);
            coef.extend_from_slice(&data.coef[axis + 1..]);
            inside.then_some(Affine { base: data.base.add(&at.base)?, coef })
        }
        _ => None,
    }
}

fn smaller(a: &Dim, b: &Dim, s: &Symbols) -> Option<Dim> {
    if b.proven_ge(a, s) { Some(a.clone()) } else { a.proven_ge(b, s).then(|| b.clone()) }
}

fn larger(a: &Dim, b: &Dim, s: &Symbols) -> Option<Dim> {
    if a.proven_ge(b, s) { Some(a.clone()) } else { b.proven_ge(a, s).then(|| b.clone()) }
}

/// Bounds from the operands' bounds. The caller drops them if the type could have wrapped.
fn range(g: &Graph, v: ValueId, o: &[&Info]) -> Option<Range> {
    let s = &g.symbols;
    let of = |i: usize| o[i].range.as_ref();
    let is_bool = g.ty(v).dtype == DType::Bool;
    match g.op(v) {
        Op::Constant(t) => {
            if t.is_empty() || t.bytes().len() > MAX_SCAN {
                return None;
            }
            let (lo, hi) = t.iter().fold((i128::MAX, i128::MIN), |(lo, hi), e| {
                let e = e.to_int();
                (lo.min(e), hi.max(e))
            });
            Some((i64::try_from(lo).ok()?.into(), i64::try_from(hi).ok()?.into()))
        }
        Op::Broadcast { .. } | Op::Reshape { .. } | Op::Transpose { .. } | Op::Slice { .. } => of(0).cloned(),
        Op::Gather { .. } | Op::GatherElements { .. } | Op::GatherNd { .. } => of(0).cloned(),
        Op::ScatterElements { combine: None, .. } | Op::ScatterNd { combine: None } => {
            let ((a, b), (c, d)) = (of(0)?, of(2)?);
            Some((smaller(a, c, s)?, larger(b, d, s)?))
        }
        Op::TopK { axis, .. } => Some((0.into(), g.ty(g.operands(v)[0]).shape[*axis].sub(&1.into())?)),
        Op::Cast(DType::Bool) => {
            let (lo, hi) = of(0)?;
            if lo.proven_ge(&1.into(), s) {
                Some((1.into(), 1.into()))
            } else {
                (hi.as_const() == Some(0) && lo == hi).then(|| (0.into(), 0.into()))
            }
        }
        Op::Cast(_) => of(0).cloned(),
        Op::Unary(UnaryOp::Not) if is_bool => {
            let (lo, hi) = of(0)?;
            Some((Dim::constant(1).sub(hi)?, Dim::constant(1).sub(lo)?))
        }
        Op::Unary(UnaryOp::Neg) => {
            let (lo, hi) = of(0)?;
            Some((Dim::default().sub(hi)?, Dim::default().sub(lo)?))
        }
        Op::Binary(op) => {
            let ((a, b), (c, d)) = (of(0)?, of(1)?);
            binary_range(*op, is_bool, (a, b), (c, d), s)
        }
        Op::Compare(op) => decide(*op, o, g, v).map(|b| (i64::from(b).into(), i64::from(b).into())),
        Op::Select => {
            let ((a, b), (c, d)) = (of(1)?, of(2)?);
            Some((smaller(a, c, s)?, larger(b, d, s)?))
        }
        Op::Concat { .. } => {
            let (mut lo, mut hi) = of(0)?.clone();
            for i in 1..o.len() {
                let (a, b) = of(i)?;
                (lo, hi) = (smaller(&lo, a, s)?, larger(&hi, b, s)?);
            }
            Some((lo, hi))
        }
        Op::CumSum { axis, .. } => {
            let (lo, hi) = of(0)?;
            lo.proven_ge(&0.into(), s).then_some(())?;
            Some((0.into(), hi.mul(&g.ty(v).shape[*axis])?))
        }
        _ => None,
    }
}

fn binary_range(op: BinaryOp, is_bool: bool, x: (&Dim, &Dim), y: (&Dim, &Dim), s: &Symbols) -> Option<Range> {
    let ((a, b), (c, d)) = (x, y);
    Some(match op {
        BinaryOp::Add => (a.add(c)?, b.add(d)?),
        BinaryOp::Sub => (a.sub(d)?, b.sub(c)?),
        BinaryOp::Mul => {
            (a.proven_ge(&0.into(), s) && c.proven_ge(&0.into(), s)).then_some(())?;
            (a.mul(c)?, b.mul(d)?)
        }
        BinaryOp::Min => (smaller(a, c, s)?, smaller(b, d, s)?),
        BinaryOp::Max => (larger(a, c, s)?, larger(b, d, s)?),
        // On bools, and is the minimum and or the maximum.
        BinaryOp::And if is_bool => (smaller(a, c, s)?, smaller(b, d, s)?),
        BinaryOp::Or if is_bool => (larger(a, c, s)?, larger(b, d, s)?),
        _ => return None,
    })
}

/// The result of a comparison of integers, if it is the same for all elements and dims.
fn decide(op: CmpOp, o: &[&Info], g: &Graph, v: ValueId) -> Option<bool> {
    let s = &g.symbols;
    // The difference of affine values keeps what they have in common; else the bounds must not overlap.
    let shape = &g.ty(v).shape;
    let (lo, hi) = match (&o[0].affine, &o[1].affine) {
        (Some(a), Some(b)) => a.add(&b.scale(&(-1).into())?, shape.len())?.range(shape, s)?,
        _ => {
            let ((a, b), (c, d)) = (o[0].range.as_ref()?, o[1].range.as_ref()?);
            (a.sub(d)?, b.sub(c)?)
        }
    };
    let (lo, hi) = (lo.bounds(s).0, hi.bounds(s).1);
    let either = |yes: bool, no: bool| if yes { Some(true) } else { no.then_some(false) };
    match op {
        CmpOp::Eq => either(lo == 0 && hi == 0, lo > 0 || hi < 0),
        CmpOp::Ne => either(lo > 0 || hi < 0, lo == 0 && hi == 0),
        CmpOp::Lt => either(hi < 0, lo >= 0),
        CmpOp::Le => either(hi <= 0, lo > 0),
        CmpOp::Gt => either(lo > 0, hi <= 0),
        CmpOp::Ge => either(lo >= 0, hi < 0),
    }
}

fn nonneg(g: &Graph, v: ValueId, o: &[&Info]) -> bool {
    let operands = g.operands(v);
    match g.op(v) {
        Op::Unary(UnaryOp::Abs | UnaryOp::Exp | UnaryOp::Sigmoid) | Op::Softmax { .. } => true,
        Op::Unary(UnaryOp::Sqrt) => o[0].nonneg,
        Op::Binary(BinaryOp::Mul) => operands[0] == operands[1] || (o[0].nonneg && o[1].nonneg),
        Op::Binary(BinaryOp::Add) | Op::Concat { .. } => o.iter().all(|i| i.nonneg),
        // The maximum or minimum of nothing may be negative.
        Op::Reduce { op: ReduceOp::Sum | ReduceOp::Mean | ReduceOp::Prod, .. }
        | Op::Broadcast { .. }
        | Op::Reshape { .. }
        | Op::Transpose { .. }
        | Op::Slice { .. }
        | Op::Gather { .. } => o[0].nonneg,
        Op::Constant(t) => uniform(t).is_some_and(|s| s.to_f64() >= 0.0 && s.to_f64().is_sign_positive()),
        _ => false,
    }
}
