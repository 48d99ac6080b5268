//! Round trips of random graphs, exact literals, errors with their places, robustness on garbage.

use proptest::prelude::*;

use super::*;
use crate::dims::Dim;
use crate::graph::{Graph, ValueId};
use crate::infer::MAX_RANK;
use crate::op::{ACTIVATIONS, Attention, BinaryOp, CmpOp, Linear, Op, ReduceOp, SumNorm, UnaryOp};
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};
use crate::verify::verify;
use crate::{Diag, Loc};

/// Decisions drawn from proptest's bytes; past their end all are 0.
struct Choices<'a>(std::slice::Iter<'a, u32>);

impl Choices<'_> {
    fn below(&mut self, n: usize) -> usize {
        self.0.next().map_or(0, |&v| v as usize % n.max(1))
    }

    fn flag(&mut self) -> bool {
        self.below(2) == 1
    }

    fn of<T: Copy>(&mut self, v: &[T]) -> T {
        v[self.below(v.len())]
    }

    fn dim(&mut self, g: &Graph) -> Dim {
        let mut d = Dim::constant(self.of(&[1, 2, 3, 4, 0, 17]));
        for (s, _) in g.symbols.iter() {
            match self.below(6) {
                0 => d = d.mul(&s.into()).unwrap(),
                1 => d = d.add(&s.into()).unwrap(),
                _ => {}
            }
        }
        d
    }

    fn constant(&mut self) -> Tensor {
        let d = self.of(&DType::ALL);
        let shape: Vec<usize> = (0..self.below(3)).map(|_| self.of(&[1, 2, 5, 0])).collect();
        let n: usize = shape.iter().product();
        let bytes: Vec<u8> = (0..n * d.size()).map(|_| self.below(256) as u8).collect();
        let bytes = if d == DType::Bool { bytes.iter().map(|b| b & 1).collect() } else { bytes };
        Tensor::new(d, shape, bytes.into()).unwrap()
    }

    /// An op that fits `x` more often than not.
    fn op(&mut self, g: &Graph, x: ValueId) -> Op {
        let shape = &g.ty(x).shape;
        let rank = shape.len();
        let axis = self.below(rank);
        match self.below(27) {
            0 => Op::Constant(self.constant()),
            1 => Op::Dim(self.dim(g)),
            2 => Op::Iota { len: self.dim(g), start: self.dim(g), step: Dim::constant(i64::MIN) },
            3 | 4 => Op::Unary(self.of(UnaryOp::ALL)),
            5 | 6 => Op::Binary(self.of(BinaryOp::ALL)),
            7 => Op::Compare(self.of(CmpOp::ALL)),
            8 => Op::Select,
            9 => Op::Cast(self.of(&DType::ALL)),
            10 | 11 => {
                let axes = (0..rank).filter(|_| self.flag()).collect();
                Op::Reduce { op: self.of(ReduceOp::ALL), axes, keep: self.flag() }
            }
            12 => Op::ArgMax { axis, min: self.flag() },
            13 => Op::CumSum { axis, exclusive: self.flag(), reverse: self.flag() },
            14 => Op::Softmax { axis },
            15 => Op::LayerNorm { eps: f32::from_bits(self.0.next().copied().unwrap_or(0)) },
            16 => Op::MatMul { trans_b: self.flag() },
            17 => {
                let k = self.below(rank);
                Op::Transpose { perm: (0..rank).map(|i| (i + k) % rank).collect() }
            }
            18 => Op::Reshape { shape: std::iter::once(Dim::constant(1)).chain(shape.iter().cloned()).collect() },
            19 => Op::Broadcast { shape: std::iter::once(self.dim(g)).chain(shape.iter().cloned()).collect() },
            20 => Op::Slice { axis, start: 0.into(), len: 1.into(), step: self.of(&[1, -3]) },
            21 => Op::Concat { axis },
            22 => Op::Gather { axis },
            23 => {
                let (bias, residual) = (self.flag(), self.flag());
                let act = self.flag().then(|| self.of(&ACTIVATIONS));
                let norm = self.flag().then_some(0.5);
                Op::Linear(Linear { trans_b: self.flag(), bias, act, residual, norm })
            }
            24 => {
                let (mask, nan_to_zero) = (self.flag(), self.flag());
                Op::Attention(Attention { heads: 1, scale: self.of(&[0.125, -0.0]), mask, nan_to_zero })
            }
            25 => {
                let norm = self.flag().then_some(1e-12);
                Op::SumNorm(SumNorm { tables: self.below(2), addends: self.below(3), norm })
            }
            _ => self
                .of(&[0, 1])
                .pipe(|k| if k == 0 { Op::GatherElements { axis } } else { Op::GatherNd { batch_dims: 0 } }),
        }
    }
}

trait Pipe: Sized {
    fn pipe<T>(self, f: impl FnOnce(Self) -> T) -> T {
        f(self)
    }
}
impl Pipe for i32 {}

fn random_graph(choices: &[u32]) -> Graph {
    let mut c = Choices(choices.iter());
    let mut g = Graph::new(c.of(&["main", "a graph", "torch-jit", "ü\"\\\n"]));
    for s in ["batch", "seq", "x", "f32"] {
        if c.flag() {
            g.symbols.intern(s, 1, 8);
        }
    }
    let mut values = Vec::new();
    for n in ["input_ids", "input.1", "7", "x y", "return"] {
        if c.flag() || values.is_empty() {
            let shape = (0..c.below(4)).map(|_| c.dim(&g)).collect();
            values.push(g.add_input(n, TensorType::new(c.of(&DType::ALL), shape)));
        }
    }
    for i in 0..c.below(60) {
        // Mostly recent values, so that chains form.
        let mut pick = |values: &[ValueId]| values[values.len() - 1 - c.below(values.len().min(6))];
        let x = pick(&values);
        let rest = [pick(&values), pick(&values)];
        let op = c.op(&g, x);
        let n = op.arity().unwrap_or(1 + c.below(3));
        let operands: Vec<ValueId> = [x, rest[0], rest[1]].into_iter().cycle().take(n).collect();
        let same = if c.flag() { vec![x; n] } else { operands };
        let loc = Loc::node(format!("/n\"{i}"), op.name());
        if g.ty(x).rank() < MAX_RANK - 2 {
            values.extend(g.add(op, &same, &loc).ok());
        }
    }
    for n in ["logits", "last hidden", "dims"] {
        let v = values[values.len() - 1 - c.below(values.len())];
        g.add_output(n, v);
    }
    if c.flag() {
        g.remove_dead();
    }
    g
}

fn resources(g: &Graph) -> impl Fn(&str) -> Option<Tensor> + '_ {
    |key| g.topo().into_iter().filter_map(|v| g.as_const(v)).find(|t| resource_key(t) == key).cloned()
}

fn round_trip(g: &Graph, options: &PrintOptions) -> Graph {
    let text = print(g, options);
    let back = parse(&text, &resources(g)).unwrap_or_else(|e| panic!("{e:#?}\n{text}"));
    assert!(structurally_equal(g, &back), "{text}");
    assert_eq!(print(&back, options), text);
    back
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_graphs_round_trip(choices in prop::collection::vec(any::<u32>(), 0..900)) {
        let g = random_graph(&choices);
        let inline = PrintOptions { inline_constants: true, locations: true };
        let back = round_trip(&g, &inline);
        let located = |g: &Graph| {
            let nodes = g.topo().into_iter().filter(|&v| !g.operands(v).is_empty());
            nodes.map(|v| g.node(v).loc.clone()).collect::<Vec<_>>()
        };
        prop_assert_eq!(located(&g), located(&back));
        round_trip(&g, &PrintOptions::default());
        // Only an eps that isn't a sensible number may be refused.
        if let Err(e) = verify(&back) {
            prop_assert!(e.iter().all(|d| d.message.contains("eps")), "{:?}", e);
        }
    }

    #[test]
    fn garbage_is_an_error(text in "[ -~\n]{0,200}") {
        prop_assert!(parse(&text, &no_resources).is_err());
    }

    #[test]
    fn damaged_text_does_not_panic(
        choices in prop::collection::vec(any::<u32>(), 0..400),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), ".{0,2}"), 1..4),
    ) {
        let mut text = print(&random_graph(&choices), &PrintOptions { inline_constants: true, locations: true });
        for (at, with) in cuts {
            let at = at.index(text.len() + 1);
            let at = (0..=at).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
            let end = text[at..].chars().next().map_or(at, |c| at + c.len_utf8());
            text.replace_range(at..end, &with);
        }
        match parse(&text, &no_resources) {
            Ok(g) => { let _ = verify(&g); }
            Err(e) => prop_assert!(!e.is_empty()),
        }
    }
}

/// A function whose body is one constant.
fn constant(body: &str, ty: &str) -> Result<Tensor, Vec<Diag>> {
    let g = parse(&format!("func @f() -> {ty} {{\n  %0 = constant {body} : {ty}\n  return %0\n}}"), &no_resources)?;
    Ok(g.as_const(g.outputs()[0].value).unwrap().clone())
}

#[test]
fn literals_are_exact() {
    for (text, bits) in [
        ("-0.0", 0x8000_0000u32),
        ("inf", 0x7f80_0000),
        ("-inf", 0xff80_0000),
        ("nan", 0x7fc0_0000),
        ("0x7fc00001", 0x7fc0_0001),
        ("1e-45", 1),
        ("0.1", 0x3dcc_cccd),
        ("1e-12", 0x2b8c_bccc),
        ("3", 0x4040_0000),
    ] {
        let t = constant(&format!("dense<{text}>"), "tensor<f32>").unwrap();
        assert_eq!(t.bytes().as_ref(), bits.to_le_bytes(), "{text}");
        let mut g = Graph::new("f");
        let v = g.add_const(t, &Loc::Unknown).unwrap();
        g.add_output("y", v);
        let printed = if text == "3" { "3.0" } else { text };
        assert!(print(&g, &PrintOptions::default()).contains(&format!("dense<{printed}>")), "{text}");
    }
    assert_eq!(constant("dense<[1, -2]>", "tensor<2 x i64>").unwrap(), Tensor::from_i64(vec![2], &[1, -2]));
    assert_eq!(constant("dense<7>", "tensor<3 x i64>").unwrap(), Tensor::from_i64(vec![3], &[7; 3]));
    assert_eq!(constant("dense<18446744073709551615>", "tensor<u64>").unwrap().bytes().as_ref(), [255; 8]);
    assert_eq!(constant("dense<-9223372036854775808>", "tensor<i64>").unwrap().to_i64_vec(), [i64::MIN]);
    assert_eq!(constant("dense<[true, false]>", "tensor<2 x bool>").unwrap().bytes().as_ref(), [1, 0]);
    assert_eq!(constant("dense_hex<\"0000803f\">", "tensor<f32>").unwrap().to_f32_vec(), [1.0]);
    assert!(constant("dense<[]>", "tensor<0 x 4 x f16>").unwrap().is_empty());
    for (body, ty) in [
        ("dense<256>", "tensor<u8>"),
        ("dense<1.5>", "tensor<i32>"),
        ("dense<[1, 2, 3]>", "tensor<2 x i64>"),
        ("dense<0>", "tensor<1000000000000 x i8>"),
        ("dense<true>", "tensor<f32>"),
        ("dense<1>", "tensor<bool>"),
        ("dense_hex<\"00008\">", "tensor<f32>"),
        ("dense_hex<\"é0\">", "tensor<2 x i8>"),
        ("dense_resource<\"0123\">", "tensor<f32>"),
        ("dense<0x1ffff>", "tensor<f16>"),
    ] {
        assert!(constant(body, ty).is_err(), "{body} : {ty}");
    }
}

#[test]
fn example_prints_as_written() {
    let text = "\
dims batch in 1..=64, seq in 1..=512

func @encode(%ids: tensor<batch x seq x i64>, %\"x 1\": tensor<2*batch*seq^2 x (seq + 3) x f32>) -> (y: tensor<batch x seq x 2 x f32>, \"out 2\": tensor<batch x seq x i64>) {
  %0 = constant dense<[1.0, 2.0, 3.0, 4.5]> : tensor<2 x 2 x f32>
  %1 = gather %0, %ids {axis = 0} : tensor<batch x seq x 2 x f32>
  %2 = softmax %1 {axis = 2} : tensor<batch x seq x 2 x f32>
  %3 = matmul %2, %0 {trans_b = true} : tensor<batch x seq x 2 x f32>
  %4 = iota {len = 2*seq + 1, start = 0, step = -1} : tensor<(2*seq + 1) x i64>
  return %3, %ids
}
";
    let g = parse(text, &no_resources).unwrap();
    assert_eq!(verify(&g), Ok(()));
    assert_eq!(print(&g, &PrintOptions::default()), text);
    // Result types of statements may be left out, sizes written in other forms.
    let loose =
        text.replace(" {axis = 2} : tensor<batch x seq x 2 x f32>", " {axis = 2}").replace("2*seq + 1", "1 + (seq)*2");
    assert_eq!(print(&parse(&loose, &no_resources).unwrap(), &PrintOptions::default()), text);
}

#[test]
fn errors_have_places_and_come_together() {
    let text = "\
dims seq in 1..=9
func @f(%x: tensor<seq x f32>) -> tensor<seq x f32> {
  %0 = ad %x, %x
  %1 = add %x, %0
  %2 = add %x
  %3 = neg %y
  %4 = neg %x : tensor<seq x f16>
  %5 = softmax %x {axis = 0, keep = true}
  %6 = iota {len = n, start = 0, step = 1}
  %x = neg %x
  return %4
}
";
    let e = parse(text, &no_resources).unwrap_err();
    let found: Vec<(usize, &str)> = e
        .iter()
        .map(|d| match d.loc {
            Loc::Text { start, .. } => (line_col(text, start).0, d.message.as_str()),
            _ => panic!("{d:?} has no place"),
        })
        .collect();
    let want = [
        (3, "unknown op 'ad'"),
        (5, "'add' takes 2 operands, got 1"),
        (6, "'%y' is not defined"),
        (7, "the result is tensor<seq x f32>, written tensor<seq x f16>"),
        (8, "'softmax' has no attribute 'keep'"),
        (9, "dim 'n' is not declared"),
        (10, "'%x' is defined twice"),
    ];
    assert_eq!(found, want);
    assert_eq!(line_col("aä\nb", 5), (2, 2));
}

#[test]
fn deep_and_large_text_is_bounded() {
    let nested = format!("dims a in 1..=2\nfunc @f(%x: tensor<{}a x f32>) -> ()", "(".repeat(100_000));
    assert!(parse(&nested, &no_resources).unwrap_err()[0].message.contains("nested too deeply"));
    let names: Vec<String> = (0..40).map(|i| format!("a{i}")).collect();
    let dims: Vec<String> = names.iter().map(|n| format!("{n} in 0..=9")).collect();
    let sum = format!("({})", names.join(" + "));
    let product = vec![sum.clone(); 8].join("*");
    let text = format!("dims {}\nfunc @f(%x: tensor<{product} x f32>) -> ()", dims.join(", "));
    assert!(parse(&text, &no_resources).unwrap_err()[0].message.contains("too large"));
    let shape = vec![sum; 8].join(" x ");
    let text = format!("dims {}\nfunc @f(%x: tensor<{shape} x f32>) -> ()", dims.join(", "));
    assert!(parse(&text, &no_resources).unwrap_err()[0].message.contains("overflows"));
}

#[test]
fn equality_sees_sharing() {
    let f = |body: &str, result: &str| {
        parse(&format!("func @f(%x: tensor<f32>) -> tensor<f32> {{\n{body}\n return {result}\n}}"), &no_resources)
            .unwrap()
    };
    let shared = f("%a = neg %x\n%b = abs %x\n%c = add %a, %a", "%c");
    let double = f("%a = neg %x\n%b = neg %x\n%c = add %a, %b", "%c");
    let reordered = f("%b = abs %x\n%a = neg %x\n%c = add %a, %a", "%c");
    assert!(structurally_equal(&shared, &reordered));
    assert!(!structurally_equal(&shared, &double) && !structurally_equal(&double, &shared));
}
