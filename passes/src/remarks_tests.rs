//! Near misses of the fusion passes leave the reason as a remark, once.

use bertc_ir::Graph;
use bertc_ir::text::{no_resources, parse};

use crate::pass::{PassContext, RemarkKind};
use crate::registry;

/// The remarks of a pass on a function with inputs `x` (3×4), `w` (4×16), `q` (2×2×3×4), `m` (bool, 1×3).
fn remarks(pass: &str, body: &str) -> Vec<String> {
    let inputs =
        "%x: tensor<3 x 4 x f32>, %w: tensor<4 x 16 x f32>, %q: tensor<2 x 2 x 3 x 4 x f32>, %m: tensor<1 x 3 x bool>";
    let text = format!("func @f({inputs}) -> {body}\n}}");
    let mut g: Graph = parse(&text, &no_resources).unwrap_or_else(|e| panic!("{e:?}\n{text}"));
    g.remove_dead();
    let mut ctx = PassContext::default();
    let pass = registry::find(pass).unwrap().pass;
    for _ in 0..2 {
        assert!(!pass.run(&mut g, &mut ctx).unwrap(), "{text}");
    }
    assert!(ctx.remarks.iter().all(|r| r.kind == RemarkKind::Missed));
    ctx.remarks.iter().map(ToString::to_string).collect()
}

/// Checks that a pass rejects `body` with exactly one remark, for that op and reason.
fn rejects(pass: &str, op: &str, reason: &str, body: &str) {
    let r = remarks(pass, body);
    let start = format!("{pass}: {op} (%");
    assert!(r.len() == 1 && r[0].starts_with(&start) && r[0].ends_with(&format!("): {reason}")), "{r:#?}");
}

#[test]
fn layer_norm_and_gelu() {
    let pass = "fuse-layer-norm";
    let of_axis_0 = "tensor<3 x 4 x f32> {
      %eps = constant dense<0.5> : tensor<f32>
      %0 = reduce_mean %x {axes = [0], keep = true}
      %1 = sub %x, %0
      %2 = mul %1, %1
      %3 = reduce_mean %2 {axes = [0], keep = true}
      %4 = add %3, %eps
      %5 = sqrt %4
      %6 = div %1, %5
      return %6";
    rejects(pass, "div", "variance axis is not last", of_axis_0);
    let other = of_axis_0.replace("axes = [0]", "axes = [1]").replace("div %1", "div %x");
    rejects(pass, "div", "what is divided is not what the variance is of", &other);
    let no_half = "tensor<3 x 4 x f32> {
      %c = constant dense<1.4142135> : tensor<f32>
      %one = constant dense<1.0> : tensor<f32>
      %0 = div %x, %c
      %1 = erf %0
      %2 = add %1, %one
      %3 = mul %2, %x
      return %3";
    rejects("fuse-gelu", "mul", "the arguments, factors or constants are not those of gelu", no_half);
}

#[test]
fn linear_and_what_it_takes_up() {
    let pass = "fuse-linear";
    let twice = "(a: tensor<3 x 16 x f32>, b: tensor<3 x 16 x f32>) {
      %0 = linear %x, %w
      %1 = relu %0
      return %0, %1";
    rejects(pass, "linear", "its result has other uses", twice);
    let row = "tensor<3 x 16 x f32> {
      %c = constant dense<[1.0, 2.0, 3.0]> : tensor<3 x 1 x f32>
      %0 = linear %x, %w
      %1 = add %0, %c
      return %1";
    rejects(pass, "linear", "what is added broadcasts, so it is no residual", row);
    let integers = "tensor<3 x 3 x i32> {
      %0 = cast %x {to = i32}
      %1 = matmul %0, %0 {trans_b = true}
      return %1";
    rejects(pass, "matmul", "the operands are i32, not f32", integers);
}

#[test]
fn attention() {
    let pass = "fuse-attention";
    let scores = |what: &str, probabilities: &str| {
        format!(
            "(p: tensor<2 x 2 x 3 x 3 x f32>, y: tensor<2 x 2 x 3 x 4 x f32>) {{
            %b = constant dense<[1.0, 2.0, 3.0]> : tensor<3 x f32>
            %c = constant dense<-1e9> : tensor<f32>
            %zero = constant dense<0.0> : tensor<f32>
            %s = matmul %q, %q {{trans_b = true}}
            {what}
            %p = softmax %t {{axis = 3}}
            %y = matmul %p, %q
            return {probabilities}, %y"
        )
    };
    let used = "the scores or probabilities have other uses";
    rejects(pass, "matmul", used, &scores("%t = add %s, %b", "%p"));
    rejects(pass, "matmul", used, &scores("%t = add %s, %b", "%s"));
    let free = "(y: tensor<2 x 2 x 3 x 4 x f32>)";
    let alone = |what: &str| {
        scores(what, "X")
            .replace("(p: tensor<2 x 2 x 3 x 3 x f32>, y: tensor<2 x 2 x 3 x 4 x f32>)", free)
            .replace("X, ", "")
    };
    let fill = "the scores are filled with 0, which is neither -inf nor below -10000";
    rejects(pass, "matmul", fill, &alone("%t = select %m, %s, %zero"));
    let added = "a mask is added to filled scores";
    rejects(pass, "matmul", added, &alone("%u = select %m, %s, %c\n %t = add %u, %b"));
    rejects(pass, "matmul", "the scores come from 'exp', not from a product", &alone("%t = exp %s"));
    let elsewhere =
        alone("%t = add %s, %b").replace("matmul %p, %q", "abs %p").replace("3 x 4 x f32>) {", "3 x 3 x f32>) {");
    rejects(pass, "softmax", "its result goes into 'abs', not into a product with values", &elsewhere);
}

#[test]
fn merging_and_scaling() {
    let odd = "(a: tensor<3 x 8 x f32>, b: tensor<3 x 16 x f32>) {
      %u = constant dense<1.0> : tensor<4 x 8 x f32>
      %v = constant dense<1.0> : tensor<4 x 16 x f32>
      %0 = linear %x, %u
      %1 = linear %x, %v
      return %0, %1";
    rejects("merge-qkv", "linear", "its columns are not a multiple of 16", odd);
    let computed = "tensor<3 x 16 x f32> {
      %c = constant dense<2.0> : tensor<f32>
      %0 = linear %x, %w
      %1 = mul %0, %c
      return %1";
    rejects("fold-scale", "mul", "matrix or bias of the product are not constants", computed);
    let own = "tensor<3 x 2 x 4 x f32> {
      %0 = reshape %q {shape = [3, 4, 4]}
      %1 = attention %0, %0, %0 {heads = 2, scale = 0.5}
      %2 = reshape %1 {shape = [3, 2, 8]}
      %3 = slice %2 {axis = 2, start = 0, len = 4, step = 1}
      return %3";
    rejects("fold-scale", "attention", "the queries are not a product of their own", own);
    let read = "(a: tensor<3 x 16 x f32>, b: tensor<1 x 16 x f32>) {
      %0 = linear %x, %w
      %1 = slice %0 {axis = 0, start = 0, len = 1, step = 1}
      return %0, %1";
    rejects("slice-early", "slice", "the other rows of 'linear' are read elsewhere", read);
    let narrow = "tensor<3 x 4 x f16> {
      %c = constant dense<[1.0, 2.0, 3.0, 4.0]> : tensor<4 x f16>
      %0 = cast %x {to = f16}
      %1 = layer_norm %0, %c, %c {eps = 1.0}
      return %1";
    rejects("fuse-embeddings", "layer_norm", "the operands are f16, not f32", narrow);
}

/// The remarks on what a pass did to `body`.
fn does(pass: &str, body: &str) -> Vec<String> {
    let text = format!("func @f(%x: tensor<3 x 4 x f32>, %w: tensor<4 x 16 x f32>) -> {body}\n}}");
    let mut g: Graph = parse(&text, &no_resources).unwrap_or_else(|e| panic!("{e:?}\n{text}"));
    let mut ctx = PassContext::default();
    assert!(registry::find(pass).unwrap().pass.run(&mut g, &mut ctx).unwrap(), "{text}");
    assert_eq!(ctx.counters.applied, ctx.remarks.len());
    assert!(ctx.remarks.iter().all(|r| r.kind == RemarkKind::Applied), "{:?}", ctx.remarks);
    ctx.remarks.iter().map(|r| format!("{}: {}", r.op, r.reason)).collect()
}

#[test]
fn what_was_done_is_remarked() {
    let product = "tensor<3 x 16 x f32> {
      %c = constant dense<1.0> : tensor<16 x f32>
      %0 = matmul %x, %w
      %1 = add %0, %c
      %2 = gelu %1
      return %2";
    assert_eq!(does("fuse-linear", product), ["linear: fused with bias, gelu"]);
    let gelu = "tensor<3 x 4 x f32> {
      %c = constant dense<1.4142135> : tensor<f32>
      %one = constant dense<1.0> : tensor<f32>
      %half = constant dense<0.5> : tensor<f32>
      %0 = div %x, %c
      %1 = erf %0
      %2 = add %1, %one
      %3 = mul %2, %x
      %4 = mul %3, %half
      return %4";
    assert_eq!(does("fuse-gelu", gelu), ["mul: became 'gelu'"]);
    let two = "(a: tensor<3 x 16 x f32>, b: tensor<3 x 16 x f32>) {
      %u = constant dense<1.0> : tensor<4 x 16 x f32>
      %v = constant dense<2.0> : tensor<4 x 16 x f32>
      %0 = linear %x, %u
      %1 = linear %x, %v
      return %0, %1";
    assert_eq!(does("merge-qkv", two), ["linear: one of 2 products of its operand that became one"]);
}
