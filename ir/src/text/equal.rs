//! Equality of graphs up to value ids and locations.

use std::collections::BTreeMap;

use crate::graph::{Graph, ValueId};
use crate::op::{Attention, Linear, Op, SumNorm};

/// Whether two graphs have the same name, symbols, ports and the same values between them. Value ids and locations
/// don't count; values that no output needs are matched in topological order.
pub fn structurally_equal(a: &Graph, b: &Graph) -> bool {
    let ports = a.inputs().len() == b.inputs().len() && a.outputs().len() == b.outputs().len();
    if a.name != b.name || a.symbols != b.symbols || a.len() != b.len() || !ports {
        return false;
    }
    let mut pairs = Pairs { a, b, to: BTreeMap::new(), from: BTreeMap::new() };
    let named = a.inputs().iter().zip(b.inputs()).chain(a.outputs().iter().zip(b.outputs()));
    for (x, y) in named {
        if x.name != y.name || !pairs.matches(x.value, y.value) {
            return false;
        }
    }
    let rest = |g: &Graph, seen: &BTreeMap<ValueId, ValueId>| {
        g.topo().into_iter().filter(|v| !seen.contains_key(v)).collect::<Vec<_>>()
    };
    let (x, y) = (rest(a, &pairs.to), rest(b, &pairs.from));
    x.len() == y.len() && x.into_iter().zip(y).all(|(x, y)| pairs.matches(x, y))
}

/// A one-to-one map between values, as far as it is known.
struct Pairs<'a> {
    a: &'a Graph,
    b: &'a Graph,
    to: BTreeMap<ValueId, ValueId>,
    from: BTreeMap<ValueId, ValueId>,
}

impl Pairs<'_> {
    /// Whether `x` and `y` and everything they are computed from match.
    fn matches(&mut self, x: ValueId, y: ValueId) -> bool {
        let mut stack = vec![(x, y)];
        while let Some((x, y)) = stack.pop() {
            match (self.to.get(&x), self.from.get(&y)) {
                (Some(&to), Some(&from)) if to == y && from == x => continue,
                (None, None) => {}
                _ => return false,
            }
            let (m, n) = (self.a.node(x), self.b.node(y));
            if m.ty != n.ty || m.operands.len() != n.operands.len() || !same_op(&m.op, &n.op) {
                return false;
            }
            self.to.insert(x, y);
            self.from.insert(y, x);
            stack.extend(m.operands.iter().copied().zip(n.operands.iter().copied()));
        }
        true
    }
}

fn bits(x: Option<f32>) -> Option<u32> {
    x.map(f32::to_bits)
}

fn same_op(a: &Op, b: &Op) -> bool {
    match (a, b) {
        // Bits, so that NaN equals itself and the zeros differ.
        (Op::LayerNorm { eps: x }, Op::LayerNorm { eps: y }) | (Op::RmsNorm { eps: x }, Op::RmsNorm { eps: y }) => {
            x.to_bits() == y.to_bits()
        }
        (Op::Linear(x), Op::Linear(y)) => {
            bits(x.norm) == bits(y.norm) && Linear { norm: None, ..*x } == Linear { norm: None, ..*y }
        }
        (Op::Attention(x), Op::Attention(y)) => {
            bits(Some(x.scale)) == bits(Some(y.scale))
                && Attention { scale: 0.0, ..*x } == Attention { scale: 0.0, ..*y }
        }
        (Op::SumNorm(x), Op::SumNorm(y)) => {
            bits(x.norm) == bits(y.norm) && SumNorm { norm: None, ..*x } == SumNorm { norm: None, ..*y }
        }
        _ => a == b,
    }
}
