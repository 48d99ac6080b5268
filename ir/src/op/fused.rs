//! The fused ops: what fusion makes of the small ops, one kernel of the backend each. They compute in f32, with two
//! exceptions: products of bf16 elements may count denormals as 0, and probabilities that meet bf16 values may be rounded
//! to bf16.

use super::UnaryOp;

/// The activations that a [`Linear`] can apply.
pub const ACTIVATIONS: [UnaryOp; 5] =
    [UnaryOp::Gelu, UnaryOp::GeluTanh, UnaryOp::Relu, UnaryOp::Tanh, UnaryOp::Sigmoid];

/// act(a·b + bias) + residual, optionally layer-normalised over the last axis.
///
/// Operands in order: a `[…, M, K]` and b `[K, N]` (with `trans_b` `[N, K]`), both f32 or both bf16; then those that the
/// flags name: bias `[N]`; residual, of the result's shape `[…, M, N]` (f32 or bf16); gamma `[N]` and beta `[N]`;
/// lengths `[…]` (i64).
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Linear {
    /// The matrix is stored transposed.
    pub trans_b: bool,
    /// There is a bias.
    pub bias: bool,
    /// Applied after the bias and before the residual: one of [`ACTIVATIONS`].
    pub act: Option<UnaryOp>,
    /// There is a residual.
    pub residual: bool,
    /// The epsilon of the layer norm, if there is one.
    pub norm: Option<f32>,
    /// Row m of a matrix is 0, whatever its operands, where m is not below the matrix's length.
    pub lengths: bool,
    /// The result is bf16 rather than f32, rounded once (`to = bf16` in text).
    pub bf16: bool,
}

impl Linear {
    /// Position of the bias among the operands.
    pub fn bias_at(&self) -> Option<usize> {
        self.bias.then_some(2)
    }

    /// Position of the residual.
    pub fn residual_at(&self) -> Option<usize> {
        self.residual.then_some(2 + usize::from(self.bias))
    }

    /// Position of gamma; beta follows.
    pub fn gamma_at(&self) -> Option<usize> {
        self.norm.map(|_| 2 + usize::from(self.bias) + usize::from(self.residual))
    }

    /// Position of the lengths.
    pub fn lengths_at(&self) -> Option<usize> {
        self.lengths.then(|| self.arity() - 1)
    }

    /// Number of operands.
    pub fn arity(&self) -> usize {
        let flags = [self.bias, self.residual, self.lengths].map(usize::from);
        2 + flags.iter().sum::<usize>() + 2 * usize::from(self.norm.is_some())
    }
}

/// softmax(scale·q·kᵀ + mask)·v for each head; the heads lie side by side in the last axis.
///
/// Operands: q `[B, S, H·D]`, k `[B, T, H·D]`, v `[B, T, H·E]`, all f32 or all bf16, and with `mask` an additive mask of
/// rank 4 that broadcasts to `[B, H, S, T]`, and with `lengths` `[B]` (i64). Result `[B, S, H·E]`.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Attention {
    /// Number of heads H.
    pub heads: usize,
    /// Factor of the scores, before the mask.
    pub scale: f32,
    /// There is a mask.
    pub mask: bool,
    /// Probabilities that are NaN, which is the row's scores all being -∞, count as 0. Otherwise such a row is NaN.
    pub nan_to_zero: bool,
    /// Row s of the result is 0, whatever the operands, where s is not below the batch's length.
    pub lengths: bool,
    /// The result is bf16 rather than f32, rounded once (`to = bf16` in text).
    pub bf16: bool,
}

impl Attention {
    /// Position of the mask.
    pub fn mask_at(&self) -> Option<usize> {
        self.mask.then_some(3)
    }

    /// Position of the lengths.
    pub fn lengths_at(&self) -> Option<usize> {
        self.lengths.then(|| self.arity() - 1)
    }

    /// Number of operands.
    pub fn arity(&self) -> usize {
        3 + usize::from(self.mask) + usize::from(self.lengths)
    }
}

/// Σ tables\[ids\] + Σ addends, optionally layer-normalised over the last axis.
///
/// Operands: `tables` pairs of a table `[V, N]` (f32 or bf16) and its ids (i32 or i64), then `addends` tensors, then with
/// `norm` gamma `[N]` and beta `[N]`. A pair is a term of shape ids' × N. The terms broadcast to the result, of rank 1 or more. They
/// are added in this order. Ids are checked at run time as in `gather`.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct SumNorm {
    /// Number of pairs of a table and ids.
    pub tables: usize,
    /// Number of plain terms.
    pub addends: usize,
    /// The epsilon of the layer norm, if there is one.
    pub norm: Option<f32>,
    /// The result is bf16 rather than f32, rounded once (`to = bf16` in text).
    pub bf16: bool,
}

impl SumNorm {
    /// Position of the first plain term.
    pub fn addends_at(&self) -> usize {
        self.tables.saturating_mul(2)
    }

    /// Position of gamma; beta follows.
    pub fn gamma_at(&self) -> Option<usize> {
        self.norm.map(|_| self.addends_at().saturating_add(self.addends))
    }

    /// Number of operands.
    pub fn arity(&self) -> usize {
        self.addends_at().saturating_add(self.addends).saturating_add(2 * usize::from(self.norm.is_some()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_follow_the_flags() {
        let l = Linear { bias: true, residual: true, norm: Some(0.0), ..Linear::default() };
        assert_eq!((l.bias_at(), l.residual_at(), l.gamma_at(), l.arity()), (Some(2), Some(3), Some(4), 6));
        let l = Linear { norm: Some(0.0), ..Linear::default() };
        assert_eq!((l.bias_at(), l.residual_at(), l.gamma_at(), l.arity()), (None, None, Some(2), 4));
        let l = Linear { residual: true, lengths: true, ..l };
        assert_eq!((l.residual_at(), l.gamma_at(), l.lengths_at(), l.arity()), (Some(2), Some(3), Some(5), 6));
        let s = SumNorm { tables: 2, addends: 1, norm: Some(0.0), bf16: false };
        assert_eq!((s.addends_at(), s.gamma_at(), s.arity()), (4, Some(5), 7));
        // A count from a text may be anything.
        assert_eq!(SumNorm { tables: usize::MAX, addends: 1, ..SumNorm::default() }.arity(), usize::MAX);
    }
}
