//! Operations that move elements: reshape, broadcast, transpose, slice, concat, gather.

use bertc_ir::{DType, Dim, Op};

use super::build::{Builder, overflow};
use super::fold;
use super::value::{Affine, Kind, R, SYM_LIMIT, Stop, V, Val, const_dims};

impl Builder {
    /// The same elements under another shape.
    pub fn reshape(&mut self, x: &V, shape: &[Dim]) -> R<V> {
        if x.shape == shape {
            return Ok(x.clone());
        }
        let (a, b) = (self.product(&x.shape)?, self.product(shape)?);
        if a != b {
            self.require_equal(&a, &b).map_err(|e| match e {
                Stop::Fail(_) => Stop::Fail(format!(
                    "shape {} can't be reshaped to {}",
                    self.show_shape(&x.shape),
                    self.show_shape(shape)
                )),
                e => e,
            })?;
        }
        let same = |kind: Kind| Ok(Val::new(x.dtype, shape.to_vec(), kind));
        match &x.kind {
            Kind::Const(t) => {
                if let Some(t) = const_dims(shape).and_then(|s| t.reshaped(s)) {
                    return Ok(Val::constant(t));
                }
            }
            Kind::Splat(s) => return Ok(Val::splat(x.dtype, shape.to_vec(), *s)),
            Kind::Sym(e) => return same(Kind::Sym(e.clone())),
            Kind::Affine(a) => {
                if let Some(coef) = moved(&x.shape, shape, &a.coef) {
                    return same(Kind::Affine(Affine { base: a.base.clone(), coef }));
                }
            }
            Kind::Tuple(parts) if shape.last() == x.shape.last() => {
                let (from, to) = (&x.shape[..x.rank() - 1], &shape[..shape.len() - 1]);
                let parts =
                    parts.iter().map(|a| moved(from, to, &a.coef).map(|coef| Affine { base: a.base.clone(), coef }));
                if let Some(parts) = parts.collect::<Option<_>>() {
                    return same(Kind::Tuple(parts));
                }
            }
            _ => {}
        }
        self.op(Op::Reshape { shape: shape.to_vec() }, &[x])
    }

    /// Broadcast to `shape`, which is what broadcasting `x` with the result's other parts gave.
    pub fn expand(&mut self, x: &V, shape: &[Dim]) -> R<V> {
        if x.shape == shape {
            return Ok(x.clone());
        }
        match &x.kind {
            Kind::Splat(s) => return Ok(Val::splat(x.dtype, shape.to_vec(), *s)),
            Kind::Const(t) => {
                if let Some(s) = x.as_splat() {
                    return Ok(Val::splat(x.dtype, shape.to_vec(), s));
                }
                if let Some(t) = const_dims(shape).and_then(|s| fold::expand(t, &s)) {
                    return Ok(Val::constant(t));
                }
            }
            Kind::Sym(e) if e.len() == 1 => {
                if let Some(n) = const_dims(shape).map(|s| s.iter().product::<usize>()).filter(|&n| n <= SYM_LIMIT) {
                    return Ok(Val::sym(x.dtype, shape.to_vec(), vec![e[0].clone(); n]));
                }
            }
            _ => {}
        }
        if let Some(a) = x.as_affine() {
            return Ok(Val::affine_of(x.dtype, shape.to_vec(), a.padded(shape.len())));
        }
        self.op(Op::Broadcast { shape: shape.to_vec() }, &[x])
    }

    /// Result dim `i` is operand dim `perm[i]`.
    pub fn transpose(&mut self, x: &V, perm: &[usize]) -> R<V> {
        if perm.iter().enumerate().all(|(i, &p)| i == p) {
            return Ok(x.clone());
        }
        let shape: Vec<Dim> = perm.iter().map(|&p| x.shape[p].clone()).collect();
        match &x.kind {
            Kind::Splat(s) => Ok(Val::splat(x.dtype, shape, *s)),
            Kind::Affine(a) => {
                let coef = perm.iter().map(|&p| a.coef[p].clone()).collect();
                Ok(Val::affine_of(x.dtype, shape, Affine { base: a.base.clone(), coef }))
            }
            _ => match transposed_elements(x, perm) {
                Some(e) => Ok(Val::sym(x.dtype, shape, e)),
                None => self.op(Op::Transpose { perm: perm.to_vec() }, &[x]),
            },
        }
    }

    /// `len` elements from `start` by `step` along `axis`, in bounds.
    pub fn slice(&mut self, x: &V, axis: usize, start: &Dim, len: &Dim, step: i64) -> R<V> {
        if *len == x.shape[axis] && start.as_const() == Some(0) && step == 1 {
            return Ok(x.clone());
        }
        let mut shape = x.shape.clone();
        shape[axis] = len.clone();
        if let Some(e) = self.sliced_elements(x, axis, start, len, step) {
            return Ok(Val::sym(x.dtype, shape, e));
        }
        if let Kind::Splat(s) = x.kind {
            return Ok(Val::splat(x.dtype, shape, s));
        }
        if let Some(mut a) = x.as_affine()
            && let Some(base) = a.coef[axis].mul(start).and_then(|d| d.add(&a.base))
            && let Some(c) = a.coef[axis].mul(&Dim::constant(step))
        {
            (a.base, a.coef[axis]) = (base, c);
            return Ok(Val::affine_of(x.dtype, shape, a));
        }
        self.op(Op::Slice { axis, start: start.clone(), len: len.clone(), step }, &[x])
    }

    fn sliced_elements(&self, x: &V, axis: usize, start: &Dim, len: &Dim, step: i64) -> Option<Vec<Dim>> {
        let (e, dims) = (x.as_sym()?, const_dims(&x.shape)?);
        let (start, len) = (start.as_const()?, len.as_const()?);
        let inner: usize = dims[axis + 1..].iter().product();
        let outer: usize = dims[..axis].iter().product();
        let mut out = Vec::new();
        for o in 0..outer {
            for i in 0..len {
                let at = usize::try_from(start + i * step).ok().filter(|&at| at < dims[axis])?;
                out.extend_from_slice(e.get((o * dims[axis] + at) * inner..)?.get(..inner)?);
            }
        }
        Some(out)
    }

    /// Concatenation along `axis`.
    pub fn concat(&mut self, parts: &[V], axis: usize) -> R<V> {
        let first = parts.first().ok_or("concat needs an operand")?;
        for p in parts {
            if p.rank() != first.rank() || p.dtype != first.dtype {
                return Err(format!(
                    "operands differ in type or rank: {} {} and {} {}",
                    first.dtype,
                    self.show_shape(&first.shape),
                    p.dtype,
                    self.show_shape(&p.shape)
                )
                .into());
            }
            for i in (0..p.rank()).filter(|&i| i != axis) {
                self.require_equal(&first.shape[i], &p.shape[i])?;
            }
        }
        let mut shape = first.shape.clone();
        shape[axis] = Dim::constant(0);
        for p in parts {
            shape[axis] = shape[axis].add(&p.shape[axis]).ok_or_else(overflow)?;
        }
        if let [one] = parts {
            return Ok(one.clone());
        }
        if let Some(e) = concat_elements(parts, axis) {
            return Ok(Val::sym(first.dtype, shape, e));
        }
        if axis + 1 == shape.len() && parts.iter().all(|p| p.shape[axis].as_const() == Some(1)) {
            let columns = parts.iter().map(|p| {
                let mut a = p.as_affine()?;
                a.coef.pop();
                Some(a)
            });
            if let Some(c) = columns.collect::<Option<_>>() {
                return Ok(Val::new(first.dtype, shape, Kind::Tuple(c)));
            }
        }
        let refs: Vec<&V> = parts.iter().collect();
        self.op(Op::Concat { axis }, &refs)
    }

    /// `data` indexed along `axis`. Indices that count become slices or reshapes.
    pub fn gather(&mut self, data: &V, indices: &V, axis: usize) -> R<V> {
        let mut shape = data.shape[..axis].to_vec();
        shape.extend_from_slice(&indices.shape);
        shape.extend_from_slice(&data.shape[axis + 1..]);
        if let (Some(e), Some(idx)) = (data.as_sym(), indices.as_ints())
            && let Some(dims) = const_dims(&data.shape)
        {
            return Ok(Val::sym(data.dtype, shape, gather_elements(&e, &dims, &idx, axis)?));
        }
        if let Kind::Splat(s) = data.kind {
            return Ok(Val::splat(data.dtype, shape, s));
        }
        if let Some(a) = indices.as_affine() {
            let n = data.shape[axis].clone();
            if a.is_row_major(&indices.shape) && self.product(&indices.shape)? == n {
                return self.reshape(data, &shape);
            }
            if let Some((start, len, step)) = self.affine_slice(&a, &indices.shape, &n) {
                let cut = self.slice(data, axis, &start, &len, step)?;
                return self.reshape(&cut, &shape);
            }
        }
        let indices = self.as_index(indices)?;
        self.op(Op::Gather { axis }, &[data, &indices])
    }

    /// Start, length and step, where the indices of a dim `n` run along one axis and stay in bounds.
    fn affine_slice(&mut self, a: &Affine, shape: &[Dim], n: &Dim) -> Option<(Dim, Dim, i64)> {
        let long: Vec<usize> = (0..shape.len()).filter(|&i| shape[i].as_const() != Some(1)).collect();
        let (len, step) = match long[..] {
            [] => (Dim::constant(1), 1),
            [i] => (shape[i].clone(), a.coef[i].as_const().filter(|&c| c != 0)?),
            _ => return None,
        };
        let (zero, one) = (Dim::constant(0), Dim::constant(1));
        let (mut lo, mut hi) = a.bounds(shape, &self.graph.symbols)?;
        let mut start = a.base.clone();
        if self.ge(&Dim::constant(-1), &hi) {
            (lo, hi, start) = (lo.add(n)?, hi.add(n)?, start.add(n)?);
        }
        let last = n.sub(&one)?;
        let inside = self.ge(&lo, &zero)
            && match n.as_const() {
                Some(n) => self.require_le(&hi, &last, &format!("a table has {n} rows")),
                None => self.ge(&last, &hi),
            };
        inside.then_some((start, len, step))
    }

    /// ONNX GatherND.
    pub fn gather_nd(&mut self, data: &V, indices: &V, batch_dims: usize) -> R<V> {
        if let (Kind::Tuple(parts), 0) = (&indices.kind, batch_dims)
            && parts.len() == data.rank()
        {
            // One linear index; if it counts every element once, nothing moves.
            let grid = &indices.shape[..indices.rank() - 1];
            let mut linear = Some(Affine { base: 0.into(), coef: vec![0.into(); grid.len()] });
            for (p, d) in parts.iter().zip(&data.shape) {
                linear = linear.and_then(|l| l.scaled(d)?.zip(p, Dim::add));
            }
            if let Some(l) = linear
                && l.is_row_major(grid)
                && self.product(grid)? == self.product(&data.shape)?
            {
                return self.reshape(data, grid);
            }
        }
        let k = indices.shape.last().and_then(Dim::as_const).ok_or("the last dim of the indices is not constant")?;
        if k < 1 || batch_dims as i64 + k > data.rank() as i64 {
            return Err(format!("index tuples of {k} don't fit data of rank {}", data.rank()).into());
        }
        for i in 0..batch_dims {
            self.require_equal(&data.shape[i], &indices.shape[i])?;
        }
        let indices = self.as_index(indices)?;
        self.op(Op::GatherNd { batch_dims }, &[data, &indices])
    }

    /// Indices in a type that the IR's gathers take.
    pub fn as_index(&mut self, v: &V) -> R<V> {
        match v.dtype {
            DType::I32 | DType::I64 => Ok(v.clone()),
            d if d.is_int() => self.cast(DType::I64, v),
            d => Err(format!("indices must be integers, got {d}").into()),
        }
    }

    /// A rank-1 i64 constant or symbolic tensor.
    pub fn dims_value(&self, dims: &[Dim]) -> V {
        Val::sym(DType::I64, vec![Dim::constant(dims.len() as i64)], dims.to_vec())
    }
}

/// Coefficients after a reshape that only adds or drops dims of 1.
fn moved(from: &[Dim], to: &[Dim], coef: &[Dim]) -> Option<Vec<Dim>> {
    let one = |d: &Dim| d.as_const() == Some(1);
    let mut left = from.iter().zip(coef).filter(|(d, _)| !one(d));
    let mut out = Vec::with_capacity(to.len());
    for d in to {
        if one(d) {
            out.push(Dim::constant(0));
        } else {
            let (f, c) = left.next()?;
            if f != d {
                return None;
            }
            out.push(c.clone());
        }
    }
    left.next().is_none().then_some(out)
}

fn concat_elements(parts: &[V], axis: usize) -> Option<Vec<Dim>> {
    let elems: Vec<Vec<Dim>> = parts.iter().map(|p| p.as_sym()).collect::<Option<_>>()?;
    let dims: Vec<Vec<usize>> = parts.iter().map(|p| const_dims(&p.shape)).collect::<Option<_>>()?;
    if elems.iter().map(Vec::len).sum::<usize>() > SYM_LIMIT {
        return None;
    }
    let outer: usize = dims[0][..axis].iter().product();
    let mut out = Vec::new();
    for o in 0..outer {
        for (e, d) in elems.iter().zip(&dims) {
            let run: usize = d[axis..].iter().product();
            out.extend_from_slice(&e[o * run..(o + 1) * run]);
        }
    }
    Some(out)
}

fn gather_elements(e: &[Dim], dims: &[usize], idx: &[i64], axis: usize) -> R<Vec<Dim>> {
    let n = dims[axis];
    let inner: usize = dims[axis + 1..].iter().product();
    let outer: usize = dims[..axis].iter().product();
    let mut out = Vec::new();
    for o in 0..outer {
        for &i in idx {
            let at = if i < 0 { i.checked_add(n as i64) } else { Some(i) };
            let at = at.and_then(|i| usize::try_from(i).ok()).filter(|&i| i < n);
            let at = at.ok_or_else(|| Stop::Fail(format!("index {i} is outside of a dim of {n}")))?;
            let from = (o * n + at) * inner;
            out.extend_from_slice(&e[from..from + inner]);
        }
    }
    Ok(out)
}

/// The elements of a small tensor of known integers with its dims in another order.
fn transposed_elements(x: &V, perm: &[usize]) -> Option<Vec<Dim>> {
    let (elements, dims) = (x.as_sym()?, const_dims(&x.shape)?);
    let stride = |axis: usize| dims[axis + 1..].iter().product::<usize>();
    let from = perm.iter().fold(vec![0], |at, &axis| {
        at.into_iter().flat_map(|first| (0..dims[axis]).map(move |i| first + i * stride(axis))).collect()
    });
    from.into_iter().map(|i| elements.get(i).cloned()).collect()
}
