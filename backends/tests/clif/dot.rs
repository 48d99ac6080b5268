//! Dot products of bytes: bit by bit what the interpreter has, on every target, and in the instructions meant for them.

use bertc_backends::emit::bytes::ByteDots;
use bertc_backends::emit::clif::{compile, emit_kernel};
use bertc_backends::target::Target;
use bertc_ir::DType;
use bertc_ir::kernel::interp::{self, Memory};
use bertc_ir::kernel::{DotKind, Elem, Kernel, KernelBuilder, RegType};

use crate::machine::{Arg, Case, Outcome, TARGETS, run_on};

#[path = "../common/dots.rs"]
mod dots;

/// Targets with instructions that no other target of the tests has.
const MORE: [(&str, &str); 2] = [("x86_64", "cascadelake"), ("aarch64", "neoverse-v1")];

fn case(kernel: Kernel, buffers: Vec<Vec<u8>>) -> Case {
    let mut memory = Memory::default();
    let args: Vec<_> = buffers.iter().map(|b| interp::Arg::buffer(memory.add(b.clone()))).collect();
    interp::run(&kernel, &mut memory, &args, 0..1).unwrap_or_else(|e| panic!("{e}"));
    let name = kernel.name.clone();
    let check = move |o: &Outcome, t: &Target| {
        let differ = o.buffers[2].chunks(4).zip(memory.buffers[2].chunks(4)).position(|(a, b)| a != b);
        assert_eq!(differ, None, "{name} on {} {}", t.triple, t.cpu);
    };
    Case::new(kernel, buffers.into_iter().map(Arg::Buffer).collect(), check)
}

#[test]
fn dots_of_bytes() {
    for (triple, cpu) in TARGETS.iter().copied().chain(MORE) {
        let cases: Vec<Case> = dots::all(&[4]).into_iter().map(|(k, b)| case(k, b)).collect();
        run_on(&Target::parse(triple, cpu).unwrap(), &cases);
    }
}

/// Two rows and two columns, summed over k.
fn tile(kind: DotKind, ordered: bool) -> Kernel {
    let mut b = KernelBuilder::new("tile");
    if ordered {
        b.keep_order();
    }
    let (x, w, y) = (b.input("x", DType::I32), b.input("w", DType::I32), b.output("y", DType::I32));
    let n = b.int_param("n");
    let (zero, none) = (b.int(0), b.const_i(RegType::vector(Elem::I32, 4), 0));
    let sums = b.for_loop(zero, n, 1, &[none; 4], |b, k, carried| {
        let eight = b.int(8);
        let row = b.mul(k, eight);
        let columns = [b.load(w, row, 0, 4), b.load(w, row, 4, 4)];
        let mut next = Vec::new();
        for r in 0..2 {
            let one = b.load(x, k, 64 * r as i64, 1);
            let all = b.splat(one, 4);
            next.extend((0..2).map(|c| b.dot(kind, all, columns[c], carried[2 * r + c])));
        }
        next
    });
    for (i, &s) in sums.iter().enumerate() {
        b.store(y, zero, 4 * i as i64, s);
    }
    b.finish()
}

#[test]
fn bytes_have_their_instructions() {
    use DotKind::{I8, I8Full, U8I8};
    // How often each is there for the four dots of the loop: shifts and masks widen each factor once.
    for (triple, cpu, kinds, want) in [
        ("x86_64", "generic", &[I8, I8Full][..], &[("pmaddwd", 8), ("psraw", 8), ("psllw", 4), ("pmull", 0)][..]),
        ("x86_64", "generic", &[U8I8], &[("pmaddwd", 8), ("psraw", 4), ("psllw", 2), ("psrlw", 2), ("pand", 2)]),
        ("x86_64", "x86-64-v3", &[I8, I8Full, U8I8], &[("vpmaddwd", 8), ("pmull", 0)]),
        ("x86_64", "cascadelake", &[U8I8], &[("vpdpbusd", 4), ("pmadd", 0)]),
        ("x86_64", "alderlake", &[U8I8], &[("vpdpbusd", 4), ("pmadd", 0)]),
        ("aarch64", "generic", &[I8, I8Full, U8I8], &[("sdot", 0), ("addp", 4)]),
        ("aarch64", "cortex-a76", &[I8, I8Full], &[("sdot", 4), ("mul", 0)]),
        ("aarch64", "cortex-a76", &[U8I8], &[("sdot", 6), ("eor", 2), ("mull", 0)]),
        ("aarch64", "neoverse-v1", &[I8, I8Full], &[("sdot", 4), ("usdot", 0)]),
        ("aarch64", "neoverse-v1", &[U8I8], &[("usdot", 4), ("mull", 0)]),
    ] {
        let target = Target::parse(triple, cpu).unwrap();
        let isa = target.isa().unwrap();
        for (&kind, ordered) in kinds.iter().flat_map(|k| [(k, false), (k, true)]) {
            let func = emit_kernel(&tile(kind, ordered), &*isa, &target).unwrap();
            let listing = compile(&func, ordered, &*isa, true).unwrap().vcode.unwrap();
            let named = ByteDots::of(&target, 4, kind).unwrap().mnemonic();
            assert!(listing.contains(named), "{named} for {} on {cpu}\n{listing}", kind.name());
            for &(op, n) in want {
                let found = listing.lines().filter(|l| l.contains(op)).count();
                assert_eq!(found, n, "{op} of {} on {cpu}, ordered: {ordered}\n{listing}", kind.name());
            }
        }
    }
}
