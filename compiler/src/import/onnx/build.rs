//! The graph under construction, and what the lowering of every op shares: materialising values, dims that must agree.

use bertc_ir::{BinaryOp, DType, Dim, Graph, Loc, Op, Scalar, SymbolId, Tensor, ValueId};

use super::value::{Affine, Kind, R, Stop, V, Val, const_dims};

/// Results above this many constant elements are refused rather than computed.
pub const MAX_CONST_ELEMENTS: usize = 64 << 20;

/// The graph under construction.
pub struct Builder {
    /// The graph.
    pub graph: Graph,
    /// Remarks for the user.
    pub notes: Vec<String>,
    /// Location of the node being lowered.
    pub loc: Loc,
}

/// The message for sizes that don't fit 64 bits.
pub fn overflow() -> Stop {
    Stop::from("a size overflows 64 bits")
}

impl Builder {
    /// Text of a dim.
    pub fn show(&self, d: &Dim) -> String {
        d.display(&self.graph.symbols).to_string()
    }

    /// Text of a shape.
    pub fn show_shape(&self, s: &[Dim]) -> String {
        let dims: Vec<String> = s.iter().map(|d| self.show(d)).collect();
        format!("[{}]", dims.join(", "))
    }

    /// Whether `a >= b` for all dims in range.
    pub fn ge(&self, a: &Dim, b: &Dim) -> bool {
        a.proven_ge(b, &self.graph.symbols)
    }

    /// Adds a node.
    pub fn raw(&mut self, op: Op, args: &[ValueId]) -> R<ValueId> {
        let loc = self.loc.clone();
        self.graph.add(op, args, &loc).map_err(|d| Stop::Fail(d.message))
    }

    /// Adds a node on values.
    pub fn op(&mut self, op: Op, args: &[&V]) -> R<V> {
        let ids = args.iter().map(|v| self.get(v)).collect::<R<Vec<_>>>()?;
        let id = self.raw(op, &ids)?;
        Ok(self.wrap(id))
    }

    /// The value of a node.
    pub fn wrap(&self, id: ValueId) -> V {
        let ty = self.graph.ty(id);
        Val::new(ty.dtype, ty.shape.clone(), Kind::Graph(id))
    }

    /// The node of a value, added now if there is none yet.
    pub fn get(&mut self, v: &V) -> R<ValueId> {
        if let Kind::Graph(id) = v.kind {
            return Ok(id);
        }
        if let Some(id) = v.node.get() {
            return Ok(id);
        }
        let id = self.materialise(v)?;
        v.node.set(Some(id));
        Ok(id)
    }

    fn materialise(&mut self, v: &V) -> R<ValueId> {
        let (rank, shape) = (v.rank(), v.shape.clone());
        match &v.kind {
            Kind::Graph(id) => Ok(*id),
            Kind::Const(t) => self.raw(Op::Constant(t.clone()), &[]),
            Kind::Splat(s) => {
                let one = Tensor::from_scalars(v.dtype, vec![1; rank], [*s]);
                let c = self.raw(Op::Constant(one), &[])?;
                self.raw(Op::Broadcast { shape }, &[c])
            }
            Kind::Sym(elems) => {
                let mut parts = Vec::with_capacity(elems.len());
                for e in elems {
                    let d = match e.as_const() {
                        Some(c) => self.raw(Op::Constant(Tensor::from_i64(vec![1], &[c])), &[])?,
                        None => {
                            let d = self.raw(Op::Dim(e.clone()), &[])?;
                            self.raw(Op::Reshape { shape: vec![1.into()] }, &[d])?
                        }
                    };
                    parts.push(d);
                }
                let all = match parts.as_slice() {
                    [] => self.raw(Op::Constant(Tensor::from_i64(vec![0], &[])), &[])?,
                    [one] => *one,
                    _ => self.raw(Op::Concat { axis: 0 }, &parts)?,
                };
                let all = self.raw_reshape(all, shape)?;
                self.raw_cast(all, v.dtype)
            }
            Kind::Affine(a) => {
                let id = self.affine_node(a, &shape)?;
                self.raw_cast(id, v.dtype)
            }
            Kind::Tuple(parts) => {
                let mut inner = shape;
                inner.pop();
                let mut column = inner.clone();
                column.push(1.into());
                let mut columns = Vec::with_capacity(parts.len());
                for p in parts {
                    let id = self.affine_node(p, &inner)?;
                    columns.push(self.raw_reshape(id, column.clone())?);
                }
                let id = self.raw(Op::Concat { axis: inner.len() }, &columns)?;
                self.raw_cast(id, v.dtype)
            }
        }
    }

    /// An i64 node for an affine function over `shape`: a sum of one iota an axis.
    fn affine_node(&mut self, a: &Affine, shape: &[Dim]) -> R<ValueId> {
        let mut sum: Option<ValueId> = None;
        let mut base = a.base.clone();
        for (i, (c, d)) in a.coef.iter().zip(shape).enumerate() {
            if c.as_const() == Some(0) {
                continue;
            }
            let start = std::mem::take(&mut base);
            let iota = self.raw(Op::Iota { len: d.clone(), start, step: c.clone() }, &[])?;
            let mut s = vec![Dim::constant(1); shape.len()];
            s[i] = d.clone();
            let term = self.raw_reshape(iota, s)?;
            sum = Some(match sum {
                Some(x) => self.raw(Op::Binary(BinaryOp::Add), &[x, term])?,
                None => term,
            });
        }
        let all = match sum {
            Some(x) => x,
            None => self.raw(Op::Dim(base), &[])?,
        };
        if self.graph.ty(all).shape == shape {
            return Ok(all);
        }
        self.raw(Op::Broadcast { shape: shape.to_vec() }, &[all])
    }

    fn raw_reshape(&mut self, id: ValueId, shape: Vec<Dim>) -> R<ValueId> {
        if self.graph.ty(id).shape == shape { Ok(id) } else { self.raw(Op::Reshape { shape }, &[id]) }
    }

    fn raw_cast(&mut self, id: ValueId, to: DType) -> R<ValueId> {
        if self.graph.ty(id).dtype == to { Ok(id) } else { self.raw(Op::Cast(to), &[id]) }
    }

    /// A rank-0 constant of `dtype`.
    pub fn scalar(&self, dtype: DType, v: f64) -> V {
        let s = if dtype.is_float() { Scalar::Float(v) } else { Scalar::Int(v as i128) };
        Val::constant(Tensor::scalar(dtype, s))
    }

    /// Product of dims.
    pub fn product(&self, dims: &[Dim]) -> R<Dim> {
        Dim::product(dims).ok_or_else(overflow)
    }

    /// Demands that two dims are equal; the import starts again with one in place of the other if they can be.
    pub fn require_equal(&self, a: &Dim, b: &Dim) -> R<()> {
        if a == b {
            return Ok(());
        }
        let fail = || Stop::Fail(format!("dims {} and {} differ", self.show(a), self.show(b)));
        let (x, y) = cancel(a, b).ok_or_else(fail)?;
        // The later symbol gives way, so that the names of the first input stay.
        let plain = |d: &Dim| d.as_const().is_some() || d.as_symbol().is_some();
        let (from, to) = match (x.as_symbol(), y.as_symbol()) {
            (Some(i), Some(j)) if i < j => (y, x),
            (Some(_), _) if plain(&y) => (x, y),
            (_, Some(_)) if plain(&x) => (y, x),
            _ => return Err(fail()),
        };
        if let (Some(s), Some(c)) = (from.as_symbol(), to.as_const()) {
            let s = self.graph.symbols.get(s);
            if c < s.min || c > s.max {
                let m = format!("dim {} must be {c} here, which is not in its range {}..={}", s.name, s.min, s.max);
                return Err(Stop::Fail(m));
            }
        }
        Err(Stop::Equate(from, to))
    }

    /// Demands `a <= b` for all dims in range; if only a range stands against it, narrows that range, with a note that
    /// ends in `why`. Returns whether it holds now.
    pub fn require_le(&mut self, a: &Dim, b: &Dim, why: &str) -> bool {
        if self.ge(b, a) {
            return true;
        }
        // a - b = k·s + c for one symbol s: s <= -c / k.
        let Some(d) = a.sub(b) else { return false };
        let (mut sym, mut k, mut c) = (None, 0i64, 0i64);
        for (coef, m) in d.iter() {
            match m {
                [] => c = coef,
                [(s, 1)] if sym.is_none() => (sym, k) = (Some(*s), coef),
                _ => return false,
            }
        }
        let Some(s) = sym.filter(|_| k > 0) else { return false };
        let max = c.checked_neg().map_or(i64::MIN, |n| n.div_euclid(k));
        self.narrow(s, max, why) && self.ge(b, a)
    }

    /// Lowers the upper end of a symbol's range. `false` if no value would be left.
    fn narrow(&mut self, s: SymbolId, max: i64, why: &str) -> bool {
        let sym = self.graph.symbols.get_mut(s);
        if max < sym.min {
            return false;
        }
        if max < sym.max {
            self.notes.push(format!("dim {} is limited to {}..={max}: {why}", sym.name, sym.min));
            sym.max = max;
        }
        true
    }

    /// The shape to which all of `shapes` broadcast. Symbolic dims that meet in one place are taken as equal.
    pub fn broadcast(&self, shapes: &[&[Dim]]) -> R<Vec<Dim>> {
        let rank = shapes.iter().map(|s| s.len()).max().unwrap_or(0);
        let mut out = vec![Dim::constant(1); rank];
        for s in shapes {
            for (o, d) in out[rank - s.len()..].iter_mut().zip(s.iter()) {
                if o.as_const() == Some(1) {
                    *o = d.clone();
                } else if d.as_const() != Some(1) {
                    self.require_equal(o, d)?;
                }
            }
        }
        Ok(out)
    }

    /// Fails where a tensor of this shape would be a constant of absurd size.
    pub fn check_size(&self, shape: &[Dim]) -> R<()> {
        if let Some(dims) = const_dims(shape) {
            let n = dims.iter().try_fold(1usize, |a, &d| a.checked_mul(d));
            if n.is_none_or(|n| n > MAX_CONST_ELEMENTS) {
                return Err(Stop::Fail(format!("a tensor of shape {dims:?} is above the limit of 64 Mi elements")));
            }
        }
        Ok(())
    }
}

/// Two one-term polynomials without their common factors; others unchanged.
fn cancel(a: &Dim, b: &Dim) -> Option<(Dim, Dim)> {
    let (mut a, mut b) = (a.clone(), b.clone());
    if a.terms() != 1 || b.terms() != 1 {
        return Some((a, b));
    }
    let (ca, fa) = a.iter().next().map(|(c, f)| (c, f.to_vec()))?;
    let cb = b.iter().next()?.0;
    for (s, p) in fa {
        for _ in 0..p {
            let Some(q) = b.div_exact(&Dim::symbol(s)) else { break };
            (a, b) = (a.div_exact(&Dim::symbol(s))?, q);
        }
    }
    let g = Dim::constant(gcd(ca.unsigned_abs(), cb.unsigned_abs()));
    Some((a.div_exact(&g)?, b.div_exact(&g)?))
}

fn gcd(a: u64, b: u64) -> i64 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    i64::try_from(a).unwrap_or(1).max(1)
}
