//! The fused ops: what fusion makes of the small ops, one kernel of the backend each. They compute in f32, with two
//! exceptions: products of bf16 elements may count denormals as 0, and probabilities that meet bf16 values may be rounded
//! to bf16.

use super::UnaryOp;

/// The activations that a [`Linear`] can apply.
pub const ACTIVATIONS: [UnaryOp; 5] =
    [UnaryOp::Gelu, UnaryOp::GeluTanh, UnaryOp::Relu, UnaryOp::Tanh, UnaryOp::Sigmoid];

/// act(a·b + bias) + residual, optionally layer-normalised over the last axis.
///
/// Operands in order: a `[…, M, K]` and b `[K, N]` (with `trans_b` `[N, K]`), both f32 or both bf16, or with `int8` a of i8
/// or u8 and b of i8; then those that the flags name: with `int8` a's scale, of a row each `[…, M, 1]` or of all `[]`, and
/// b's scales `[N]`, with `zero` a's zero point `[]` (i32), and with `offset` a's offsets `[…, M, 1]`; bias `[N]`; residual, of the result's shape `[…, M, N]`
/// (f32 or bf16); gamma `[N]` and beta `[N]`; lengths `[…]` (i64).
///
/// With `int8` the product is Σ (a - zero)·b, exact in i32, as f32 times b's scale times a's, plus offset·Σ b times b's
/// scale.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Linear {
    /// The matrix is stored transposed.
    pub trans_b: bool,
    /// a and b are integers with scales. K is at most [`MAX_INT8_K`].
    pub int8: bool,
    /// There is a zero point of a; only with `int8`.
    pub zero: bool,
    /// There are offsets of a's rows; only with `int8`.
    pub offset: bool,
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

/// The longest sums of products of 8-bit integers that i32 holds whatever the integers are: 255·128·K < 2³¹.
pub const MAX_INT8_K: i64 = 65_793;

impl Linear {
    /// Position of a's scale; b's follows.
    pub fn scales_at(&self) -> Option<usize> {
        self.int8.then_some(2)
    }

    /// Position of a's zero point.
    pub fn zero_at(&self) -> Option<usize> {
        (self.int8 && self.zero).then_some(4)
    }

    /// Position of a's offsets.
    pub fn offset_at(&self) -> Option<usize> {
        (self.int8 && self.offset).then(|| 4 + usize::from(self.zero))
    }

    /// Number of operands that the product takes.
    fn product(&self) -> usize {
        2 + if self.int8 { 2 + usize::from(self.zero) + usize::from(self.offset) } else { 0 }
    }

    /// Position of the bias among the operands.
    pub fn bias_at(&self) -> Option<usize> {
        self.bias.then(|| self.product())
    }

    /// Position of the residual.
    pub fn residual_at(&self) -> Option<usize> {
        self.residual.then(|| self.product() + usize::from(self.bias))
    }

    /// Position of gamma; beta follows.
    pub fn gamma_at(&self) -> Option<usize> {
        self.norm.map(|_| self.product() + usize::from(self.bias) + usize::from(self.residual))
    }

    /// Position of the lengths.
    pub fn lengths_at(&self) -> Option<usize> {
        self.lengths.then(|| self.arity() - 1)
    }

    /// Number of operands.
    pub fn arity(&self) -> usize {
        let flags = [self.bias, self.residual, self.lengths].map(usize::from);
        self.product() + flags.iter().sum::<usize>() + 2 * usize::from(self.norm.is_some())
    }
}

/// How rows become i8. With x' = x·factor, element by element, q is to nearest even and saturated
/// - x'·(127 / max |x'|): units of max |x'| / 127, from -127 to 127;
/// - with `offset` (x' - min x')·(255 / (max x' - min x')) - 128: units of (max x' - min x') / 255, and 0 stands for
///   min x' + 128 units.
///
/// A row whose unit is 0 is all -128 with `offset` and else 0. Where the unit is NaN or infinite, as of every row that has
/// such an element, the integers may be any: what is computed with that unit is not finite either.
///
/// Operands: x `[…, K]` (f32 or bf16), and with `factor` that, `[K]` (f32).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RowQuant {
    /// All 256 integers are used, whatever the row's range.
    pub offset: bool,
    /// There is a factor.
    pub factor: bool,
}

impl RowQuant {
    /// Position of the factor.
    pub fn factor_at(&self) -> Option<usize> {
        self.factor.then_some(1)
    }

    /// Number of operands.
    pub fn arity(&self) -> usize {
        1 + usize::from(self.factor)
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
/// Operands: `tables` pairs of a table `[V, N]` (f32 or bf16) and its ids (i32 or i64), with `int8` triples of a table of
/// i8, its ids and its rows' scales `[V]` (f32); then `addends` tensors, then with `norm` gamma `[N]` and beta `[N]`. A pair
/// is a term of shape ids' × N. The terms broadcast to the result, of rank 1 or more. They are added in this order. Ids are
/// checked at run time as in `gather`.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct SumNorm {
    /// Number of pairs of a table and ids.
    pub tables: usize,
    /// The tables are i8, and each pair has scales behind it.
    pub int8: bool,
    /// Number of plain terms.
    pub addends: usize,
    /// The epsilon of the layer norm, if there is one.
    pub norm: Option<f32>,
    /// The result is bf16 rather than f32, rounded once (`to = bf16` in text).
    pub bf16: bool,
}

impl SumNorm {
    /// Operands of one table.
    pub fn per_table(&self) -> usize {
        2 + usize::from(self.int8)
    }

    /// Position of the first plain term.
    pub fn addends_at(&self) -> usize {
        self.tables.saturating_mul(self.per_table())
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
        let l = Linear { int8: true, zero: true, ..l };
        assert_eq!((l.scales_at(), l.zero_at(), l.residual_at(), l.arity()), (Some(2), Some(4), Some(5), 9));
        let s = SumNorm { tables: 2, addends: 1, norm: Some(0.0), ..SumNorm::default() };
        assert_eq!((s.addends_at(), s.gamma_at(), s.arity()), (4, Some(5), 7));
        let s = SumNorm { int8: true, ..s };
        assert_eq!((s.addends_at(), s.gamma_at(), s.arity()), (6, Some(7), 9));
        // A count from a text may be anything.
        assert_eq!(SumNorm { tables: usize::MAX, addends: 1, ..SumNorm::default() }.arity(), usize::MAX);
    }
}
