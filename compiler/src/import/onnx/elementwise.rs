//! Elementwise operations on values: decided at compile time where they can be, nodes otherwise.

use bertc_ir::{BinaryOp, CmpOp, DType, Dim, Op, Scalar, Tensor, UnaryOp};

use super::build::Builder;
use super::fold;
use super::value::{Affine, Kind, R, SYM_LIMIT, V, Val, const_dims};

impl Builder {
    /// `op` on two values of one type, with broadcasting.
    pub fn binary(&mut self, op: BinaryOp, a: &V, b: &V) -> R<V> {
        if a.dtype != b.dtype {
            return Err(format!("operand types {} and {} differ", a.dtype, b.dtype).into());
        }
        let shape = self.broadcast(&[&a.shape, &b.shape])?;
        if let Some(v) = self.decided_binary(op, a, b, &shape)? {
            return Ok(v);
        }
        self.op(Op::Binary(op), &[a, b])
    }

    fn decided_binary(&mut self, op: BinaryOp, a: &V, b: &V, shape: &[Dim]) -> R<Option<V>> {
        if let (Some(x), Some(y)) = (a.as_const(), b.as_const())
            && let Some(t) = fold::binary(op, x, y)
        {
            return Ok(Some(Val::constant(t)));
        }
        if let (Some(x), Some(y)) = (a.as_splat(), b.as_splat())
            && let Some(t) = fold::binary(op, &Tensor::scalar(a.dtype, x), &Tensor::scalar(b.dtype, y))
        {
            return Ok(Some(Val::splat(a.dtype, shape.to_vec(), t.get(0))));
        }
        if let Some(elems) = self.sym_zip(a, b, shape, |c, x, y| c.dim_binary(op, x, y)) {
            return Ok(Some(Val::sym(a.dtype, shape.to_vec(), elems)));
        }
        // `true and x`, `false or x`: masks start out from uniform tensors.
        if a.dtype == DType::Bool && matches!(op, BinaryOp::And | BinaryOp::Or) {
            for (s, other) in [(a.as_splat(), b), (b.as_splat(), a)] {
                let Some(s) = s else { continue };
                let neutral = (s.to_int() != 0) == (op == BinaryOp::And);
                return Ok(Some(if neutral {
                    self.expand(other, shape)?
                } else {
                    Val::splat(DType::Bool, shape.to_vec(), s)
                }));
            }
        }
        if let (Some(x), Some(y)) = (a.as_affine(), b.as_affine())
            && let Some(r) = self.affine_binary(op, &x.padded(shape.len()), &y.padded(shape.len()), shape)
        {
            return Ok(Some(Val::affine_of(a.dtype, shape.to_vec(), r)));
        }
        Ok(None)
    }

    fn affine_binary(&self, op: BinaryOp, x: &Affine, y: &Affine, shape: &[Dim]) -> Option<Affine> {
        match op {
            BinaryOp::Add => x.zip(y, Dim::add),
            BinaryOp::Sub => x.zip(y, Dim::sub),
            BinaryOp::Mul if y.is_uniform() => x.scaled(&y.base),
            BinaryOp::Mul if x.is_uniform() => y.scaled(&x.base),
            BinaryOp::Min | BinaryOp::Max => {
                let d = x.zip(y, Dim::sub)?;
                let (lo, hi) = d.bounds(shape, &self.graph.symbols)?;
                let zero = Dim::constant(0);
                let x_is_max = if self.ge(&lo, &zero) {
                    true
                } else if self.ge(&zero, &hi) {
                    false
                } else {
                    return None;
                };
                Some(if x_is_max == (op == BinaryOp::Max) { x.clone() } else { y.clone() })
            }
            _ => None,
        }
    }

    /// Elementwise `f` of two small symbolic tensors, broadcast to `shape`.
    fn sym_zip(&self, a: &V, b: &V, shape: &[Dim], f: impl Fn(&Self, &Dim, &Dim) -> Option<Dim>) -> Option<Vec<Dim>> {
        let (x, y) = (sym_expanded(a, shape)?, sym_expanded(b, shape)?);
        x.iter().zip(&y).map(|(x, y)| f(self, x, y)).collect()
    }

    fn dim_binary(&self, op: BinaryOp, x: &Dim, y: &Dim) -> Option<Dim> {
        match op {
            BinaryOp::Add => x.add(y),
            BinaryOp::Sub => x.sub(y),
            BinaryOp::Mul => x.mul(y),
            BinaryOp::Div => match (x.as_const(), y.as_const()) {
                (Some(x), Some(y)) => Some(Dim::constant(x.checked_div(y)?)),
                _ => x.div_exact(y),
            },
            BinaryOp::Mod | BinaryOp::Rem => x.div_exact(y).map(|_| Dim::constant(0)),
            BinaryOp::Min if self.ge(y, x) => Some(x.clone()),
            BinaryOp::Min if self.ge(x, y) => Some(y.clone()),
            BinaryOp::Max if self.ge(x, y) => Some(x.clone()),
            BinaryOp::Max if self.ge(y, x) => Some(y.clone()),
            BinaryOp::And if x == y => Some(x.clone()),
            BinaryOp::And => Some(Dim::constant(x.as_const()? & y.as_const()?)),
            BinaryOp::Or => Some(Dim::constant(x.as_const()? | y.as_const()?)),
            BinaryOp::Xor => Some(Dim::constant(x.as_const()? ^ y.as_const()?)),
            _ => None,
        }
    }

    /// A comparison of two values of one type, with broadcasting.
    pub fn compare(&mut self, op: CmpOp, a: &V, b: &V) -> R<V> {
        if a.dtype != b.dtype {
            return Err(format!("operand types {} and {} differ", a.dtype, b.dtype).into());
        }
        let shape = self.broadcast(&[&a.shape, &b.shape])?;
        if let (Some(x), Some(y)) = (a.as_const(), b.as_const())
            && let Some(t) = fold::compare(op, x, y)
        {
            return Ok(Val::constant(t));
        }
        let decide = |c: &Self, lo: &Dim, hi: &Dim| c.sign_decides(op, lo, hi).map(|r| Dim::constant(r.into()));
        if let Some(v) = self.sym_zip(a, b, &shape, |c, x, y| x.sub(y).and_then(|d| decide(c, &d, &d))) {
            return Ok(Val::sym(DType::Bool, shape, v));
        }
        if let (Some(x), Some(y)) = (a.as_affine(), b.as_affine())
            && let Some(d) = x.padded(shape.len()).zip(&y.padded(shape.len()), Dim::sub)
            && let Some((lo, hi)) = d.bounds(&shape, &self.graph.symbols)
            && let Some(r) = self.sign_decides(op, &lo, &hi)
        {
            return Ok(Val::splat(DType::Bool, shape, Scalar::Int(r.into())));
        }
        self.op(Op::Compare(op), &[a, b])
    }

    /// Whether `a op b`, where `lo <= a - b <= hi` everywhere.
    fn sign_decides(&self, op: CmpOp, lo: &Dim, hi: &Dim) -> Option<bool> {
        let (zero, one, minus) = (Dim::constant(0), Dim::constant(1), Dim::constant(-1));
        let (positive, negative) = (self.ge(lo, &one), self.ge(&minus, hi));
        let (not_negative, not_positive) = (self.ge(lo, &zero), self.ge(&zero, hi));
        let equal = not_negative && not_positive;
        let yes_no = |yes: bool, no: bool| if yes { Some(true) } else { no.then_some(false) };
        match op {
            CmpOp::Eq => yes_no(equal, positive || negative),
            CmpOp::Ne => yes_no(positive || negative, equal),
            CmpOp::Lt => yes_no(negative, not_negative),
            CmpOp::Le => yes_no(not_positive, positive),
            CmpOp::Gt => yes_no(positive, not_positive),
            CmpOp::Ge => yes_no(not_negative, negative),
        }
    }

    /// An elementwise op of one value.
    pub fn unary(&mut self, op: UnaryOp, x: &V) -> R<V> {
        if let Some(t) = x.as_const().and_then(|t| fold::unary(op, t)) {
            return Ok(Val::constant(t));
        }
        if let Kind::Splat(s) = x.kind
            && let Some(t) = fold::unary(op, &Tensor::scalar(x.dtype, s))
        {
            return Ok(Val::splat(x.dtype, x.shape.clone(), t.get(0)));
        }
        if op == UnaryOp::Neg {
            let minus = Dim::constant(-1);
            if let (Kind::Sym(_), Some(e)) = (&x.kind, x.as_sym())
                && let Some(e) = e.iter().map(|d| d.mul(&minus)).collect::<Option<_>>()
            {
                return Ok(Val::sym(x.dtype, x.shape.clone(), e));
            }
            if let Some(a) = x.as_affine().and_then(|a| a.scaled(&minus)) {
                return Ok(Val::affine_of(x.dtype, x.shape.clone(), a));
            }
        }
        if matches!(op, UnaryOp::Abs | UnaryOp::Relu)
            && let Some(e) = x.as_sym()
            && e.iter().all(|d| self.ge(d, &Dim::constant(0)))
        {
            return Ok(x.clone());
        }
        self.op(Op::Unary(op), &[x])
    }

    /// `cond ? x : y`, with broadcasting.
    pub fn select(&mut self, cond: &V, x: &V, y: &V) -> R<V> {
        if x.dtype != y.dtype {
            return Err(format!("operand types {} and {} differ", x.dtype, y.dtype).into());
        }
        if cond.dtype != DType::Bool {
            return Err(format!("the condition must be bool, got {}", cond.dtype).into());
        }
        let shape = self.broadcast(&[&cond.shape, &x.shape, &y.shape])?;
        if let Some(s) = cond.as_splat() {
            return self.expand(if s.to_int() != 0 { x } else { y }, &shape);
        }
        let parts = (sym_expanded(cond, &shape), sym_expanded(x, &shape), sym_expanded(y, &shape));
        if let (Some(c), Some(xs), Some(ys)) = parts
            && let Some(c) = c.iter().map(Dim::as_const).collect::<Option<Vec<i64>>>()
        {
            let pick = c.iter().zip(xs.iter().zip(&ys)).map(|(&c, (x, y))| if c != 0 { x } else { y }.clone());
            return Ok(Val::sym(x.dtype, shape, pick.collect()));
        }
        self.op(Op::Select, &[cond, x, y])
    }

    /// 8-bit integers as i32. A constant matrix is kept as it is, whatever its size: products compute in its integers.
    pub fn widen(&mut self, x: &V) -> R<V> {
        if x.as_const().is_some_and(|t| t.shape().len() == 2) && matches!(x.dtype, DType::I8 | DType::U8) {
            return self.op(Op::Cast(DType::I32), &[x]);
        }
        self.cast(DType::I32, x)
    }

    /// A conversion.
    pub fn cast(&mut self, to: DType, x: &V) -> R<V> {
        if x.dtype == to {
            return Ok(x.clone());
        }
        if let Some(t) = x.as_const().and_then(|t| fold::cast(to, t)) {
            return Ok(Val::constant(t));
        }
        let int = |d: DType| matches!(d, DType::I32 | DType::I64);
        match &x.kind {
            Kind::Splat(s) => {
                if let Some(t) = fold::cast(to, &Tensor::scalar(x.dtype, *s)) {
                    return Ok(Val::splat(to, x.shape.clone(), t.get(0)));
                }
            }
            // Sizes and indices of tensors in memory are far below 2^31: an i32 of them doesn't wrap.
            Kind::Sym(_) | Kind::Affine(_) | Kind::Tuple(_) if int(x.dtype) && int(to) => {
                return Ok(Val::new(to, x.shape.clone(), x.kind.clone()));
            }
            Kind::Sym(e) if x.dtype == DType::Bool && int(to) => {
                return Ok(Val::sym(to, x.shape.clone(), e.clone()));
            }
            Kind::Sym(e) if to == DType::Bool => {
                let (one, zero) = (Dim::constant(1), Dim::constant(0));
                let b = e.iter().map(|d| {
                    (self.ge(d, &one) || self.ge(&Dim::constant(-1), d))
                        .then(|| one.clone())
                        .or_else(|| (*d == zero).then(|| zero.clone()))
                });
                if let Some(b) = b.collect::<Option<_>>() {
                    return Ok(Val::sym(to, x.shape.clone(), b));
                }
            }
            _ => {}
        }
        self.op(Op::Cast(to), &[x])
    }
}

/// A small symbolic tensor's elements after broadcasting to `shape`.
fn sym_expanded(v: &V, shape: &[Dim]) -> Option<Vec<Dim>> {
    let (e, from, to) = (v.as_sym()?, const_dims(&v.shape)?, const_dims(shape)?);
    let n = to.iter().try_fold(1usize, |a, &d| a.checked_mul(d)).filter(|&n| n <= SYM_LIMIT)?;
    if from == to {
        return Some(e);
    }
    // The positions expand like a constant.
    let at = Tensor::from_scalars(DType::I64, from, (0..e.len()).map(|i| Scalar::Int(i as i128)));
    let at = fold::expand(&at, &to)?;
    (at.len() == n).then(|| at.iter().map(|i| e[i.to_int() as usize].clone()).collect())
}
