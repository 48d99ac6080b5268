//! A program of three kernels: a gather that can fail, a projection by a packed constant, and an addition.

use bertc_backends::plan::{Arg, Buffer, ConstData, ConstLayout, Lane, PortSpec, Program, Slot, Step};
use bertc_backends::target::Target;
use bertc_ir::kernel::{Bin, Elem, Kernel, KernelBuilder, Reg, RegType};
use bertc_ir::{CmpOp, DType, Dim, Symbols, Tensor, TensorType};

/// Rows of the table.
const ROWS: usize = 10;
/// Columns of the table, and rows of the matrix.
const K: usize = 8;
/// Columns of the matrix: one panel and a tail.
const N: usize = 20;

/// The target of a triple, without any pinned feature.
pub fn target(triple: &str) -> Target {
    Target::parse(triple, "generic").unwrap_or_else(|e| panic!("{triple}: {e}"))
}

/// first..min(first + chunk, n) of the task.
fn range(b: &mut KernelBuilder, n: Reg, chunk: i64) -> (Reg, Reg) {
    let (task, chunk) = (b.task(), b.int(chunk));
    let lo = b.mul(task, chunk);
    let end = b.add(lo, chunk);
    let hi = b.min(end, n);
    (lo, hi)
}

/// out[i, :] = table[ids[i], :]; fails on an id out of range.
fn gather() -> Kernel {
    let mut b = KernelBuilder::new("gather");
    let (ids, table, out) = (b.input("ids", DType::I64), b.input("table", DType::F32), b.output("out", DType::F32));
    let n = b.int_param("n");
    let (lo, hi) = range(&mut b, n, 4);
    b.for_loop(lo, hi, 1, &[], |b, i, _| {
        let id = b.load(ids, i, 0, 1);
        let (zero, rows) = (b.int(0), b.int(ROWS as i64));
        let low = b.cmp(CmpOp::Lt, id, zero);
        let high = b.cmp(CmpOp::Ge, id, rows);
        let bad = b.bin(Bin::Or, low, high);
        b.if_else(
            bad,
            |b| {
                b.fail();
                vec![]
            },
            |_| vec![],
        );
        let id = b.select(bad, zero, id);
        let k = b.int(K as i64);
        let (from, to) = (b.mul(id, k), b.mul(i, k));
        for lane in [0, 4] {
            let v = b.load(table, from, lane, 4);
            b.store(out, to, lane, v);
        }
        vec![]
    });
    b.finish()
}

/// y[i, :] = x[i, :] · W, W packed.
fn project() -> Kernel {
    let mut b = KernelBuilder::new("project");
    let (x, w, y) = (b.input("x", DType::F32), b.input("w", DType::F32), b.output("y", DType::F32));
    let n = b.int_param("n");
    let (lo, hi) = range(&mut b, n, 3);
    b.for_loop(lo, hi, 1, &[], |b, i, _| {
        let (zero, one, k, cols) = (b.int(0), b.int(1), b.int(K as i64), b.int(N as i64));
        let (xi, yi) = (b.mul(i, k), b.mul(i, cols));
        // Panel 0 has all its 16 columns, panel 1 the other 4.
        for (panel, groups) in [(0, 4), (1, 1)] {
            for g in 0..groups {
                let init = b.const_f(RegType::vector(Elem::F32, 4), 0.0);
                let acc = b.for_loop(zero, k, 1, &[init], |b, kk, acc| {
                    let at = b.add(xi, kk);
                    let a = b.load(x, at, 0, 1);
                    let a = b.splat(a, 4);
                    let sixteen = b.int(16);
                    let row = b.mul(kk, sixteen);
                    let w = b.load(w, row, panel * (K as i64) * 16 + g * 4, 4);
                    vec![b.fma(a, w, acc[0])]
                });
                let at = b.mul(yi, one);
                b.store(y, at, panel * 16 + g * 4, acc[0]);
            }
        }
        vec![]
    });
    b.finish()
}

/// out[i, :] = x[i, :] + bias.
fn add() -> Kernel {
    let mut b = KernelBuilder::new("add");
    let (x, bias, out) = (b.input("x", DType::F32), b.input("bias", DType::F32), b.output("out", DType::F32));
    let n = b.int_param("n");
    let (lo, hi) = range(&mut b, n, 5);
    b.for_loop(lo, hi, 1, &[], |b, i, _| {
        let (zero, cols) = (b.int(0), b.int(N as i64));
        let row = b.mul(i, cols);
        b.for_loop(zero, cols, 4, &[], |b, j, _| {
            let at = b.add(row, j);
            let (x, c) = (b.load(x, at, 0, 4), b.load(bias, j, 0, 4));
            let sum = b.add(x, c);
            b.store(out, at, 0, sum);
            vec![]
        });
        vec![]
    });
    b.finish()
}

/// y = table[ids] · W + bias, with ids: [batch, seq], bias: [20], y: [batch, seq, 20].
pub fn program(name: &str) -> Program {
    let mut symbols = Symbols::default();
    let batch = Dim::symbol(symbols.intern("batch", 1, 4));
    let seq = Dim::symbol(symbols.intern("seq", 1, 16));
    let rows = batch.mul(&seq).unwrap();
    let port = |name: &str, dtype, shape| PortSpec { name: name.into(), ty: TensorType::new(dtype, shape) };
    let inputs = vec![
        port("ids", DType::I64, vec![batch.clone(), seq.clone()]),
        port("bias", DType::F32, vec![Dim::constant(N as i64)]),
    ];
    let outputs = vec![port("y", DType::F32, vec![batch, seq, Dim::constant(N as i64)])];
    let table: Vec<f32> = (0..ROWS * K).map(|i| i as f32 * 0.25).collect();
    let matrix: Vec<f32> = (0..K * N).map(|i| (i % 7) as f32 - 3.0).collect();
    let consts = vec![
        ConstData { parts: vec![Tensor::from_f32(vec![ROWS, K], &table).into()], layout: ConstLayout::Plain },
        ConstData {
            parts: vec![Tensor::from_f32(vec![K, N], &matrix).into()],
            layout: ConstLayout::Packed { trans: false, lane: Lane::One },
        },
    ];
    let bytes = |per_row: usize| rows.mul(&Dim::constant(4 * per_row as i64)).unwrap();
    let buffers = vec![
        Buffer { bytes: bytes(K), slot: 0, first: 0, last: 1 },
        Buffer { bytes: bytes(N), slot: 1, first: 1, last: 2 },
    ];
    let slots = vec![Slot { sizes: vec![bytes(K)] }, Slot { sizes: vec![bytes(N)] }];
    let step = |kernel, args: [Arg; 3], chunk: i64, fallible| Step {
        kernel,
        args: args.into_iter().chain([Arg::Int(rows.clone())]).collect(),
        tasks: vec![(rows.clone(), chunk.into())],
        fallible,
        in_place: Vec::new(),
        source: format!("step of kernel {kernel}"),
    };
    let steps = vec![
        step(0, [Arg::Input(0), Arg::Const(0), Arg::Buffer(0)], 4, true),
        step(1, [Arg::Buffer(0), Arg::Const(1), Arg::Buffer(1)], 3, false),
        step(2, [Arg::Buffer(1), Arg::Input(1), Arg::Output(0)], 5, false),
    ];
    let kernels = vec![gather(), project(), add()];
    Program { name: name.into(), symbols, inputs, outputs, kernels, consts, buffers, slots, steps }
}
