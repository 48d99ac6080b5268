//! The kernel templates, step by step: compiled code against the interpreter, over all tails, in buffers that end at an
//! inaccessible page.

use bertc_backends::lower::lower;
use bertc_backends::pack::write_packed;
use bertc_backends::plan::{self, Program};
use bertc_backends::target::Target;
use bertc_ir::kernel::interp::{self, Memory};
use bertc_ir::{Attention, DType, Dim, Graph, Linear, Loc, Op, SumNorm, Tensor, TensorType, UnaryOp, ValueId};

use crate::machine::{Arg, Case, Outcome, TARGETS, run_on};

/// Numbers between -1 and 1 with a few bits, so that sums stay small and no order of summation overflows.
fn numbers(count: usize, seed: u64) -> Vec<u8> {
    let mut s = seed;
    let mut next = || {
        s = s.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((s >> 50) as i32 - (1 << 13)) as f32 / (1 << 13) as f32
    };
    (0..count).flat_map(|_| next().to_le_bytes()).collect()
}

fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks(4).map(|c| f32::from_le_bytes(c.try_into().expect("four bytes"))).collect()
}

/// A graph under construction, of constant shapes.
pub struct Build(Graph);

impl Build {
    fn new() -> Build {
        Build(Graph::new("f"))
    }

    fn input(&mut self, shape: &[i64]) -> ValueId {
        let ty = TensorType::new(DType::F32, shape.iter().map(|&d| Dim::from(d)).collect());
        self.0.add_input(format!("x{}", self.0.inputs().len()), ty)
    }

    fn constant(&mut self, shape: &[usize]) -> ValueId {
        let bytes = numbers(shape.iter().product(), 3 + self.0.len() as u64);
        let t = Tensor::new(DType::F32, shape.to_vec(), bytes.into()).expect("bytes of the shape");
        self.add(Op::Constant(t), &[])
    }

    fn add(&mut self, op: Op, operands: &[ValueId]) -> ValueId {
        self.0.add(op, operands, &Loc::Unknown).expect("a valid op")
    }
}

/// The steps of a program as cases: each kernel on arbitrary numbers, in all its tasks.
fn cases(p: &Program, name: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    for step in &p.steps {
        let bytes = |a: &plan::Arg| -> Option<Vec<u8>> {
            let numbers = |n: i64| Some(numbers(n as usize / 4, n as u64));
            let port = |t: &TensorType| t.elements()?.as_const().map(|n| n * 4);
            match a {
                plan::Arg::Buffer(b) => numbers(p.buffers[*b].bytes.as_const()?),
                plan::Arg::Input(i) => numbers(port(&p.inputs[*i].ty)?),
                plan::Arg::Output(i) => numbers(port(&p.outputs[*i].ty)?),
                plan::Arg::Const(c) => {
                    let mut out = Vec::new();
                    write_packed(&p.consts[*c], &mut out).expect("a packable constant");
                    Some(out)
                }
                plan::Arg::Scratch(bytes) => numbers(*bytes as i64),
                plan::Arg::Int(_) => None,
            }
        };
        let mut memory = Memory::default();
        let (mut native, mut model) = (Vec::new(), Vec::new());
        for a in &step.args {
            match (a, bytes(a)) {
                (_, Some(b)) => {
                    model.push(interp::Arg::buffer(memory.add(b.clone())));
                    native.push(Arg::Buffer(b));
                }
                (plan::Arg::Int(d), _) => {
                    let v = d.as_const().expect("constant dims");
                    model.push(interp::Arg::Int(v));
                    native.push(Arg::Int(v));
                }
                _ => panic!("{name}: an argument without a size"),
            }
        }
        let tasks =
            step.tasks.iter().map(|(d, c)| (d.as_const().expect("constant") as u64).div_ceil(*c as u64)).product();
        let kernel = p.kernels[step.kernel].clone();
        interp::run(&kernel, &mut memory, &model, 0..tasks).unwrap_or_else(|e| panic!("{name}: {e}"));
        let want = memory.buffers;
        let scratch: Vec<bool> = step
            .args
            .iter()
            .filter(|a| !matches!(a, plan::Arg::Int(_)))
            .map(|a| matches!(a, plan::Arg::Scratch(_)))
            .collect();
        let name = format!("{name}: {}", kernel.name);
        let mut case = Case::new(kernel, native, move |o: &Outcome, t| {
            for (i, (got, want)) in o.buffers.iter().zip(&want).enumerate().filter(|(i, _)| !scratch[*i]) {
                for (k, (a, b)) in f32s(got).into_iter().zip(f32s(want)).enumerate() {
                    // Without a fused multiply-add every product rounds.
                    let close = (a - b).abs() <= 2e-5 * b.abs().max(1.0) || a.to_bits() == b.to_bits();
                    assert!(close, "{name} on {} {}: buffer {i}, element {k}: {a} for {b}", t.triple, t.cpu);
                }
            }
        });
        case.tasks = tasks;
        cases.push(case);
    }
    cases
}

/// Compiles and runs every step of the graphs on every target.
fn check(graphs: &[(String, Graph)]) {
    for (triple, cpu) in TARGETS {
        let target = Target::parse(triple, cpu).expect("a known target");
        let mut all = Vec::new();
        for (name, g) in graphs {
            let p = lower(g, &target).unwrap_or_else(|e| panic!("{name}: {e:?}"));
            all.extend(cases(&p, name));
        }
        run_on(&target, &all);
    }
}

#[test]
fn matmul() {
    let mut graphs = Vec::new();
    for m in [1, 2, 3, 4, 5, 7, 8, 33] {
        for (n, k) in [(1, 1), (5, 3), (16, 4), (17, 9), (20, 5), (35, 8), (200, 4), (64, 64), (130, 450)] {
            let mut b = Build::new();
            let (x, w) = (b.input(&[m, k as i64]), b.constant(&[k, n]));
            let y = b.add(Op::MatMul { trans_b: false }, &[x, w]);
            b.0.add_output("y", y);
            graphs.push((format!("matmul {m} x {n} x {k}"), b.0));
        }
    }
    check(&graphs);
}

#[test]
fn linear() {
    let mut graphs = Vec::new();
    for m in [1, 3, 6, 37] {
        for (n, k) in [(1, 1), (20, 7), (64, 64), (130, 450)] {
            for (act, residual, norm) in [
                (Some(UnaryOp::Gelu), false, false),
                (Some(UnaryOp::GeluTanh), true, false),
                (None, true, true),
                (Some(UnaryOp::Tanh), false, true),
            ] {
                let mut b = Build::new();
                let mut operands = vec![b.input(&[m, k as i64]), b.constant(&[k, n]), b.constant(&[n])];
                if residual {
                    operands.push(b.input(&[m, n as i64]));
                }
                if norm {
                    operands.extend([b.constant(&[n]), b.constant(&[n])]);
                }
                let l = Linear { trans_b: false, bias: true, act, residual, norm: norm.then_some(0.1) };
                let y = b.add(Op::Linear(l), &operands);
                b.0.add_output("y", y);
                graphs.push((format!("linear {m} x {n} x {k} {act:?} {residual} {norm}"), b.0));
            }
        }
    }
    check(&graphs);
}

#[test]
fn attention() {
    let mut graphs = Vec::new();
    for (s, t) in [(1, 1), (5, 3), (12, 12), (131, 20), (3, 140)] {
        for (heads, d, e) in [(1, 4, 4), (2, 5, 7), (2, 32, 24)] {
            let mut b = Build::new();
            let operands = [
                b.input(&[2, s, heads * d]),
                b.input(&[2, t, heads * d]),
                b.input(&[2, t, heads * e]),
                b.input(&[2, 1, 1, t]),
            ];
            let a = Attention { heads: heads as usize, scale: 0.3, mask: true, nan_to_zero: false };
            let y = b.add(Op::Attention(a), &operands);
            b.0.add_output("y", y);
            graphs.push((format!("attention {s} x {t}, {heads} heads of {d} and {e}"), b.0));
        }
    }
    check(&graphs);
}

#[test]
fn sum_norm() {
    let mut graphs = Vec::new();
    for n in [1, 7, 16, 50] {
        let mut b = Build::new();
        let operands = [b.input(&[3, 5, n]), b.input(&[5, n]), b.constant(&[n as usize]), b.constant(&[n as usize])];
        let op = SumNorm { tables: 0, addends: 2, norm: Some(0.1) };
        let y = b.add(Op::SumNorm(op), &operands);
        b.0.add_output("y", y);
        graphs.push((format!("sum_norm of {n}"), b.0));
    }
    check(&graphs);
}
