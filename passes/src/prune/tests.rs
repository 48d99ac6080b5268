//! What becomes of small graphs.

mod calibrated;

use std::sync::Arc;

use bertc_ir::{DType, Diag, Graph, Linear, Op, Tensor, ValueId};

use super::{Fate, PruneReport, PruneSettings};
use crate::testing::T;
use crate::{PassContext, RemarkKind, Settings};

/// Numbers between -1 and 1 with no pattern that blocks share.
pub fn noise(n: usize, mut seed: u64) -> Vec<f32> {
    let mut next = || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// The graph after the pass, its report and the remarks.
pub fn pruned(g: &Graph, settings: PruneSettings) -> Result<(Graph, PruneReport, Vec<String>), Diag> {
    let mut g = g.clone();
    let settings = Arc::new(Settings { prune: Some(settings), ..Settings::default() });
    let mut ctx = PassContext { settings, ..PassContext::default() };
    crate::registry::find("prune").unwrap().pass.run(&mut g, &mut ctx)?;
    bertc_ir::verify::verify(&g).unwrap();
    let remarks = ctx.remarks.iter().map(|r| format!("{:?} {}", r.kind, r.reason)).collect();
    assert_eq!(ctx.counters.applied, ctx.remarks.iter().filter(|r| r.kind == RemarkKind::Applied).count());
    Ok((g, ctx.reports.prune.unwrap(), remarks))
}

/// What is asked for, by magnitude.
pub fn asked(sparsity: f64, block: [usize; 2]) -> PruneSettings {
    PruneSettings { sparsity, block, ..PruneSettings::default() }
}

/// Products of odd sizes, one of two parts: 13 to 23 + 22, to 19, to 21.
fn odd() -> Graph {
    let mut t = T::new();
    let x = t.input(DType::F32, &["seq", "13"]);
    let parts = [(23, 1), (22, 2)].map(|(n, seed)| t.f32(&[13, n], &noise(13 * n, seed)));
    let w = t.add(Op::Concat { axis: 1 }, &parts);
    let y = t.add(Op::Linear(Linear::default()), &[x, w]);
    let u = t.f32(&[19, 45], &noise(19 * 45, 3));
    let y = t.add(Op::MatMul { trans_b: true }, &[y, u]);
    let v = t.f32(&[19, 21], &noise(19 * 21, 4));
    let y = t.add(Op::Linear(Linear::default()), &[y, v]);
    t.g.add_output("y", y);
    t.g
}

/// The constants of `odd` as `[outputs, inputs]`, in order.
fn matrices(g: &Graph) -> Vec<(Vec<f32>, usize)> {
    let of = |v: ValueId, axis: usize| {
        let t = g.as_const(v).unwrap();
        let (k, all) = (t.shape()[1 - axis], t.to_f32_vec());
        (if axis == 0 { all } else { super::transposed(&all, t.shape()[1]) }, k)
    };
    let mut found = Vec::new();
    for v in g.topo() {
        match g.op(v) {
            Op::Linear(_) | Op::MatMul { .. } => {
                let (b, axis) = (g.operands(v)[1], usize::from(!matches!(g.op(v), Op::MatMul { trans_b: true })));
                match g.op(b) {
                    Op::Concat { .. } => found.extend(g.operands(b).iter().map(|&p| of(p, axis))),
                    _ => found.push(of(b, axis)),
                }
            }
            _ => {}
        }
    }
    found
}

#[test]
fn the_sparsity_is_met_and_zeros_are_whole_blocks() {
    let g = odd();
    let before = matrices(&g);
    let total: usize = before.iter().map(|m| m.0.len()).sum();
    for block in super::BLOCKS {
        for sparsity in [0.0, 0.3, 0.5, 0.8] {
            let (after, report, remarks) = pruned(&g, asked(sparsity, block)).unwrap();
            let after = matrices(&after);
            let zeros: usize = after.iter().flat_map(|m| &m.0).filter(|x| **x == 0.0).count();
            let off = (zeros as f64 - sparsity * total as f64).abs();
            assert!(off <= (block[0] * block[1]) as f64, "{block:?} {sparsity}: {zeros} of {total}");
            assert_eq!(report.matrices.iter().map(|m| m.zeros).sum::<usize>(), zeros);
            assert_eq!(remarks.len(), if sparsity == 0.0 { 0 } else { 4 }, "{remarks:?}");
            for ((old, k), (new, _)) in before.iter().zip(&after) {
                for (i, (x, y)) in old.iter().zip(new).enumerate() {
                    assert!(*y == *x || *y == 0.0);
                    // All that is in one block is 0, or nothing is.
                    let (n, c) = (i / k / block[0] * block[0], i % k / block[1] * block[1]);
                    assert_eq!(*y == 0.0, new[n * k + c] == 0.0);
                }
            }
        }
    }
}

#[test]
fn what_is_0_goes_first_and_again_is_the_same() {
    let mut t = T::new();
    let x = t.input(DType::F32, &["seq", "8"]);
    let zeros = t.f32(&[8, 16], &[0.0; 128]);
    let y = t.add(Op::Linear(Linear::default()), &[x, zeros]);
    let w = t.f32(&[16, 16], &noise(256, 7));
    let y = t.add(Op::Linear(Linear::default()), &[y, w]);
    t.g.add_output("y", y);
    let (g, report, remarks) = pruned(&t.g, asked(0.5, [4, 4])).unwrap();
    assert_eq!(report.matrices.iter().map(|m| m.zeros).collect::<Vec<_>>(), [128, 64]);
    assert_eq!(remarks.len(), 1, "{remarks:?}");
    let (again, second, _) = pruned(&g, asked(0.5, [4, 4])).unwrap();
    assert_eq!(second.matrices.iter().map(|m| m.zeros).collect::<Vec<_>>(), [128, 64]);
    assert_eq!(matrices(&g), matrices(&again));
}

#[test]
fn names_choose_matrices() {
    let g = odd();
    let names: Vec<String> =
        pruned(&g, asked(0.5, [1, 4])).unwrap().1.matrices.iter().map(|m| m.name.clone()).collect();
    let (_, report, _) = pruned(&g, PruneSettings { only: vec![names[2].clone()], ..asked(0.5, [1, 4]) }).unwrap();
    let fates = |r: &PruneReport| r.matrices.iter().map(|m| m.fate).collect::<Vec<_>>();
    assert_eq!(fates(&report), [Fate::Named, Fate::Named, Fate::Pruned, Fate::Named]);
    assert!((report.reached() - 0.5).abs() < 0.01, "of what was chosen");
    let keep = PruneSettings { keep: vec![names[0].clone(), "nobody".into()], ..asked(0.5, [1, 4]) };
    let (_, report, _) = pruned(&g, keep.clone()).unwrap();
    assert_eq!(fates(&report), [Fate::Named, Fate::Pruned, Fate::Pruned, Fate::Pruned]);
    let e = pruned(&g, PruneSettings { strict: true, ..keep }).unwrap_err();
    assert!(e.message.contains("unknown matrix 'nobody'"), "{e}");
    let e = pruned(&g, PruneSettings { only: vec![format!("{}0", names[1])], ..asked(0.5, [1, 4]) }).unwrap_err();
    assert!(e.to_string().contains("did you mean") && e.to_string().contains("--prune-only"), "{e}");
}

#[test]
fn strange_weights_stay() {
    for strange in [f32::NAN, f32::INFINITY] {
        let mut t = T::new();
        let x = t.input(DType::F32, &["seq", "16"]);
        let mut w = noise(256, 5);
        w[17] = strange;
        let [w, u] = [w, noise(256, 6)].map(|w| t.f32(&[16, 16], &w));
        let y = t.add(Op::Linear(Linear::default()), &[x, w]);
        let y = t.add(Op::Linear(Linear::default()), &[y, u]);
        t.g.add_output("y", y);
        let (after, report, _) = pruned(&t.g, asked(0.5, [1, 4])).unwrap();
        assert_eq!(report.matrices.iter().map(|m| m.fate).collect::<Vec<_>>(), [Fate::Strange, Fate::Pruned]);
        assert_eq!((report.matrices[0].zeros, report.matrices[1].zeros), (0, 128));
        let first = after.topo().into_iter().find_map(|v| after.as_const(v).filter(|t| t.len() == 256)).unwrap();
        assert!(first.to_f32_vec().iter().all(|x| *x != 0.0));
    }
}

#[test]
fn new_constants_keep_their_names() {
    let g = odd();
    let found = super::matrices::find(&g, &[]).0;
    let known: Vec<(Tensor, String)> =
        found.iter().map(|m| (g.as_const(m.value).unwrap().clone(), format!("/m{}", m.n))).collect();
    let settings = Settings { prune: Some(asked(0.5, [1, 4])), names: known.clone(), ..Settings::default() };
    let mut ctx = PassContext { settings: settings.into(), names: known, ..PassContext::default() };
    let mut g = g;
    crate::registry::find("prune").unwrap().pass.run(&mut g, &mut ctx).unwrap();
    let names = |r: &PruneReport| r.matrices.iter().map(|m| m.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&ctx.reports.prune.unwrap()), ["/m23", "/m22", "/m19", "/m21"]);
    let again: Vec<String> = super::matrices::find(&g, &ctx.names).0.iter().map(|m| m.name().to_string()).collect();
    assert_eq!(again, ["/m23", "/m22", "/m19", "/m21"]);
}

#[test]
fn options_say_it_all() {
    let run = |text: &str| {
        let steps = crate::parse(text, crate::registry::PASSES).unwrap();
        let mut g = odd();
        crate::run_steps(&mut g, &steps, &crate::Options { verify_each: true }, &mut crate::Unwatched).map(|()| g)
    };
    let zeros = |g: &Graph| matrices(g).iter().flat_map(|m| &m.0).filter(|x| **x == 0.0).count();
    let total = 13 * 45 + 19 * 45 + 19 * 21;
    let g = run("prune{sparsity=80;rows=1;cols=4}").unwrap();
    assert!((zeros(&g) as f64 - 0.8 * f64::from(total)).abs() <= 4.0);
    assert!((zeros(&run("prune").unwrap()) as f64 - 0.5 * f64::from(total)).abs() <= 16.0);
    for wrong in ["prune{sparsity=100}", "prune{rows=0}", "prune{cols=5000}"] {
        assert!(run(wrong).is_err(), "{wrong}");
    }
}
