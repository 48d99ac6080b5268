//! Every op of the reference page, written and read back.

use bertc_ir::eval::{eval, solve_dims};
use bertc_ir::text::{no_resources, parse};
use bertc_ir::{DType, Graph, Op, Scalar, Tensor};

use super::plan::{How, Plan};
use super::{Files, Model, Source, model, read_back};
use crate::import::onnx::{ImportOptions, import_bytes};

fn graph(text: &str) -> Graph {
    parse(text, &no_resources).unwrap_or_else(|d| panic!("{}\n{text}", d[0]))
}

fn written(g: &Graph) -> Model {
    model(g, &Source::default()).unwrap_or_else(|d| panic!("{}", d[0]))
}

/// Inputs of mixed signs, ids that are in range and bools of both kinds.
fn inputs(g: &Graph, dims: &[i64]) -> Vec<Tensor> {
    let mut seed = 1u64;
    let mut next = |n: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % n
    };
    let of = |p: &bertc_ir::Port| {
        let ty = g.ty(p.value);
        let shape: Vec<usize> = ty.shape.iter().map(|d| d.eval(dims).unwrap() as usize).collect();
        let each = |_| match ty.dtype {
            d if d.is_float() => Scalar::Float(next(4001) as f64 / 1000.0 - 2.0),
            _ => Scalar::Int(next(2).into()),
        };
        let n = shape.iter().product::<usize>();
        Tensor::from_scalars(ty.dtype, shape, (0..n).map(each).collect::<Vec<_>>())
    };
    g.inputs().iter().map(of).collect()
}

/// Evaluates both, with every value of the graph an output. Differences beyond `tol` of the largest value are listed.
fn differences(mut g: Graph, tol: f64) -> Vec<String> {
    // Dims that no input tells are for a test of their own.
    for s in g.symbols.iter().map(|(s, _)| s).collect::<Vec<_>>() {
        let told = |p: &bertc_ir::Port| g.ty(p.value).shape.iter().any(|d| d.as_symbol() == Some(s));
        if !g.inputs().iter().any(told) {
            g.add_input(format!("told{}", s.0), bertc_ir::TensorType::new(DType::Bool, vec![s.into()]));
        }
    }
    for v in g.topo() {
        if !g.is_output(v) {
            g.add_output(format!("value{}", v.0), v);
        }
    }
    let plan = Plan::new(&g);
    let floats: Vec<_> =
        plan.how.iter().filter(|(_, how)| matches!(how, How::Floats { .. })).map(|(v, _)| *v).collect();
    let back = read_back(&g, &written(&g)).unwrap_or_else(|d| panic!("{}", d[0]));
    let dims: Vec<i64> = g.symbols.iter().map(|(_, s)| 3.clamp(s.min, s.max)).collect();
    let x = inputs(&g, &dims);
    let want = eval(&g, &dims, &x).unwrap();
    let got = eval(&back, &solve_dims(&back, &x).unwrap(), &x).unwrap();
    let mut wrong = Vec::new();
    for ((p, a), b) in g.outputs().iter().zip(&want).zip(&got) {
        // Rows that are floats in the file are for a test of their own.
        if floats.iter().any(|&f| g.depends_on(p.value, f)) {
            continue;
        }
        let largest = a.iter().map(|s| s.to_f64().abs()).filter(|v| v.is_finite()).fold(0.0, f64::max);
        let near = |(a, b): (Scalar, Scalar)| {
            let (a, b) = (a.to_f64(), b.to_f64());
            a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= tol * largest
        };
        let same = a.dtype() == b.dtype() && a.shape() == b.shape() && a.iter().zip(b.iter()).all(near);
        if !same {
            let (a, b) = (a.to_f64_vec(), b.to_f64_vec());
            wrong.push(format!("{} of {}: {a:?} became {b:?}", p.name, g.op(p.value).name()));
        }
    }
    wrong
}

#[test]
fn every_op_of_the_reference_page() {
    let page = include_str!("../../../../docs/ir.md");
    let blocks: Vec<&str> = page.split("```tir").skip(1).filter_map(|b| b.split("```").next()).collect();
    let mut seen = std::collections::BTreeSet::new();
    let mut wrong = Vec::new();
    for g in blocks.iter().map(|b| graph(b)) {
        seen.extend(g.topo().iter().map(|&v| g.op(v).name()));
        // The last bits of 8 products in a row.
        wrong.extend(differences(g, 2e-5));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for op in ["linear", "attention", "sum_norm", "quantise", "quantise_rows", "gather_nd", "cum_sum", "dim", "iota"] {
        assert!(seen.contains(op), "{op} is not on the page");
    }
}

#[test]
fn what_the_page_leaves_out() {
    let texts = [
        // Bounds of slices that run backwards, to and past the first element; lengths that may be 0.
        "dims n in 2..=9, m in 0..=3
func @f(%x: tensor<n x 2 x f32>, %y: tensor<m x 2 x i32>) -> tensor<n x 2 x f32> {
  %0 = slice %x {axis = 0, start = n - 1, len = n, step = -1}
  %1 = slice %x {axis = 0, start = n - 1, len = n - 1, step = -1} : tensor<(n - 1) x 2 x f32>
  %2 = slice %x {axis = 1, start = 1, len = 2, step = -1}
  %3 = slice %x {axis = 0, start = n - 2, len = 2, step = 1} : tensor<2 x 2 x f32>
  %4 = reshape %1 {shape = [2, n - 1]}
  %5 = reshape %1 {shape = [2*n - 2]}
  %6 = iota {len = n, start = n, step = -2}
  %7 = reshape %y {shape = [2, m]}
  %8 = iota {len = m, start = 1, step = n}
  return %0
}",
        // Integers by 0, and bits.
        "dims n in 1..=9
func @f(%x: tensor<n x i32>, %y: tensor<n x i32>, %b: tensor<n x bool>, %c: tensor<n x bool>) -> tensor<n x i32> {
  %0 = div %x, %y
  %1 = rem %x, %y
  %2 = mod %x, %y
  %3 = not %x
  %4 = and %x, %3
  %5 = lt %b, %c
  %6 = ne %b, %c
  %7 = reduce_max %x {axes = []} : tensor<n x i32>
  return %0
}",
        // Shifts of signed integers, by too many bits, and by a negative number of them.
        "dims n in 1..=9
func @f(%x: tensor<n x i64>, %t: tensor<n x 1 x i32>) -> tensor<n x i64> {
  %a = constant dense<[-3, 5, 127, -128, 9]> : tensor<5 x i8>
  %b = constant dense<[1, 8, -1, 7, 2]> : tensor<5 x i8>
  %c = constant dense<[3, 5, 255, 128]> : tensor<4 x u16>
  %d = constant dense<[1, 16, 15, 99]> : tensor<4 x u16>
  %0 = shl %a, %b
  %1 = shr %a, %b
  %2 = shl %c, %d
  %3 = shr %c, %d
  %4 = shr %x, %x
  %none = sub %t, %t
  %5 = scatter_nd %x, %none, %4 {combine = mul}
  %6 = reshape %none {shape = [n]}
  %7 = scatter_elements %x, %6, %4 {axis = 0, combine = min}
  return %7
}",
        // Rows that are left out, scores without any key, and results in bf16.
        "dims b in 1..=4, s in 1..=9
func @f(%x: tensor<b x s x 8 x f32>, %w: tensor<4 x 8 x f32>, %m: tensor<b x 1 x 1 x s x f32>, %l: tensor<b x i64>) -> tensor<b x s x 8 x f32> {
  %zero = constant dense<0.0> : tensor<f32>
  %low = constant dense<-inf> : tensor<f32>
  %none = gt %m, %zero
  %mask = select %none, %low, %m
  %0 = attention %x, %x, %x, %mask, %l {heads = 2, scale = 0.5, mask = true, nan_to_zero = true, lengths = true}
  %1 = attention %x, %x, %x, %mask {heads = 2, scale = 1.0, mask = true}
  %2 = linear %x, %w, %l {trans_b = true, lengths = true, act = gelu_tanh, to = bf16} : tensor<b x s x 4 x bf16>
  %3 = slice %2 {axis = 2, start = 1, len = 2, step = 1} : tensor<b x s x 2 x bf16>
  %4 = add %3, %3
  return %0
}",
        // Integers with a unit for each row that isn't that of their rows, and with zero points that are not constants.
        "dims s in 1..=9
func @f(%q: tensor<s x 8 x i8>, %u: tensor<s x 8 x u8>, %w: tensor<8 x 4 x i8>, %r: tensor<s x 1 x f32>, %c: tensor<4 x f32>, %o: tensor<s x 1 x f32>, %z: tensor<i32>, %zu: tensor<u8>, %k: tensor<f32>) -> tensor<s x 4 x f32> {
  %0 = linear %q, %w, %r, %c, %o {int8 = true, offset = true}
  %1 = linear %u, %w, %k, %c, %z {int8 = true, zero = true}
  %2 = cast %zu {to = i32}
  %3 = linear %u, %w, %k, %c, %2 {int8 = true, zero = true}
  %4 = quantise %0, %k, %z {to = i8}
  %5 = quantise %0, %k, %2 {to = u8}
  return %0
}",
    ];
    for text in texts {
        let wrong = differences(graph(text), 1e-5);
        assert!(wrong.is_empty(), "{text}\n{}", wrong.join("\n"));
    }
}

const STATIC: &str = "dims s in 1..=9
func @f(%x: tensor<s x 8 x f32>) -> tensor<s x 4 x f32> {
  %scale = constant dense<0.05> : tensor<f32>
  %zero = constant dense<7> : tensor<i32>
  %w = constant dense<3> : tensor<8 x 4 x i8>
  %c = constant dense<0.125> : tensor<4 x f32>
  %q = quantise %x, %scale, %zero {to = u8} : tensor<s x 8 x u8>
  %0 = linear %q, %w, %scale, %c, %zero {int8 = true, zero = true}
  return %0
}";

fn operators(m: &Model) -> Vec<&str> {
    m.proto.graph.as_ref().unwrap().node.iter().map(|n| n.op_type()).collect()
}

#[test]
fn static_integers_are_pairs_and_dynamic_rows_floats() {
    let g = graph(STATIC);
    let m = written(&g);
    assert_eq!(operators(&m), ["QuantizeLinear", "DequantizeLinear", "DequantizeLinear", "MatMul"]);
    assert!(m.widened.is_empty());
    // Rounding of sums alone: the integers are the same.
    assert_eq!(differences(g, 1e-6), Vec::<String>::new());

    let rows = "  %q = quantise_rows %x {factor = true}
  %s = row_scale %x {factor = true}";
    let rows = rows.replace("%x {", "%x, %f {");
    let a = STATIC.find("  %q =").unwrap();
    let b = STATIC.find("  return").unwrap();
    let product = "  %0 = linear %q, %w, %s, %c {int8 = true}\n";
    let text = format!("{}{rows}\n{product}{}", &STATIC[..a], &STATIC[b..]);
    let g = graph(&text.replace("%x: tensor<s x 8 x f32>", "%x: tensor<s x 8 x f32>, %f: tensor<8 x f32>"));
    let m = written(&g);
    assert_eq!(operators(&m), ["Mul", "DequantizeLinear", "MatMul"]);
    assert_eq!(m.widened.len(), 1);
    let d = super::difference(&g, &m).unwrap();
    assert!(d.largest > 0.0 && d.largest < 1e-1 && d.cosine > 0.999, "{d:?}");
}

const DYNAMIC: &str = "dims s in 1..=9
func @f(%x: tensor<s x 8 x f32>, %b: tensor<s x 8 x f32>) -> tensor<s x 4 x f32> {
  %none = constant dense<0.0> : tensor<f32>
  %all = constant dense<255.0> : tensor<f32>
  %one = constant dense<1.0> : tensor<f32>
  %w = constant dense<3> : tensor<8 x 4 x i8>
  %c = constant dense<0.125> : tensor<4 x f32>
  %0 = reduce_min %x {axes = [0, 1]} : tensor<f32>
  %1 = min %0, %none
  %2 = reduce_max %x {axes = [0, 1]} : tensor<f32>
  %3 = max %2, %none
  %4 = sub %3, %1
  %5 = div %4, %all
  %6 = eq %5, %none
  %scale = select %6, %one, %5
  %8 = div %1, %scale
  %9 = neg %8
  %10 = round %9
  %11 = max %10, %none
  %12 = min %11, %all
  %13 = cast %12 {to = u8}
  %14 = cast %13 {to = i32}
  %15 = quantise %x, %scale, %14 {to = u8}
  %16 = linear %15, %w, %scale, %c, %14 {int8 = true, zero = true}
  return %16
}";

#[test]
fn dynamic_quantisation_is_found_again() {
    let g = graph(DYNAMIC);
    let m = written(&g);
    assert_eq!(operators(&m), ["DynamicQuantizeLinear", "MatMulInteger", "Cast", "Mul", "Mul"]);
    // Near misses: another bound, another value's range.
    for (was, is) in [("min %11, %all", "min %11, %one"), ("reduce_max %x", "reduce_max %b")] {
        let text = DYNAMIC.replace(was, is);
        assert!(!operators(&written(&graph(&text))).contains(&"DynamicQuantizeLinear"), "{text}");
    }
    let g = graph(DYNAMIC);
    let back = read_back(&g, &m).unwrap();
    let x = inputs(&g, &[5]);
    let (a, b) = (eval(&g, &[5], &x).unwrap(), eval(&back, &[5], &x).unwrap());
    assert_eq!(a, b, "the same integers, exactly");
}

#[test]
fn names_are_the_models_own() {
    let g = graph(
        "dims n in 1..=9
func @f(%x: tensor<n x 2 x f32>) -> (y: tensor<n x 2 x f32>, same: tensor<n x 2 x f32>, x2: tensor<n x 2 x f32>) {
  %0 = neg %x loc(\"/m/Neg\", \"Neg\", \"/m/Neg_output_0\")
  %1 = exp %0 loc(\"/m/Exp\", \"Exp\", \"/m/Exp_output_0\")
  return %1, %1, %x
}",
    );
    let m = written(&g);
    let proto = m.proto.graph.as_ref().unwrap();
    let nodes: Vec<_> = proto.node.iter().map(|n| (n.name(), n.output[0].as_str())).collect();
    assert_eq!(
        nodes,
        [("/m/Neg", "/m/Neg_output_0"), ("/m/Exp", "y"), ("same/Identity", "same"), ("x2/Identity", "x2")]
    );
    let back = read_back(&g, &m).unwrap();
    let ports = |g: &Graph| g.inputs().iter().chain(g.outputs()).map(|p| p.name.clone()).collect::<Vec<_>>();
    assert_eq!(ports(&back), ports(&g));
    assert_eq!(back.symbols, g.symbols);
}

#[test]
fn weights_that_are_rounded_to_bf16_are_stored_so() {
    let g = graph(
        "func @f(%x: tensor<3 x 2 x bf16>) -> (y: tensor<3 x 4 x bf16>) {
  %w = constant dense<[1.001, 2.0, 3.3, 4.0, 5.0, 6.0, 7.7, 8.0]> : tensor<2 x 4 x f32>
  %0 = cast %w {to = bf16}
  %1 = linear %x, %0 {to = bf16}
  return %1
}",
    );
    let m = written(&g);
    assert_eq!(m.tensors.iter().map(|t| t.1.dtype()).collect::<Vec<_>>(), [DType::BF16]);
    // Both operands, the result to bf16 and back, and the output.
    assert_eq!(operators(&m), ["Cast", "Cast", "MatMul", "Cast", "Cast", "Cast"]);
    assert_eq!(differences(g, 0.0), Vec::<String>::new());
}

#[test]
fn dims_of_one_value_are_that() {
    let g = graph(
        "dims n in 3..=3, m in 1..=9
func @f(%x: tensor<n x m x f32>) -> (y: tensor<m x n x f32>) {
  %0 = reshape %x {shape = [m, n]}
  return %0
}",
    );
    let m = written(&g);
    assert_eq!(operators(&m), ["Reshape"]);
    let back = read_back(&g, &m).unwrap();
    assert_eq!(back.ty(back.inputs()[0].value).display(&back.symbols).to_string(), "tensor<3 x m x f32>");
    assert_eq!(differences(g, 0.0), Vec::<String>::new());
}

#[test]
fn every_dim_that_is_not_told_is_an_error() {
    let g = graph(
        "dims n in 1..=9, m in 1..=9
func @f(%x: tensor<n*m x f32>) -> (a: tensor<i64>, b: tensor<m x i64>) {
  %0 = dim {value = n} loc(\"/a\", \"Size\")
  %1 = iota {len = m, start = 0, step = 1} loc(\"/b\", \"Range\")
  return %0, %1
}",
    );
    let errors: Vec<String> = model(&g, &Source::default()).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[0].contains("'dim'") && errors[0].contains("/a") && errors[0].contains("dim 'n'"), "{errors:?}");
    assert!(errors[1].contains("'iota'") && errors[1].contains("/b") && errors[1].contains("dim 'm'"), "{errors:?}");
}

#[test]
fn large_tensors_may_be_in_a_file_of_their_own() {
    let large: Vec<f32> = (0..2000).map(|i| i as f32).collect();
    let mut g = Graph::new("f");
    let n = g.symbols.intern("n", 1, 9);
    let x = g.add_input("x", bertc_ir::TensorType::new(DType::F32, vec![n.into(), 2.into()]));
    let loc = bertc_ir::Loc::Unknown;
    let mut y = x;
    for k in [1.0, 2.0] {
        let w = Tensor::from_f32(vec![2, 1000], &large.iter().map(|v| v * k).collect::<Vec<_>>());
        let w = g.add_const(w, &loc).unwrap();
        y = g.add(Op::MatMul { trans_b: false }, &[x, w], &loc).unwrap();
        g.add_output(format!("y{k}"), y);
    }
    let one = g.add_const(Tensor::from_f32(vec![], &[1.0]), &loc).unwrap();
    let z = g.add(Op::Binary(bertc_ir::BinaryOp::Add), &[y, one], &loc).unwrap();
    g.add_output("z", z);
    let m = written(&g);
    let dir = tempfile::tempdir().unwrap();
    let (mut alone, mut with, mut data) = (Vec::new(), Vec::new(), Vec::new());
    m.write(&Files::One, &mut alone).unwrap();
    m.write(&Files::Data("w.data".to_string()), &mut with).unwrap();
    m.write_data(&mut data).unwrap();
    assert!(alone.len() as u64 > m.data_bytes() && with.len() < 2000, "{} {}", alone.len(), with.len());
    assert_eq!(data.len(), 8192 + 8000);
    std::fs::write(dir.path().join("w.data"), data).unwrap();
    let options = ImportOptions::default();
    let alone = import_bytes(alone.into(), None, &options).unwrap().graph;
    let with = import_bytes(with.into(), Some(dir.path()), &options).unwrap().graph;
    let x = Tensor::from_f32(vec![1, 2], &[1.0, -1.0]);
    let values = |g: &Graph| eval(g, &[1], std::slice::from_ref(&x)).unwrap();
    assert_eq!(values(&alone), values(&with));
    assert_eq!(values(&alone), values(&g));
}
