//! Graphs whose lowering makes every kernel template, over all tails, and their steps with arbitrary operands.

use bertc_backends::pack::write_packed;
use bertc_backends::plan::{self, Program};
use bertc_backends::target::{Sparsity, Target};
use bertc_ir::kernel::Kernel;
use bertc_ir::{Attention, DType, Dim, Graph, Linear, Loc, Op, SumNorm, Tensor, TensorType, UnaryOp, ValueId};

/// Numbers between -1 and 1 with a few bits, so that sums stay small and no order of summation overflows.
fn numbers(count: usize, seed: u64) -> Vec<u8> {
    let mut s = seed;
    let mut next = || {
        s = s.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((s >> 50) as i32 - (1 << 13)) as f32 / (1 << 13) as f32
    };
    (0..count).flat_map(|_| next().to_le_bytes()).collect()
}

/// Multiples of an eighth between -1 and 1, which make exact sums of products: no order of them is another result.
fn eighths(count: usize, seed: u64) -> impl Iterator<Item = f32> {
    numbers(count, seed)
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .map(|x| (x * 8.0).round() / 8.0)
        .collect::<Vec<_>>()
        .into_iter()
}

/// A graph under construction, of constant shapes.
struct Build(Graph);

impl Build {
    fn new() -> Build {
        Build(Graph::new("f"))
    }

    fn input(&mut self, shape: &[i64]) -> ValueId {
        self.input_of(DType::F32, shape)
    }

    fn input_of(&mut self, dtype: DType, shape: &[i64]) -> ValueId {
        let ty = TensorType::new(dtype, shape.iter().map(|&d| Dim::from(d)).collect());
        self.0.add_input(format!("x{}", self.0.inputs().len()), ty)
    }

    fn constant(&mut self, shape: &[usize]) -> ValueId {
        let bytes = numbers(shape.iter().product(), 3 + self.0.len() as u64);
        let t = Tensor::new(DType::F32, shape.to_vec(), bytes.into()).expect("bytes of the shape");
        self.add(Op::Constant(t), &[])
    }

    /// A matrix of bf16, which the object holds.
    fn bf16_constant(&mut self, shape: &[usize]) -> ValueId {
        let values: Vec<f32> = eighths(shape.iter().product(), 5 + self.0.len() as u64).collect();
        let wide = self.add(Op::Constant(Tensor::from_f32(shape.to_vec(), &values)), &[]);
        self.add(Op::Cast(DType::BF16), &[wide])
    }

    fn lengths(&mut self, shape: &[usize], values: &[i64]) -> ValueId {
        self.add(Op::Constant(Tensor::from_i64(shape.to_vec(), values)), &[])
    }

    fn add(&mut self, op: Op, operands: &[ValueId]) -> ValueId {
        self.0.add(op, operands, &Loc::Unknown).expect("a valid op")
    }
}

/// How many workers share a step, as far as that shapes its tasks.
const WORKERS: i64 = 2;

/// An operand of a step.
pub enum Operand {
    /// A run-time integer.
    Int(i64),
    /// A buffer's contents.
    Buffer(Vec<u8>),
    /// Scratch memory, whose contents don't matter.
    Scratch(Vec<u8>),
}

/// A call of a kernel.
pub struct Call {
    /// The kernel.
    pub kernel: Kernel,
    /// One for each parameter.
    pub operands: Vec<Operand>,
    /// Number of tasks.
    pub tasks: u64,
}

/// The steps of a program of constant shapes, each on arbitrary numbers.
pub fn calls(p: &Program) -> Vec<Call> {
    let constant = |d: &Dim| d.as_const().expect("a constant dim");
    let some = |bytes: i64| numbers(bytes as usize / 4, bytes as u64);
    let port = |t: &TensorType| {
        let count = constant(&t.elements().expect("a small shape"));
        if t.dtype == DType::BF16 {
            return eighths(count as usize, count as u64)
                .flat_map(|x| ((x.to_bits() >> 16) as u16).to_le_bytes())
                .collect();
        }
        let mut bytes = some(count * t.dtype.size() as i64 + 4);
        bytes.truncate(count as usize * t.dtype.size());
        bytes
    };
    let operand = |a: &plan::Arg| match a {
        plan::Arg::Buffer(b) => Operand::Buffer(some(constant(&p.buffers[*b].bytes))),
        plan::Arg::Input(i) => Operand::Buffer(port(&p.inputs[*i].ty)),
        plan::Arg::Output(i) => Operand::Buffer(port(&p.outputs[*i].ty)),
        plan::Arg::Const(c) => {
            let mut out = Vec::new();
            write_packed(&p.consts[*c], &mut out).expect("a packable constant");
            Operand::Buffer(out)
        }
        plan::Arg::Scratch(bytes) => Operand::Scratch(some(*bytes as i64)),
        // Buffers of a call are its own each; products of bytes, which alias, are run by the lowering's tests.
        plan::Arg::Again(_) => panic!("a step that aliases its scratch memory"),
        plan::Arg::Int(d) => Operand::Int(constant(d)),
        plan::Arg::Chunk(d, c) => Operand::Int(c.of(constant(d), WORKERS)),
    };
    let call = |s: &plan::Step| Call {
        kernel: p.kernels[s.kernel].clone(),
        operands: s.args.iter().map(operand).collect(),
        tasks: s.task_count(&[], WORKERS).expect("a small number"),
    };
    p.steps.iter().map(call).collect()
}

/// Every family.
pub fn all() -> Vec<(String, Graph)> {
    [matmul(), linear(), sparse(), attention(), bf16_attention(), sum_norm(), bf16()].concat()
}

/// Attention on bf16. Its sums of products are not exact.
fn bf16_attention() -> Vec<(String, Graph)> {
    let mut graphs = Vec::new();
    for (s, t) in [(1, 1), (5, 3), (131, 20), (3, 141)] {
        for (heads, d, e, bf16) in [(1, 4, 4, true), (2, 5, 7, false), (2, 34, 24, true)] {
            let mut b = Build::new();
            let mut operands: Vec<ValueId> = [[2, s, heads * d], [2, t, heads * d], [2, t, heads * e]]
                .map(|shape| b.input_of(DType::BF16, &shape))
                .to_vec();
            operands.push(b.input(&[2, 1, 1, t]));
            let a = Attention { heads: heads as usize, scale: 0.3, mask: true, bf16, ..Attention::default() };
            let y = b.add(Op::Attention(a), &operands);
            b.0.add_output("y", y);
            graphs.push((format!("bf16 attention {s} x {t}, {heads} heads of {d} and {e}"), b.0));
        }
    }
    graphs
}

/// The machine that a graph is compiled for: with blocks of matrices where its name says so.
pub fn machine(mut target: Target, name: &str) -> Target {
    if name.starts_with("sparse") {
        target.sparsity = Sparsity::Always;
    }
    target
}

/// Products with matrices of which few blocks are not zero, in every order of blocks: first floats, then pairs of bf16, then
/// integers that are given.
fn sparse() -> Vec<(String, Graph)> {
    let mut graphs = Vec::new();
    for dtype in [DType::F32, DType::BF16, DType::I8] {
        for (rows, cols, one_of) in [(16, 4, 3), (4, 4, 4), (1, 4, 4), (1, 1, 40)] {
            for (m, n, k) in [(1, 1, 4), (3, 20, 8), (37, 70, 36), (70, 18, 20), (133, 34, 68)] {
                let mut b = Build::new();
                let x = b.input_of(dtype, &[m, k as i64]);
                let kept = |i: usize| {
                    let (o, i) = (i % n / rows, i / n / cols);
                    o == 2 || o != 1 && (o * 7919 + i * 104_729 + o * i * 31) % 65_537 % one_of == 0
                };
                let values = eighths(k * n, 11).enumerate().map(|(i, x)| if kept(i) { x } else { 0.0 });
                let mut operands = vec![x];
                let l = Linear { bias: true, ..Linear::default() };
                let l = match dtype {
                    DType::I8 => {
                        let bytes: Vec<u8> = values.map(|x| (x * 8.0) as i8 as u8).collect();
                        let w = Tensor::new(DType::I8, vec![k, n], bytes.into()).expect("bytes of the shape");
                        operands.push(b.add(Op::Constant(w), &[]));
                        let scale = Tensor::new(DType::F32, vec![], 0.125f32.to_le_bytes().to_vec().into());
                        operands.push(b.add(Op::Constant(scale.expect("one number")), &[]));
                        operands.push(b.constant(&[n]));
                        Linear { int8: true, ..l }
                    }
                    _ => {
                        let w = Tensor::from_f32(vec![k, n], &values.collect::<Vec<_>>());
                        let w = b.add(Op::Constant(w), &[]);
                        operands.push(if dtype == DType::F32 { w } else { b.add(Op::Cast(dtype), &[w]) });
                        l
                    }
                };
                operands.push(b.constant(&[n]));
                let y = b.add(Op::Linear(l), &operands);
                b.0.add_output("y", y);
                graphs.push((format!("sparse linear {m} x {n} x {k} of {dtype}, {rows} x {cols}"), b.0));
            }
        }
    }
    graphs
}

/// Those that compute on pairs of bf16 or round to bf16. Results are no denormals, which count as 0 on some CPUs.
pub fn bf16() -> Vec<(String, Graph)> {
    let mut graphs = Vec::new();
    for m in [1, 3, 6, 37] {
        for (n, k) in [(1, 2), (20, 8), (64, 64), (130, 450)] {
            for (act, residual, norm, lengths, bf16) in [
                (None, None, false, false, false),
                (Some(UnaryOp::Relu), None, false, false, true),
                (Some(UnaryOp::Tanh), Some(DType::F32), false, true, true),
                (None, Some(DType::BF16), true, false, true),
                (None, Some(DType::BF16), false, true, true),
                (Some(UnaryOp::Relu), Some(DType::BF16), true, true, false),
            ] {
                let mut b = Build::new();
                let x = b.input_of(DType::BF16, &[m, k as i64]);
                let mut operands = vec![x, b.bf16_constant(&[k, n]), b.constant(&[n])];
                operands.extend(residual.map(|d| b.input_of(d, &[m, n as i64])));
                if norm {
                    operands.extend([b.constant(&[n]), b.constant(&[n])]);
                }
                let norm = norm.then_some(0.1);
                if lengths {
                    operands.push(b.lengths(&[], &[m / 2]));
                }
                let l =
                    Linear { bias: true, act, residual: residual.is_some(), norm, lengths, bf16, ..Linear::default() };
                let y = b.add(Op::Linear(l), &operands);
                b.0.add_output("y", y);
                graphs
                    .push((format!("bf16 linear {m} x {n} x {k} {act:?} {residual:?} {norm:?} {lengths} {bf16}"), b.0));
            }
        }
    }
    for n in [1, 7, 16, 50] {
        let mut b = Build::new();
        let operands = [b.input(&[3, 5, n]), b.input(&[5, n]), b.constant(&[n as usize]), b.constant(&[n as usize])];
        let op = SumNorm { addends: 2, norm: Some(0.1), bf16: true, ..SumNorm::default() };
        let y = b.add(Op::SumNorm(op), &operands);
        b.0.add_output("y", y);
        graphs.push((format!("bf16 sum_norm of {n}"), b.0));
    }
    graphs
}

fn matmul() -> Vec<(String, Graph)> {
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
    graphs
}

fn linear() -> Vec<(String, Graph)> {
    let mut graphs = Vec::new();
    for m in [1, 3, 6, 37] {
        for (n, k) in [(1, 1), (20, 7), (64, 64), (130, 450)] {
            for (act, residual, norm, lengths) in [
                (Some(UnaryOp::Gelu), false, false, false),
                (Some(UnaryOp::GeluTanh), true, false, true),
                (None, true, true, false),
                (Some(UnaryOp::Tanh), false, true, true),
            ] {
                let mut b = Build::new();
                let mut operands = vec![b.input(&[m, k as i64]), b.constant(&[k, n]), b.constant(&[n])];
                if residual {
                    operands.push(b.input(&[m, n as i64]));
                }
                if norm {
                    operands.extend([b.constant(&[n]), b.constant(&[n])]);
                }
                let norm = norm.then_some(0.1);
                if lengths {
                    operands.push(b.lengths(&[], &[m / 2]));
                }
                let l = Linear { bias: true, act, residual, norm, lengths, ..Linear::default() };
                let y = b.add(Op::Linear(l), &operands);
                b.0.add_output("y", y);
                graphs.push((format!("linear {m} x {n} x {k} {act:?} {residual} {norm:?} {lengths}"), b.0));
            }
        }
    }
    graphs
}

fn attention() -> Vec<(String, Graph)> {
    let mut graphs = Vec::new();
    for (s, t) in [(1, 1), (5, 3), (12, 12), (131, 20), (3, 140)] {
        for (heads, d, e) in [(1, 4, 4), (2, 5, 7), (2, 32, 24)] {
            let mut b = Build::new();
            let mut operands = vec![
                b.input(&[2, s, heads * d]),
                b.input(&[2, t, heads * d]),
                b.input(&[2, t, heads * e]),
                b.input(&[2, 1, 1, t]),
            ];
            let mut a = Attention { heads: heads as usize, scale: 0.3, mask: true, ..Attention::default() };
            let y = b.add(Op::Attention(a), &operands);
            b.0.add_output("y", y);
            a.lengths = true;
            operands.push(b.lengths(&[2], &[s / 2, s - 1]));
            let z = b.add(Op::Attention(a), &operands);
            b.0.add_output("z", z);
            graphs.push((format!("attention {s} x {t}, {heads} heads of {d} and {e}"), b.0));
        }
    }
    graphs
}

fn sum_norm() -> Vec<(String, Graph)> {
    let mut graphs = Vec::new();
    for n in [1, 7, 16, 50] {
        let mut b = Build::new();
        let operands = [b.input(&[3, 5, n]), b.input(&[5, n]), b.constant(&[n as usize]), b.constant(&[n as usize])];
        let op = SumNorm { addends: 2, norm: Some(0.1), ..SumNorm::default() };
        let y = b.add(Op::SumNorm(op), &operands);
        b.0.add_output("y", y);
        graphs.push((format!("sum_norm of {n}"), b.0));
    }
    graphs
}
