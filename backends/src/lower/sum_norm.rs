//! Sums of table rows and tensors, layer-normalised if asked for: embeddings and what follows a residual elsewhere.

use bertc_ir::kernel::{Elem, Reg};
use bertc_ir::{DType, Dim};

use super::ctx::Ctx;
use super::gather::checked_index;
use super::nest::{loop_over, rows_per_task, strides};
use super::norm::{Norm, Row};
use super::quantise::RowQuantiser;
use crate::plan::{ALIGN, Arg};

type Tasks = Option<Vec<(Dim, i64)>>;

/// A term of the sum, in rows along the result's last dim.
pub struct Term {
    /// Parameter number of the elements.
    pub ptr: usize,
    /// Parameter number of the ids that choose the row, and the number of rows.
    pub ids: Option<(usize, Dim)>,
    /// Parameter number of what each row of a table is multiplied by.
    pub scales: Option<usize>,
    /// Stride of each leading dim of the result, in ids or else in elements; 0 repeats.
    pub strides: Vec<Dim>,
    /// Whether one element stands for a whole row.
    pub repeated: bool,
}

/// Where a term's row begins, or its value for the whole row.
enum Source {
    Memory(usize, Reg),
    /// Integers of a table, times a number.
    Scaled(usize, Reg, Reg),
    Value(Reg),
}

/// What is computed.
pub struct Spec<'a> {
    /// Lanes of a register.
    pub lanes: u8,
    /// Leading dims of the result.
    pub lead: &'a [Dim],
    /// Its last dim.
    pub n: &'a Dim,
    /// Its element type.
    pub dtype: DType,
}

/// Builds `y = norm(Σ terms)`, or of a `y` that nobody needs what a quantiser makes of it; `None` on overflow, and if sums
/// need memory of their own whose rows have no constant length.
pub fn sum_norm(
    c: &mut Ctx,
    s: &Spec<'_>,
    terms: &[Term],
    norm: Option<&Norm>,
    y: Option<usize>,
    quantiser: Option<&RowQuantiser>,
) -> Tasks {
    let Spec { lanes, lead, n, dtype } = *s;
    c.b.keep_order();
    let total = Dim::product(lead)?;
    // A row is one task's. It loads the terms' elements of a register before it stores their sum, and the norm reads the
    // sums only: a term of the result's own shape may be overwritten.
    let own = strides(lead)?.iter().map(|s| s.mul(n)).collect::<Option<Vec<_>>>()?;
    let dense = |t: &&Term| {
        let walks = |((s, own), d): ((&Dim, &Dim), &Dim)| s == own || d.as_const() == Some(1);
        t.ids.is_none() && !t.repeated && t.strides.iter().zip(&own).zip(lead).all(walks)
    };
    let over = y.filter(|_| dtype == DType::F32);
    c.in_place.extend(over.iter().flat_map(|&y| terms.iter().filter(dense).map(move |t| (y, t.ptr))));
    // The norm reads the sums, which the result may be too narrow for. A term alone is where it is.
    let alone = match (terms, norm, y) {
        ([t], None, None) => t.ids.is_none() && !t.repeated,
        _ => false,
    };
    let scratch = match y {
        None if !alone => true,
        _ => norm.is_some() && dtype != DType::F32,
    };
    let scratch = match scratch {
        true => {
            let bytes = u64::try_from(n.as_const()?).ok()?.checked_mul(4)?.next_multiple_of(ALIGN);
            Some((c.output(Arg::Scratch(bytes), DType::F32), Dim::constant((bytes / 4) as i64)))
        }
        false => None,
    };
    let per_task = rows_per_task(n);
    let t = c.b.task();
    let (lo, hi) = c.chunk(t, &total, per_task);
    let length = c.dim(n);
    loop_over(c, lo, hi, 1, |c, r| {
        let zero = c.b.int(0);
        let coords = if lead.is_empty() { Vec::new() } else { c.coords(r, lead) };
        let mut alone_at = zero;
        let sources: Vec<Source> = terms
            .iter()
            .map(|t| {
                let mut at = zero;
                for (x, s) in coords.iter().zip(&t.strides) {
                    at = c.mul_add(at, *x, s);
                }
                let mut scale = None;
                if let Some((ids, rows)) = &t.ids {
                    let id = checked_index(c, *ids, at, 0, rows);
                    at = c.mul_add(zero, id, n);
                    scale = t.scales.map(|s| c.b.load(s, id, 0, 1));
                }
                alone_at = at;
                if t.repeated {
                    Source::Value(c.b.load(t.ptr, at, 0, 1))
                } else {
                    let base = c.b.address(t.ptr, at, 0);
                    match scale {
                        Some(s) => Source::Scaled(t.ptr, base, s),
                        None => Source::Memory(t.ptr, base),
                    }
                }
            })
            .collect();
        let own = c.mul_add(zero, r, n);
        let result = y.map(|y| (y, own));
        let sums = match (&scratch, result, terms) {
            (Some((ptr, elements)), ..) => {
                let worker = c.b.worker();
                (*ptr, c.mul_add(zero, worker, elements))
            }
            (None, Some(result), _) => result,
            (None, None, terms) => (terms[0].ptr, alone_at),
        };
        let row = Row { lo: zero, hi: length, len: n, lanes };
        let add = |c: &mut Ctx, i: Reg, lanes: u8| {
            let mut sum: Option<Reg> = None;
            for s in &sources {
                let x = match s {
                    Source::Memory(ptr, base) => c.load_from(*ptr, *base, i, lanes),
                    Source::Scaled(ptr, base, scale) => {
                        let x = c.load_from(*ptr, *base, i, lanes);
                        let (x, scale) = (c.b.convert(x, Elem::F32), c.b.splat(*scale, lanes));
                        c.b.mul(x, scale)
                    }
                    Source::Value(v) => c.b.splat(*v, lanes),
                };
                sum = Some(sum.map_or(x, |s| c.b.add(s, x)));
            }
            sum.unwrap_or_else(|| c.imm(Elem::F32, lanes, 0.0))
        };
        if !alone {
            let to = c.b.address(sums.0, sums.1, 0);
            row.each(c, |c, i, lanes| {
                let sum = add(c, i, lanes);
                c.store_from(sums.0, to, i, sum);
            });
        }
        let done = result.unwrap_or(sums);
        if let Some(norm) = norm {
            norm.apply(c, &row, sums, done);
        }
        if let Some(q) = quantiser {
            q.apply(c, &row, done, own, r);
        }
    });
    Some(vec![(total, per_task)])
}
