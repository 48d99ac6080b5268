//! What the lowering of one op builds: a kernel together with the arguments its step binds.

use std::collections::BTreeMap;

use bertc_ir::kernel::{Elem, KernelBuilder, Place, Reg, RegType};
use bertc_ir::{DType, Dim};

use crate::plan::{Arg, Chunk};

/// A kernel under construction and the bindings of its parameters.
pub struct Ctx {
    /// The builder.
    pub b: KernelBuilder,
    /// One per parameter so far.
    pub args: Vec<Arg>,
    /// As [`Step::in_place`](crate::plan::Step::in_place): which results may overwrite which operands.
    pub in_place: Vec<(usize, usize)>,
    dims: BTreeMap<Dim, Reg>,
}

impl Ctx {
    /// An empty kernel. Its name is the stem of the final, unique one.
    pub fn new(name: &str) -> Self {
        Ctx { b: KernelBuilder::new(name), args: Vec::new(), in_place: Vec::new(), dims: BTreeMap::new() }
    }

    /// A dim as a register: an immediate if constant, else a parameter that the driver computes once per step.
    pub fn dim(&mut self, d: &Dim) -> Reg {
        if let Some(c) = d.as_const() {
            return self.b.int(c);
        }
        if let Some(&r) = self.dims.get(d) {
            return r;
        }
        let r = self.b.int_param(format!("d{}", self.dims.len()));
        self.args.push(Arg::Int(d.clone()));
        self.dims.insert(d.clone(), r);
        r
    }

    /// The chunk of an extent, that the driver computes once per step.
    pub fn chunk_size(&mut self, extent: &Dim, chunk: Chunk) -> Reg {
        if let Chunk::Fixed(n) = chunk {
            return self.b.int(n);
        }
        self.args.push(Arg::Chunk(extent.clone(), chunk));
        self.b.int_param("chunk")
    }

    /// Binds a buffer to read.
    pub fn input(&mut self, arg: Arg, dtype: DType) -> usize {
        self.args.push(arg);
        self.b.input(format!("p{}", self.args.len() - 1), dtype)
    }

    /// Binds a buffer to write.
    pub fn output(&mut self, arg: Arg, dtype: DType) -> usize {
        self.args.push(arg);
        self.b.output(format!("p{}", self.args.len() - 1), dtype)
    }

    /// `a + b·d`, skipping what a constant 0 or 1 makes needless.
    pub fn mul_add(&mut self, a: Reg, b: Reg, d: &Dim) -> Reg {
        match d.as_const() {
            Some(0) => a,
            Some(1) => self.b.add(a, b),
            _ => {
                let d = self.dim(d);
                let p = self.b.mul(b, d);
                self.b.add(a, p)
            }
        }
    }

    /// The half-open range of `chunk` items out of `total` that the item `t` covers.
    pub fn chunk(&mut self, t: Reg, total: &Dim, chunk: i64) -> (Reg, Reg) {
        let total = self.dim(total);
        let c = self.b.int(chunk);
        let lo = self.b.mul(t, c);
        let end = self.b.add(lo, c);
        (lo, self.b.min(end, total))
    }

    /// Splits `i` by sizes, outermost first: the coordinates of the row-major index `i`.
    pub fn coords(&mut self, i: Reg, sizes: &[Dim]) -> Vec<Reg> {
        let mut out = vec![i; sizes.len()];
        let mut rest = i;
        for (k, size) in sizes.iter().enumerate().rev() {
            if k == 0 {
                out[0] = rest;
            } else {
                let s = self.dim(size);
                out[k] = self.b.bin(bertc_ir::kernel::Bin::RemU, rest, s);
                rest = self.b.bin(bertc_ir::kernel::Bin::DivU, rest, s);
            }
        }
        out
    }

    /// Loads `lanes` elements, `index` behind an address.
    pub fn load_from(&mut self, ptr: usize, base: Reg, index: Reg, lanes: u8) -> Reg {
        self.b.load_at(Place { ptr, base: Some(base), index, offset: 0, active: None }, lanes)
    }

    /// Stores `value`, `index` elements behind an address.
    pub fn store_from(&mut self, ptr: usize, base: Reg, index: Reg, value: Reg) {
        self.b.store_at(Place { ptr, base: Some(base), index, offset: 0, active: None }, value);
    }

    /// A constant of element `elem`.
    pub fn imm(&mut self, elem: Elem, lanes: u8, v: f64) -> Reg {
        let ty = RegType::vector(elem, lanes);
        match elem {
            Elem::F32 | Elem::F64 => self.b.const_f(ty, v),
            _ => self.b.const_i(ty, v as i64),
        }
    }
}
