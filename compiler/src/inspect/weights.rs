//! Parameters, bytes and multiply-adds by part of the model.

use std::collections::BTreeSet;

use bertc_ir::{Dim, Graph, Tensor, cost};

use crate::layers::Layers;

/// One group of the model's values.
pub(super) struct Part {
    pub title: String,
    /// Its position among the layers, if it is one.
    pub layer: Option<usize>,
    /// Elements of the constants that no earlier part uses.
    pub parameters: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Elements of those that an earlier part uses too, and which are counted there.
    pub shared: u64,
    /// `None` on overflow.
    pub multiply_adds: Option<Dim>,
}

/// The parts of `g`, but for empty ones. Weights that two nodes share count once, in the first part that uses them.
pub(super) fn parts(g: &Graph, layers: &Layers) -> Vec<Part> {
    let place = |t: &Tensor| (t.bytes().as_ptr() as usize, t.bytes().len());
    let mut parts: Vec<Part> = (0..layers.groups())
        .map(|i| Part {
            title: layers.title(i),
            layer: layers.layer(i),
            parameters: 0,
            bytes: 0,
            shared: 0,
            multiply_adds: Some(Dim::default()),
        })
        .collect();
    let mut used = vec![false; parts.len()];
    // Which tensors each part uses, in the parts' order.
    let mut uses: Vec<(usize, bertc_ir::ValueId)> = Vec::new();
    for v in g.topo() {
        let own = layers.group(v);
        used[own] = true;
        let part = &mut parts[own];
        let own_count = cost::multiply_adds_of(g, v);
        part.multiply_adds = part.multiply_adds.take().zip(own_count).and_then(|(a, b)| a.add(&b));
        if g.as_const(v).is_some() {
            uses.push((own, v));
            uses.extend(g.users(v).into_iter().map(|u| (layers.group(u), v)));
        }
    }
    uses.sort_unstable();
    uses.dedup();
    let mut counted: BTreeSet<(usize, usize)> = BTreeSet::new();
    let mut here: BTreeSet<(usize, (usize, usize))> = BTreeSet::new();
    for (part, v) in uses {
        let Some(t) = g.as_const(v) else { continue };
        if !here.insert((part, place(t))) {
            continue;
        }
        if counted.insert(place(t)) {
            parts[part].parameters += t.len() as u64;
            parts[part].bytes += t.bytes().len() as u64;
        } else {
            parts[part].shared += t.len() as u64;
        }
    }
    parts.into_iter().zip(used).filter(|(_, used)| *used).map(|(p, _)| p).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::tests::model;
    use bertc_ir::{BinaryOp, Loc, Op};

    #[test]
    fn shared_weights_count_once_where_they_are_used_first() {
        let mut g = model(2, "x");
        // The same bytes under another value, behind the layers.
        let t = g.topo().into_iter().find_map(|v| g.as_const(v)).unwrap().clone();
        let again = g.add_const(t, &Loc::Unknown).unwrap();
        let y = g.outputs()[0].value;
        let row = g.add(Op::MatMul { trans_b: false }, &[y, again], &Loc::Unknown).unwrap();
        let z = g.add(Op::Binary(BinaryOp::Add), &[row, y], &Loc::Unknown).unwrap();
        g.add_output("z", z);
        let p = parts(&g, &Layers::of(&g));
        let of = |f: fn(&Part) -> u64| p.iter().map(f).collect::<Vec<_>>();
        assert_eq!(of(|p| p.parameters), [0, 32, 32, 0]);
        assert_eq!(of(|p| p.bytes), [0, 128, 128, 0]);
        assert_eq!(of(|p| p.shared), [0, 0, 0, 16]);
        assert_eq!(p.iter().map(|p| p.layer).collect::<Vec<_>>(), [None, Some(0), Some(1), None]);
        let total = p.iter().try_fold(Dim::default(), |a, p| a.add(p.multiply_adds.as_ref()?));
        assert_eq!(total, cost::multiply_adds(&g));
    }
}
