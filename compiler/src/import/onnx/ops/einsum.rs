//! `Einsum`: one operand after the other is multiplied into the first one, each pair as a matrix product of batches where
//! something is summed, elementwise where nothing is.
//!
//! ```text
//! bqhd,bkhd->bhqk    =>   transpose a to bhqd, b to bhkd; matmul by the transpose of b
//! ```

mod contract;
mod equation;

use std::collections::BTreeMap;

use bertc_ir::{BinaryOp, CmpOp, DType, Dim, Op, ReduceOp};

use self::contract::pair;
use self::equation::{Label, parse};
use crate::import::onnx::build::{Builder, overflow};
use crate::import::onnx::cx::Cx;
use crate::import::onnx::value::{Affine, R, V, Val};

/// An operand with a label for each dim, all of them different.
#[derive(Clone)]
pub struct Term {
    value: V,
    labels: Vec<Label>,
}

/// `Einsum`.
pub fn einsum(c: &mut Cx<'_>) -> R<Vec<V>> {
    let operands = (0..c.ins.len()).map(|i| c.input(i)).collect::<R<Vec<_>>>()?;
    let first = operands.first().ok_or("einsum needs an operand")?;
    for x in &operands {
        if x.dtype != first.dtype {
            return Err(format!("operand types {} and {} differ", first.dtype, x.dtype).into());
        }
    }
    if first.dtype == DType::Bool {
        return Err("the operands must be numbers, got bool".into());
    }
    let text = c.string("equation", "")?;
    let ranks: Vec<usize> = operands.iter().map(|x| x.rank()).collect();
    let equation = parse(&text, &ranks)?;
    let sizes = sizes(c.b, &operands, &equation.terms)?;
    let mut terms = Vec::new();
    for (x, labels) in operands.iter().zip(&equation.terms) {
        let t = distinct(c.b, x, labels)?;
        terms.push(t);
    }
    let mut rest = terms.into_iter();
    let mut acc = rest.next().ok_or("einsum needs an operand")?;
    while let Some(next) = rest.next() {
        let later = |l: &Label| rest.as_slice().iter().any(|t| t.labels.contains(l));
        let kept = |l: &Label| equation.output.contains(l) || later(l);
        acc = pair(c.b, acc, next, &kept)?;
    }
    Ok(vec![ordered(c.b, acc, &equation.output, &sizes)?])
}

/// The size of each label. A dim of 1 goes with any other one.
fn sizes(b: &Builder, operands: &[V], labels: &[Vec<Label>]) -> R<BTreeMap<Label, Dim>> {
    let one = Dim::constant(1);
    let mut sizes: BTreeMap<Label, Dim> = BTreeMap::new();
    for (x, labels) in operands.iter().zip(labels) {
        for (l, d) in labels.iter().zip(&x.shape) {
            let known = sizes.entry(*l).or_insert_with(|| one.clone());
            if *known == one {
                *known = d.clone();
            } else if *d != one {
                b.require_equal(known, d)?;
            }
        }
    }
    Ok(sizes)
}

/// The operand without dims of 1, and with the diagonal of dims that share a label.
fn distinct(b: &mut Builder, x: &V, labels: &[Label]) -> R<Term> {
    for (j, l) in labels.iter().enumerate() {
        if let Some(i) = labels[..j].iter().position(|m| m == l) {
            b.require_equal(&x.shape[i], &x.shape[j])?;
        }
    }
    let long = |d: &Dim| d.as_const() != Some(1);
    let keep: Vec<usize> = (0..x.rank()).filter(|&i| long(&x.shape[i])).collect();
    let shape: Vec<Dim> = keep.iter().map(|&i| x.shape[i].clone()).collect();
    let mut t = Term { value: b.reshape(x, &shape)?, labels: keep.iter().map(|&i| labels[i]).collect() };
    while let Some((i, j)) = repeated(&t.labels) {
        t = diagonal(b, &t, i, j)?;
    }
    Ok(t)
}

fn repeated(labels: &[Label]) -> Option<(usize, usize)> {
    (0..labels.len()).find_map(|j| labels[..j].iter().position(|l| *l == labels[j]).map(|i| (i, j)))
}

/// The elements whose coordinates on the dims `i` and `j` are equal; `j` goes.
fn diagonal(b: &mut Builder, t: &Term, i: usize, j: usize) -> R<Term> {
    let x = &t.value;
    let mut labels = t.labels.clone();
    labels.remove(j);
    if let Some(n) = x.shape[i].as_const() {
        // Both in front, as one dim: each element of the diagonal is n + 1 behind the one before it.
        let perm: Vec<usize> = [i, j].into_iter().chain((0..x.rank()).filter(|&a| a != i && a != j)).collect();
        let front = b.transpose(x, &perm)?;
        let all = x.shape[i].mul(&x.shape[j]).ok_or_else(overflow)?;
        let flat: Vec<Dim> = std::iter::once(all).chain(front.shape[2..].iter().cloned()).collect();
        let flat = b.reshape(&front, &flat)?;
        let line = b.slice(&flat, 0, &0.into(), &n.into(), n.checked_add(1).ok_or_else(overflow)?)?;
        // The dim is in front now, and its label goes with it.
        let label = labels.remove(i);
        labels.insert(0, label);
        return Ok(Term { value: line, labels });
    }
    let count = |axis: usize| {
        let (mut shape, mut coef) = (vec![Dim::constant(1); x.rank()], vec![Dim::constant(0); x.rank()]);
        (shape[axis], coef[axis]) = (x.shape[axis].clone(), Dim::constant(1));
        Val::affine_of(DType::I64, shape, Affine { base: Dim::constant(0), coef })
    };
    let same = b.compare(CmpOp::Eq, &count(i), &count(j))?;
    let zero = b.scalar(x.dtype, 0.0);
    let x = b.select(&same, x, &zero)?;
    let value = b.op(Op::Reduce { op: ReduceOp::Sum, axes: vec![j], keep: false }, &[&x])?;
    Ok(Term { value, labels })
}

/// The term summed over labels that are not `kept`.
fn summed(b: &mut Builder, t: Term, kept: impl Fn(&Label) -> bool) -> R<Term> {
    let axes: Vec<usize> = (0..t.labels.len()).filter(|&i| !kept(&t.labels[i])).collect();
    if axes.is_empty() {
        return Ok(t);
    }
    let labels = t.labels.iter().copied().filter(|l| kept(l)).collect();
    Ok(Term { value: b.op(Op::Reduce { op: ReduceOp::Sum, axes, keep: false }, &[&t.value])?, labels })
}

/// The term with its dims in the order of `labels`; those that it doesn't have become dims of 1.
fn aligned(b: &mut Builder, t: &Term, labels: &[Label]) -> R<V> {
    let perm: Vec<usize> = labels.iter().filter_map(|l| t.labels.iter().position(|m| m == l)).collect();
    let x = b.transpose(&t.value, &perm)?;
    let mut dims = x.shape.clone().into_iter();
    let shape: Vec<Dim> = labels
        .iter()
        .map(|l| if t.labels.contains(l) { dims.next() } else { None }.unwrap_or_else(|| Dim::constant(1)))
        .collect();
    b.reshape(&x, &shape)
}

/// The result: nothing else is left, and every dim is as long as the equation says.
fn ordered(b: &mut Builder, t: Term, output: &[Label], sizes: &BTreeMap<Label, Dim>) -> R<V> {
    let t = summed(b, t, |l| output.contains(l))?;
    let x = aligned(b, &t, output)?;
    let shape: Vec<Dim> = output.iter().map(|l| sizes.get(l).cloned().unwrap_or_else(|| Dim::constant(1))).collect();
    b.expand(&x, &shape)
}

/// Elementwise product of terms whose labels are joined in the order `labels`.
fn product(b: &mut Builder, x: &Term, y: &Term, labels: Vec<Label>) -> R<Term> {
    let (x, y) = (aligned(b, x, &labels)?, aligned(b, y, &labels)?);
    Ok(Term { value: b.binary(BinaryOp::Mul, &x, &y)?, labels })
}
