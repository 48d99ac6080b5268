//! A `linear` taken apart, for the passes that change it.

use bertc_ir::{DType, Diag, Graph, Linear, Loc, Op, UnaryOp, ValueId};

/// The operands and attributes of a `linear`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Parts {
    pub a: ValueId,
    pub b: ValueId,
    pub trans_b: bool,
    pub bias: Option<ValueId>,
    pub act: Option<UnaryOp>,
    pub residual: Option<ValueId>,
    /// eps, gamma, beta.
    pub norm: Option<(f32, ValueId, ValueId)>,
}

impl Parts {
    /// Those of `v`, if it is a `linear` of all rows, in f32.
    pub fn of(g: &Graph, v: ValueId) -> Option<Parts> {
        let Op::Linear(l @ Linear { lengths: false, bf16: false, .. }) = *g.op(v) else { return None };
        let o = g.operands(v);
        if o.iter().any(|&o| g.ty(o).dtype != DType::F32) {
            return None;
        }
        let norm = l.norm.zip(l.gamma_at()).map(|(eps, at)| (eps, o[at], o[at + 1]));
        let (bias, residual) = (l.bias_at().map(|at| o[at]), l.residual_at().map(|at| o[at]));
        Some(Parts { a: o[0], b: o[1], trans_b: l.trans_b, bias, act: l.act, residual, norm })
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
        operands.extend(self.bias);
        operands.extend(self.residual);
        operands.extend(self.norm.iter().flat_map(|&(_, gamma, beta)| [gamma, beta]));
        let op = Op::Linear(Linear {
            trans_b: self.trans_b,
            bias: self.bias.is_some(),
            act: self.act,
            residual: self.residual.is_some(),
            norm: self.norm.map(|n| n.0),
            ..Linear::default()
        });
        g.add(op, &operands, loc)
    }
}
