//! Dot products of bytes, of every kind, over all extremes: what emitted code is compared with the interpreter on.

use bertc_ir::DType;
use bertc_ir::kernel::{DotKind, Elem, Kernel, KernelBuilder, RegType};

const KINDS: [DotKind; 3] = [DotKind::I8, DotKind::I8Full, DotKind::U8I8];

/// Ways in which factors come and sums go.
const VARIANTS: usize = 5;

/// Words of four bytes: all of two values by turns, and some that the products of can't be confused.
fn words(kind: DotKind, second: bool) -> Vec<u32> {
    let extremes: &[u8] =
        if second && kind == DotKind::I8 { &[0, 1, 127, 129, 255] } else { &[0, 1, 127, 128, 129, 255] };
    let mut words: Vec<u32> =
        extremes.iter().flat_map(|&x| extremes.iter().map(move |&y| u32::from_le_bytes([x, y, x, y]))).collect();
    words.extend(
        [[1, 2, 3, 4], [255, 126, 253, 131], [64, 0, 0, 0], [0, 64, 0, 0], [0, 0, 64, 0], [0, 0, 0, 64]]
            .map(u32::from_le_bytes),
    );
    words
}

/// What a kernel takes its factors from, and what it does with them.
fn kernel(kind: DotKind, lanes: u8, variant: usize, n: i64) -> Kernel {
    let mut b = KernelBuilder::new(format!("dot {} {lanes} {variant}", kind.name()));
    let (px, py, pz) = (b.input("x", DType::I32), b.input("y", DType::I32), b.output("z", DType::I32));
    let ty = RegType::vector(Elem::I32, lanes);
    let (zero, end) = (b.int(0), b.int(n));
    b.for_loop(zero, end, lanes.into(), &[], |b, i, _| {
        let (p, q) = (b.load(px, i, 0, lanes), b.load(py, i, 0, lanes));
        let c = b.const_i(ty, 0x7fff_0000);
        let r = match variant {
            0 => b.dot(kind, p, q, c),
            1 => {
                // An element for all lanes, of either side.
                let (one, other) = (b.load(px, i, 0, 1), b.load(py, i, 1, 1));
                let (all, others) = (b.splat(one, lanes), b.splat(other, lanes));
                let first = b.dot(kind, all, q, c);
                b.dot(kind, p, others, first)
            }
            2 => {
                // The sum goes on, and both factors are used again.
                let first = b.dot(kind, p, q, c);
                let second = b.dot(kind, p, q, first);
                let third = b.dot(kind, q, q, c);
                let sum = b.add(second, third);
                b.add(first, sum)
            }
            3 => {
                // Around a loop, whose body changes what it carries.
                let three = b.int(3);
                let all = b.for_loop(zero, three, 1, &[c, p], |b, _, carried| {
                    let next = b.dot(kind, carried[1], q, carried[0]);
                    let again = b.dot(kind, carried[1], q, next);
                    vec![again, q]
                });
                b.dot(kind, p, q, all[0])
            }
            _ => {
                let (x, y) = (b.const_i(ty, 0x017f_80ff), b.const_i(ty, 0x7f81_0102));
                let first = b.dot(kind, x, q, c);
                b.dot(kind, p, y, first)
            }
        };
        b.store(pz, i, 0, r);
        vec![]
    });
    b.finish()
}

/// Every kernel for vectors of as many lanes, with its buffers: every word with every other one.
pub fn all(lanes: &[u8]) -> Vec<(Kernel, Vec<Vec<u8>>)> {
    let mut found = Vec::new();
    for kind in KINDS {
        let (x, y) = (words(kind, false), words(kind, true));
        let mut pairs: Vec<(u32, u32)> = x.iter().flat_map(|&x| y.iter().map(move |&y| (x, y))).collect();
        pairs.resize(pairs.len().next_multiple_of(16), (0, 0));
        let column = |of: &dyn Fn(&(u32, u32)) -> u32| {
            // One more: splats are of the element behind.
            pairs.iter().chain([&(0, 0)]).flat_map(|p| of(p).to_le_bytes()).collect::<Vec<u8>>()
        };
        let (x, y, n) = (column(&|p| p.0), column(&|p| p.1), pairs.len());
        for &lanes in lanes {
            for variant in 0..VARIANTS {
                let buffers = vec![x.clone(), y.clone(), vec![0; 4 * n]];
                found.push((kernel(kind, lanes, variant, n as i64), buffers));
            }
        }
    }
    found
}
