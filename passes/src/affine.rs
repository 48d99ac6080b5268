//! Integer tensors whose elements are affine in their indices: `value[i0, i1, …] = base + Σ coef[d]·i[d]`, with
//! polynomials over the symbolic dims as coefficients.
//!
//! Exporters build attention masks by such index arithmetic (ranges, products, sums and a gather on the flattened
//! mask); seen as affine functions, the comparisons are decided and the gathers are slices.
//!
//! Invariants: equality holds in the integers, not only modulo the type's width ([`Affine::checked`] proves the
//! bounds); the coefficient of a dim of size 1 is zero.

use bertc_ir::{DType, Dim, Symbols, Tensor};

use crate::build::is_one;

/// An affine function of a tensor's indices.
#[derive(Clone, PartialEq, Debug)]
pub struct Affine {
    /// Value at index zero.
    pub base: Dim,
    /// Difference of neighbours along each dim.
    pub coef: Vec<Dim>,
}

/// Bounds of a value's elements, both inclusive. They hold vacuously in an empty tensor.
pub type Range = (Dim, Dim);

/// Constants with more elements are not looked at.
const MAX_ELEMENTS: usize = 1 << 16;

fn zero() -> Dim {
    Dim::constant(0)
}

fn is_zero(d: &Dim) -> bool {
    d.terms() == 0
}

impl Affine {
    /// The same value `base` everywhere.
    pub fn uniform(base: Dim, rank: usize) -> Self {
        Affine { base, coef: vec![zero(); rank] }
    }

    /// The index along `axis`.
    pub fn index(axis: usize, shape: &[Dim]) -> Self {
        let mut a = Affine::uniform(zero(), shape.len());
        a.coef[axis] = Dim::constant(1);
        a.normal(shape)
    }

    /// Dims that the value depends on, ascending.
    pub fn dims(&self) -> Vec<usize> {
        (0..self.coef.len()).filter(|&d| !is_zero(&self.coef[d])).collect()
    }

    /// With zero coefficients where the index can only be 0.
    fn normal(mut self, shape: &[Dim]) -> Self {
        for (c, d) in self.coef.iter_mut().zip(shape) {
            if is_one(d) {
                *c = zero();
            }
        }
        self
    }

    /// Bounds over a shape; `None` where a coefficient's sign is unknown.
    pub fn range(&self, shape: &[Dim], symbols: &Symbols) -> Option<Range> {
        let (mut lo, mut hi) = (self.base.clone(), self.base.clone());
        for (c, n) in self.coef.iter().zip(shape) {
            if is_zero(c) {
                continue;
            }
            let last = n.sub(&1.into())?.mul(c)?;
            let (min, max) = c.bounds(symbols);
            if min >= 0 {
                hi = hi.add(&last)?;
            } else if max <= 0 {
                lo = lo.add(&last)?;
            } else {
                return None;
            }
        }
        Some((lo, hi))
    }

    /// Itself if all values fit the type, so that no operation that made it wrapped.
    pub fn checked(self, dtype: DType, shape: &[Dim], symbols: &Symbols) -> Option<Affine> {
        let a = self.normal(shape);
        fits(&a.range(shape, symbols)?, dtype, symbols).then_some(a)
    }

    /// A constant that is an arithmetic progression along each dim.
    pub fn of_constant(t: &Tensor) -> Option<Affine> {
        if !t.dtype().is_int() || t.is_empty() || t.len() > MAX_ELEMENTS {
            return None;
        }
        let at = |i: usize| i64::try_from(t.get(i).to_int()).ok();
        let base = at(0)?;
        let shape = t.shape();
        let mut strides = vec![1usize; shape.len()];
        for d in (1..shape.len()).rev() {
            strides[d - 1] = strides[d] * shape[d];
        }
        let mut coef = vec![0i64; shape.len()];
        for d in 0..shape.len() {
            if shape[d] > 1 {
                coef[d] = at(strides[d])?.checked_sub(base)?;
            }
        }
        for (i, e) in t.iter().enumerate() {
            let mut want = i128::from(base);
            for d in 0..shape.len() {
                want += i128::from(coef[d]) * ((i / strides[d]) % shape[d]) as i128;
            }
            if e.to_int() != want {
                return None;
            }
        }
        Some(Affine { base: base.into(), coef: coef.into_iter().map(Dim::from).collect() })
    }

    /// Under numpy broadcasting to `rank` dims.
    pub fn broadcast(&self, rank: usize) -> Affine {
        let mut coef = vec![zero(); rank - self.coef.len()];
        coef.extend_from_slice(&self.coef);
        Affine { base: self.base.clone(), coef }
    }

    /// Sum, after broadcasting.
    pub fn add(&self, o: &Affine, rank: usize) -> Option<Affine> {
        let (a, b) = (self.broadcast(rank), o.broadcast(rank));
        let coef = a.coef.iter().zip(&b.coef).map(|(x, y)| x.add(y)).collect::<Option<_>>()?;
        Some(Affine { base: a.base.add(&b.base)?, coef })
    }

    /// Product with a number.
    pub fn scale(&self, k: &Dim) -> Option<Affine> {
        let coef = self.coef.iter().map(|c| c.mul(k)).collect::<Option<_>>()?;
        Some(Affine { base: self.base.mul(k)?, coef })
    }

    /// Product, after broadcasting, if one side is uniform.
    pub fn mul(&self, o: &Affine, rank: usize) -> Option<Affine> {
        if o.dims().is_empty() {
            self.broadcast(rank).scale(&o.base)
        } else if self.dims().is_empty() {
            o.broadcast(rank).scale(&self.base)
        } else {
            None
        }
    }

    /// With dims permuted as by `transpose`.
    pub fn transpose(&self, perm: &[usize]) -> Affine {
        Affine { base: self.base.clone(), coef: perm.iter().map(|&p| self.coef[p].clone()).collect() }
    }

    /// Of a slice along `axis`.
    pub fn slice(&self, axis: usize, start: &Dim, step: i64) -> Option<Affine> {
        let mut a = self.clone();
        a.base = a.base.add(&self.coef[axis].mul(start)?)?;
        a.coef[axis] = self.coef[axis].mul(&step.into())?;
        Some(a)
    }

    /// Of a reshape from one shape to another.
    pub fn reshape(&self, from: &[Dim], to: &[Dim]) -> Option<Affine> {
        let mut r = Affine::uniform(self.base.clone(), to.len());
        for (src, dst) in groups(from, to)? {
            // Within a group the elements must form one progression in row-major order.
            let Some(&last) = src.last() else { continue };
            let step = self.coef[last].clone();
            let mut stride = step.clone();
            for &s in src.iter().rev() {
                if self.coef[s] != stride {
                    return None;
                }
                stride = stride.mul(&from[s])?;
            }
            let mut stride = step;
            for &d in dst.iter().rev() {
                r.coef[d] = stride.clone();
                stride = stride.mul(&to[d])?;
            }
        }
        Some(r)
    }

    /// The function of an index tuple's element `j` along the last dim, which is dropped.
    pub fn at_last(&self, j: usize) -> Option<Affine> {
        let (last, rest) = self.coef.split_last()?;
        let base = self.base.add(&last.mul(&i64::try_from(j).ok()?.into())?)?;
        Some(Affine { base, coef: rest.to_vec() })
    }
}

/// Whether all values of a range fit an integer type.
pub fn fits(r: &Range, dtype: DType, symbols: &Symbols) -> bool {
    let bits = 8 * dtype.size() as u32;
    let (min, max) = if dtype.is_signed_int() {
        (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1)
    } else if dtype == DType::Bool {
        (0, 1)
    } else {
        (0, (1i128 << bits) - 1)
    };
    r.0.bounds(symbols).0 >= min && r.1.bounds(symbols).1 <= max
}

/// The finest pairing of runs of dims with equal products that a reshape keeps together, without dims of size 1.
/// `None` where the polynomials don't tell.
pub fn groups(from: &[Dim], to: &[Dim]) -> Option<Vec<(Vec<usize>, Vec<usize>)>> {
    let keep = |s: &[Dim]| (0..s.len()).filter(|&i| !is_one(&s[i])).collect::<Vec<_>>();
    let (a, b) = (keep(from), keep(to));
    let (mut i, mut j) = (0, 0);
    let mut out = Vec::new();
    while i < a.len() && j < b.len() {
        let (mut src, mut dst) = (vec![a[i]], vec![b[j]]);
        let (mut p, mut q) = (from[a[i]].clone(), to[b[j]].clone());
        (i, j) = (i + 1, j + 1);
        while p != q {
            // Extend the smaller side: the one that divides the other.
            if i < a.len() && !is_zero(&p) && q.div_exact(&p).is_some() {
                p = p.mul(&from[a[i]])?;
                src.push(a[i]);
                i += 1;
            } else if j < b.len() && !is_zero(&q) && p.div_exact(&q).is_some() {
                q = q.mul(&to[b[j]])?;
                dst.push(b[j]);
                j += 1;
            } else if i < a.len() && j < b.len() {
                // Neither divides: both belong to one group.
                p = p.mul(&from[a[i]])?;
                q = q.mul(&to[b[j]])?;
                src.push(a[i]);
                dst.push(b[j]);
                (i, j) = (i + 1, j + 1);
            } else {
                return None;
            }
        }
        out.push((src, dst));
    }
    (i == a.len() && j == b.len()).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dims(s: &mut Symbols) -> (Dim, Dim) {
        (s.intern("batch", 1, 8).into(), s.intern("seq", 1, 64).into())
    }

    #[test]
    fn constants_are_progressions_or_not() {
        let t = Tensor::from_i64(vec![2, 3], &[5, 7, 9, 15, 17, 19]);
        let a = Affine::of_constant(&t).unwrap();
        assert_eq!((a.base, a.coef), (5.into(), vec![10.into(), 2.into()]));
        assert_eq!(Affine::of_constant(&Tensor::from_i64(vec![3], &[0, 1, 3])), None);
        let t = Tensor::from_i64(vec![1], &[7]);
        assert!(Affine::of_constant(&t).unwrap().dims().is_empty());
    }

    #[test]
    fn reshapes_split_and_merge_progressions() {
        let mut s = Symbols::default();
        let (b, q) = dims(&mut s);
        let n = b.mul(&q).unwrap();
        let flat = Affine { base: 3.into(), coef: vec![2.into()] };
        let from = [n.clone()];
        let to = [b.clone(), 1.into(), q.clone()];
        let split = flat.reshape(&from, &to).unwrap();
        assert_eq!(split.coef, [q.mul(&2.into()).unwrap(), 0.into(), 2.into()]);
        assert_eq!(split.reshape(&to, &from), Some(flat));
        assert_eq!(Affine::index(0, &to).reshape(&to, &from), None);
        let (lo, hi) = split.range(&to, &s).unwrap();
        assert_eq!((lo, hi), (3.into(), n.mul(&2.into()).unwrap().add(&1.into()).unwrap()));
    }

    #[test]
    fn groups_pair_equal_products() {
        let mut s = Symbols::default();
        let (b, q) = dims(&mut s);
        let n = b.mul(&q).unwrap();
        let g = groups(&[b.clone(), q.clone(), 64.into()], &[n, 4.into(), 16.into()]).unwrap();
        assert_eq!(g, [(vec![0, 1], vec![0]), (vec![2], vec![1, 2])]);
        let g = groups(&[b.clone(), q.clone()], &[q, b]).unwrap();
        assert_eq!(g, [(vec![0, 1], vec![0, 1])]);
    }

    #[test]
    fn a_value_out_of_the_types_range_is_refused() {
        let s = Symbols::default();
        let a = Affine { base: 0.into(), coef: vec![(1 << 30).into()] };
        assert!(a.clone().checked(DType::I64, &[4.into()], &s).is_some());
        assert!(a.checked(DType::I32, &[4.into()], &s).is_none());
    }
}
