//! Sizes in the graph: dims that only the inputs' shapes tell are computed from those, each once.

use std::collections::HashMap;

use bertc_ir::dims::SymbolId;
use bertc_ir::{Dim, Graph};

use super::out::{Out, int};

/// Sizes as lists of integers.
#[derive(Default)]
pub struct Sizes {
    /// Lists of one integer.
    dims: HashMap<Dim, String>,
    lists: HashMap<Vec<Dim>, String>,
}

/// What names of the nodes begin with that compute sizes.
const STEM: &str = "shape";

/// The value of a dim that has but one.
pub fn fixed(g: &Graph, d: &Dim) -> Option<i64> {
    let (least, most) = d.bounds(&g.symbols);
    i64::try_from(least).ok().filter(|_| least == most)
}

impl Sizes {
    /// A list of one integer.
    ///
    /// # Errors
    /// A dim that no input's shape tells.
    pub fn dim(&mut self, g: &Graph, out: &mut Out, d: &Dim) -> Result<String, String> {
        if let Some(c) = fixed(g, d) {
            return Ok(out.ints(&[c]));
        }
        if let Some(name) = self.dims.get(d) {
            return Ok(name.clone());
        }
        let before = out.begin(STEM);
        let name = self.computed(g, out, d);
        out.begin(before);
        self.dims.insert(d.clone(), name.clone()?);
        name
    }

    /// A scalar.
    ///
    /// # Errors
    /// As [`Sizes::dim`].
    pub fn scalar(&mut self, g: &Graph, out: &mut Out, d: &Dim) -> Result<String, String> {
        if let Some(c) = fixed(g, d) {
            return Ok(out.small(bertc_ir::Tensor::from_i64(vec![], &[c])));
        }
        let list = self.dim(g, out, d)?;
        let axes = out.ints(&[0]);
        Ok(out.node("Squeeze", &[&list, &axes], vec![]))
    }

    /// A whole shape.
    ///
    /// # Errors
    /// As [`Sizes::dim`].
    pub fn shape(&mut self, g: &Graph, out: &mut Out, shape: &[Dim]) -> Result<String, String> {
        let known: Option<Vec<i64>> = shape.iter().map(|d| fixed(g, d)).collect();
        if let Some(known) = known {
            return Ok(out.ints(&known));
        }
        if let Some(name) = self.lists.get(shape) {
            return Ok(name.clone());
        }
        let mut parts = Vec::new();
        let mut run: Vec<i64> = Vec::new();
        for d in shape {
            if let Some(c) = fixed(g, d) {
                run.push(c);
                continue;
            }
            if !run.is_empty() {
                parts.push(out.ints(&std::mem::take(&mut run)));
            }
            parts.push(self.dim(g, out, d)?);
        }
        if !run.is_empty() {
            parts.push(out.ints(&run));
        }
        let name = match parts.as_slice() {
            [one] => one.clone(),
            _ => {
                let before = out.begin(STEM);
                let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
                let name = out.node("Concat", &parts, vec![int("axis", 0)]);
                out.begin(before);
                name
            }
        };
        self.lists.insert(shape.to_vec(), name.clone());
        Ok(name)
    }

    /// A polynomial, term by term.
    fn computed(&mut self, g: &Graph, out: &mut Out, d: &Dim) -> Result<String, String> {
        if let Some(s) = d.as_symbol() {
            return symbol(g, out, s);
        }
        let mut sum: Option<String> = None;
        for (c, factors) in d.iter() {
            let mut term = (c != 1 || factors.is_empty()).then(|| out.ints(&[c]));
            for &(s, power) in factors {
                for _ in 0..power {
                    let factor = self.dim(g, out, &Dim::symbol(s))?;
                    term = Some(match term {
                        Some(t) => out.node("Mul", &[&t, &factor], vec![]),
                        None => factor,
                    });
                }
            }
            let Some(term) = term else { continue };
            sum = Some(match sum {
                Some(s) => out.node("Add", &[&s, &term], vec![]),
                None => term,
            });
        }
        Ok(sum.unwrap_or_else(|| out.ints(&[0])))
    }
}

/// A symbol, by the first input's dim that tells it: the symbol itself, or a multiple of it and a number.
fn symbol(g: &Graph, out: &mut Out, s: SymbolId) -> Result<String, String> {
    let dims = || g.inputs().iter().flat_map(|p| g.ty(p.value).shape.iter().enumerate().map(move |(i, d)| (p, i, d)));
    let shape = |out: &mut Out, name: &str, axis: usize| {
        let at = axis as i64;
        out.node("Shape", &[name], vec![int("start", at), int("end", at + 1)])
    };
    if let Some((p, axis, _)) = dims().find(|(.., d)| d.as_symbol() == Some(s)) {
        return Ok(shape(out, &p.name, axis));
    }
    let line = |d: &Dim| {
        let rest = d.sub(&Dim::constant(d.eval(&vec![0; g.symbols.len()])?))?;
        let (factor, only) = rest.iter().next().filter(|_| rest.terms() == 1)?;
        (only == [(s, 1)] && factor > 0).then_some((factor, d.sub(&rest)?.as_const()?))
    };
    for (p, axis, d) in dims() {
        if let Some((factor, more)) = line(d) {
            let size = shape(out, &p.name, axis);
            let (factor, more) = (out.ints(&[factor]), out.ints(&[more]));
            let less = out.node("Sub", &[&size, &more], vec![]);
            return Ok(out.node("Div", &[&less, &factor], vec![]));
        }
    }
    Err(format!("no input's shape tells the value of the dim '{}', which it needs", g.symbols.get(s).name))
}
