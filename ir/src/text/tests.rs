//! Round trips of random graphs, exact literals, errors with their places, robustness on garbage.

use proptest::prelude::*;

use super::*;
use crate::arbitrary::{self, Source};
use crate::graph::Graph;
use crate::tensor::Tensor;
use crate::verify::verify;
use crate::{Diag, Loc};

fn random_graph(choices: &[u32]) -> Graph {
    arbitrary::graph(&mut Source::from_numbers(choices), &arbitrary::Options::default())
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
        prop_assert_eq!(verify(&g), Ok(()));
        let located = |g: &Graph| {
            let nodes = g.topo().into_iter().map(|v| g.node(v).loc.clone());
            nodes.filter(|l| matches!(l, Loc::Node { .. })).collect::<Vec<_>>()
        };
        for inline_constants in [false, true] {
            for locations in [false, true] {
                let back = round_trip(&g, &PrintOptions { inline_constants, locations });
                prop_assert_eq!(verify(&back), Ok(()));
                if locations {
                    prop_assert_eq!(located(&g), located(&back));
                }
            }
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

#[test]
fn every_op_is_generated() {
    let mut missing: std::collections::BTreeSet<&str> = op_names().into_iter().collect();
    assert!(!missing.is_empty());
    let mut state = 1u64;
    for _ in 0..2000 {
        // Knuth's MMIX generator; its upper bits.
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        let g = arbitrary::graph(&mut Source::new(next), &arbitrary::Options::default());
        g.topo().into_iter().for_each(|v| {
            missing.remove(g.op(v).name());
        });
    }
    assert!(missing.is_empty(), "never generated: {missing:?}");
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
    let parts = |i: usize| (e[i].labels().iter().map(|l| l.text.as_str()).collect::<Vec<_>>(), e[i].helps());
    assert_eq!(parts(0).1, ["did you mean 'add'?"]);
    assert_eq!(parts(2), (vec![], &[][..]));
    assert_eq!(parts(1).0, ["defined here with type tensor<seq x f32>"]);
    assert_eq!(parts(3).0, ["defined here with type tensor<seq x f32>"]);
    assert_eq!(parts(6).0, ["first defined here"]);
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
