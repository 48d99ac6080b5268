//! `use-bf16`: products with constant matrices and attentions read bf16, and what only such ops read is stored as bf16.
//!
//! ```text
//! %1 = linear %0, %w, %b {bias = true, act = gelu}
//! %2 = linear %1, %v, %c {bias = true}
//!   => %x = cast %0 {to = bf16}
//!      %w16 = cast %w {to = bf16}
//!      %v16 = cast %v {to = bf16}
//!      %1 = linear %x, %w16, %b {bias = true, act = gelu, to = bf16}
//!      %2 = linear %1, %v16, %c {bias = true}
//! ```
//!
//! Not exact: it runs where `--bf16` asks for it. Sums, norms, activations and softmax stay in f32; each operand is rounded
//! once, to 8 significant bits. The casts of matrices cost nothing at run time: the backend rounds where it packs. Products
//! with few columns, as in classifiers, stay as they are: there is no time in them. Runs last, on fused ops.
//!
//! A value that becomes 8-bit integers may be bf16 too, and is where nothing else reads it. With `attention-only` products
//! stay, but for those that only attentions read: what `--int8` without `--bf16` asks for.

use std::collections::BTreeMap;

use bertc_ir::{Attention, DType, Diag, Graph, Linear, Op, SumNorm, ValueId};

use crate::pass::{Pass, PassContext, PassOption};
use crate::pattern::{applied, remark};

/// The pass.
pub struct UseBf16;

/// Products with fewer columns stay in f32: one panel of packed weights.
const MIN_COLUMNS: i64 = 16;

const ATTENTION_ONLY: PassOption =
    PassOption { name: "attention-only", doc: "1: attentions and what they read and give, nothing else", default: 0 };

impl Pass for UseBf16 {
    fn name(&self) -> &'static str {
        "use-bf16"
    }

    fn options(&self) -> &'static [PassOption] {
        &[ATTENTION_ONLY]
    }

    fn run(&self, g: &mut Graph, ctx: &mut PassContext) -> Result<bool, Diag> {
        let mut narrow = Narrow::default();
        let mut changed = false;
        let all = ctx.option(&ATTENTION_ONLY) == 0;
        for v in g.topo() {
            let done = match g.op(v) {
                Op::Linear(Linear { int8: false, .. }) | Op::MatMul { .. } if all => product(g, &mut narrow, v),
                Op::Attention(_) => attention(g, &mut narrow, v),
                Op::SumNorm(SumNorm { int8: false, tables: 1.., .. }) if all => tables(g, &mut narrow, v),
                _ => continue,
            }?;
            match done {
                Ok(()) => applied(g, ctx, self.name(), v, "reads bf16"),
                Err(reason) => remark(g, ctx, self.name(), v, reason),
            }
            changed |= done.is_ok();
        }
        if changed {
            // What was replaced is no user.
            g.remove_dead();
            let casts: Vec<ValueId> = narrow.0.values().copied().collect();
            for cast in casts.into_iter().filter(|&c| g.contains(c)).collect::<Vec<_>>() {
                if let &[x] = g.operands(cast) {
                    narrow_result(g, x)?;
                }
            }
            g.remove_dead();
        }
        for v in g.topo() {
            let of_kind = match g.op(v) {
                Op::Attention(_) => true,
                Op::Linear(_) | Op::SumNorm(_) => all,
                _ => false,
            };
            if of_kind && g.users(v).into_iter().any(|u| quantises(g, u)) && narrow_result(g, v)? {
                applied(g, ctx, self.name(), v, "is bf16 before it is i8");
                changed = true;
            }
        }
        if changed {
            g.remove_dead();
        }
        Ok(changed)
    }
}

/// What a rewrite did: `Err` inside tells why nothing.
type Outcome = Result<Result<(), &'static str>, Diag>;

/// The bf16 form of values.
#[derive(Default)]
struct Narrow(BTreeMap<ValueId, ValueId>);

impl Narrow {
    /// `x` rounded to bf16. A slice or a reshape of something becomes one of that in bf16.
    fn of(&mut self, g: &mut Graph, x: ValueId) -> Result<ValueId, Diag> {
        if g.ty(x).dtype == DType::BF16 {
            return Ok(x);
        }
        // Down to what is stored, then up again.
        let (mut moved, mut source) = (Vec::new(), x);
        while !self.0.contains_key(&source) && matches!(g.op(source), Op::Slice { .. } | Op::Reshape { .. }) {
            moved.push(source);
            source = g.operands(source)[0];
        }
        let mut y = match self.0.get(&source) {
            Some(&y) => y,
            None => g.add(Op::Cast(DType::BF16), &[source], &g.node(source).loc.clone())?,
        };
        self.0.insert(source, y);
        for v in moved.into_iter().rev() {
            let node = g.node(v).clone();
            y = g.add(node.op, &[y], &node.loc)?;
            self.0.insert(v, y);
        }
        Ok(y)
    }

    /// The op of `v` with its first `count` operands in bf16; its users move to it.
    fn operands(&mut self, g: &mut Graph, v: ValueId, op: Op, count: usize) -> Result<(), Diag> {
        let mut operands = g.operands(v).to_vec();
        for o in &mut operands[..count] {
            *o = self.of(g, *o)?;
        }
        let new = g.add(op, &operands, &g.node(v).loc.clone())?;
        g.replace(v, new)
    }
}

fn product(g: &mut Graph, narrow: &mut Narrow, v: ValueId) -> Outcome {
    let node = g.node(v).clone();
    let linear = match node.op {
        Op::Linear(l) => l,
        Op::MatMul { trans_b } => Linear { trans_b, ..Linear::default() },
        _ => return Ok(Err("it is no product")),
    };
    let [a, b] = [node.operands[0], node.operands[1]].map(|o| g.ty(o).clone());
    if a.dtype != DType::F32 || !is_matrix(g, node.operands[1]) {
        return Ok(Err("the matrix is not an f32 constant"));
    }
    let (k, n) = if linear.trans_b { (&b.shape[1], &b.shape[0]) } else { (&b.shape[0], &b.shape[1]) };
    if k.as_const().is_none_or(|k| k % 2 != 0) {
        return Ok(Err("the inner dim is odd"));
    }
    if n.as_const().is_none_or(|n| n < MIN_COLUMNS) {
        return Ok(Err("it has few columns"));
    }
    narrow.operands(g, v, Op::Linear(linear), 2).map(Ok)
}

/// Whether `v` is a constant f32 matrix, or several side by side.
fn is_matrix(g: &Graph, v: ValueId) -> bool {
    let constant = match g.op(v) {
        Op::Concat { .. } => g.operands(v).iter().all(|&o| g.as_const(o).is_some()),
        _ => g.as_const(v).is_some(),
    };
    constant && g.ty(v).dtype == DType::F32 && g.ty(v).rank() == 2
}

fn attention(g: &mut Graph, narrow: &mut Narrow, v: ValueId) -> Outcome {
    let Op::Attention(a) = *g.op(v) else { return Ok(Err("it is no attention")) };
    let o = g.operands(v);
    if g.ty(o[0]).dtype != DType::F32 {
        return Ok(Err("its operands are not f32"));
    }
    let even = |v: ValueId| g.ty(v).shape[2].as_const().is_some_and(|w| w % (2 * a.heads as i64) == 0);
    if !even(o[0]) || !even(o[2]) {
        return Ok(Err("its heads have an odd size"));
    }
    narrow.operands(g, v, Op::Attention(a), 3).map(Ok)
}

/// Tables of constants that a sum takes rows of.
fn tables(g: &mut Graph, narrow: &mut Narrow, v: ValueId) -> Outcome {
    let Op::SumNorm(s) = *g.op(v) else { return Ok(Err("it is no sum")) };
    let mut operands = g.operands(v).to_vec();
    let mut any = false;
    for pair in operands[..s.addends_at()].chunks_exact_mut(2) {
        if g.as_const(pair[0]).is_some() && g.ty(pair[0]).dtype == DType::F32 {
            pair[0] = narrow.of(g, pair[0])?;
            any = true;
        }
    }
    if !any {
        return Ok(Err("its tables are not f32 constants"));
    }
    let new = g.add(Op::SumNorm(s), &operands, &g.node(v).loc.clone())?;
    g.replace(v, new).map(Ok)
}

/// Whether `v` is integers of rows, or a part of what they stand for.
fn quantises(g: &Graph, v: ValueId) -> bool {
    matches!(g.op(v), Op::RowScale(_) | Op::RowOffset(_) | Op::QuantiseRows(_))
}

/// Where nobody reads the result of the fused op `x` but casts to bf16, residuals, and what makes integers of it, the op
/// rounds it. Tells whether it does.
fn narrow_result(g: &mut Graph, x: ValueId) -> Result<bool, Diag> {
    let op = match *g.op(x) {
        Op::Linear(l) => Op::Linear(Linear { bf16: true, ..l }),
        Op::Attention(a) => Op::Attention(Attention { bf16: true, ..a }),
        Op::SumNorm(s) => Op::SumNorm(SumNorm { bf16: true, ..s }),
        _ => return Ok(false),
    };
    let users = g.users(x);
    let only_at = |g: &Graph, u: ValueId, at: Option<usize>| {
        g.operands(u).iter().enumerate().all(|(i, &o)| o != x || Some(i) == at)
    };
    let takes = |g: &Graph, u: ValueId| match g.op(u) {
        Op::Cast(DType::BF16) => true,
        Op::Linear(l) => only_at(g, u, l.residual_at()),
        _ => quantises(g, u) && only_at(g, u, Some(0)),
    };
    if g.ty(x).dtype != DType::F32 || g.is_output(x) || !users.iter().all(|&u| takes(g, u)) {
        return Ok(false);
    }
    let node = g.node(x).clone();
    let narrow = g.add(op, &node.operands, &node.loc)?;
    for u in users {
        let user = g.node(u).clone();
        if let Op::Cast(_) = user.op {
            g.replace(u, narrow)?;
        } else {
            let operands: Vec<ValueId> = user.operands.iter().map(|&o| if o == x { narrow } else { o }).collect();
            let new = g.add(user.op, &operands, &user.loc)?;
            g.replace(u, new)?;
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use bertc_ir::eval::eval;
    use bertc_ir::{DType, Graph, Op, Tensor};

    use crate::testing::{count, run};

    /// Embeddings, attention over a merged product, and a product with the sum as its residual.
    fn layer() -> Graph {
        let mut t = crate::testing::T::new();
        let ids = t.input(DType::I64, &["1", "seq"]);
        let spread = |n: usize, k: usize| (0..n).map(|i| ((i * k) % 23) as f32 / 16.0 - 0.7).collect::<Vec<_>>();
        let table = t.f32(&[5, 16], &spread(80, 7));
        let gamma = t.f32(&[16], &spread(16, 5));
        let norm = bertc_ir::SumNorm { tables: 1, norm: Some(1e-5), ..Default::default() };
        let x = t.add(Op::SumNorm(norm), &[table, ids, gamma, gamma]);
        let parts = [3, 11, 13].map(|k| t.f32(&[16, 16], &spread(256, k)));
        let w = t.add(Op::Concat { axis: 1 }, &parts);
        let qkv = t.add(Op::Linear(bertc_ir::Linear::default()), &[x, w]);
        let slice = |t: &mut crate::testing::T, i: i64| {
            t.add(Op::Slice { axis: 2, start: (i * 16).into(), len: 16.into(), step: 1 }, &[qkv])
        };
        let [q, k, v] = [0, 1, 2].map(|i| slice(&mut t, i));
        let a = bertc_ir::Attention { heads: 2, scale: 0.5, ..Default::default() };
        let y = t.add(Op::Attention(a), &[q, k, v]);
        let l = bertc_ir::Linear { residual: true, ..Default::default() };
        let y = t.add(Op::Linear(l), &[y, parts[1], x]);
        t.g.add_output("y", y);
        let head = t.f32(&[16, 2], &spread(32, 9));
        let z = t.add(Op::MatMul { trans_b: false }, &[y, head]);
        t.g.add_output("z", z);
        t.g
    }

    #[test]
    fn what_lies_between_products_is_bf16() {
        let before = layer();
        let mut after = before.clone();
        assert!(run(&mut after, "use-bf16"));
        bertc_ir::verify::verify(&after).unwrap();
        // Of the table, the merged matrix and the last product's; the values between are made as bf16.
        assert_eq!(count(&after, "cast"), 3);
        let of = |name: &str| {
            let found = after.topo().into_iter().filter(|&v| after.op(v).name() == name);
            found.map(|v| after.ty(v).dtype).collect::<Vec<_>>()
        };
        assert_eq!(of("sum_norm"), [DType::BF16]);
        assert_eq!(of("slice"), [DType::BF16; 3]);
        assert_eq!(of("attention"), [DType::BF16]);
        assert_eq!(of("linear"), [DType::BF16, DType::F32], "an output stays f32");
        assert_eq!(of("matmul"), [DType::F32], "two columns are not worth it");
        assert!(!run(&mut after, "use-bf16"));
        let ids = Tensor::from_i64(vec![1, 4], &[4, 0, 2, 1]);
        let [a, b] = [&before, &after].map(|g| eval(g, &[1, 4], std::slice::from_ref(&ids)).unwrap());
        for (a, b) in a.iter().zip(&b) {
            let (a, b) = (a.to_f64_vec(), b.to_f64_vec());
            let top = a.iter().fold(0f64, |m, x| m.max(x.abs()));
            let worst = a.iter().zip(&b).fold(0f64, |m, (x, y)| m.max((x - y).abs()));
            assert!(worst <= 0.02 * top && worst > 0.0, "{worst} of {top}");
        }
    }

    #[test]
    fn what_else_reads_a_value_keeps_it_f32() {
        let mut t = crate::testing::T::new();
        let x = t.input(DType::F32, &["seq", "16"]);
        let w = t.f32(&[16, 16], &[0.25; 256]);
        let first = t.add(Op::Linear(bertc_ir::Linear::default()), &[x, w]);
        let second = t.add(Op::Linear(bertc_ir::Linear::default()), &[first, w]);
        let tanh = t.add(Op::Unary(bertc_ir::UnaryOp::Tanh), &[first]);
        let y = t.bin(bertc_ir::BinaryOp::Add, tanh, second);
        t.g.add_output("y", y);
        assert!(run(&mut t.g, "use-bf16"));
        // x, w and the first product.
        assert_eq!(count(&t.g, "cast"), 3);
    }

    #[test]
    fn odd_and_variable_matrices_stay() {
        let mut t = crate::testing::T::new();
        let x = t.input(DType::F32, &["seq", "3"]);
        let odd = t.f32(&[3, 16], &[0.25; 48]);
        let y = t.add(Op::Linear(bertc_ir::Linear::default()), &[x, odd]);
        let given = t.input(DType::F32, &["16", "16"]);
        let y = t.add(Op::Linear(bertc_ir::Linear::default()), &[y, given]);
        t.g.add_output("y", y);
        assert!(!run(&mut t.g, "use-bf16"));
    }
}
