//! Matrices and rows as integers, each made once.

use std::collections::BTreeMap;

use bertc_ir::eval::eval_op;
use bertc_ir::{DType, Diag, Graph, Op, RowQuant, Tensor, TensorType, ValueId};

use super::plan::{Channels, Key};
use super::{ROWS, weights};

/// A matrix of integers and its units, or why there is none.
type Quantised = Result<(Tensor, Vec<f32>), &'static str>;

/// Tells matrices apart: a constant, the axis of its units, and its factors.
type Id = (ValueId, usize, Option<Key>);

/// Constant matrices and their units along an axis, for any graph that has the same constants.
#[derive(Default)]
pub struct Matrices(BTreeMap<Id, Quantised>);

impl Matrices {
    /// The constant `v` as integers, its channels divided by their factors.
    pub fn of(&mut self, g: &Graph, v: ValueId, axis: usize, channels: Option<&Channels>) -> Quantised {
        let make = || match weights::constant(g, v) {
            Some(t) => weights::quantise(t, axis, channels.map(|c| &c.factor[..])),
            None => Err("the matrix is not an f32 constant"),
        };
        self.0.entry((v, axis, channels.map(|c| c.key))).or_insert_with(make).clone()
    }

    /// A constant matrix, or several side by side, as integers.
    pub fn side_by_side(&mut self, g: &Graph, v: ValueId, axis: usize, channels: Option<&Channels>) -> Quantised {
        let Op::Concat { .. } = g.op(v) else { return self.of(g, v, axis, channels) };
        let parts = g.operands(v).iter().map(|&o| self.of(g, o, axis, channels)).collect::<Result<Vec<_>, _>>()?;
        let shape = |t: &TensorType| TensorType::new(DType::I8, t.shape.clone());
        let x: Vec<&Tensor> = parts.iter().map(|p| &p.0).collect();
        let all = eval_op(g.op(v), &shape(g.ty(v)), &[], &x).map_err(|_| "the matrix is too large")?;
        Ok((all, parts.into_iter().flat_map(|p| p.1).collect()))
    }
}

/// The rows of `x` as integers, their units and their offsets; `factor` is of its channels.
pub fn quantised_rows(g: &mut Graph, x: ValueId, factor: Option<&[f32]>) -> Result<[ValueId; 3], Diag> {
    let loc = g.node(x).loc.clone();
    let mut operands = vec![x];
    if let Some(f) = factor {
        operands.push(g.add_const(Tensor::from_f32(vec![f.len()], f), &loc)?);
    }
    let how = RowQuant { factor: factor.is_some(), ..ROWS };
    let scale = g.add(Op::RowScale(how), &operands, &loc)?;
    let offset = g.add(Op::RowOffset(how), &operands, &loc)?;
    let rows = g.add(Op::QuantiseRows(how), &operands, &loc)?;
    Ok([rows, scale, offset])
}

/// The integers of values of one graph.
pub struct Made<'a> {
    matrices: &'a mut Matrices,
    /// Rows, their units and their offsets.
    rows: BTreeMap<(ValueId, Option<Key>), [ValueId; 3]>,
    /// Constant matrices and their units along an axis.
    constants: BTreeMap<Id, (ValueId, Vec<f32>)>,
}

impl<'a> Made<'a> {
    pub fn new(matrices: &'a mut Matrices) -> Made<'a> {
        Made { matrices, rows: BTreeMap::new(), constants: BTreeMap::new() }
    }

    /// [`quantised_rows`], once for each value and factor.
    pub fn rows(&mut self, g: &mut Graph, x: ValueId, channels: Option<&Channels>) -> Result<[ValueId; 3], Diag> {
        let key = (x, channels.map(|c| c.key));
        if let Some(&made) = self.rows.get(&key) {
            return Ok(made);
        }
        let made = quantised_rows(g, x, channels.map(|c| &c.factor[..]))?;
        self.rows.insert(key, made);
        Ok(made)
    }

    /// A constant matrix, or several side by side, as integers, and their units along `axis`.
    pub fn matrix(
        &mut self,
        g: &mut Graph,
        v: ValueId,
        axis: usize,
        channels: Option<&Channels>,
    ) -> Result<Result<(ValueId, Vec<f32>), &'static str>, Diag> {
        let key = (v, axis, channels.map(|c| c.key));
        if let Some(made) = self.constants.get(&key) {
            return Ok(Ok(made.clone()));
        }
        let loc = g.node(v).loc.clone();
        let made = if let Op::Concat { .. } = g.op(v) {
            let (mut parts, mut scales) = (Vec::new(), Vec::new());
            for o in g.operands(v).to_vec() {
                match self.matrix(g, o, axis, channels)? {
                    Ok((part, of_part)) => {
                        parts.push(part);
                        scales.extend(of_part);
                    }
                    Err(reason) => return Ok(Err(reason)),
                }
            }
            (g.add(Op::Concat { axis }, &parts, &loc)?, scales)
        } else {
            match self.matrices.of(g, v, axis, channels) {
                Ok((q, scales)) => (g.add_const(q, &loc)?, scales),
                Err(reason) => return Ok(Err(reason)),
            }
        };
        self.constants.insert(key, made.clone());
        Ok(Ok(made))
    }
}
