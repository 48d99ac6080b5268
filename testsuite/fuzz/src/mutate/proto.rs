//! Mutation of ONNX models by the fields of their messages. Lengths are written anew, so a mutant gets past the
//! decoder, and names, op types and shapes are replaced by others of the same model.

use super::bytes;
use crate::random::Random;

/// The messages that are taken apart; everything else stays bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    ValueInfo,
    Type,
    TensorType,
    Shape,
    Dimension,
    OpsetId,
    Entry,
}

impl Message {
    /// The message in field `number`, if it is one (the numbers of onnx.proto).
    fn child(self, number: u32) -> Option<Message> {
        use Message as M;
        Some(match (self, number) {
            (M::Model, 7) | (M::Attribute, 6 | 11) => M::Graph,
            (M::Model, 8) => M::OpsetId,
            (M::Graph, 1) => M::Node,
            (M::Graph, 5) | (M::Attribute, 5 | 10) => M::Tensor,
            (M::Graph, 11..=13) => M::ValueInfo,
            (M::Node, 5) => M::Attribute,
            (M::ValueInfo, 2) => M::Type,
            (M::Type, 1) => M::TensorType,
            (M::TensorType, 2) => M::Shape,
            (M::Shape, 1) => M::Dimension,
            (M::Tensor, 13) => M::Entry,
            _ => return None,
        })
    }
}

#[derive(Clone, Debug)]
enum Value {
    Varint(u64),
    Fixed64([u8; 8]),
    Fixed32([u8; 4]),
    Bytes(Vec<u8>),
    Message(Message, Vec<Field>),
}

#[derive(Clone, Debug)]
struct Field {
    number: u32,
    value: Value,
}

/// How deep messages are taken apart.
const MAX_DEPTH: usize = 24;

/// Longest mutant.
const MAX_LEN: usize = 1 << 21;

fn varint(data: &[u8], at: &mut usize) -> Option<u64> {
    let mut v = 0u64;
    for shift in (0..64).step_by(7) {
        let b = *data.get(*at)?;
        *at += 1;
        v |= u64::from(b & 0x7f) << shift;
        if b < 0x80 {
            return Some(v);
        }
    }
    None
}

fn put_varint(mut v: u64, out: &mut Vec<u8>) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

fn parse(data: &[u8], kind: Message, depth: usize) -> Option<Vec<Field>> {
    let (mut fields, mut at) = (Vec::new(), 0);
    while at < data.len() {
        let key = varint(data, &mut at)?;
        let number = u32::try_from(key >> 3).ok()?;
        let value = match key & 7 {
            0 => Value::Varint(varint(data, &mut at)?),
            1 => {
                at += 8;
                Value::Fixed64(data.get(at - 8..at)?.try_into().ok()?)
            }
            5 => {
                at += 4;
                Value::Fixed32(data.get(at - 4..at)?.try_into().ok()?)
            }
            2 => {
                let n = usize::try_from(varint(data, &mut at)?).ok()?;
                let inner = data.get(at..at.checked_add(n)?)?;
                at += n;
                let child = kind.child(number).filter(|_| depth < MAX_DEPTH);
                match child.and_then(|c| Some((c, parse(inner, c, depth + 1)?))) {
                    Some((c, fields)) => Value::Message(c, fields),
                    None => Value::Bytes(inner.to_vec()),
                }
            }
            _ => return None,
        };
        fields.push(Field { number, value });
    }
    Some(fields)
}

fn write(fields: &[Field], out: &mut Vec<u8>) {
    for f in fields {
        let key = u64::from(f.number) << 3;
        match &f.value {
            Value::Varint(v) => {
                put_varint(key, out);
                put_varint(*v, out);
            }
            Value::Fixed64(b) => {
                put_varint(key | 1, out);
                out.extend_from_slice(b);
            }
            Value::Fixed32(b) => {
                put_varint(key | 5, out);
                out.extend_from_slice(b);
            }
            Value::Bytes(b) => {
                put_varint(key | 2, out);
                put_varint(b.len() as u64, out);
                out.extend_from_slice(b);
            }
            Value::Message(_, inner) => {
                let mut buffer = Vec::new();
                write(inner, &mut buffer);
                put_varint(key | 2, out);
                put_varint(buffer.len() as u64, out);
                out.append(&mut buffer);
            }
        }
    }
}

/// Where a model has large leaves, which are its weights.
pub fn blobs(model: &[u8]) -> Vec<std::ops::Range<usize>> {
    /// Leaves above this many bytes are taken for weights.
    const LARGE: usize = 256;
    fn walk(
        data: &[u8],
        base: usize,
        kind: Message,
        depth: usize,
        found: &mut Vec<std::ops::Range<usize>>,
    ) -> Option<()> {
        let mut at = 0;
        while at < data.len() {
            let key = varint(data, &mut at)?;
            match key & 7 {
                0 => drop(varint(data, &mut at)?),
                1 => at += 8,
                5 => at += 4,
                2 => {
                    let n = usize::try_from(varint(data, &mut at)?).ok()?;
                    let inner = data.get(at..at.checked_add(n)?)?;
                    let child = u32::try_from(key >> 3).ok().and_then(|number| kind.child(number));
                    match child.filter(|_| depth < MAX_DEPTH) {
                        Some(c) => walk(inner, base + at, c, depth + 1, found)?,
                        None if n > LARGE => found.push(base + at..base + at + n),
                        None => {}
                    }
                    at += n;
                }
                _ => return None,
            }
        }
        Some(())
    }
    let mut found = Vec::new();
    // What follows a broken message is not looked at.
    let _ = walk(model, 0, Message::Model, 0, &mut found);
    found
}

/// A few random edits of the model `seed`, some of which copy from the model `other`. What is no model is mutated
/// byte by byte.
pub fn mutate(seed: &[u8], other: &[u8], r: &mut Random) -> Vec<u8> {
    let Some(mut fields) = parse(seed, Message::Model, 0) else { return bytes::mutate(seed, other, r) };
    let donor = if r.one_in(4) { parse(other, Message::Model, 0) } else { None };
    if r.one_in(2) {
        focus(&mut fields, r);
    }
    for _ in 0..1 + r.below(4) {
        // Without a donor, the model as it is now gives.
        let own;
        let donor = match &donor {
            Some(d) => d,
            None => {
                own = fields.clone();
                &own
            }
        };
        edit(&mut fields, Message::Model, donor, r);
    }
    let mut out = Vec::new();
    write(&fields, &mut out);
    out.truncate(MAX_LEN);
    out
}

fn graph(fields: &mut [Field]) -> Option<&mut Vec<Field>> {
    fields.iter_mut().find_map(|f| match &mut f.value {
        Value::Message(Message::Graph, g) => Some(g),
        _ => None,
    })
}

/// Keeps the first nodes of the graph and makes what the last of them give its outputs: an error in what would follow
/// then doesn't hide them, and everything is quicker.
fn focus(fields: &mut [Field], r: &mut Random) {
    let Some(g) = graph(fields) else { return };
    let nodes: Vec<usize> = (0..g.len()).filter(|&i| g[i].number == 1).collect();
    let Some(&last) = r.pick(&nodes) else { return };
    let result = match &g[last].value {
        Value::Message(_, node) => node.iter().find(|f| f.number == 2).map(|f| f.value.clone()),
        _ => None,
    };
    let Some(name @ Value::Bytes(_)) = result else { return };
    let mut at = 0;
    g.retain(|f| {
        at += 1;
        f.number != 1 || at - 1 <= last
    });
    let mut first = true;
    for f in g.iter_mut().filter(|f| f.number == 12) {
        if let (Value::Message(_, info), true) = (&mut f.value, first) {
            info.iter_mut().filter(|f| f.number == 1).for_each(|f| f.value = name.clone());
            first = false;
        }
    }
    // The other outputs are gone with their nodes.
    let mut seen = false;
    g.retain(|f| f.number != 12 || !std::mem::replace(&mut seen, true));
}

/// A random field with `number` in a message of `kind` in `fields`.
fn donation(fields: &[Field], kind: Message, number: u32, r: &mut Random) -> Option<Field> {
    fn walk<'a>(fields: &'a [Field], at: Message, kind: Message, number: u32, found: &mut Vec<&'a Field>) {
        for f in fields {
            if at == kind && f.number == number {
                found.push(f);
            }
            if let Value::Message(k, inner) = &f.value {
                walk(inner, *k, kind, number, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(fields, Message::Model, kind, number, &mut found);
    r.pick(&found).map(|f| (*f).clone())
}

fn edit(fields: &mut Vec<Field>, kind: Message, donor: &[Field], r: &mut Random) {
    if fields.is_empty() {
        return;
    }
    // The graph is most of a model, and nodes are what is interesting in a graph.
    let nodes: Vec<usize> = (0..fields.len()).filter(|&i| matches!(fields[i].value, Value::Message(..))).collect();
    let at = match r.pick(&nodes) {
        Some(&i) if !r.one_in(4) => i,
        _ => r.below(fields.len()),
    };
    if let Value::Message(k, inner) = &mut fields[at].value
        && !r.one_in(12)
    {
        edit(inner, *k, donor, r);
        return;
    }
    match r.below(8) {
        0 => drop(fields.remove(at)),
        1 => {
            let copy = fields[at].clone();
            fields.insert(r.below(fields.len() + 1), copy);
        }
        2 => {
            let with = r.below(fields.len());
            fields.swap(at, with);
        }
        3 | 4 => {
            if let Some(f) = donation(donor, kind, fields[at].number, r) {
                fields[at] = f;
            }
        }
        5 => {
            // A field that this message may lack.
            let number = 1 + r.below(21) as u32;
            if let Some(f) = donation(donor, kind, number, r) {
                fields.insert(at, f);
            } else if kind == Message::Tensor || kind == Message::Dimension || kind == Message::Attribute {
                fields.insert(at, Field { number, value: Value::Varint(r.edge() as u64) });
            }
        }
        _ => leaf(&mut fields[at].value, r),
    }
}

fn leaf(v: &mut Value, r: &mut Random) {
    match v {
        Value::Varint(n) => {
            *n = if r.one_in(2) { r.edge() as u64 } else { n.wrapping_add(r.below(5) as u64).wrapping_sub(2) }
        }
        Value::Fixed64(b) => *b = r.edge().to_le_bytes(),
        Value::Fixed32(b) => {
            let edges = [0.0, -0.0, 1.0, f32::NAN, f32::INFINITY, f32::MIN_POSITIVE, 1e30, -1.0];
            *b = edges[r.below(edges.len())].to_le_bytes();
        }
        // The small ones are names, op types and packed shapes.
        Value::Bytes(b) if b.len() <= 64 && r.one_in(3) => {
            b.clear();
            for _ in 0..r.below(5) {
                put_varint(r.edge() as u64, b);
            }
        }
        Value::Bytes(b) if b.len() % 8 == 0 && b.len() <= 64 && r.one_in(2) => {
            // Shapes and axes are raw 64-bit integers.
            let at = 8 * r.below(b.len() / 8);
            if let Some(slot) = b.get_mut(at..at + 8) {
                slot.copy_from_slice(&r.edge().to_le_bytes());
            }
        }
        Value::Bytes(b) => bytes::edit(b, &[], r),
        Value::Message(_, fields) => fields.clear(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive() {
        // graph { node { input: "x" op_type: "Relu" } } ir_version: 300
        let model = [0x3a, 11, 0x0a, 9, 0x0a, 1, b'x', 0x22, 4, b'R', b'e', b'l', b'u', 0x08, 0xac, 0x02];
        let fields = parse(&model, Message::Model, 0).expect("a message");
        let mut out = Vec::new();
        write(&fields, &mut out);
        assert_eq!(out, model);
        let Value::Message(Message::Graph, g) = &fields[0].value else { panic!("a graph") };
        assert!(matches!(g[0].value, Value::Message(Message::Node, _)));
        assert!(parse(&model[..5], Message::Model, 0).is_none());
    }

    #[test]
    fn mutants_are_functions_of_the_seed() {
        let model = [0x3a, 11, 0x0a, 9, 0x0a, 1, b'x', 0x22, 4, b'R', b'e', b'l', b'u', 0x08, 0xac, 0x02];
        let all = |seed| (0..50).map(|i| mutate(&model, &model, &mut Random::new(seed, i))).collect::<Vec<_>>();
        assert_eq!(all(1), all(1));
        assert_ne!(all(1), all(2));
    }
}
