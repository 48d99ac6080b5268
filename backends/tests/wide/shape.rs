//! What the code of inner loops consists of.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bertc_backends::emit::x86::{disassemble, emit_kernel};
use bertc_ir::kernel::{DotKind, Elem, Kernel, parse};

use crate::Test;
use crate::machine::{target, widest};

pub const TESTS: &[Test] = &[
    ("gemm_loop_has_only_products_and_loads", gemm),
    ("broadcasts_fold_into_products", folded),
    ("running_maximum_needs_no_moves", maximum),
    ("polynomials_read_constants_from_memory", polynomial),
    ("listing_has_literals", literals),
    ("gemm_loop_on_bytes_repeats_nothing", signed_quads),
    ("bytes_are_stored_by_the_register", narrow),
];

/// For code with instructions for bf16.
pub const BF16_TESTS: &[Test] = &[("gemm_loop_has_only_dot_products_and_loads", pairs)];

/// For code with instructions for products of bytes.
pub const VNNI_TESTS: &[Test] = &[("gemm_loop_has_only_dot_products_and_loads", quads)];

/// The kernel, with the widest registers in the place of those of 16 lanes.
fn kernel(text: &str) -> Result<Kernel, String> {
    let text = &text.replace("f32x16", &format!("f32x{}", widest())).replace("step 16", &format!("step {}", widest()));
    let mut all = parse(text).map_err(|d| format!("{d:?}\n{text}"))?;
    Ok(all.remove(0))
}

/// The mnemonics between the last label of a listing that is jumped back to and the jump, with their counts.
fn inner_loop(k: &Kernel) -> Result<BTreeMap<String, usize>, String> {
    let text = disassemble(&emit_kernel(k, &target()).map_err(|d| d.to_string())?);
    let mut counts = BTreeMap::new();
    let (mut label, mut body) = (String::new(), Vec::new());
    for line in text.lines() {
        if let Some(l) = line.strip_suffix(':') {
            label = format!("0x{}", l.to_uppercase());
            body.clear();
            continue;
        }
        let mut words = line.split_whitespace().skip(1);
        let (Some(op), rest) = (words.next(), words.collect::<Vec<_>>()) else { continue };
        body.push(op.to_string());
        if op == "jl" && rest == [label.as_str()] {
            body.into_iter().for_each(|op| *counts.entry(op).or_insert(0) += 1);
            return Ok(counts);
        }
    }
    Err(format!("no loop in\n{text}"))
}

fn expect(k: &Kernel, want: &[(&str, usize)]) -> Result<(), String> {
    let have = inner_loop(k)?;
    let want: BTreeMap<String, usize> = want.iter().map(|(op, n)| (op.to_string(), *n)).collect();
    if have == want { Ok(()) } else { Err(format!("the loop has {have:?}, expected {want:?}")) }
}

/// A tile of `rows` × `vectors`, `unroll` steps of k at a time, operands as the GEMM template has them.
fn tile(rows: usize, vectors: usize, unroll: usize) -> Result<Kernel, String> {
    let mut t = String::from("kernel @tile(%a: ptr<f32>, %b: ptr<f32>, %y: mut ptr<f32>, %k: i64) task %t ordered {\n");
    let mut p = |line: String| writeln!(t, "{line}").map_err(|e| e.to_string());
    p("%zero = const 0 : i64 %sixteen = const 16 : i64 %none = const 0.0 : f32x16".into())?;
    let each = |f: &dyn Fn(usize, usize) -> String| {
        (0..rows * vectors).map(|i| f(i / vectors, i % vectors)).collect::<Vec<_>>().join(", ")
    };
    for r in 0..rows {
        p(format!("%n{r} = const {r} : i64 %i{r} = mul %n{r}, %k : i64 %row{r} = address %a[%i{r}] : addr"))?;
    }
    for v in 0..vectors {
        p(format!("%c{v} = const {} : i64 %j{v} = mul %c{v}, %k : i64 %panel{v} = address %b[%j{v}] : addr", 16 * v))?;
    }
    let (results, carried) = (each(&|r, v| format!("%s{r}_{v}")), each(&|r, v| format!("%u0_{r}_{v} = %none")));
    p(format!("{results} = for %i = %zero to %k step {unroll} iter({carried}) {{"))?;
    p("%at = mul %i, %sixteen : i64".into())?;
    for u in 0..unroll {
        for v in 0..vectors {
            p(format!("%w{u}_{v} = load %b[%at + {}] from %panel{v} : f32x16", 16 * u))?;
        }
        for r in 0..rows {
            p(format!("%x{u}_{r} = load %a[%i + {u}] from %row{r} : f32"))?;
            p(format!("%v{u}_{r} = splat %x{u}_{r} : f32x16"))?;
            for v in 0..vectors {
                p(format!("%u{}_{r}_{v} = fma %v{u}_{r}, %w{u}_{v}, %u{u}_{r}_{v} : f32x16", u + 1))?;
            }
        }
    }
    p(format!("yield {} }}", each(&|r, v| format!("%u{unroll}_{r}_{v}"))))?;
    for i in 0..rows * vectors {
        p(format!("store %y[%zero + {}], %s{}_{}", 16 * i, i / vectors, i % vectors))?;
    }
    p("}".into())?;
    kernel(&t)
}

/// Broadcasts are shared by two products, so they are loads of their own; accumulators never move.
fn gemm() -> Result<(), String> {
    let common = [("add", 1), ("cmp", 1), ("jl", 1), ("mov", 1), ("shl", 1)];
    let with = |more: [(&'static str, usize); 3]| [&common[..], &more[..]].concat();
    if widest() == 8 {
        return expect(&tile(6, 2, 4)?, &with([("vfmadd231ps", 48), ("vbroadcastss", 24), ("vmovups", 8)]));
    }
    expect(&tile(8, 2, 4)?, &with([("vfmadd231ps", 64), ("vbroadcastss", 32), ("vmovups", 8)]))?;
    expect(&tile(4, 4, 2)?, &with([("vfmadd231ps", 32), ("vbroadcastss", 8), ("vmovups", 8)]))
}

/// The same tile with dot products of a kind in the place of multiply-adds.
fn dots(rows: usize, kind: DotKind) -> Result<Kernel, String> {
    let text = tile(rows, 2, 4)?.to_string().replace("ptr<f32>, %b: ptr<f32>", "ptr<i32>, %b: ptr<i32>");
    let (float, int) = (format!("f32x{}", widest()), format!("i32x{}", widest()));
    let int_sums = kind.sum() == Elem::I32;
    let typed = |line: &str| match line.split_whitespace().nth(2) {
        Some("load") if line.contains(&float) => line.replace(&float, &int),
        Some("load") => line.replace(": f32", ": i32"),
        Some("splat") => line.replace(&float, &int),
        Some("fma") if int_sums => line.replace("fma", &format!("dot {}", kind.name())).replace(&float, &int),
        Some("fma") => line.replace("fma", &format!("dot {}", kind.name())),
        Some("const") if int_sums => line.replace("0.0", "0").replace(&float, &int),
        _ => line.to_string(),
    };
    let mut text = text.lines().map(typed).collect::<Vec<_>>().join("\n");
    if int_sums {
        text = text.replace("%y: mut ptr<f32>", "%y: mut ptr<i32>");
    }
    kernel(&text)
}

/// The same tile on pairs of bf16.
fn pairs() -> Result<(), String> {
    let mut want = vec![("add", 1), ("cmp", 1), ("jl", 1), ("mov", 1), ("shl", 1)];
    want.extend([("vdpbf16ps", 64), ("vbroadcastss", 32), ("vmovups", 8)]);
    expect(&dots(8, DotKind::Bf16)?, &want)
}

/// The same on bytes, four at a time.
fn quads() -> Result<(), String> {
    let mut want = vec![("add", 1), ("cmp", 1), ("jl", 1), ("mov", 1), ("shl", 1)];
    let rows = if widest() == 8 { 6 } else { 8 };
    want.extend([("vpdpbusd", 8 * rows), ("vbroadcastss", 4 * rows), ("vmovups", 8)]);
    expect(&dots(rows, DotKind::U8I8)?, &want)
}

/// Without such instructions: with AVX2 four for a product and one more for each broadcast; with AVX-512 bytes are widened
/// once and multiplied in two halves.
fn signed_quads() -> Result<(), String> {
    let mut want = vec![("add", 1), ("cmp", 1), ("jl", 1), ("mov", 1), ("shl", 1), ("vmovups", 8)];
    if widest() == 8 {
        want.extend([("vpsignb", 32), ("vpmaddubsw", 32), ("vpmaddwd", 32), ("vpaddd", 32)]);
        want.extend([("vpabsb", 16), ("vbroadcastss", 16)]);
    } else {
        want.extend([("vpmaddwd", 64), ("vpaddd", 64), ("vpsllw", 24), ("vpsraw", 48), ("vbroadcastss", 16)]);
    }
    expect(&dots(4, DotKind::I8)?, &want)
}

/// With one vector of columns each broadcast has one user, which reads it from memory if it can.
fn folded() -> Result<(), String> {
    let mut want = vec![("add", 1), ("cmp", 1), ("jl", 1), ("mov", 1), ("shl", 1), ("vfmadd231ps", 32), ("vmovups", 4)];
    if widest() == 8 {
        want.push(("vbroadcastss", 32));
    }
    expect(&tile(8, 1, 4)?, &want)
}

/// One instruction for the maximum, one that lets NaN through, or two.
fn maximum() -> Result<(), String> {
    let k = kernel(
        "kernel @max(%x: ptr<f32>, %y: mut ptr<f32>, %n: i64) task %t {
          %zero = const 0 : i64
          %least = const -inf : f32x16
          %m = for %i = %zero to %n step 16 iter(%a = %least) {
            %v = load %x[%i] : f32x16
            %b = max %a, %v : f32x16
            yield %b
          }
          store %y[%zero], %m
        }",
    )?;
    let mut want = vec![("add", 1), ("cmp", 1), ("jl", 1), ("vmovups", 1), ("vmaxps", 1)];
    match widest() {
        16 => want.push(("vfixupimmps", 1)),
        _ => want.extend([("vcmpunordps", 1), ("vorps", 1)]),
    }
    expect(&k, &want)
}

/// Horner's scheme: a literal an instruction, none of them loaded beforehand but the first.
fn polynomial() -> Result<(), String> {
    let k = kernel(
        "kernel @poly(%x: ptr<f32>, %y: mut ptr<f32>, %n: i64) task %t {
          %zero = const 0 : i64
          %c0 = const 1.5 : f32x16 %c1 = const 2.5 : f32x16 %c2 = const 3.5 : f32x16
          for %i = %zero to %n step 16 {
            %v = load %x[%i] : f32x16
            %p = fma %c2, %v, %c1 : f32x16
            %q = fma %p, %v, %c0 : f32x16
            store %y[%i], %q
          }
        }",
    )?;
    let want = [
        ("add", 1),
        ("cmp", 1),
        ("jl", 1),
        ("vmovups", 2),
        ("vbroadcastss", 1),
        ("vfmadd213ps", 1),
        ("vfmadd231ps", 1),
    ];
    expect(&k, &want)
}

/// Rounding to bytes by a sum whose lowest byte the result is: no conversion, and no element by itself.
fn narrow() -> Result<(), String> {
    let k = kernel(
        "kernel @narrow(%x: ptr<f32>, %y: mut ptr<i8>, %n: i64) task %t {
          %zero = const 0 : i64
          %scale = const 1.25 : f32x16 %magic = const 12582912.0 : f32x16
          for %i = %zero to %n step 16 {
            %v = load %x[%i] : f32x16
            %p = fma %v, %scale, %magic : f32x16
            %q = bitcast %p : i32x16
            store %y[%i], %q
          }
        }"
        .replace("i32x16", &format!("i32x{}", widest()))
        .as_str(),
    )?;
    let mut want = vec![("add", 1), ("cmp", 1), ("jl", 1), ("vbroadcastss", 2), ("vfmadd231ps", 1)];
    match widest() {
        16 => want.push(("vpmovdb", 1)),
        _ => want.extend([("vpand", 1), ("vextractf128", 1), ("vpackusdw", 1), ("vpackuswb", 1), ("vmovq", 1)]),
    }
    expect(&k, &want)
}

fn literals() -> Result<(), String> {
    let k = kernel(
        "kernel @k(%y: mut ptr<f32>) task %t {
          %half = const 0.5 : f32x16
          store %y[%t], %half
        }",
    )?;
    let text = disassemble(&emit_kernel(&k, &target()).map_err(|d| d.to_string())?);
    let ends = text.trim_end().ends_with(".long 0x3f000000");
    let load = if widest() == 16 { "vbroadcastss zmm0, " } else { "vbroadcastss ymm0, " };
    if ends && text.contains("vzeroupper") && text.contains(load) { Ok(()) } else { Err(text) }
}
