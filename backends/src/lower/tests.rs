//! Each op's lowering, run in the kernel interpreter, against the evaluator: odd sizes, symbolic dims, every family.
//! The interpreter refuses any access outside a buffer.

mod bf16;
mod int8;
mod sparse;

use std::collections::{BTreeMap, BTreeSet};

use bertc_ir::kernel::interp::{self, Memory};
use bertc_ir::{
    Attention, BinaryOp, CmpOp, DType, Dim, Graph, Linear, Loc, Op, ReduceOp, Scalar, SumNorm, Tensor, TensorType,
    UnaryOp, ValueId, eval::eval,
};

use super::lower;
use crate::pack::write_packed;
use crate::plan::{Arg, Buffer, ConstData, ConstLayout, Program};
use crate::target::{Sparsity, Target};

/// Runs a program in the interpreter, with several workers the tasks from the last to the first. `Err`: what failed; the
/// error flag is "index out of range".
fn interpret(p: &Program, dims: &[i64], inputs: &[Tensor], workers: i64) -> Result<Vec<Tensor>, String> {
    let mut memory = Memory::default();
    let mut place = BTreeMap::new();
    for (i, t) in inputs.iter().enumerate() {
        place.insert((0, i), memory.add(t.bytes().to_vec()));
    }
    for (i, o) in p.outputs.iter().enumerate() {
        let bytes = o.ty.elements().unwrap().eval(dims).unwrap() as usize * o.ty.dtype.size();
        // A pattern that no result holds by chance shows what was never written.
        place.insert((1, i), memory.add(vec![0xa5; bytes]));
    }
    for (i, c) in p.consts.iter().enumerate() {
        let mut bytes = Vec::new();
        write_packed(c, &mut bytes).unwrap();
        place.insert((2, i), memory.add(bytes));
    }
    // One buffer a slot, so that sharing a slot wrongly shows.
    for (i, s) in p.slots.iter().enumerate() {
        place.insert((3, i), memory.add(vec![0xa5; s.bytes(dims).unwrap() as usize]));
    }
    for step in &p.steps {
        let mut args: Vec<interp::Arg> = Vec::new();
        for a in &step.args {
            args.push(match a {
                Arg::Again(i) => args[*i].clone(),
                Arg::Input(i) => interp::Arg::buffer(place[&(0, *i)]),
                Arg::Output(i) => interp::Arg::buffer(place[&(1, *i)]),
                Arg::Const(i) => interp::Arg::buffer(place[&(2, *i)]),
                Arg::Buffer(b) => {
                    let b = &p.buffers[*b];
                    let bytes = b.bytes.eval(dims).unwrap() as usize;
                    interp::Arg::Window { buffer: place[&(3, b.slot)], bytes: 0..bytes }
                }
                // The interpreter is worker 0. What the memory holds must not matter: these bytes are NaN.
                Arg::Scratch(bytes) => interp::Arg::buffer(memory.add(vec![0xff; *bytes as usize])),
                Arg::Int(d) => interp::Arg::Int(d.eval(dims).unwrap()),
                Arg::Chunk(d, c) => interp::Arg::Int(c.of(d.eval(dims).unwrap(), workers)),
            });
        }
        let tasks = step.task_count(dims, workers).unwrap();
        let mut failed = false;
        if workers == 1 {
            failed = interp::run(&p.kernels[step.kernel], &mut memory, &args, 0..tasks)?.failed;
        } else {
            for t in (0..tasks).rev() {
                failed |= interp::run(&p.kernels[step.kernel], &mut memory, &args, t..t + 1)?.failed;
            }
        }
        if failed {
            assert!(step.fallible, "an infallible step failed: {}", step.source);
            return Err("index out of range".into());
        }
    }
    let result = |(i, o): (usize, &crate::plan::PortSpec)| {
        let shape = o.ty.shape.iter().map(|d| d.eval(dims).unwrap() as usize).collect();
        Tensor::new(o.ty.dtype, shape, memory.buffers[place[&(1, i)]].clone().into()).unwrap()
    };
    Ok(p.outputs.iter().enumerate().map(result).collect())
}

struct Case {
    g: Graph,
    dims: Vec<i64>,
    seed: u64,
    sparsity: Sparsity,
}

impl Case {
    /// Symbols `a` and `b` with the given values.
    fn new(a: i64, b: i64) -> Self {
        let mut g = Graph::new("f");
        g.symbols.intern("a", 1, 64);
        g.symbols.intern("b", 1, 64);
        Case { g, dims: vec![a, b], seed: 7, sparsity: Sparsity::Auto }
    }

    fn shape(&self, dims: &[&str]) -> Vec<Dim> {
        let one = |d: &&str| d.parse::<i64>().map_or_else(|_| self.g.symbols.find(d).unwrap().into(), Dim::from);
        dims.iter().map(one).collect()
    }

    fn input(&mut self, dtype: DType, dims: &[&str]) -> ValueId {
        let ty = TensorType::new(dtype, self.shape(dims));
        self.g.add_input(format!("x{}", self.g.inputs().len()), ty)
    }

    fn add(&mut self, op: Op, operands: &[ValueId]) -> ValueId {
        self.g.add(op, operands, &Loc::Unknown).unwrap()
    }

    fn random(&mut self, dtype: DType, n: usize) -> Vec<Scalar> {
        let mut next = || {
            self.seed = self.seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (self.seed >> 33) as i64 % 1000
        };
        let value =
            |v: i64| if dtype.is_float() { Scalar::Float(v as f64 / 250.0 - 2.0) } else { Scalar::Int((v % 7).into()) };
        (0..n).map(|_| value(next())).collect()
    }

    fn constant(&mut self, dtype: DType, shape: &[usize]) -> ValueId {
        let v = self.random(dtype, shape.iter().product());
        self.add(Op::Constant(Tensor::from_scalars(dtype, shape.to_vec(), v)), &[])
    }

    /// How many buffers lie over one that dies in the step that writes them, on a target.
    fn reused(&self, target: &str, output: ValueId) -> usize {
        let mut g = self.g.clone();
        g.add_output("y", output);
        let p = lower(&g, &Target::parse(target, "generic").unwrap()).unwrap();
        let meets = |new: &Buffer| {
            let dies = |old: &Buffer| old.slot == new.slot && old.last == new.first && old.first < new.first;
            p.buffers.iter().any(dies)
        };
        p.buffers.iter().filter(|b| meets(b)).count()
    }

    /// The sizes of blocks in a program that computes `output`.
    fn blocks(&self, output: ValueId) -> BTreeSet<(u8, u8)> {
        let mut g = self.g.clone();
        g.add_output("y", output);
        let mut target = Target::parse("x86_64", "znver4").unwrap();
        target.sparsity = self.sparsity;
        let blocks = |c: &ConstData| match c.layout {
            ConstLayout::Sparse { blocks, .. } => Some((blocks.rows, blocks.steps)),
            _ => None,
        };
        lower(&g, &target).unwrap().consts.iter().filter_map(blocks).collect()
    }

    /// An input of lengths: 0 to 6.
    fn lengths(&mut self, n: &str) -> ValueId {
        self.input(DType::I64, &[n])
    }

    /// Compares lowering and evaluator for the graph whose outputs are `outputs`.
    fn check(mut self, outputs: &[ValueId], tolerance: f64) {
        for (i, &o) in outputs.iter().enumerate() {
            self.g.add_output(format!("y{i}"), o);
        }
        let types: Vec<TensorType> = self.g.inputs().iter().map(|p| self.g.ty(p.value).clone()).collect();
        let mut inputs = Vec::new();
        for ty in types {
            let shape: Vec<usize> = ty.shape.iter().map(|d| d.eval(&self.dims).unwrap() as usize).collect();
            let v = self.random(ty.dtype, shape.iter().product());
            inputs.push(Tensor::from_scalars(ty.dtype, shape, v));
        }
        let want = eval(&self.g, &self.dims, &inputs).unwrap();
        // Tiles differ by the number of registers.
        let targets = [("x86_64", "generic"), ("x86_64", "x86-64-v3"), ("x86_64", "znver4"), ("aarch64", "generic")];
        for (target, cpu) in targets {
            let mut machine = Target::parse(target, cpu).unwrap();
            machine.sparsity = self.sparsity;
            let p = lower(&self.g, &machine).unwrap_or_else(|e| panic!("{e:?}"));
            let got = interpret(&p, &self.dims, &inputs, 1).unwrap_or_else(|e| panic!("{e}\n{}", p.print()));
            let shared = interpret(&p, &self.dims, &inputs, 3).unwrap_or_else(|e| panic!("{e}\n{}", p.print()));
            // Compared as bits: a NaN isn't equal to itself.
            let bits = |all: &[Tensor]| all.iter().map(|t| t.bytes().to_vec()).collect::<Vec<_>>();
            assert!(bits(&got) == bits(&shared), "three workers differ from one\n{}", p.print());
            for (g, w) in got.iter().zip(&want) {
                assert_eq!((g.dtype(), g.shape()), (w.dtype(), w.shape()));
                let scale = w.iter().map(|v| v.to_f64().abs()).fold(1.0, f64::max);
                for (i, (a, b)) in g.iter().zip(w.iter()).enumerate() {
                    let (a, b) = (a.to_f64(), b.to_f64());
                    let close = (a - b).abs() <= tolerance * scale || a == b || a.is_nan() && b.is_nan();
                    assert!(close, "{target}: element {i}: {a} for {b}\n{}", p.print());
                }
            }
        }
    }
}

#[test]
fn elementwise_broadcasts_and_tails() {
    for (a, b) in [(1, 1), (3, 5), (7, 33)] {
        for dtype in [DType::F32, DType::F16, DType::F64, DType::I64, DType::I32, DType::U8] {
            let mut c = Case::new(a, b);
            let (x, y) = (c.input(dtype, &["a", "1", "b"]), c.input(dtype, &["5", "b"]));
            let bias = c.constant(dtype, &[5, 1]);
            let s = c.add(Op::Binary(BinaryOp::Add), &[x, y]);
            let t = c.add(Op::Binary(BinaryOp::Mul), &[s, bias]);
            let m = c.add(Op::Compare(CmpOp::Lt), &[t, y]);
            let r = c.add(Op::Select, &[m, s, t]);
            let f = c.add(Op::Cast(DType::F32), &[r]);
            c.check(&[r, m, f], 0.0);
        }
    }
}

#[test]
fn integer_division_and_powers_are_total() {
    for op in [BinaryOp::Div, BinaryOp::Rem, BinaryOp::Mod, BinaryOp::Pow] {
        for dtype in [DType::I64, DType::I32, DType::U8, DType::U64] {
            let mut c = Case::new(5, 9);
            let (x, y) = (c.input(dtype, &["a", "b"]), c.input(dtype, &["b"]));
            let r = c.add(Op::Binary(op), &[x, y]);
            c.check(&[r], 0.0);
        }
    }
}

#[test]
fn math_functions() {
    for op in UnaryOp::ALL {
        if matches!(op, UnaryOp::Not) {
            continue;
        }
        for (dtype, tolerance) in [(DType::F32, 1e-6), (DType::F64, 1e-14)] {
            let mut c = Case::new(3, 7);
            let x = c.input(dtype, &["a", "b"]);
            let r = c.add(Op::Unary(*op), &[x]);
            c.check(&[r], tolerance);
        }
    }
}

#[test]
fn movement() {
    let mut c = Case::new(3, 5);
    let x = c.input(DType::F32, &["a", "b", "4", "6"]);
    let t = c.add(Op::Transpose { perm: vec![0, 2, 1, 3] }, &[x]);
    let u = c.add(Op::Transpose { perm: vec![3, 1, 0, 2] }, &[x]);
    let s = c.add(Op::Slice { axis: 3, start: 4.into(), len: 3.into(), step: -2 }, &[x]);
    let p = c.add(Op::Slice { axis: 3, start: 0.into(), len: 2.into(), step: 1 }, &[x]);
    let k = c.add(Op::Concat { axis: 3 }, &[x, p]);
    let shape = c.shape(&["a", "b", "24"]);
    let r = c.add(Op::Reshape { shape }, &[x]);
    let shape = c.shape(&["2", "a", "b", "24"]);
    let w = c.add(Op::Broadcast { shape }, &[r]);
    c.check(&[t, u, s, k, r, w, x, r], 0.0);
}

#[test]
fn reductions() {
    for op in ReduceOp::ALL {
        for axes in [vec![2], vec![1, 2], vec![0], vec![0, 2], vec![0, 1, 2], vec![]] {
            for dtype in [DType::F32, DType::I64] {
                if *op == ReduceOp::Mean && dtype == DType::I64 {
                    continue;
                }
                let mut c = Case::new(3, 9);
                let x = c.input(dtype, &["a", "2", "b"]);
                let r = c.add(Op::Reduce { op: *op, axes: axes.clone(), keep: axes.len() == 2 }, &[x]);
                c.check(&[r], 1e-5);
            }
        }
    }
}

#[test]
fn rows() {
    for (a, b) in [(2, 1), (3, 6), (1, 64)] {
        for (dtype, tolerance) in [(DType::F32, 1e-6), (DType::F16, 2e-3), (DType::F64, 1e-14)] {
            let mut c = Case::new(a, b);
            let x = c.input(dtype, &["a", "b", "10"]);
            let s = c.add(Op::Softmax { axis: 2 }, &[x]);
            let t = c.add(Op::Softmax { axis: 1 }, &[x]);
            let (g, h) = (c.constant(dtype, &[10]), c.constant(dtype, &[10]));
            let n = c.add(Op::LayerNorm { eps: 1e-5 }, &[x, g, h]);
            let m = c.add(Op::ArgMax { axis: 1, min: false }, &[x]);
            let l = c.add(Op::ArgMax { axis: 2, min: true }, &[x]);
            c.check(&[s, t, n, m, l], tolerance);
        }
    }
    let mut c = Case::new(3, 6);
    let x = c.input(DType::I64, &["a", "b", "4"]);
    let p = c.add(Op::CumSum { axis: 1, exclusive: false, reverse: false }, &[x]);
    let q = c.add(Op::CumSum { axis: 2, exclusive: true, reverse: true }, &[x]);
    c.check(&[p, q], 0.0);
}

#[test]
fn gathers() {
    let mut c = Case::new(3, 4);
    let table = c.constant(DType::F32, &[7, 5]);
    let ids = c.input(DType::I64, &["a", "b"]);
    let e = c.add(Op::Gather { axis: 0 }, &[table, ids]);
    let last = c.add(Op::Constant(Tensor::scalar(DType::I32, Scalar::Int(-1))), &[]);
    let f = c.add(Op::Gather { axis: 2 }, &[e, last]);
    let idx = c.add(Op::Constant(Tensor::from_i64(vec![1, 1, 2], &[-1, 3])), &[]);
    let small = c.shape(&["1", "1", "5"]);
    let one = c.add(Op::Reshape { shape: c.shape(&["1", "7", "5"]) }, &[table]);
    let one = c.add(Op::Slice { axis: 1, start: 0.into(), len: 1.into(), step: 1 }, &[one]);
    let one = c.add(Op::Reshape { shape: small }, &[one]);
    let g = c.add(Op::GatherElements { axis: 2 }, &[one, idx]);
    let nd = c.add(Op::Constant(Tensor::from_i64(vec![2, 2], &[0, 1, 6, -1])), &[]);
    let n = c.add(Op::GatherNd { batch_dims: 0 }, &[table, nd]);
    let iota = c.add(Op::Iota { len: c.shape(&["b"])[0].clone(), start: 1.into(), step: 1.into() }, &[]);
    let d = c.add(Op::Dim(c.shape(&["a"])[0].clone()), &[]);
    c.check(&[e, f, g, n, iota, d], 0.0);
}

#[test]
fn an_index_out_of_range_fails_before_outputs_are_written() {
    let mut c = Case::new(2, 2);
    let table = c.constant(DType::F32, &[4, 3]);
    let ids = c.input(DType::I64, &["a"]);
    let x = c.input(DType::F32, &["a", "3"]);
    let y = c.add(Op::Unary(UnaryOp::Neg), &[x]);
    let e = c.add(Op::Gather { axis: 0 }, &[table, ids]);
    c.g.add_output("y", y);
    c.g.add_output("e", e);
    let p = lower(&c.g, &Target::parse("x86_64", "generic").unwrap()).unwrap();
    let x = Tensor::from_f32(vec![2, 3], &[1.0; 6]);
    for bad in [4, -5, i64::MAX, i64::MIN] {
        let ids = Tensor::from_i64(vec![2], &[0, bad]);
        assert_eq!(interpret(&p, &c.dims, &[ids, x.clone()], 1).unwrap_err(), "index out of range");
    }
    interpret(&p, &c.dims, &[Tensor::from_i64(vec![2], &[-4, 3]), x], 1).unwrap();
}

#[test]
fn matmuls_of_every_kind_and_tail() {
    for (a, b) in [(1, 1), (2, 7), (13, 17), (5, 64)] {
        for dtype in [DType::F32, DType::F16, DType::F64, DType::I32] {
            for n in [1, 15, 16, 18, 32] {
                let tolerance = if dtype == DType::F16 { 2e-3 } else { 1e-5 };
                let mut c = Case::new(a, b);
                let x = c.input(dtype, &["a", "b", "9"]);
                let w = c.constant(dtype, &[9, n]);
                let wt = c.constant(dtype, &[n, 9]);
                let p = c.add(Op::MatMul { trans_b: false }, &[x, w]);
                let q = c.add(Op::MatMul { trans_b: true }, &[x, wt]);
                let scores = c.add(Op::MatMul { trans_b: true }, &[x, x]);
                let mixed = c.add(Op::MatMul { trans_b: false }, &[scores, p]);
                c.check(&[p, q, scores, mixed], tolerance);
            }
        }
    }
}

/// Linear ops with every epilogue; rows, columns and k off every multiple.
#[test]
fn linears() {
    for (a, b) in [(1, 1), (3, 2), (7, 5)] {
        for (k, n) in [(1, 1), (9, 20), (16, 33), (450, 7)] {
            for act in [None, Some(UnaryOp::Gelu), Some(UnaryOp::Relu)] {
                for (bias, residual, norm, lengths) in [
                    (false, false, false, false),
                    (false, false, false, true),
                    (true, false, true, false),
                    (true, true, false, false),
                    (true, true, true, false),
                    (true, true, true, true),
                ] {
                    let mut c = Case::new(a, b);
                    let columns = n.to_string();
                    let x = c.input(DType::F32, &["a", "b", &k.to_string()]);
                    let mut operands = vec![x, c.constant(DType::F32, &[n, k])];
                    if bias {
                        operands.push(c.constant(DType::F32, &[n]));
                    }
                    if residual {
                        operands.push(c.input(DType::F32, &["a", "b", &columns]));
                    }
                    if norm {
                        operands.extend([c.constant(DType::F32, &[n]), c.constant(DType::F32, &[n])]);
                    }
                    if lengths {
                        operands.push(c.lengths("a"));
                    }
                    let norm_of = norm.then_some(1e-3);
                    let l = Linear { trans_b: true, bias, act, residual, norm: norm_of, lengths, ..Linear::default() };
                    let y = c.add(Op::Linear(l), &operands);
                    // A norm of one column divides by the epsilon's root.
                    c.check(&[y], if norm { 1e-3 } else { 1e-5 });
                }
            }
        }
    }
}

/// Linears over a concatenation of weights, a slice of columns, and a matrix known only at run time.
#[test]
fn linears_read_in_place() {
    let mut c = Case::new(3, 2);
    let x = c.input(DType::F32, &["a", "b", "12"]);
    let parts =
        [c.constant(DType::F32, &[12, 16]), c.constant(DType::F32, &[12, 32]), c.constant(DType::F32, &[12, 5])];
    let w = c.add(Op::Concat { axis: 1 }, &parts);
    let l = Linear::default();
    let y = c.add(Op::Linear(l), &[x, w]);
    let columns = c.add(Op::Slice { axis: 2, start: 5.into(), len: 12.into(), step: 1 }, &[y]);
    let own = c.constant(DType::F32, &[12, 9]);
    let z = c.add(Op::Linear(l), &[columns, own]);
    let late = c.input(DType::F32, &["12", "b"]);
    let u = c.add(Op::Linear(l), &[x, late]);
    c.check(&[y, z, u], 1e-5);
}

#[test]
fn attentions() {
    // Queries and keys on both sides of a task's rows and a block's keys, heads on both sides of a register.
    for (a, b) in [(1, 1), (2, 5), (3, 17)] {
        for (queries, keys) in [("b", "b"), ("1", "b"), ("b", "140"), ("131", "3")] {
            for (heads, d, e) in [(1, 4, 4), (2, 3, 6), (3, 16, 20)] {
                for mask in
                    [None, Some(["a", "1", "1", keys]), Some(["1", "1", queries, keys]), Some(["a", "1", queries, "1"])]
                {
                    let mut c = Case::new(a, b);
                    let (hd, he) = ((heads * d).to_string(), (heads * e).to_string());
                    let mut operands = vec![
                        c.input(DType::F32, &["a", queries, &hd]),
                        c.input(DType::F32, &["a", keys, &hd]),
                        c.input(DType::F32, &["a", keys, &he]),
                    ];
                    operands.extend(mask.map(|m| c.input(DType::F32, &m)));
                    let mut op = Attention { heads, scale: 0.4, mask: mask.is_some(), ..Attention::default() };
                    let y = c.add(Op::Attention(op), &operands);
                    op.lengths = true;
                    operands.push(c.lengths("a"));
                    let z = c.add(Op::Attention(op), &operands);
                    c.check(&[y, z], 1e-5);
                }
            }
        }
    }
}

/// Rows whose scores are all -∞, in the first block of keys or in all, with and without the guard.
#[test]
fn attentions_with_masked_rows() {
    for nan_to_zero in [false, true] {
        for masked in [3usize, 128, 130, 150] {
            let mut c = Case::new(1, 2);
            let x = c.input(DType::F32, &["1", "150", "8"]);
            let mask = (0..150).map(|i| Scalar::Float(if i < masked { f64::NEG_INFINITY } else { 0.0 }));
            let mask = Tensor::from_scalars(DType::F32, vec![1, 1, 1, 150], mask);
            let mask = c.add(Op::Constant(mask), &[]);
            let op = Attention { heads: 2, scale: 1.0, mask: true, nan_to_zero, ..Attention::default() };
            let y = c.add(Op::Attention(op), &[x, x, x, mask]);
            c.check(&[y], 1e-5);
        }
    }
}

/// A score that leaves a softmax undefined, in the first block of keys or in a later one, with and without the guard.
#[test]
fn attentions_with_undefined_scores() {
    for nan_to_zero in [false, true] {
        for (at, fill) in [(3, f64::INFINITY), (149, f64::INFINITY), (3, f64::NAN), (149, f64::NAN)] {
            let mut c = Case::new(1, 2);
            let x = c.input(DType::F32, &["1", "150", "8"]);
            // The first row only.
            let mask = (0..150 * 150).map(|i| Scalar::Float(if i == at { fill } else { 0.0 }));
            let mask = Tensor::from_scalars(DType::F32, vec![1, 1, 150, 150], mask);
            let mask = c.add(Op::Constant(mask), &[]);
            let op = Attention { heads: 2, scale: 1.0, mask: true, nan_to_zero, ..Attention::default() };
            let y = c.add(Op::Attention(op), &[x, x, x, mask]);
            c.check(&[y], 1e-5);
        }
    }
}

/// Padding at the end is skipped, in the middle it isn't, and a mask of padding only is no padding.
#[test]
fn attentions_with_padding() {
    for fill in [f64::from(f32::MIN), f64::NEG_INFINITY] {
        for (from, to) in [(140, 150), (100, 150), (3, 150), (1, 149), (0, 150), (150, 150)] {
            let mut c = Case::new(1, 2);
            let x = c.input(DType::F32, &["1", "150", "8"]);
            let mask = (0..150).map(|i| Scalar::Float(if (from..to).contains(&i) { fill } else { 0.0 }));
            let mask = Tensor::from_scalars(DType::F32, vec![1, 1, 1, 150], mask);
            let mask = c.add(Op::Constant(mask), &[]);
            let op = Attention { heads: 2, scale: 1.0, mask: true, ..Attention::default() };
            let y = c.add(Op::Attention(op), &[x, x, x, mask]);
            c.check(&[y], 1e-5);
        }
    }
}

/// Attention over slices of one product, as merged queries, keys and values are.
#[test]
fn attention_reads_slices_in_place() {
    let mut c = Case::new(2, 7);
    let x = c.input(DType::F32, &["a", "b", "24"]);
    let part = |c: &mut Case, i: i64| c.add(Op::Slice { axis: 2, start: (8 * i).into(), len: 8.into(), step: 1 }, &[x]);
    let operands = [part(&mut c, 0), part(&mut c, 1), part(&mut c, 2)];
    let y = c.add(Op::Attention(Attention { heads: 2, scale: 0.5, ..Attention::default() }), &operands);
    c.check(&[y], 1e-5);
}

#[test]
fn sums_and_norms() {
    for (a, b) in [(1, 1), (3, 5)] {
        for n in [1usize, 4, 18] {
            for norm in [false, true] {
                let mut c = Case::new(a, b);
                let columns = n.to_string();
                let (words, positions) = (c.constant(DType::F32, &[9, n]), c.constant(DType::F32, &[9, n]));
                let (ids, own) = (c.input(DType::I64, &["a", "b"]), c.input(DType::I32, &["b"]));
                let addends = [
                    c.input(DType::F32, &["1", "b", &columns]),
                    c.input(DType::F32, &["a", "1", "1"]),
                    c.constant(DType::F32, &[n]),
                ];
                let mut operands = vec![words, ids, positions, own];
                operands.extend(addends);
                if norm {
                    operands.extend([c.constant(DType::F32, &[n]), c.constant(DType::F32, &[n])]);
                }
                let s = SumNorm { tables: 2, addends: 3, norm: norm.then_some(1e-3), ..SumNorm::default() };
                let y = c.add(Op::SumNorm(s), &operands);
                c.check(&[y], if norm { 1e-3 } else { 1e-5 });
            }
        }
    }
}

#[test]
fn a_slot_is_never_shared_by_two_live_buffers() {
    let mut c = Case::new(3, 5);
    let x = c.input(DType::F32, &["a", "b"]);
    let mut v = x;
    for _ in 0..6 {
        let n = c.add(Op::Unary(UnaryOp::Neg), &[v]);
        v = c.add(Op::Binary(BinaryOp::Add), &[n, v]);
    }
    c.g.add_output("y", v);
    let mut p = lower(&c.g, &Target::parse("x86_64", "generic").unwrap()).unwrap();
    p.verify().unwrap();
    assert!(p.slots.len() <= 3, "lifetimes end: {}", p.print());
    // The verifier sees an overlap.
    p.buffers.iter_mut().for_each(|b| b.slot = 0);
    p.slots.truncate(1);
    assert!(p.verify().unwrap_err().iter().any(|e| e.message.contains("overlap")));
}

/// Chains whose every step may write over an operand: the interpreter runs them on the memory they share.
#[test]
fn results_lie_over_operands_that_die() {
    for (a, b) in [(1, 1), (3, 5), (40, 33)] {
        for dtype in [DType::F32, DType::F16, DType::I64] {
            let mut c = Case::new(a, b);
            let (x, row) = (c.input(dtype, &["a", "b"]), c.input(dtype, &["b"]));
            let n = c.add(Op::Unary(UnaryOp::Neg), &[x]);
            let m = c.add(Op::Binary(BinaryOp::Mul), &[row, n]);
            let d = c.add(Op::Binary(BinaryOp::Add), &[m, m]);
            let y = c.add(Op::Unary(UnaryOp::Abs), &[d]);
            assert_eq!(c.reused("x86_64", y), 2, "mul over neg, add over mul; abs goes to the output");
            c.check(&[y], 0.0);
        }
        let mut c = Case::new(a, b);
        let x = c.input(DType::F32, &["a", "4", "b"]);
        let mut v = c.add(Op::Unary(UnaryOp::Neg), &[x]);
        v = c.add(Op::Softmax { axis: 2 }, &[v]);
        v = c.add(Op::Softmax { axis: 1 }, &[v]);
        let ones = c.input(DType::F32, &["b"]);
        v = c.add(Op::LayerNorm { eps: 1e-3 }, &[v, ones, ones]);
        let row = c.input(DType::F32, &["1", "1", "b"]);
        let sum = SumNorm { addends: 2, ..SumNorm::default() };
        v = c.add(Op::SumNorm(sum), &[row, v]);
        let y = c.add(Op::Unary(UnaryOp::Abs), &[v]);
        assert_eq!(c.reused("x86_64", y), 4);
        c.check(&[y], 1e-5);
    }
}

/// A product's residual may be overwritten, in every tile, alone and before a norm.
#[test]
fn sums_lie_over_their_residual() {
    for (a, b) in [(1, 1), (3, 2), (7, 19)] {
        for (n, norm) in [(1, false), (20, true), (33, false), (150, true)] {
            let mut c = Case::new(a, b);
            let columns = n.to_string();
            let (x, r) = (c.input(DType::F32, &["a", "b", "9"]), c.input(DType::F32, &["a", "b", &columns]));
            let r = c.add(Op::Unary(UnaryOp::Neg), &[r]);
            let mut operands = vec![x, c.constant(DType::F32, &[n, 9]), r];
            if norm {
                operands.extend([c.constant(DType::F32, &[n]), c.constant(DType::F32, &[n])]);
            }
            let l = Linear { trans_b: true, residual: true, norm: norm.then_some(1e-3), ..Linear::default() };
            let v = c.add(Op::Linear(l), &operands);
            let y = c.add(Op::Unary(UnaryOp::Abs), &[v]);
            assert_eq!((c.reused("x86_64", y), c.reused("aarch64", y)), (1, 1));
            c.check(&[y], if norm { 1e-3 } else { 1e-5 });
        }
    }
}

/// Where partial sums or an activation come first, or the operand is needed elsewhere, memory isn't shared.
#[test]
fn what_is_read_later_is_not_overwritten() {
    let linear = |k: usize, act: Option<UnaryOp>, own: bool| {
        let mut c = Case::new(3, 5);
        let x = c.input(DType::F32, &["a", "b", &k.to_string()]);
        let x = c.add(Op::Unary(UnaryOp::Neg), &[x]);
        let r = c.input(DType::F32, &["a", "b", &k.to_string()]);
        let r = if own { x } else { c.add(Op::Unary(UnaryOp::Abs), &[r]) };
        let w = c.constant(DType::F32, &[k, k]);
        let l = Linear { residual: true, act, ..Linear::default() };
        let v = c.add(Op::Linear(l), &[x, w, r]);
        let y = c.add(Op::Unary(UnaryOp::Abs), &[v]);
        let reused = c.reused("x86_64", y);
        c.check(&[y], 1e-5);
        reused
    };
    assert_eq!(linear(16, None, false), 1);
    assert_eq!(linear(16, Some(UnaryOp::Relu), false), 0, "the residual is added after the activation");
    assert_eq!(linear(16, None, true), 0, "the product needs all columns of its left operand");
    assert_eq!(linear(450, None, false), 0, "sums of the first block of k would be stored over the residual");
    let mut c = Case::new(3, 4);
    let x = c.input(DType::F32, &["a", "b"]);
    let x = c.add(Op::Unary(UnaryOp::Neg), &[x]);
    let t = c.add(Op::Transpose { perm: vec![1, 0] }, &[x]);
    let back = c.add(Op::Transpose { perm: vec![1, 0] }, &[t]);
    let bits = c.add(Op::Cast(DType::I64), &[back]);
    let y = c.add(Op::Binary(BinaryOp::Add), &[bits, bits]);
    assert_eq!(c.reused("x86_64", y), 0, "other places, other sizes");
    c.check(&[y], 0.0);
}
