//! Measures what 8 bits cost each matrix, and finds the plan that keeps the budget.

use std::collections::BTreeMap;

use bertc_ir::eval::eval_op;
use bertc_ir::{Diag, Graph, Linear, Loc, Op, Tensor, TensorType, ValueId};

use super::budget::{Candidate, Int8Settings};
use super::matrices::{Matrices, quantised_rows};
use super::plan::{Plan, magnitudes, outliers, smooth};
use super::{candidate, transform, weights};
use crate::measure::product::{product, wide};
use crate::measure::{Columns, Nearness, Sample, outputs, sums};

/// Gains of less dB are not worth a factor; several times that is what floats beside integers are worth.
const GAIN: f64 = 0.5;
const OUTLIERS_GAIN: f64 = 2.0;

/// What was measured.
#[derive(Default)]
pub struct Found {
    /// Of each candidate as it is planned, without what came before it.
    pub errors: BTreeMap<ValueId, Nearness>,
    /// The same without factors and outliers.
    pub plain: BTreeMap<ValueId, Nearness>,
    /// The least cosine of an output, in the mean over the samples.
    pub cosine: Option<f64>,
}

/// What the graph gives as it is.
pub struct Reference<'a> {
    samples: &'a [Sample],
    outputs: Vec<Vec<Tensor>>,
    /// The largest magnitudes of each channel of the candidates' left operands.
    tops: BTreeMap<ValueId, Vec<f32>>,
    /// The samples are made up.
    synthetic: bool,
}

type Errors = BTreeMap<ValueId, Columns>;

/// Hears of values, as of [`outputs`].
type Watch<'a> = dyn FnMut(ValueId, &[&Tensor], &Tensor) -> Result<(), Diag> + 'a;

/// The outputs of each sample.
fn measure(g: &Graph, samples: &[Sample], watch: &mut Watch<'_>) -> Result<Vec<Vec<Tensor>>, Diag> {
    let mut fault = Ok(());
    let mut all = Vec::new();
    for s in samples {
        all.push(outputs(g, s, &mut |v, x, y| {
            if fault.is_ok() {
                fault = watch(v, x, y);
            }
        })?);
    }
    fault.map(|()| all)
}

impl<'a> Reference<'a> {
    /// Of the first set of samples that the graph can be evaluated on.
    ///
    /// # Errors
    /// There is none.
    pub fn of(g: &Graph, all: &[Candidate], settings: &'a Int8Settings) -> Result<Reference<'a>, Diag> {
        let mut first = None;
        for samples in &settings.samples {
            let mut tops: BTreeMap<ValueId, Vec<f32>> = BTreeMap::new();
            let measured = measure(g, samples, &mut |v, x, _| {
                if all.iter().any(|c| c.v == v) && candidate(g, v).is_ok() {
                    magnitudes(x[0], tops.entry(g.operands(v)[0]).or_default());
                }
                Ok(())
            });
            match measured {
                Ok(outputs) => return Ok(Reference { samples, outputs, tops, synthetic: settings.synthetic }),
                Err(d) => first = first.or(Some(d)),
            }
        }
        let d = first.unwrap_or_else(|| Diag::new("there are no samples"));
        Err(d.note("while measuring what 8-bit integers cost; --int8-budget 0 measures nothing"))
    }

    /// Plans factors, outliers and what else stays floats.
    ///
    /// # Errors
    /// The budget can't be kept.
    pub fn search(
        &self,
        g: &Graph,
        made: &mut Matrices,
        all: &[Candidate],
        plan: &mut Plan,
        budget: f64,
    ) -> Result<Found, Diag> {
        let tops = &self.tops;
        let proposed = proposed_factors(g, all, plan, tops);
        let ways = [Plan::default(), Plan { factors: proposed, ..Plan::default() }];
        let [plain, smoothed] = self.errors(g, made, all, &ways)?;
        let mut measured = plain.clone();
        let [_, Plan { factors, .. }] = ways;
        let mut gains: BTreeMap<ValueId, f64> = BTreeMap::new();
        for (&v, smoothed) in &smoothed {
            *gains.entry(g.operands(v)[0]).or_default() +=
                self.near(smoothed, true).snr() - self.near(&plain[&v], true).snr() - GAIN;
        }
        let worth = |v: ValueId| gains.get(&g.operands(v)[0]).is_some_and(|&gain| gain >= 0.0);
        plan.factors = factors.into_iter().filter(|f| worth(f.0)).collect();
        measured.extend(smoothed.into_iter().filter(|s| plan.factors.contains_key(&s.0)));
        let mut errors: BTreeMap<ValueId, Nearness> =
            measured.iter().map(|(&v, m)| (v, self.near(m, candidate(g, v).is_ok()))).collect();
        let plain = plain.iter().map(|(&v, m)| (v, m.near)).collect();
        if !self.synthetic {
            let products = measured.iter().filter(|(v, _)| candidate(g, **v).is_ok());
            plan.shifts = products.filter_map(|(&v, m)| Some((v, m.shift()?))).collect();
        }
        let cosine = self.cosine(g, made, plan)?;
        if cosine >= budget {
            return Ok(Found { errors, plain, cosine: Some(cosine) });
        }
        let outlying: BTreeMap<ValueId, Vec<usize>> = all
            .iter()
            .filter(|c| !plan.kept.contains(&c.v))
            .filter_map(|c| {
                let x = g.operands(c.v)[0];
                Some((c.v, outliers(g, c.v, tops.get(&x)?, plan.factors.get(&c.v).map(|f| &f.1[..]))?))
            })
            .collect();
        let way = Plan { outliers: outlying.clone(), ..plan.clone() };
        let [apart] = self.errors(g, made, all, &[way])?;
        let order = self.upgrades(&errors, &apart, &outlying, plan);
        let cosine = self.upgrade(g, made, plan, &order, budget, cosine)?;
        errors.extend(plan.outliers.keys().map(|&v| (v, self.near(&apart[&v], true))));
        Ok(Found { errors, plain, cosine: Some(cosine) })
    }

    /// How near a product is, as it will be: what rounding takes from its columns in the mean is added where that mean is one
    /// of texts.
    fn near(&self, m: &Columns, product: bool) -> Nearness {
        if product && !self.synthetic { m.shifted() } else { m.near }
    }

    /// How far each candidate is off in each way, from its operands in floats; without those that a way leaves as they are
    /// in the first one.
    fn errors<const N: usize>(
        &self,
        g: &Graph,
        made: &mut Matrices,
        all: &[Candidate],
        ways: &[Plan; N],
    ) -> Result<[Errors; N], Diag> {
        let mut errors = [(); N].map(|()| Errors::new());
        measure(g, self.samples, &mut |v, x, y| {
            if !all.iter().any(|c| c.v == v) {
                return Ok(());
            }
            for (i, (way, errors)) in ways.iter().zip(&mut errors).enumerate() {
                let differs = || way.outliers.contains_key(&v) || way.factors.contains_key(&v);
                if i > 0 && !differs() {
                    continue;
                }
                if let Some(q) = alone(g, made, way, v, x)? {
                    errors.entry(v).or_default().add(y, &q);
                }
            }
            Ok(())
        })?;
        Ok(errors)
    }

    /// The least cosine of an output as planned to what it was, in the mean over the samples.
    fn cosine(&self, g: &Graph, made: &mut Matrices, plan: &Plan) -> Result<f64, Diag> {
        let mut part = g.clone();
        transform(&mut part, made, plan, &mut |_, _, _| {})?;
        let mut sums: BTreeMap<usize, f64> = BTreeMap::new();
        for (s, want) in self.samples.iter().zip(&self.outputs) {
            let got = outputs(&part, s, &mut |_, _, _| {})?;
            for (i, (x, y)) in want.iter().zip(&got).enumerate().filter(|(_, (x, _))| x.dtype().is_float()) {
                *sums.entry(i).or_default() += Nearness::of(x, y).cosine();
            }
        }
        let count = self.samples.len().max(1) as f64;
        Ok(sums.into_values().fold(1.0, |m: f64, s| m.min(s / count)))
    }

    /// All that can be upgraded, the noisiest first; what is still noisy with its outliers in floats comes again.
    fn upgrades(
        &self,
        errors: &BTreeMap<ValueId, Nearness>,
        apart: &Errors,
        outlying: &BTreeMap<ValueId, Vec<usize>>,
        plan: &Plan,
    ) -> Vec<Upgrade> {
        let mut order = Vec::new();
        for (&v, error) in errors.iter().filter(|(v, _)| !plan.kept.contains(v)) {
            let better = apart.get(&v).filter(|a| self.near(a, true).snr() >= error.snr() + OUTLIERS_GAIN);
            match (better, outlying.get(&v)) {
                (Some(apart), Some(channels)) => {
                    let shift = if self.synthetic { None } else { apart.shift() };
                    order.push((error.snr(), Upgrade { v, outliers: Some((channels.clone(), shift)) }));
                    order.push((self.near(apart, true).snr(), Upgrade { v, outliers: None }));
                }
                _ => order.push((error.snr(), Upgrade { v, outliers: None })),
            }
        }
        order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.v.cmp(&b.1.v)));
        order.into_iter().map(|o| o.1).collect()
    }

    /// Makes the first of the upgrades, as few as are enough; the cosine then.
    fn upgrade(
        &self,
        g: &Graph,
        made: &mut Matrices,
        plan: &mut Plan,
        order: &[Upgrade],
        budget: f64,
        before: f64,
    ) -> Result<f64, Diag> {
        let with = |n: usize| order[..n].iter().fold(plan.clone(), |p, u| u.of(p));
        let mut cosine_of = |n: usize| self.cosine(g, made, &with(n));
        let (mut bad, mut good, mut cosine) = (0, 0, before);
        while cosine < budget {
            if good == order.len() {
                let d =
                    Diag::new(format!("the least cosine of an output is {cosine:.4} even with every matrix in floats"));
                return Err(d.note(
                    "the budget is for outputs that are finite on the samples; --int8-budget 0 switches it off",
                ));
            }
            bad = good;
            good = (good * 2).clamp(1, order.len());
            cosine = cosine_of(good)?;
        }
        // `good` of them are enough; `bad` of them were not.
        while good > bad + 1 {
            let middle = bad + (good - bad) / 2;
            match cosine_of(middle)? {
                c if c < budget => bad = middle,
                c => (good, cosine) = (middle, c),
            }
        }
        *plan = with(good);
        Ok(cosine)
    }
}

/// Factors of the candidates that aren't kept, the same for all that read a value.
fn proposed_factors(
    g: &Graph,
    all: &[Candidate],
    plan: &Plan,
    tops: &BTreeMap<ValueId, Vec<f32>>,
) -> BTreeMap<ValueId, (ValueId, Vec<f32>)> {
    let mut factors = BTreeMap::new();
    for (&x, top) in tops {
        let read = |c: &&Candidate| !plan.kept.contains(&c.v) && candidate(g, c.v).is_ok() && g.operands(c.v)[0] == x;
        let products: Vec<ValueId> = all.iter().filter(read).map(|c| c.v).collect();
        if let Some(factor) = smooth(g, &products, top) {
            factors.extend(products.into_iter().map(|v| (v, (x, factor.clone()))));
        }
    }
    factors
}

/// A step from integers to floats: a product's outliers, or all of a matrix.
struct Upgrade {
    v: ValueId,
    /// The channels, and what is added to the columns then.
    outliers: Option<(Vec<usize>, Option<Vec<f32>>)>,
}

impl Upgrade {
    /// The plan after it.
    fn of(&self, mut plan: Plan) -> Plan {
        match &self.outliers {
            Some((channels, shift)) => {
                plan.outliers.insert(self.v, channels.clone());
                plan.shifts.extend(shift.iter().map(|s| (self.v, s.clone())));
            }
            None => {
                plan.outliers.remove(&self.v);
                plan.kept.insert(self.v);
            }
        }
        plan
    }
}

/// What a candidate gives with its matrix in integers, without its epilogue; nothing where it can't be.
fn alone(g: &Graph, made: &mut Matrices, plan: &Plan, v: ValueId, x: &[&Tensor]) -> Result<Option<Tensor>, Diag> {
    let mut one = Graph::new("one");
    let input = |one: &mut Graph, t: &Tensor| {
        let shape = t.shape().iter().map(|&d| (d as i64).into()).collect();
        one.add_input("x", TensorType::new(t.dtype(), shape))
    };
    if let Op::SumNorm(s) = *g.op(v) {
        let (mut operands, mut inputs) = (Vec::new(), Vec::new());
        for (i, &t) in x.iter().enumerate() {
            let is_table = i < s.addends_at() && i % 2 == 0;
            operands.push(if is_table { one.add_const(t.clone(), &Loc::Unknown)? } else { input(&mut one, t) });
            inputs.extend((!is_table).then(|| t.clone()));
        }
        let y = one.add(Op::SumNorm(s), &operands, &Loc::Unknown)?;
        one.add_output("y", y);
        transform(&mut one, &mut Matrices::default(), &Plan::default(), &mut |_, _, _| {})?;
        return Ok(outputs(&one, &Sample { dims: Vec::new(), inputs }, &mut |_, _, _| {})?.pop());
    }
    let Ok((linear, axis)) = candidate(g, v) else { return Ok(None) };
    let channels = plan.channels(g, v);
    let matrix = g.operands(v)[1];
    let Ok((b, scales)) = made.side_by_side(g, matrix, axis, channels.as_ref()) else { return Ok(None) };
    let a = input(&mut one, x[0]);
    let rows = quantised_rows(&mut one, a, channels.as_ref().map(|c| &c.factor[..]))?;
    let factor = channels.as_ref().map(|c| Tensor::from_f32(vec![c.factor.len()], &c.factor));
    let operands: Vec<&Tensor> = [x[0]].into_iter().chain(&factor).collect();
    let part = |v: ValueId| eval_op(one.op(v), one.ty(v), &[], &operands).map_err(Diag::new);
    let [q, s, o] = [part(rows[0])?, part(rows[1])?, part(rows[2])?];
    let scales = Tensor::from_f32(vec![scales.len()], &scales);
    let integers = Linear { trans_b: linear.trans_b, int8: true, offset: true, ..Linear::default() };
    let y = sums(&integers, &[&q, &b, &s, &scales, &o]);
    let Some(outliers) = plan.outliers.get(&v) else { return Ok(y) };
    let (Some(y), Some(part)) = (y, weights::channels(g, matrix, axis, outliers)) else { return Ok(None) };
    let k = x[0].shape().last().copied().unwrap_or(0).max(1);
    let floats: Vec<f32> = wide(x[0]).chunks_exact(k).flat_map(|row| outliers.iter().map(|&c| row[c])).collect();
    let both: Vec<f32> = wide(&y).iter().zip(product(&floats, &part, false)).map(|(a, b)| a + b).collect();
    Ok(Some(Tensor::from_f32(y.shape().to_vec(), &both)))
}
