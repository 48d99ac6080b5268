//! Each op's lowering, run in the kernel interpreter, against the evaluator: odd sizes, symbolic dims, every family.
//! The interpreter refuses any access outside a buffer.

use std::collections::BTreeMap;

use bertc_ir::kernel::interp::{self, Memory};
use bertc_ir::{
    BinaryOp, CmpOp, DType, Dim, Graph, Loc, Op, ReduceOp, Scalar, Tensor, TensorType, UnaryOp, ValueId, eval::eval,
};

use super::lower;
use crate::pack::write_packed;
use crate::plan::{Arg, Program};
use crate::target::Target;

/// Runs a program in the interpreter. `Err`: what failed; the error flag is "index out of range".
fn interpret(p: &Program, dims: &[i64], inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
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
        let args: Vec<interp::Arg> = step
            .args
            .iter()
            .map(|a| match a {
                Arg::Input(i) => interp::Arg::buffer(place[&(0, *i)]),
                Arg::Output(i) => interp::Arg::buffer(place[&(1, *i)]),
                Arg::Const(i) => interp::Arg::buffer(place[&(2, *i)]),
                Arg::Buffer(b) => {
                    let b = &p.buffers[*b];
                    let bytes = b.bytes.eval(dims).unwrap() as usize;
                    interp::Arg::Window { buffer: place[&(3, b.slot)], bytes: 0..bytes }
                }
                Arg::Int(d) => interp::Arg::Int(d.eval(dims).unwrap()),
            })
            .collect();
        let tasks = step.tasks.iter().map(|(d, c)| (d.eval(dims).unwrap() as u64).div_ceil(*c as u64)).product();
        if interp::run(&p.kernels[step.kernel], &mut memory, &args, 0..tasks)?.failed {
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
}

impl Case {
    /// Symbols `a` and `b` with the given values.
    fn new(a: i64, b: i64) -> Self {
        let mut g = Graph::new("f");
        g.symbols.intern("a", 1, 64);
        g.symbols.intern("b", 1, 64);
        Case { g, dims: vec![a, b], seed: 7 }
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
        let p = lower(&self.g, &Target::parse("x86_64", "generic").unwrap()).unwrap_or_else(|e| panic!("{e:?}"));
        let want = eval(&self.g, &self.dims, &inputs).unwrap();
        let got = interpret(&p, &self.dims, &inputs).unwrap_or_else(|e| panic!("{e}\n{}", p.print()));
        for (g, w) in got.iter().zip(&want) {
            assert_eq!((g.dtype(), g.shape()), (w.dtype(), w.shape()));
            let scale = w.iter().map(|v| v.to_f64().abs()).fold(1.0, f64::max);
            for (i, (a, b)) in g.iter().zip(w.iter()).enumerate() {
                let (a, b) = (a.to_f64(), b.to_f64());
                let close = (a - b).abs() <= tolerance * scale || a == b || a.is_nan() && b.is_nan();
                assert!(close, "element {i}: {a} for {b}\n{}", p.print());
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
        let mut c = Case::new(3, 7);
        let x = c.input(DType::F32, &["a", "b"]);
        let r = c.add(Op::Unary(*op), &[x]);
        c.check(&[r], 1e-6);
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
        for dtype in [DType::F32, DType::F16] {
            let tolerance = if dtype == DType::F32 { 1e-6 } else { 2e-3 };
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
        assert_eq!(interpret(&p, &c.dims, &[ids, x.clone()]).unwrap_err(), "index out of range");
    }
    interpret(&p, &c.dims, &[Tensor::from_i64(vec![2], &[-4, 3]), x]).unwrap();
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
