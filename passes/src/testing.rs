//! Helpers of the passes' unit tests: short builders, and a numeric comparison by the evaluator.

use bertc_ir::eval::eval;
use bertc_ir::{BinaryOp, DType, Dim, Graph, Loc, Op, Scalar, Tensor, TensorType, ValueId};

use crate::pass::PassContext;

/// A graph under construction with the symbols `batch` (1..=4) and `seq` (1..=8).
pub struct T {
    pub g: Graph,
}

impl T {
    pub fn new() -> T {
        let mut g = Graph::new("f");
        g.symbols.intern("batch", 1, 4);
        g.symbols.intern("seq", 1, 8);
        T { g }
    }

    /// A number or a symbol.
    pub fn dim(&self, s: &str) -> Dim {
        s.parse::<i64>().map_or_else(|_| self.g.symbols.find(s).unwrap().into(), Dim::from)
    }

    pub fn dims(&self, s: &[&str]) -> Vec<Dim> {
        s.iter().map(|s| self.dim(s)).collect()
    }

    pub fn input(&mut self, dtype: DType, shape: &[&str]) -> ValueId {
        let ty = TensorType::new(dtype, self.dims(shape));
        let name = format!("in{}", self.g.inputs().len());
        self.g.add_input(name, ty)
    }

    pub fn add(&mut self, op: Op, operands: &[ValueId]) -> ValueId {
        self.g.add(op, operands, &Loc::Unknown).unwrap()
    }

    pub fn bin(&mut self, op: BinaryOp, a: ValueId, b: ValueId) -> ValueId {
        self.add(Op::Binary(op), &[a, b])
    }

    pub fn constant(&mut self, t: Tensor) -> ValueId {
        self.g.add_const(t, &Loc::Unknown).unwrap()
    }

    pub fn f32(&mut self, shape: &[usize], v: &[f32]) -> ValueId {
        self.constant(Tensor::from_f32(shape.to_vec(), v))
    }

    pub fn i64(&mut self, shape: &[usize], v: &[i64]) -> ValueId {
        self.constant(Tensor::from_i64(shape.to_vec(), v))
    }

    pub fn reshape(&mut self, x: ValueId, shape: &[&str]) -> ValueId {
        let shape = self.dims(shape);
        self.add(Op::Reshape { shape }, &[x])
    }

    pub fn broadcast(&mut self, x: ValueId, shape: &[&str]) -> ValueId {
        let shape = self.dims(shape);
        self.add(Op::Broadcast { shape }, &[x])
    }

    pub fn transpose(&mut self, x: ValueId, perm: &[usize]) -> ValueId {
        self.add(Op::Transpose { perm: perm.to_vec() }, &[x])
    }

    pub fn iota(&mut self, len: &str) -> ValueId {
        let len = self.dim(len);
        self.add(Op::Iota { len, start: 0.into(), step: 1.into() }, &[])
    }
}

/// Runs one pass; tells whether it changed anything.
pub fn run(g: &mut Graph, pass: &str) -> bool {
    crate::registry::find(pass).unwrap().pass.run(g, &mut PassContext::default()).unwrap()
}

/// How many nodes have an op of that name.
pub fn count(g: &Graph, op: &str) -> usize {
    g.topo().into_iter().filter(|&v| g.op(v).name() == op).count()
}

/// Inputs for some dims: floats with the special values among them, small non-negative integers.
pub fn inputs(g: &Graph, dims: &[i64], mut seed: u64) -> Vec<Tensor> {
    let special = [0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.0, -1.0, 2.0];
    g.inputs()
        .iter()
        .map(|p| {
            let ty = g.ty(p.value);
            let shape: Vec<usize> = ty.shape.iter().map(|d| d.eval(dims).unwrap() as usize).collect();
            let n = shape.iter().product();
            let elems: Vec<Scalar> = (0..n)
                .map(|_| {
                    seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    let r = (seed >> 33) as i64;
                    match ty.dtype {
                        d if d.is_float() && r % 5 == 0 => Scalar::Float(special[(r / 5 % 8) as usize]),
                        d if d.is_float() => Scalar::Float((r % 2001 - 1000) as f64 / 250.0),
                        DType::Bool => Scalar::Int((r % 2).into()),
                        _ => Scalar::Int((r % 3).into()),
                    }
                })
                .collect();
            Tensor::from_scalars(ty.dtype, shape, elems)
        })
        .collect()
}

/// Whether two tensors hold the same values: all NaNs are one, 0 and -0 are two.
pub fn same(a: &Tensor, b: &Tensor) -> bool {
    a.dtype() == b.dtype()
        && a.shape() == b.shape()
        && a.iter().zip(b.iter()).all(|(x, y)| match (x, y) {
            (Scalar::Float(x), Scalar::Float(y)) => x.to_bits() == y.to_bits() || (x.is_nan() && y.is_nan()),
            _ => x == y,
        })
}

/// Evaluates both graphs at several dims; the outputs must be equal, element by element.
pub fn check_same(before: &Graph, after: &Graph) {
    for (seed, dims) in [[1, 1], [1, 8], [4, 1], [2, 5], [3, 3]].iter().enumerate() {
        let x = inputs(before, dims, seed as u64);
        let (a, b) = (eval(before, dims, &x).unwrap(), eval(after, dims, &x).unwrap());
        assert_eq!(a.len(), b.len());
        for (a, b) in a.iter().zip(&b) {
            assert!(same(a, b), "dims {dims:?}: {a:?} became {b:?}");
        }
    }
}
