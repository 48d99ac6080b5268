//! Symbolic dims: polynomials with integer coefficients over named symbols with ranges.
//!
//! Every size in the compiler (tensor dims, byte sizes, loop counts) is a [`Dim`]. Arithmetic is checked: an overflow
//! of a coefficient gives `None`, never a wrong size.

use std::collections::BTreeMap;
use std::fmt;

/// Index of a symbol in its [`Symbols`] table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SymbolId(pub u32);

/// A named dim with the closed range of values it may take at run time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Symbol {
    /// Name, an identifier.
    pub name: String,
    /// Smallest allowed value (at least 0).
    pub min: i64,
    /// Largest allowed value.
    pub max: i64,
}

/// The symbols of one graph, in the order of the compiled function's dims.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Symbols(Vec<Symbol>);

impl Symbols {
    /// Adds a symbol, or returns the one of that name, with its range narrowed to the intersection.
    pub fn intern(&mut self, name: &str, min: i64, max: i64) -> SymbolId {
        if let Some(id) = self.find(name) {
            let s = &mut self.0[id.0 as usize];
            s.min = s.min.max(min);
            s.max = s.max.min(max);
            return id;
        }
        self.0.push(Symbol { name: name.to_string(), min, max });
        SymbolId(self.0.len() as u32 - 1)
    }

    /// The symbol called `name`.
    pub fn find(&self, name: &str) -> Option<SymbolId> {
        self.0.iter().position(|s| s.name == name).map(|i| SymbolId(i as u32))
    }

    /// The entry of a symbol.
    pub fn get(&self, id: SymbolId) -> &Symbol {
        &self.0[id.0 as usize]
    }

    /// The entry of a symbol, for narrowing its range.
    pub fn get_mut(&mut self, id: SymbolId) -> &mut Symbol {
        &mut self.0[id.0 as usize]
    }

    /// All symbols in order.
    pub fn iter(&self) -> impl Iterator<Item = (SymbolId, &Symbol)> {
        self.0.iter().enumerate().map(|(i, s)| (SymbolId(i as u32), s))
    }

    /// Number of symbols.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no symbol.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Product of powers of symbols, the latest symbol first; empty for the constant term. In this form the vectors' own
/// order is the lexicographic monomial order that division needs.
type Monomial = Vec<(SymbolId, u32)>;

/// A polynomial over symbols. The zero polynomial has no terms; no stored coefficient is zero.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Dim(BTreeMap<Monomial, i64>);

impl From<i64> for Dim {
    fn from(v: i64) -> Self {
        Dim::constant(v)
    }
}

impl From<SymbolId> for Dim {
    fn from(s: SymbolId) -> Self {
        Dim::symbol(s)
    }
}

impl Dim {
    /// The constant `v`.
    pub fn constant(v: i64) -> Self {
        let mut m = BTreeMap::new();
        if v != 0 {
            m.insert(Vec::new(), v);
        }
        Dim(m)
    }

    /// The symbol `s`.
    pub fn symbol(s: SymbolId) -> Self {
        Dim(BTreeMap::from([(vec![(s, 1)], 1)]))
    }

    /// The value if this is a constant.
    pub fn as_const(&self) -> Option<i64> {
        match self.0.len() {
            0 => Some(0),
            1 => self.0.get(&Vec::new()).copied(),
            _ => None,
        }
    }

    /// The symbol if this is one symbol with coefficient and power 1.
    pub fn as_symbol(&self) -> Option<SymbolId> {
        let (m, &c) = self.0.first_key_value()?;
        (self.0.len() == 1 && c == 1 && m.len() == 1 && m[0].1 == 1).then(|| m[0].0)
    }

    /// Number of terms.
    pub fn terms(&self) -> usize {
        self.0.len()
    }

    /// Each term as coefficient and (symbol, power) factors, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &[(SymbolId, u32)])> {
        self.0.iter().map(|(m, &c)| (c, m.as_slice()))
    }

    /// `self + o`, or `None` on overflow.
    pub fn add(&self, o: &Dim) -> Option<Dim> {
        let mut r = self.0.clone();
        for (m, &c) in &o.0 {
            let e = r.entry(m.clone()).or_insert(0);
            *e = e.checked_add(c)?;
            if *e == 0 {
                r.remove(m);
            }
        }
        Some(Dim(r))
    }

    /// `self - o`, or `None` on overflow.
    pub fn sub(&self, o: &Dim) -> Option<Dim> {
        self.add(&o.mul(&Dim::constant(-1))?)
    }

    /// `self * o`, or `None` on overflow (a product of more than 2^14 pairs of terms counts as one).
    pub fn mul(&self, o: &Dim) -> Option<Dim> {
        if self.terms().saturating_mul(o.terms()) > 1 << 14 {
            return None;
        }
        let mut r = BTreeMap::new();
        for (ma, &ca) in &self.0 {
            for (mb, &cb) in &o.0 {
                let mut m: BTreeMap<SymbolId, u32> = ma.iter().copied().collect();
                for &(s, p) in mb {
                    let e = m.entry(s).or_insert(0);
                    *e = e.checked_add(p).filter(|p| *p <= 64)?;
                }
                let e = r.entry(m.into_iter().rev().collect()).or_insert(0i64);
                *e = e.checked_add(ca.checked_mul(cb)?)?;
            }
        }
        r.retain(|_, c| *c != 0);
        Some(Dim(r))
    }

    /// Product of many dims, or `None` on overflow.
    pub fn product<'a>(dims: impl IntoIterator<Item = &'a Dim>) -> Option<Dim> {
        dims.into_iter().try_fold(Dim::constant(1), |a, d| a.mul(d))
    }

    /// The polynomial `q` with `self = q * o`, if there is one (multivariate division by leading terms).
    pub fn div_exact(&self, o: &Dim) -> Option<Dim> {
        let (lead, &lc) = o.0.last_key_value()?;
        let (mut rest, mut q) = (self.clone(), Dim::default());
        // Each step cancels one term of the rest; a rest that never shrinks is not divisible.
        for _ in 0..64 {
            let Some((m, &c)) = rest.0.last_key_value() else { return Some(q) };
            if c % lc != 0 {
                return None;
            }
            let mut mm: BTreeMap<SymbolId, u32> = m.iter().copied().collect();
            for &(s, p) in lead {
                let e = mm.get_mut(&s)?;
                *e = e.checked_sub(p)?;
                if *e == 0 {
                    mm.remove(&s);
                }
            }
            let t = Dim(BTreeMap::from([(mm.into_iter().rev().collect(), c / lc)]));
            q = q.add(&t)?;
            rest = rest.sub(&t.mul(o)?)?;
        }
        None
    }

    /// The value with `values[i]` for symbol `i`; `None` on overflow or a missing value.
    pub fn eval(&self, values: &[i64]) -> Option<i64> {
        let mut sum = 0i64;
        for (m, &c) in &self.0 {
            let mut t = c;
            for &(s, p) in m {
                for _ in 0..p {
                    t = t.checked_mul(*values.get(s.0 as usize)?)?;
                }
            }
            sum = sum.checked_add(t)?;
        }
        Some(sum)
    }

    /// Lower and upper bound over the symbols' ranges (interval arithmetic, saturating in i128).
    pub fn bounds(&self, symbols: &Symbols) -> (i128, i128) {
        let (mut lo, mut hi) = (0i128, 0i128);
        for (m, &c) in &self.0 {
            let (mut a, mut b) = (1i128, 1i128);
            for &(s, p) in m {
                let sym = symbols.get(s);
                for _ in 0..p {
                    // Symbols are never negative, so bounds multiply directly.
                    a = a.saturating_mul(sym.min.max(0) as i128);
                    b = b.saturating_mul(sym.max.max(0) as i128);
                }
            }
            let (x, y) = (a.saturating_mul(c as i128), b.saturating_mul(c as i128));
            lo = lo.saturating_add(x.min(y));
            hi = hi.saturating_add(x.max(y));
        }
        (lo, hi)
    }

    /// Whether `self >= o` for all values in range. `false` means "not proven".
    pub fn proven_ge(&self, o: &Dim, symbols: &Symbols) -> bool {
        self.sub(o).is_some_and(|d| d.bounds(symbols).0 >= 0)
    }

    /// Replaces symbol `s` by `by`; `None` on overflow.
    pub fn substitute(&self, s: SymbolId, by: &Dim) -> Option<Dim> {
        let mut r = Dim::default();
        for (m, &c) in &self.0 {
            let rest: Monomial = m.iter().copied().filter(|f| f.0 != s).collect();
            let mut t = Dim(BTreeMap::from([(rest, c)]));
            for _ in 0..m.iter().find(|f| f.0 == s).map_or(0, |f| f.1) {
                t = t.mul(by)?;
            }
            r = r.add(&t)?;
        }
        Some(r)
    }

    /// Text form, for example `2*batch*seq^2 + 3`.
    pub fn display<'a>(&'a self, symbols: &'a Symbols) -> impl fmt::Display + 'a {
        struct D<'a>(&'a Dim, &'a Symbols);
        impl fmt::Display for D<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                if self.0.0.is_empty() {
                    return f.write_str("0");
                }
                // Highest terms first reads best; the map is ordered, so this is deterministic.
                for (i, (m, &c)) in self.0.0.iter().rev().enumerate() {
                    let sign = match (i, c < 0) {
                        (0, false) => "",
                        (0, true) => "-",
                        (_, false) => " + ",
                        (_, true) => " - ",
                    };
                    f.write_str(sign)?;
                    let a = c.unsigned_abs();
                    if a != 1 || m.is_empty() {
                        write!(f, "{a}{}", if m.is_empty() { "" } else { "*" })?;
                    }
                    for (j, &(s, p)) in m.iter().rev().enumerate() {
                        write!(f, "{}{}", if j > 0 { "*" } else { "" }, self.1.get(s).name)?;
                        if p > 1 {
                            write!(f, "^{p}")?;
                        }
                    }
                }
                Ok(())
            }
        }
        D(self, symbols)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_and_text() {
        let mut s = Symbols::default();
        let b = Dim::symbol(s.intern("batch", 1, 64));
        let q = Dim::symbol(s.intern("seq", 1, 512));
        let n = b.mul(&q).unwrap();
        let p = n.mul(&q).unwrap().mul(&2.into()).unwrap().add(&3.into()).unwrap();
        assert_eq!(p.display(&s).to_string(), "2*batch*seq^2 + 3");
        assert_eq!(p.eval(&[2, 5]), Some(103));
        assert_eq!(p.bounds(&s), (5, 2 * 64 * 512 * 512 + 3));
        let hidden = n.mul(&64.into()).unwrap();
        assert_eq!(hidden.div_exact(&b).unwrap(), q.mul(&64.into()).unwrap());
        assert_eq!(hidden.div_exact(&n.mul(&16.into()).unwrap()).unwrap(), 4.into());
        assert!(hidden.div_exact(&n.mul(&3.into()).unwrap()).is_none());
        let sum = b.add(&q).unwrap();
        assert_eq!(sum.mul(&sum).unwrap().div_exact(&sum).unwrap(), sum);
        assert!(n.sub(&n).unwrap().as_const() == Some(0));
        assert!(Dim::constant(i64::MAX).add(&1.into()).is_none());
        assert!(q.proven_ge(&1.into(), &s) && !q.proven_ge(&2.into(), &s));
    }
}
