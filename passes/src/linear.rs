//! A `linear` taken apart, for the passes that change it.

use bertc_ir::{DType, Diag, Graph, Linear, Loc, Op, UnaryOp, ValueId};

/// The operands and attributes of a `linear`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Parts {
    pub a: ValueId,
    pub b: ValueId,
    pub trans_b: bool,
    /// Of a product of integers.
    pub scaling: Option<Scaling>,
    pub bias: Option<ValueId>,
    pub act: Option<UnaryOp>,
    pub residual: Option<ValueId>,
    /// eps, gamma, beta.
    pub norm: Option<(f32, ValueId, ValueId)>,
}

/// What makes floats of the sums of a product of integers.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Scaling {
    /// Of the left operand: of all or of each row.
    pub scale: ValueId,
    /// Of the columns.
    pub columns: ValueId,
    pub zero: Option<ValueId>,
}

impl Parts {
    /// Those of `v`, if it is a `linear` of all rows, in f32.
    pub fn of(g: &Graph, v: ValueId) -> Option<Parts> {
        Parts::of_any(g, v).filter(|p| p.scaling.is_none())
    }

    /// Those of `v`, if it is a `linear` of all rows, in f32 or of integers with one scale.
    pub fn of_any(g: &Graph, v: ValueId) -> Option<Parts> {
        let Op::Linear(l @ Linear { lengths: false, bf16: false, offset: false, .. }) = *g.op(v) else { return None };
        let o = g.operands(v);
        let scaling = l.scales_at().map(|at| {
            let zero = l.zero_at().map(|at| o[at]);
            Scaling { scale: o[at], columns: o[at + 1], zero }
        });
        let integers = |v: ValueId| l.int8 && (o[..2].contains(&v) || l.zero_at().is_some_and(|at| o[at] == v));
        if o.iter().any(|&o| g.ty(o).dtype != DType::F32 && !integers(o))
            || scaling.is_some_and(|s| g.ty(s.scale).rank() != 0)
        {
            return None;
        }
        let norm = l.norm.zip(l.gamma_at()).map(|(eps, at)| (eps, o[at], o[at + 1]));
        let (bias, residual) = (l.bias_at().map(|at| o[at]), l.residual_at().map(|at| o[at]));
        Some(Parts { a: o[0], b: o[1], trans_b: l.trans_b, scaling, bias, act: l.act, residual, norm })
    }

    /// Whether it is a product and a bias, nothing more.
    pub fn is_plain(&self) -> bool {
        self.act.is_none() && self.residual.is_none() && self.norm.is_none()
    }

    /// The op.
    ///
    /// # Errors
    /// Operands that don't fit.
    pub fn build(&self, g: &mut Graph, loc: &Loc) -> Result<ValueId, Diag> {
        let mut operands = vec![self.a, self.b];
        if let Some(s) = self.scaling {
            operands.extend([s.scale, s.columns]);
            operands.extend(s.zero);
        }
        operands.extend(self.bias);
        operands.extend(self.residual);
        operands.extend(self.norm.iter().flat_map(|&(_, gamma, beta)| [gamma, beta]));
        let op = Op::Linear(Linear {
            trans_b: self.trans_b,
            int8: self.scaling.is_some(),
            zero: self.scaling.is_some_and(|s| s.zero.is_some()),
            bias: self.bias.is_some(),
            act: self.act,
            residual: self.residual.is_some(),
            norm: self.norm.map(|n| n.0),
            ..Linear::default()
        });
        g.add(op, &operands, loc)
    }
}
