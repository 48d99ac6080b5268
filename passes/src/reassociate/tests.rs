use bertc_ir::cost::multiply_adds;
use bertc_ir::eval::eval;
use bertc_ir::text::{no_resources, parse};
use bertc_ir::{DType, Graph, Scalar, Tensor};

use crate::pass::{Pass, PassContext, Remark};
use crate::testing::{check_same, count};

fn graph(text: &str) -> Graph {
    parse(text, &no_resources).unwrap_or_else(|e| panic!("{e:?}\n{text}"))
}

/// A function of x (batch×seq×4), y and z (4), i (seq, i32).
fn body(text: &str) -> Graph {
    graph(&format!(
        "dims batch in 1..=4, seq in 1..=8
        func @f(%x: {X}, %y: tensor<4 x f32>, %z: tensor<4 x f32>, %i: tensor<seq x i32>) -> {text}
        }}"
    ))
}

fn pass(g: &mut Graph) -> (bool, Vec<Remark>) {
    let mut ctx = PassContext::default();
    let changed = super::Reassociate.run(g, &mut ctx).unwrap();
    bertc_ir::verify::verify(g).unwrap();
    (changed, ctx.remarks)
}

/// Inputs without special values.
fn inputs(g: &Graph, dims: &[i64]) -> Vec<Tensor> {
    let of = |(n, p): (usize, &bertc_ir::Port)| {
        let ty = g.ty(p.value);
        let shape: Vec<usize> = ty.shape.iter().map(|d| d.eval(dims).unwrap() as usize).collect();
        let elements = (0..shape.iter().product()).map(|i: usize| {
            let r = (i * 37 + n * 11) % 23;
            if ty.dtype == DType::F32 { Scalar::Float(r as f64 / 7.0 - 1.5) } else { Scalar::Int(r as i128 - 9) }
        });
        Tensor::from_scalars(ty.dtype, shape, elements)
    };
    g.inputs().iter().enumerate().map(of).collect()
}

fn check_close(before: &Graph, after: &Graph) {
    for dims in [[1, 1], [3, 5]] {
        let x = inputs(before, &dims);
        for (a, b) in eval(before, &dims, &x).unwrap().iter().zip(&eval(after, &dims, &x).unwrap()) {
            let (a, b) = (a.to_f64_vec(), b.to_f64_vec());
            let largest = a.iter().fold(1.0f64, |m, x| m.max(x.abs()));
            assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 1e-6 * largest), "{a:?} became {b:?}");
        }
    }
}

/// Checks that the pass rewrites `text` to `ops` ops of the given name, with nearly the same numbers.
fn becomes(text: &str, op: &str, ops: usize) {
    let mut before = body(text);
    before.remove_dead();
    let mut g = before.clone();
    assert!(pass(&mut g).0, "{text}");
    assert_eq!(count(&g, op), ops, "{}", bertc_ir::text::print(&g, &Default::default()));
    check_close(&before, &g);
    assert!(!pass(&mut g).0, "not a fixpoint: {text}");
}

fn stays(text: &str, reason: &str) {
    let mut g = body(text);
    // Constants that a case doesn't use.
    g.remove_dead();
    let (changed, remarks) = pass(&mut g);
    assert!(!changed, "{text}");
    match reason {
        "" => assert!(remarks.is_empty(), "{remarks:?}"),
        _ => assert!(remarks.iter().any(|r| r.reason.contains(reason)), "{remarks:?}"),
    }
}

const X: &str = "tensor<batch x seq x 4 x f32>";

#[test]
fn constants_of_sums_and_products_meet() {
    let f = |ops: &str| {
        format!(
            "{X} {{
            %c = constant dense<3.0> : tensor<f32>
            %d = constant dense<[1.0, 2.0, 3.0, 4.0]> : tensor<4 x f32>
            {ops}
            return %r"
        )
    };
    becomes(&f("%0 = add %x, %c\n %1 = sub %y, %d\n %r = add %0, %1"), "add", 2);
    becomes(&f("%0 = sub %c, %x\n %r = sub %d, %0"), "add", 1);
    becomes(&f("%0 = mul %x, %c\n %r = div %0, %d"), "mul", 1);
    becomes(&f("%0 = div %x, %c\n %r = div %0, %d"), "div", 1);
    becomes(&f("%0 = mul %x, %c\n %1 = add %0, %d\n %r = mul %1, %c"), "mul", 1);
    becomes(&f("%0 = add %x, %c\n %r = sub %0, %c"), "sub", 0);
}

#[test]
fn small_terms_come_first() {
    let before = body(&format!("{X} {{\n %0 = add %x, %y\n %r = add %0, %z\n return %r"));
    let mut g = before.clone();
    assert!(pass(&mut g).0);
    let r = g.outputs()[0].value;
    let small = g.operands(r)[1];
    assert_eq!((g.operands(r)[0], g.ty(small).rank()), (g.inputs()[0].value, 1));
    check_close(&before, &g);
}

#[test]
fn integers_are_exact() {
    let before = body(
        "tensor<seq x i32> {
        %c = constant dense<2000000000> : tensor<i32>
        %0 = add %i, %c
        %1 = mul %0, %c
        %2 = mul %1, %c
        %3 = sub %c, %2
        %r = sub %3, %c
        return %r",
    );
    let mut g = before.clone();
    assert!(pass(&mut g).0);
    assert!(g.len() < before.len());
    check_same(&before, &g);
}

#[test]
fn what_masks_rounds_or_is_read_elsewhere_stays() {
    let f = |ops: &str| {
        format!(
            "{X} {{
            %c = constant dense<3.0> : tensor<f32>
            %magic = constant dense<12582912.0> : tensor<f32>
            %min = constant dense<-3.4e38> : tensor<f32>
            %tiny = constant dense<1e-12> : tensor<f32>
            {ops}
            return %r"
        )
    };
    stays(&f("%0 = add %x, %magic\n %r = sub %0, %magic"), "");
    stays(&f("%0 = mul %x, %tiny\n %r = mul %0, %tiny"), "");
    stays(&f("%0 = add %x, %c\n %1 = add %0, %c\n %r = mul %0, %1"), "");
    let huge = "%1 = mul %y, %min\n %2 = mul %z, %min\n %0 = add %x, %1\n %r = add %0, %2";
    stays(&f(huge), "computed from a number of 1e30 or more");
    stays(&f("%0 = mul %x, %c\n %1 = div %0, %tiny\n %r = round %1"), "rounded to whole numbers");
    stays(&f("%0 = add %x, %y\n %1 = add %0, %z\n %r = layer_norm %1, %y, %z {eps = 1.0}"), "the layer norm behind it");
}

/// x·U·V with U of k×r and V of r×n, and optionally another use of the inner product.
fn linears(k: usize, r: usize, n: usize, other: bool) -> Graph {
    let mut t = crate::testing::T::new();
    let ramp = |n: usize| (0..n).map(|i| (i % 7) as f32 - 3.0).collect::<Vec<_>>();
    let (ks, rs) = (k.to_string(), r.to_string());
    let x = t.input(DType::F32, &["seq", &ks]);
    let u = t.f32(&[k, r], &ramp(k * r));
    let v = t.f32(&[n, r], &ramp(n * r));
    let (c, d) = (t.f32(&[r], &ramp(r)), t.f32(&[n], &ramp(n)));
    let l = bertc_ir::Linear { bias: true, ..Default::default() };
    let inner = t.add(bertc_ir::Op::Linear(l), &[x, u, c]);
    let outer = t.add(bertc_ir::Op::Linear(bertc_ir::Linear { trans_b: true, ..l }), &[inner, v, d]);
    t.g.add_output("y", outer);
    if other {
        let again = t.input(DType::F32, &["seq", &rs]);
        let sum = t.bin(bertc_ir::BinaryOp::Add, inner, again);
        t.g.add_output("z", sum);
    }
    t.g
}

#[test]
fn linears_compose_only_where_that_is_less() {
    for (k, r, n, other, want) in [
        (2, 8, 4, false, Some(8)),
        (4, 5, 4, false, Some(16)),
        // A factorised table: through 2 is cheaper than 8×8.
        (8, 2, 8, false, None),
        (4, 2, 4, false, None),
        // The inner one is computed anyway, so that only its width against the operand's counts.
        (2, 8, 4, true, Some(16 + 8)),
        (8, 7, 8, true, None),
    ] {
        let before = linears(k, r, n, other);
        let mut g = before.clone();
        let (changed, remarks) = pass(&mut g);
        assert_eq!(changed, want.is_some(), "{k} {r} {n} {other}");
        match want {
            Some(m) => assert_eq!(multiply_adds(&g).unwrap().eval(&[1, 1]), Some(m)),
            None => assert!(remarks.iter().any(|r| r.reason.contains("costs no less than through")), "{remarks:?}"),
        }
        check_close(&before, &g);
    }
}

#[test]
fn constants_grow_within_the_budget() {
    // The inner product stays for its other use and both matrices with it: 64×64 more are 16 kB.
    let mut g = linears(64, 80, 64, true);
    let v = g.outputs()[0].value;
    let inner = g.operands(v)[0];
    let outer = g.operands(v)[1];
    g.add_output("i", inner);
    g.add_output("o", outer);
    let (changed, remarks) = pass(&mut g);
    assert!(!changed && remarks.iter().any(|r| r.reason.contains("constants would grow by")), "{remarks:?}");
}
