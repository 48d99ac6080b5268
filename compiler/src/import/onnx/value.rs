//! What the importer knows about an ONNX value: a node of the graph, or something that needs none yet.
//!
//! Shape arithmetic never reaches the graph: integers are carried as polynomials over the dims ([`Kind::Sym`]), ranges
//! and index grids as affine functions of their own indices ([`Kind::Affine`]). Such a value becomes nodes only when
//! real tensor compute asks for it.

use std::cell::Cell;
use std::rc::Rc;

use bertc_ir::{DType, Dim, Scalar, Symbols, Tensor, ValueId};

use super::small::Small;

/// Symbolic tensors have at most this many elements; larger ones are ordinary tensors.
pub const SYM_LIMIT: usize = 1024;

/// Why the lowering of a node stopped.
#[derive(Debug)]
pub enum Stop {
    /// It can't be imported, for this reason.
    Fail(String),
    /// It can be imported only where the two dims are equal; the first one is a symbol. The import starts again with
    /// the second one in its place.
    Equate(Dim, Dim),
}

impl From<String> for Stop {
    fn from(s: String) -> Self {
        Stop::Fail(s)
    }
}

impl From<&str> for Stop {
    fn from(s: &str) -> Self {
        Stop::Fail(s.to_string())
    }
}

/// Result of lowering.
pub type R<T> = Result<T, Stop>;

/// `base + Σ coef[i] · index[i]` over the indices of the value's dims. The coefficient of a dim of 1 is 0.
#[derive(Clone, PartialEq, Debug)]
pub struct Affine {
    /// The first element.
    pub base: Dim,
    /// One coefficient a dim.
    pub coef: Vec<Dim>,
}

/// How a value is known.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A node.
    Graph(ValueId),
    /// A constant.
    Const(Tensor),
    /// The same element everywhere.
    Splat(Scalar),
    /// Each element a polynomial (booleans: 0 or 1); the shape is constant and small.
    Sym(Vec<Dim>),
    /// An affine function of the indices.
    Affine(Affine),
    /// Along the last dim, one affine function of the other indices after the other.
    Tuple(Vec<Affine>),
}

/// A value with its type.
#[derive(Debug)]
pub struct Val {
    /// Element type.
    pub dtype: DType,
    /// Dims.
    pub shape: Vec<Dim>,
    /// What is known.
    pub kind: Kind,
    /// The node, once there is one.
    pub node: Cell<Option<ValueId>>,
    /// The ONNX type, where the IR doesn't have it.
    pub small: Cell<Option<Small>>,
}

/// A shared value.
pub type V = Rc<Val>;

impl Val {
    /// A value.
    pub fn new(dtype: DType, shape: Vec<Dim>, kind: Kind) -> V {
        Rc::new(Val { dtype, shape, kind, node: Cell::new(None), small: Cell::new(None) })
    }

    /// A constant.
    pub fn constant(t: Tensor) -> V {
        let shape = t.shape().iter().map(|&d| Dim::constant(d as i64)).collect();
        Val::new(t.dtype(), shape, Kind::Const(t))
    }

    /// A symbolic tensor; collapses to a constant if every element is one.
    pub fn sym(dtype: DType, shape: Vec<Dim>, elems: Vec<Dim>) -> V {
        let dims: Option<Vec<usize>> = shape.iter().map(|d| usize::try_from(d.as_const()?).ok()).collect();
        let consts: Option<Vec<i64>> = elems.iter().map(Dim::as_const).collect();
        match (dims, consts) {
            (Some(d), Some(c)) if d.iter().product::<usize>() == c.len() => {
                Val::constant(Tensor::from_scalars(dtype, d, c.into_iter().map(|v| Scalar::Int(v.into()))))
            }
            _ => Val::new(dtype, shape, Kind::Sym(elems)),
        }
    }

    /// A value that is `s` everywhere; a constant where it is small and of constant shape.
    pub fn splat(dtype: DType, shape: Vec<Dim>, s: Scalar) -> V {
        if let Some(dims) = const_dims(&shape)
            && let Some(n) = dims.iter().try_fold(1usize, |a, &d| a.checked_mul(d))
            && n <= SYM_LIMIT
        {
            return Val::constant(Tensor::from_scalars(dtype, dims, std::iter::repeat_n(s, n)));
        }
        Val::new(dtype, shape, Kind::Splat(s))
    }

    /// An affine value; coefficients of dims of 1 are dropped.
    pub fn affine_of(dtype: DType, shape: Vec<Dim>, mut a: Affine) -> V {
        for (c, d) in a.coef.iter_mut().zip(&shape) {
            if d.as_const() == Some(1) {
                *c = Dim::constant(0);
            }
        }
        if shape.iter().all(|d| d.as_const() == Some(1)) {
            return Val::sym(dtype, shape, vec![a.base]);
        }
        Val::new(dtype, shape, Kind::Affine(a))
    }

    /// Number of dims.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// The constant, if it is one.
    pub fn as_const(&self) -> Option<&Tensor> {
        match &self.kind {
            Kind::Const(t) => Some(t),
            _ => None,
        }
    }

    /// The element that is everywhere, if that is known.
    pub fn as_splat(&self) -> Option<Scalar> {
        match &self.kind {
            Kind::Splat(s) => Some(*s),
            Kind::Const(t) if !t.is_empty() && t.len() <= SYM_LIMIT => {
                let s = t.get(0);
                t.iter().all(|x| x == s).then_some(s)
            }
            _ => None,
        }
    }

    /// The elements as polynomials, where this is a small tensor of known integers or booleans.
    pub fn as_sym(&self) -> Option<Vec<Dim>> {
        if !matches!(self.dtype, DType::I64 | DType::I32 | DType::Bool) {
            return None;
        }
        // A tensor without elements may have any dims beside the 0, and who walks over elements walks over dims.
        let dims = const_dims(&self.shape)?;
        dims.iter().try_fold(1usize, |a, &d| a.checked_mul(d.max(1))).filter(|&n| n <= SYM_LIMIT)?;
        match &self.kind {
            Kind::Sym(s) => Some(s.clone()),
            Kind::Const(t) if t.len() <= SYM_LIMIT => Some(t.to_i64_vec().into_iter().map(Dim::constant).collect()),
            _ => None,
        }
    }

    /// The elements, where all are constants.
    pub fn as_ints(&self) -> Option<Vec<i64>> {
        self.as_sym()?.iter().map(Dim::as_const).collect()
    }

    /// The value as an affine function of its indices, where it is one.
    pub fn as_affine(&self) -> Option<Affine> {
        if !matches!(self.dtype, DType::I64 | DType::I32) {
            return None;
        }
        let uniform = |base: Dim| Affine { base, coef: vec![Dim::constant(0); self.rank()] };
        match &self.kind {
            Kind::Affine(a) => Some(a.clone()),
            Kind::Sym(s) if s.len() == 1 => Some(uniform(s[0].clone())),
            Kind::Splat(Scalar::Int(i)) => Some(uniform(Dim::constant(i64::try_from(*i).ok()?))),
            // A table of positions: 0, 1, 2, … along one axis.
            Kind::Const(t) if !t.is_empty() && t.len() <= 1 << 20 => {
                let long: Vec<usize> = (0..self.rank()).filter(|&i| t.shape()[i] != 1).collect();
                let base = t.get(0).to_int();
                let mut a = uniform(Dim::constant(i64::try_from(base).ok()?));
                if t.len() > 1 {
                    let step = t.get(1).to_int() - base;
                    let regular = (long.len() == 1 || step == 0)
                        && t.iter().enumerate().all(|(i, s)| s.to_int() == base + step * i as i128);
                    if !regular {
                        return None;
                    }
                    if step != 0 {
                        a.coef[long[0]] = Dim::constant(i64::try_from(step).ok()?);
                    }
                }
                Some(a)
            }
            _ => None,
        }
    }
}

impl Affine {
    /// Smallest and largest value over all indices in `shape`, as polynomials.
    pub fn bounds(&self, shape: &[Dim], symbols: &Symbols) -> Option<(Dim, Dim)> {
        let zero = Dim::constant(0);
        let (mut lo, mut hi) = (self.base.clone(), self.base.clone());
        for (c, d) in self.coef.iter().zip(shape) {
            let span = c.mul(&d.sub(&Dim::constant(1))?)?;
            if c.proven_ge(&zero, symbols) {
                hi = hi.add(&span)?;
            } else if zero.proven_ge(c, symbols) {
                lo = lo.add(&span)?;
            } else {
                return None;
            }
        }
        Some((lo, hi))
    }

    /// Whether all elements are equal.
    pub fn is_uniform(&self) -> bool {
        self.coef.iter().all(|c| c.as_const() == Some(0))
    }

    /// Whether this counts 0, 1, 2, … in row-major order over `shape`.
    pub fn is_row_major(&self, shape: &[Dim]) -> bool {
        let mut stride = Dim::constant(1);
        for (c, d) in self.coef.iter().zip(shape).rev() {
            if d.as_const() == Some(1) {
                continue;
            }
            let Some(next) = stride.mul(d) else { return false };
            if *c != stride {
                return false;
            }
            stride = next;
        }
        self.base.as_const() == Some(0)
    }

    /// With coefficients for a value of `rank` dims after broadcasting.
    pub fn padded(&self, rank: usize) -> Affine {
        let mut coef = vec![Dim::constant(0); rank.saturating_sub(self.coef.len())];
        coef.extend(self.coef.iter().cloned());
        Affine { base: self.base.clone(), coef }
    }

    /// `f` of both bases and of each pair of coefficients; both have one rank.
    pub fn zip(&self, o: &Affine, f: impl Fn(&Dim, &Dim) -> Option<Dim>) -> Option<Affine> {
        let coef = self.coef.iter().zip(&o.coef).map(|(a, b)| f(a, b)).collect::<Option<_>>()?;
        Some(Affine { base: f(&self.base, &o.base)?, coef })
    }

    /// Times `k`.
    pub fn scaled(&self, k: &Dim) -> Option<Affine> {
        let coef = self.coef.iter().map(|c| c.mul(k)).collect::<Option<_>>()?;
        Some(Affine { base: self.base.mul(k)?, coef })
    }
}

/// The shape as numbers, if it is constant.
pub fn const_dims(shape: &[Dim]) -> Option<Vec<usize>> {
    shape.iter().map(|d| usize::try_from(d.as_const()?).ok()).collect()
}
