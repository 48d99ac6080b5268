//! Prunes matrix by matrix while samples go through the graph: each on what the pruned ones before it give.

use std::collections::{BTreeMap, BTreeSet};

use bertc_ir::eval::eval_op;
use bertc_ir::{DType, Diag, Graph, Op, Scalar, Tensor, ValueId};

use super::blocks::{Grid, pick};
use super::matrices::{self, Found};
use super::moments::Moments;
use super::report::PruneSettings;
use super::solve::Hessian;
use super::weights;
use crate::measure::constants::{constant, floats};
use crate::measure::{Replaced, Sample, walk};

/// What became of a matrix.
pub struct Fit {
    /// The constant in its place.
    pub tensor: Tensor,
    /// How many of its weights are 0 now.
    pub zeros: usize,
    /// The error of the product's results on the samples, relative to their energy; nothing where they are not finite.
    pub error: Option<f64>,
}

/// What became of all matrices.
#[derive(Default)]
pub struct Fitted {
    /// By their places in the list.
    pub matrices: BTreeMap<usize, Fit>,
    /// Biases of products that take up what their matrices lack in the mean.
    pub biases: BTreeMap<ValueId, Tensor>,
    /// Rows of the inputs that were seen.
    pub rows: usize,
}

/// Prunes those of `found` that `chosen` says, on the first set of samples that the graph can be evaluated on.
///
/// # Errors
/// There is none.
pub fn fit(g: &Graph, found: &[Found], chosen: &[bool], settings: &PruneSettings) -> Result<Fitted, Diag> {
    let mut first = None;
    for samples in &settings.samples {
        match (Fitting { g, found, chosen, settings, of: parts_of(g, found), shared: BTreeMap::new(), seen: [0.0; 2] })
            .run(samples)
        {
            Ok(fitted) => return Ok(fitted),
            Err(d) => first = first.or(Some(d)),
        }
    }
    let d = first.unwrap_or_else(|| Diag::new("there are no samples"));
    Err(d.note("while pruning on the samples; without --calibrate it is done by magnitude"))
}

/// The matrices that each product reads.
fn parts_of(g: &Graph, found: &[Found]) -> BTreeMap<ValueId, Vec<usize>> {
    let at: BTreeMap<ValueId, usize> = found.iter().enumerate().map(|(i, m)| (m.value, i)).collect();
    let products: BTreeSet<ValueId> = found.iter().flat_map(|m| m.products.iter().copied()).collect();
    let of = |v: ValueId| {
        let parts = matrices::parts(g, v).map_or(Vec::new(), |p| p.0);
        parts.iter().filter_map(|p| at.get(p).copied()).collect()
    };
    products.into_iter().map(|v| (v, of(v))).collect()
}

struct Fitting<'a> {
    g: &'a Graph,
    found: &'a [Found],
    chosen: &'a [bool],
    settings: &'a PruneSettings,
    of: BTreeMap<ValueId, Vec<usize>>,
    /// What all products that read a matrix together say of its inputs.
    shared: BTreeMap<usize, Moments>,
    /// Weights of the matrices so far, and those of them that are 0.
    seen: [f64; 2],
}

impl Fitting<'_> {
    fn run(mut self, samples: &[Sample]) -> Result<Fitted, Diag> {
        if (0..self.found.len()).any(|i| self.chosen[i] && self.found[i].products.len() > 1) {
            self.look_at_shared(samples)?;
        }
        let mut done = Fitted::default();
        walk(self.g, samples, &mut |v, x| self.product(v, x, &mut done))?;
        Ok(done)
    }

    /// Of matrices that several products read, with all matrices as they are.
    fn look_at_shared(&mut self, samples: &[Sample]) -> Result<(), Diag> {
        let mut shared: BTreeMap<usize, Moments> = BTreeMap::new();
        walk(self.g, samples, &mut |v, x| {
            for &i in self.of.get(&v).into_iter().flatten() {
                let m = &self.found[i];
                if self.chosen[i] && m.products.len() > 1 {
                    shared.entry(i).or_insert_with(|| Moments::new(m.k)).add(x);
                }
            }
            Ok(Replaced::new())
        })?;
        self.shared = shared;
        Ok(())
    }

    /// What the product `v` is to read instead.
    fn product(&mut self, v: ValueId, x: &[&Tensor], done: &mut Fitted) -> Result<Replaced, Diag> {
        let Some(parts) = self.of.get(&v).cloned() else { return Ok(Replaced::new()) };
        let new: Vec<usize> =
            parts.iter().copied().filter(|i| self.chosen[*i] && !done.matrices.contains_key(i)).collect();
        let bias = self.bias(v, &parts);
        let mut own = None;
        let mut shifts = vec![0f32; parts.iter().map(|&i| self.found[i].n).sum()];
        for i in new {
            let m = &self.found[i];
            let fit;
            if let Some(moments) = self.shared.get(&i) {
                fit = fit_matrix(self.g, m, Hessian::new(moments).as_ref(), self.target(i), self.settings)?.0;
            } else {
                let (moments, h) = own.get_or_insert_with(|| {
                    let mut moments = Moments::new(m.k);
                    moments.add(x);
                    let h = if bias.is_some() { Hessian::new(&moments.centred()) } else { Hessian::new(&moments) };
                    (moments, h)
                });
                done.rows = done.rows.max(moments.rows as usize);
                let w0 = weights(self.g, m);
                let w;
                (fit, w) = fit_matrix(self.g, m, h.as_ref(), self.target(i), self.settings)?;
                let start: usize = parts.iter().take_while(|&&p| p != i).map(|&p| self.found[p].n).sum();
                let mean = moments.mean();
                let rows = w0.chunks_exact(m.k.max(1)).zip(w.chunks_exact(m.k.max(1)));
                for (shift, (old, new)) in shifts[start..].iter_mut().zip(rows) {
                    let lost = old.iter().zip(new).zip(&mean).map(|((a, b), x)| (f64::from(*a) - f64::from(*b)) * x);
                    *shift = lost.sum::<f64>() as f32;
                }
            }
            self.seen[0] += (m.n * m.k) as f64;
            self.seen[1] += fit.zeros as f64;
            done.matrices.insert(i, fit);
        }
        if let Some((at, old)) = bias.filter(|_| shifts.iter().any(|s| *s != 0.0 && s.is_finite())) {
            let new: Vec<f32> = floats(&old).iter().zip(&shifts).map(|(b, s)| b + s).collect();
            let new = Tensor::from_f32(old.shape().to_vec(), &new);
            done.biases.insert(v, new.clone());
            return Ok(vec![(1, self.matrix(v, &parts, done)?), (at, new)]);
        }
        Ok(vec![(1, self.matrix(v, &parts, done)?)])
    }

    /// How many weights of matrix `i` are to be 0, so that the part is met for all up to it.
    fn target(&self, i: usize) -> f64 {
        let m = &self.found[i];
        self.settings.sparsity * (self.seen[0] + (m.n * m.k) as f64) - self.seen[1]
    }

    /// The bias of a product that is its own, where all its matrices are its own too.
    fn bias(&self, v: ValueId, parts: &[usize]) -> Option<(usize, Tensor)> {
        let Op::Linear(l) = *self.g.op(v) else { return None };
        let at = l.bias_at()?;
        let bias = self.g.as_const(self.g.operands(v)[at]).filter(|t| t.dtype() == DType::F32)?;
        let n: usize = parts.iter().map(|&i| self.found[i].n).sum();
        let own = parts.iter().all(|&i| self.found[i].products.len() == 1);
        (own && bias.shape() == [n]).then(|| (at, bias.clone()))
    }

    /// The whole matrix of a product in f32, with the new parts.
    fn matrix(&self, v: ValueId, parts: &[usize], done: &Fitted) -> Result<Tensor, Diag> {
        let one = |i: usize| {
            let old = || constant(self.g, self.found[i].value);
            let t = done.matrices.get(&i).map(|f| &f.tensor).or_else(old);
            t.map(|t| Tensor::from_f32(t.shape().to_vec(), &floats(t))).ok_or_else(|| Diag::new("a matrix was lost"))
        };
        let all: Vec<Tensor> = parts.iter().map(|&i| one(i)).collect::<Result<_, _>>()?;
        let b = self.g.operands(v)[1];
        match self.g.op(b) {
            concat @ Op::Concat { .. } => {
                let x: Vec<&Tensor> = all.iter().collect();
                eval_op(concat, self.g.ty(b), &[], &x).map_err(Diag::new)
            }
            _ => all.into_iter().next().ok_or_else(|| Diag::new("a product has no matrix")),
        }
    }
}

/// A matrix with blocks of 0, and its weights `[n, k]`; by magnitude where there is no `h`.
fn fit_matrix(
    g: &Graph,
    m: &Found,
    h: Option<&Hessian>,
    target: f64,
    settings: &PruneSettings,
) -> Result<(Fit, Vec<f32>), Diag> {
    let w0 = weights(g, m);
    let grid = Grid::new(m.n, m.k, settings.block);
    let scores = h.and_then(|h| h.saliencies(&w0, &grid)).unwrap_or_else(|| grid.squares(&w0));
    let mask = pick(&[grid], &[scores], target, &[f64::INFINITY]).concat();
    let mut free = vec![true; w0.len()];
    grid.each(&mask, |outputs, inputs| outputs.for_each(|n| free[n * m.k..][inputs.clone()].fill(false)));
    let w = match h {
        Some(h) => h.solve(&w0, &free),
        None => w0.iter().zip(&free).map(|(&x, &f)| if f { x } else { 0.0 }).collect(),
    };
    let tensor = constant(g, m.value).and_then(|old| stored(old, m.axis, &w, m.k));
    let tensor = tensor.ok_or_else(|| Diag::new("a matrix was lost"))?;
    let error = h.map(|h| h.error(&w, &w0));
    Ok((Fit { tensor, zeros: grid.elements(&mask), error }, w))
}

/// Weights `[n, k]` as a constant like the old one.
fn stored(old: &Tensor, axis: usize, w: &[f32], k: usize) -> Option<Tensor> {
    let w = if axis == 0 { w.to_vec() } else { super::transposed(w, k) };
    if old.dtype() == DType::F32 {
        let bytes: Vec<u8> = w.iter().flat_map(|x| x.to_le_bytes()).collect();
        return Tensor::new(DType::F32, old.shape().to_vec(), bytes.into());
    }
    let elements = w.iter().map(|&x| Scalar::Float(f64::from(x)));
    Some(Tensor::from_scalars(old.dtype(), old.shape().to_vec(), elements))
}
