//! Products of 8-bit integers: how large their sums can be, and why they come out exact.

use std::collections::BTreeMap;

use bertc_backends::emit::bytes::ByteDots;
use bertc_backends::target::{Needs, Target};
use bertc_ir::eval::eval_op;
use bertc_ir::kernel::{Block, DotKind, Inst, Kernel};
use bertc_ir::{DType, Graph, Op, Tensor, ValueId};
use serde_json::{Value, json};

use super::section;
use crate::picture::grouped;

/// What is known of the sums of one product.
pub(super) struct Sums {
    dot: DotKind,
    k: i64,
    columns: i64,
    /// What a byte of the left operand stands for, less the zero point: the least and the greatest.
    left: [i64; 2],
    /// The largest magnitude of a weight; the one that i8 has, if the weights aren't known.
    weight: u64,
    /// The largest magnitude of a sum.
    sum: u64,
    /// For each CPU that there is code for.
    instructions: Vec<(String, ByteDots)>,
}

/// The first kind of dot products of bytes in a block.
fn kind(block: &Block) -> Option<DotKind> {
    block.insts.iter().find_map(|i| match i {
        Inst::Dot { kind, .. } if *kind != DotKind::Bf16 => Some(*kind),
        Inst::For { body, .. } => kind(body),
        Inst::If { then, otherwise, .. } => kind(then).or_else(|| kind(otherwise)),
        _ => None,
    })
}

/// A matrix that is made of constants.
fn matrix(g: &Graph, v: ValueId) -> Option<Tensor> {
    if let Some(t) = g.as_const(v) {
        return Some(t.clone());
    }
    let (Op::Concat { .. } | Op::Reshape { .. } | Op::Transpose { .. }) = g.op(v) else { return None };
    let parts = g.operands(v).iter().map(|&o| matrix(g, o)).collect::<Option<Vec<_>>>()?;
    eval_op(g.op(v), g.ty(v), &[], &parts.iter().collect::<Vec<_>>()).ok()
}

/// The largest magnitudes of a weight and of a column's sum of products by integers from `left`.
/// `w` is i8.
fn largest(w: &Tensor, trans: bool, left: [i64; 2]) -> Option<(u64, u64)> {
    let [rows, columns] = *w.shape() else { return None };
    let mut weight = 0;
    // The least and the greatest sum of each column.
    let mut sums = vec![[0i64; 2]; if trans { rows } else { columns }];
    for (i, &x) in w.bytes().iter().enumerate() {
        let x = i64::from(x.cast_signed());
        let ends = left.map(|end| x.saturating_mul(end));
        let s = &mut sums[if trans { i / columns } else { i % columns }];
        s[0] = s[0].saturating_add(ends[0].min(ends[1]));
        s[1] = s[1].saturating_add(ends[0].max(ends[1]));
        weight = x.unsigned_abs().max(weight);
    }
    Some((weight, sums.into_iter().flatten().map(i64::unsigned_abs).max().unwrap_or(0)))
}

impl Sums {
    /// Those of the value `v`, which `kernel` computes, if it is a product of bytes.
    pub fn of(g: &Graph, v: ValueId, kernel: &Kernel, target: &Target) -> Option<Sums> {
        let (&Op::Linear(l), dot) = (g.op(v), kind(&kernel.body)?) else { return None };
        let (a, b) = (g.operands(v)[0], g.operands(v)[1]);
        let [k, columns] = if l.trans_b { [1, 0] } else { [0, 1] }.map(|i| g.ty(b).shape[i].as_const());
        let of_type = if g.ty(a).dtype == DType::U8 { [0, 255] } else { [-128, 127] };
        let zero =
            l.zero_at().map(|at| matrix(g, g.operands(v)[at]).and_then(|t| i64::try_from(t.single()?.to_int()).ok()));
        let left = match zero {
            None => of_type,
            Some(Some(zero)) => of_type.map(|x: i64| x.saturating_sub(zero)),
            // One that is computed is of the operand's type.
            Some(None) => [-255, 255],
        };
        let (k, columns) = (k?, columns?);
        let any = || {
            let factor = left[0].unsigned_abs().max(left[1].unsigned_abs());
            (128, u64::try_from(k).unwrap_or(0).saturating_mul(128).saturating_mul(factor))
        };
        let (weight, sum) = matrix(g, b)
            .filter(|w| w.dtype() == DType::I8)
            .and_then(|w| largest(&w, l.trans_b, left))
            .unwrap_or_else(any);
        let widest = kernel.regs.iter().map(|r| r.lanes).max().unwrap_or(1);
        let variants = target.variants(Needs { bf16: false, int8: true });
        let one = variants.len() == 1;
        let instruction = |t: &Target| {
            let lanes = if one { widest } else { bertc_backends::emit::x86::lanes(t).unwrap_or(4) };
            Some((t.cpu.clone(), ByteDots::of(t, lanes, dot)?))
        };
        let instructions = variants.iter().filter_map(instruction).collect();
        Some(Sums { dot, k, columns, left, weight, sum, instructions })
    }

    /// Whether all sums fit 32 bits.
    fn fits(&self) -> bool {
        self.sum < 1 << 31
    }

    /// For programs; `docs/inspect.md` describes it.
    pub fn json(&self) -> Value {
        let by = self.instructions.iter();
        let by = by.map(|(cpu, i)| json!({"cpu": cpu, "instruction": i.mnemonic(), "reason": i.reason()}));
        json!({
            "dot": self.dot.name(),
            "k": self.k,
            "columns": self.columns,
            "left": self.left,
            "largest_weight": self.weight,
            "largest_sum": self.sum,
            "fits": self.fits(),
            "code": by.collect::<Vec<_>>(),
        })
    }
}

/// A section on the sums of all steps that have such; each with its number and kernel.
pub(super) fn text<'a>(all: impl Iterator<Item = (usize, &'a str, &'a Sums)>) -> String {
    let mut rows = Vec::new();
    let mut by: BTreeMap<ByteDots, Vec<&str>> = BTreeMap::new();
    let mut fits = true;
    for (i, kernel, s) in all {
        let [low, high] = s.left;
        let cells = [format!("{}x{}", s.k, s.columns), s.dot.name().into(), format!("{low}..{high}")];
        let numbers = [s.weight.to_string(), grouped(s.sum)];
        rows.push([i.to_string(), kernel.to_string()].into_iter().chain(cells).chain(numbers).collect());
        fits &= s.fits();
        for (cpu, instruction) in &s.instructions {
            let cpus = by.entry(*instruction).or_default();
            if !cpus.contains(&cpu.as_str()) {
                cpus.push(cpu);
            }
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let header = ["step", "kernel", "8-bit matrix", "dot", "left operand", "largest weight", "largest sum"];
    let mut text = section("", &header, rows, &[0, 5, 6]);
    text += match fits {
        true => "\nno sum reaches 2^31, whatever the left operands are\n",
        false => "\nsums of 2^31 and more wrap\n",
    };
    for (instruction, cpus) in by {
        text += &format!("{} ({}): {}\n", instruction.mnemonic(), cpus.join(", "), instruction.reason());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use bertc_ir::Scalar;

    #[test]
    fn sums_are_bounded_by_their_columns() {
        let matrix =
            |rows, columns, of: [i128; 6]| Tensor::from_scalars(DType::I8, vec![rows, columns], of.map(Scalar::Int));
        // Columns 1, -2, 3 and 4, 5, -6.
        let w = matrix(3, 2, [1, 4, -2, 5, 3, -6]);
        let t = matrix(2, 3, [1, -2, 3, 4, 5, -6]);
        for (left, want) in [([-128, 127], 9 * 128 + 6 * 127), ([0, 255], 9 * 255), ([-255, 255], 15 * 255)] {
            assert_eq!(largest(&w, false, left), Some((6, want)));
            assert_eq!(largest(&t, true, left), Some((6, want)));
        }
    }
}
