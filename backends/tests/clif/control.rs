//! Loops, conditionals, tasks and the error flag.

use bertc_ir::kernel::{Elem, KernelBuilder, RegType};
use bertc_ir::{CmpOp, DType};

use crate::machine::{Arg, Case, Outcome, run_all};

fn i64s(bytes: &[u8]) -> Vec<i64> {
    bytes.chunks(8).map(|c| i64::from_le_bytes(c.try_into().expect("eight bytes"))).collect()
}

fn zeros(n: usize) -> Arg {
    Arg::Buffer(vec![0; n])
}

/// Sum and count over `lo..hi` by 3; empty ranges keep the initial values.
#[test]
fn carried_values_and_empty_loops() {
    let cases = [(0, 0), (0, 1), (0, 3), (0, 4), (5, 2), (-7, 8)].map(|(lo, hi)| {
        let mut b = KernelBuilder::new("carried");
        let q = b.output("y", DType::I64);
        let (l, h) = (b.int_param("lo"), b.int_param("hi"));
        let (zero, hundred) = (b.int(0), b.int(100));
        let r = b.for_loop(l, h, 3, &[zero, hundred], |b, i, c| {
            let sum = b.add(c[0], i);
            let one = b.int(1);
            // Swapped with the sum in between, so that both are really carried.
            let count = b.add(c[1], one);
            vec![sum, count]
        });
        b.store(q, zero, 0, r[0]);
        b.store(q, zero, 1, r[1]);
        let want = (lo..hi).step_by(3).fold((0, 100), |(s, n), i| (s + i, n + 1));
        Case::new(b.finish(), vec![zeros(16), Arg::Int(lo), Arg::Int(hi)], move |o: &Outcome, _| {
            assert_eq!(i64s(&o.buffers[0]), [want.0, want.1], "{lo}..{hi}");
        })
    });
    run_all(&cases);
}

/// A matrix product with a 2×8 register tile: nested loops, carried vectors, constant offsets.
#[test]
fn small_matrix_product() {
    let cases = [0usize, 1, 5, 64].map(|k| {
        let (m, n) = (6usize, 24usize);
        let mut b = KernelBuilder::new(format!("gemm_{k}"));
        let (pa, pb, pc) = (b.input("a", DType::F32), b.input("b", DType::F32), b.output("c", DType::F32));
        let kr = b.int_param("k");
        let (zero, mr, nr) = (b.int(0), b.int(m as i64), b.int(n as i64));
        b.for_loop(zero, mr, 2, &[], |b, i, _| {
            let (row, out) = (b.mul(i, kr), b.mul(i, nr));
            b.for_loop(zero, nr, 8, &[], |b, j, _| {
                let init = vec![b.const_f(RegType::vector(Elem::F32, 4), 0.0); 4];
                let acc = b.for_loop(zero, kr, 1, &init, |b, p, acc| {
                    let at = b.mul(p, nr);
                    let at = b.add(at, j);
                    let col = [b.load(pb, at, 0, 4), b.load(pb, at, 4, 4)];
                    let mut next = Vec::new();
                    let mut index = b.add(row, p);
                    for r in 0..2 {
                        let x = b.load(pa, index, 0, 1);
                        let x = b.splat(x, 4);
                        next.extend([0, 1].map(|c| b.fma(x, col[c], acc[2 * r + c])));
                        index = b.add(index, kr);
                    }
                    next
                });
                let at = b.add(out, j);
                for (t, &v) in acc.iter().enumerate() {
                    b.store(pc, at, (t / 2 * n + t % 2 * 4) as i64, v);
                }
                Vec::new()
            });
            Vec::new()
        });
        let a: Vec<f32> = (0..m * k).map(|i| (i % 7) as f32 - 3.0).collect();
        let w: Vec<f32> = (0..k * n).map(|i| (i % 5) as f32 - 2.0).collect();
        let bytes = |v: &[f32]| Arg::Buffer(v.iter().flat_map(|x| x.to_le_bytes()).collect());
        let args = vec![bytes(&a), bytes(&w), zeros(m * n * 4), Arg::Int(k as i64)];
        Case::new(b.finish(), args, move |o, t| {
            for (at, c) in o.buffers[2].chunks(4).enumerate() {
                // Small integers: every sum is exact.
                let want: f32 = (0..k).map(|p| a[at / n * k + p] * w[p * n + at % n]).sum();
                let got = f32::from_le_bytes(c.try_into().expect("four bytes"));
                assert_eq!(got, want, "element {at}, k = {k} on {} {}", t.triple, t.cpu);
            }
        })
    });
    run_all(&cases);
}

/// Both branches of a nested conditional, the task's number, and a flag that only one task sets.
#[test]
fn conditionals_tasks_and_failure() {
    let cases = [3u64, 9].map(|tasks| {
        let mut b = KernelBuilder::new("branches");
        let q = b.output("y", DType::I64);
        let task = b.task();
        let (three, six) = (b.int(3), b.int(6));
        let low = b.cmp(CmpOp::Lt, task, three);
        let r = b.if_else(
            low,
            |b| vec![b.mul(task, three)],
            |b| {
                let is_six = b.cmp(CmpOp::Eq, task, six);
                b.if_else(
                    is_six,
                    |b| {
                        b.fail();
                        vec![b.int(-1)]
                    },
                    |b| vec![b.add(task, six)],
                )
            },
        );
        b.store(q, task, 0, r[0]);
        let mut case = Case::new(b.finish(), vec![zeros(8 * tasks as usize)], move |o, _| {
            let want: Vec<i64> = (0..tasks as i64)
                .map(|t| {
                    if t < 3 {
                        3 * t
                    } else if t == 6 {
                        -1
                    } else {
                        t + 6
                    }
                })
                .collect();
            assert_eq!(i64s(&o.buffers[0]), want);
            assert_eq!(o.flag != 0, tasks > 6);
        });
        case.tasks = tasks;
        case
    });
    run_all(&cases);
}
