//! Two terms of an einsum become one.

use bertc_ir::{Dim, Op, ReduceOp};

use super::equation::Label;
use super::{Term, aligned, product, summed};
use crate::import::onnx::build::Builder;
use crate::import::onnx::ops::matmul::{self, Product};
use crate::import::onnx::value::{R, V};

/// The labels of two terms by what a product does with them.
struct Roles {
    /// In both, and kept.
    batch: Vec<Label>,
    /// In both, and summed.
    summed: Vec<Label>,
    /// In the first one alone.
    rows: Vec<Label>,
    /// In the second one alone.
    columns: Vec<Label>,
}

/// Multiplies two terms and sums over the labels that are not `kept`.
pub fn pair(b: &mut Builder, x: Term, y: Term, kept: &dyn Fn(&Label) -> bool) -> R<Term> {
    // What one of them has alone and nobody asks for goes before it is multiplied.
    let x = summed(b, x, |l| kept(l) || y.labels.contains(l))?;
    let y = summed(b, y, |l| kept(l) || x.labels.contains(l))?;
    let both = |keep: bool| x.labels.iter().copied().filter(|l| y.labels.contains(l) && kept(l) == keep).collect();
    let roles = Roles {
        batch: both(true),
        summed: both(false),
        rows: x.labels.iter().copied().filter(|l| !y.labels.contains(l)).collect(),
        columns: y.labels.iter().copied().filter(|l| !x.labels.contains(l)).collect(),
    };
    if roles.summed.is_empty() {
        let labels = [roles.batch, roles.rows, roles.columns].concat();
        return product(b, &x, &y, labels);
    }
    match matmul::kind(x.value.dtype) {
        Product::Wide => {
            let labels = [&roles.batch[..], &roles.rows, &roles.columns, &roles.summed].concat();
            let first = labels.len() - roles.summed.len();
            let all = product(b, &x, &y, labels)?;
            let axes = (first..all.labels.len()).collect();
            let value = b.op(Op::Reduce { op: ReduceOp::Sum, axes, keep: false }, &[&all.value])?;
            Ok(Term { value, labels: all.labels[..first].to_vec() })
        }
        Product::Matrix => matrix(b, &x, &y, &roles),
    }
}

/// A product of matrices `[batch…, rows, summed] · [batch…, summed, columns]`. Without batch dims the rows stay several
/// dims, so that a product by one matrix of weights looks like one.
fn matrix(b: &mut Builder, x: &Term, y: &Term, roles: &Roles) -> R<Term> {
    let dims = |t: &Term, labels: &[Label]| -> Vec<Dim> {
        let of = |l: &Label| t.labels.iter().position(|m| m == l).map(|i| t.value.shape[i].clone());
        labels.iter().filter_map(of).collect()
    };
    let (batch, sum) = (dims(x, &roles.batch), b.product(&dims(x, &roles.summed))?);
    let (rows, columns) = (dims(x, &roles.rows), dims(y, &roles.columns));
    let row_dims = if batch.is_empty() && !rows.is_empty() { rows.clone() } else { vec![b.product(&rows)?] };
    let left = aligned(b, x, &[&roles.batch[..], &roles.rows, &roles.summed].concat())?;
    let left = b.reshape(&left, &[&batch[..], &row_dims, std::slice::from_ref(&sum)].concat())?;
    // The second operand as it lies, if it lies so.
    let turned = [&roles.batch[..], &roles.columns, &roles.summed].concat();
    let straight = [&roles.batch[..], &roles.summed, &roles.columns].concat();
    let trans_b = y.labels == turned && y.labels != straight;
    let n = b.product(&columns)?;
    let right = aligned(b, y, if trans_b { &turned } else { &straight })?;
    let last = if trans_b { [n.clone(), sum] } else { [sum, n.clone()] };
    let right = b.reshape(&right, &[&batch[..], &last].concat())?;
    let r: V = matmul::multiply(b, &left, &right, trans_b)?;
    let value = b.reshape(&r, &[batch, rows, columns].concat())?;
    Ok(Term { value, labels: [&roles.batch[..], &roles.rows, &roles.columns].concat() })
}
