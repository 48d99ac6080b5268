//! The text form of kernels: exact round trips, good messages, and no panic on garbage.

mod kernel_gen;

use bertc_ir::kernel::interp::{Arg, Memory, run};
use bertc_ir::kernel::{Bin, Elem, Kernel, KernelBuilder, RegType, parse, print, verify};
use bertc_ir::{DType, Loc};
use proptest::collection::vec;
use proptest::prelude::*;

fn parsed(src: &str) -> Vec<Kernel> {
    parse(src).unwrap_or_else(|d| panic!("{}\n{src}", d.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))
}

/// The messages of a text that must not parse, each with the text it points at.
fn errors(src: &str) -> Vec<(String, &str)> {
    let point = |loc: &Loc| match loc {
        Loc::Text { start, end } => &src[*start..*end],
        other => panic!("a diagnostic at {other}"),
    };
    parse(src).expect_err(src).iter().map(|d| (d.message.clone(), point(&d.loc))).collect()
}

/// Runs a generated kernel on fixed contents; what it leaves in memory, or its error.
fn result(k: &Kernel) -> Result<(bool, Memory), String> {
    let mut m = Memory::default();
    let mut args = Vec::new();
    for d in DType::ALL {
        for seed in [3, 5] {
            let bytes: Vec<u8> = (0..kernel_gen::LEN * d.size()).map(|i| (i * seed) as u8).collect();
            args.push(Arg::buffer(m.add(bytes)));
        }
    }
    args.extend([Arg::Int(5), Arg::Int(-3)]);
    let outcome = run(k, &mut m, &args, 0..3)?;
    Ok((outcome.failed, m))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn round_trips(choices in vec(0u32..1 << 16, 0..200)) {
        let k = kernel_gen::kernel(&choices);
        prop_assert_eq!(verify(&k), Ok(()));
        let text = print(&k);
        let back = parsed(&text);
        // The generator adds its parameters first, so the builder's numbers are the canonical ones.
        prop_assert_eq!(&back, std::slice::from_ref(&k));
        prop_assert_eq!(k.canonical(), k);
    }

    #[test]
    fn generated_kernels_run(choices in vec(0u32..1 << 16, 0..200)) {
        let k = kernel_gen::kernel(&choices);
        let ran = result(&k);
        prop_assert!(ran.is_ok(), "{:?}\n{k}", ran);
        prop_assert_eq!(ran, result(&k));
    }

    #[test]
    fn garbage_is_refused_without_a_panic(src in "\\PC{0,60}") {
        let _ = parse(&src);
    }

    #[test]
    fn damaged_kernels_do_not_panic(
        choices in vec(0u32..1 << 16, 0..60),
        cut in 0.0..1.0f64,
        len in 0usize..12,
        patch in prop::sample::select(vec!["", "%", "}", "{", "%0", "yield %0", "-", "\"", "f32x3", " : i64", "= for", "é"]),
    ) {
        let mut text = print(&kernel_gen::kernel(&choices));
        let at = |x: usize| (x..).find(|&i| i >= text.len() || text.is_char_boundary(i)).unwrap_or(0).min(text.len());
        let start = at((cut * text.len() as f64) as usize);
        let end = at((start + len).min(text.len()));
        text.replace_range(start..end, patch);
        if let Err(diags) = parse(&text) {
            for d in diags {
                let Loc::Text { start, end } = d.loc else { panic!("a diagnostic without a place: {d}") };
                prop_assert!(text.get(start..end).is_some(), "{}", d);
            }
        }
    }
}

#[test]
fn renumbering_is_canonical() {
    let mut k = KernelBuilder::new("late");
    let one = k.int(1);
    let n = k.int_param("n");
    let y = k.output("y", DType::I64);
    let s = k.add(one, n);
    k.store(y, one, i64::MIN, s);
    k.store(y, one, i64::MAX, s);
    let k = k.finish();
    assert_ne!(k.canonical(), k);
    assert_eq!(parsed(&print(&k)), [k.canonical()]);
    assert_eq!(parsed(&print(&k.canonical())), [k.canonical()]);
}

#[test]
fn a_kernel_prints_like_this() {
    let mut k = KernelBuilder::new("scale rows");
    let (x, y, n) = (k.input("x", DType::F16), k.output("y", DType::F32), k.int_param("n"));
    let (zero, sum) = (k.int(0), k.const_f(RegType::vector(Elem::F32, 4), 0.0));
    let r = k.for_loop(zero, n, 4, &[sum], |k, i, acc| {
        let v = k.load(x, i, -4, 4);
        vec![k.add(acc[0], v)]
    });
    let s = k.reduce(Bin::Max, r[0]);
    let int = k.convert_sign(s, Elem::I32, true);
    let t = k.cmp_sign(bertc_ir::CmpOp::Lt, true, int, int);
    let d = k.if_else(
        t,
        |_| vec![s],
        |k| {
            k.fail();
            vec![s]
        },
    );
    k.store(y, zero, 2, d[0]);
    k.if_else(t, |_| vec![], |_| vec![]);
    let text = "\
kernel @\"scale rows\"(%x: ptr<f16>, %y: mut ptr<f32>, %n: i64) task %0 {
  %2 = const 0 : i64
  %3 = const 0.0 : f32x4
  %8 = for %4 = %2 to %n step 4 iter(%5 = %3) {
    %6 = load %x[%4 - 4] : f32x4
    %7 = add %5, %6 : f32x4
    yield %7
  }
  %9 = reduce max %8 : f32
  %10 = convert unsigned %9 : i32
  %11 = cmp unsigned lt %10, %10 : mask
  %12 = if %11 {
    yield %9
  } else {
    fail
    yield %9
  }
  store %y[%2 + 2], %12
  if %11 {
  }
}
";
    assert_eq!(print(&k.finish()), text);
    assert_eq!(parsed(text).iter().map(print).collect::<String>(), text);
}

#[test]
fn floats_are_exact() {
    let bits = [0x7ff8_0000_0000_0000, 0x7ff8_0000_0000_0001, 0xfff0_0000_0000_0001, 1, 0x8000_0000_0000_0000];
    let mut k = KernelBuilder::new("floats");
    for b in bits {
        k.const_f(RegType::scalar(Elem::F64), f64::from_bits(b));
    }
    let k = k.finish();
    // NaN isn't equal to itself; its text is.
    let back = parsed(&print(&k));
    assert_eq!(back.iter().map(print).collect::<String>(), print(&k));
    let values = back[0].body.insts.iter().map(|i| match i {
        bertc_ir::kernel::Inst::ConstF { value, .. } => value.to_bits(),
        other => panic!("{other:?}"),
    });
    assert_eq!(values.collect::<Vec<_>>(), bits);
}

#[test]
fn names_and_comments() {
    let src = "// two kernels\nkernel @a(%in: ptr<u8>) task %t { %sum = add %t, %t : i64 // twice\n }\nkernel @b() task %t { fail }";
    let names: Vec<_> = parsed(src).into_iter().map(|k| k.name).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(parsed(""), []);
}

#[test]
fn messages_point_at_the_text() {
    let in_body = |body: &str| format!("kernel @k(%x: ptr<f32>, %y: mut ptr<f32>, %n: i64) task %t {{\n{body}\n}}");
    let cases = [
        ("%a = add %t, %b : i64", "%b is not defined", "%b"),
        ("%a = add %t, %a : i64", "%a is not defined", "%a"),
        ("%t = const 1 : i64", "%t is defined twice", "%t"),
        ("%a = add %t, %x : i64", "%x is a pointer, expected a register", "%x"),
        ("%a = load %n[%t] : f32", "%n is not a pointer parameter", "%n"),
        ("%a = const 1 : f16", "'f16' is not a register type", "f16"),
        ("%a = const 1 : f64x2", "'f64x2' is not a register type", "f64x2"),
        ("%a = const 1 : f32x3", "'f32x3' is not a register type", "f32x3"),
        ("%a = const 1.5 : i32", "expected a decimal integer, found '1.5'", "1.5"),
        ("%a = const 9223372036854775808 : i64", "9223372036854775808 doesn't fit 64 bits", "9223372036854775808"),
        ("%a = frob %t : i64", "there is no instruction 'frob'", "frob"),
        ("add %t, %t : i64", "'add' has one result, found 0", "add"),
        ("%a, %b = add %t, %t : i64", "'add' has one result, found 2", "add"),
        ("%a = fail", "'fail' has no result", "fail"),
        ("%a = cmp is %t, %t : mask", "'is' is not a predicate", "is"),
        ("%a = cmp eq %t %t : mask", "expected ',', found '%t'", "%t"),
        ("%a = for %i = %t to %n step 1 {}", "1 results for 0 carried values", "%a = for %i = %t to %n step 1"),
        ("%c = const 1 : mask\n%a = if %c { } else { yield %t }", "1 results for 0 yielded values", "%a = if %c"),
        ("for %i = %t to %n step 1 {}\n%a = add %i, %t : i64", "%i is defined in a block that has ended", "%i"),
        // The rest reads well and breaks an invariant.
        ("%a = add %t, %n : i32", "an operand is i64, expected i32", "%a = add %t, %n : i32"),
        ("%a = load %x[%t] : i32", "f32 in memory is f32 in a register, not i32", "%a = load %x[%t] : i32"),
        ("%a = const 1.0 : f32\nstore %x[%a], %a", "%a is f32, expected i64", "store %x[%a], %a"),
        ("for %i = %t to %n step 0 {}", "step 0 is not positive", "for %i = %t to %n step 0"),
        ("if %t {}", "%t is i64, expected mask", "if %t"),
        ("yield %t", "the outermost block yields values", "kernel @k(%x: ptr<f32>, %y: mut ptr<f32>, %n: i64) task %t"),
    ];
    for (body, message, place) in cases {
        let src = in_body(body);
        assert_eq!(errors(&src)[0], (message.to_owned(), place), "{body}");
    }
}

#[test]
fn every_bad_kernel_is_reported() {
    let src = "kernel @a() task %t { frob }\nkernel @b() task %t { fail }\nkernel @c(%x: f32) task %t { }\nkernel @b() task %t { }";
    let found = errors(src);
    assert_eq!(
        found.iter().map(|(m, _)| m.as_str()).collect::<Vec<_>>(),
        [
            "there is no instruction 'frob'",
            "expected 'ptr', 'mut ptr' or 'i64', found 'f32'",
            "two kernels are named 'b'",
        ]
    );
}

#[test]
fn deep_nesting_is_refused() {
    let nest = |n: usize| {
        let open: String = (0..n).map(|i| format!("for %i{i} = %t to %t step 1 {{ ")).collect();
        format!("kernel @deep() task %t {{ {open}{} }}", "}".repeat(n))
    };
    assert!(parse(&nest(64)).is_ok());
    assert_eq!(errors(&nest(65))[0].0, "blocks nest deeper than 64");
    assert_eq!(errors(&nest(100_000))[0].0, "blocks nest deeper than 64");
}
