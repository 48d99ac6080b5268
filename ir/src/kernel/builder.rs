//! Builds kernels. Misuse (wrong register types) is a bug of a template and panics with the kernel's name.

use super::{Bin, Block, DotKind, Elem, Inst, Kernel, Param, Place, Reg, RegType, Un, lane_in_memory};
use crate::op::CmpOp;
use crate::types::DType;

/// A kernel under construction.
#[derive(Debug)]
pub struct KernelBuilder {
    name: String,
    params: Vec<Param>,
    regs: Vec<RegType>,
    worker: Option<Reg>,
    ordered: bool,
    /// The innermost block is last.
    blocks: Vec<Open>,
}

/// A block under construction.
#[derive(Debug)]
struct Open {
    insts: Vec<Inst>,
    what: What,
}

/// What a block belongs to.
#[derive(Debug)]
enum What {
    Kernel,
    /// A loop, complete but for its body.
    Loop(Inst),
    Then {
        cond: Reg,
    },
    Else {
        cond: Reg,
        then: Block,
    },
}

impl KernelBuilder {
    /// A kernel without parameters.
    pub fn new(name: impl Into<String>) -> Self {
        let regs = vec![RegType::scalar(Elem::I64)];
        KernelBuilder {
            name: name.into(),
            params: Vec::new(),
            regs,
            worker: None,
            ordered: false,
            blocks: vec![Open { insts: Vec::new(), what: What::Kernel }],
        }
    }

    /// The finished kernel.
    pub fn finish(mut self) -> Kernel {
        let (insts, what) = self.close();
        assert!(matches!(what, What::Kernel), "kernel '{}': unbalanced blocks", self.name);
        let body = Block { insts, yields: Vec::new() };
        let Self { name, params, regs, worker, ordered, .. } = self;
        Kernel { name, params, regs, task: Reg(0), worker, ordered, body }
    }

    fn reg(&mut self, ty: RegType) -> Reg {
        self.regs.push(ty);
        Reg(self.regs.len() as u32 - 1)
    }

    fn push(&mut self, i: Inst) {
        self.blocks.last_mut().expect("an open block").insts.push(i);
    }

    fn open(&mut self, what: What) {
        self.blocks.push(Open { insts: Vec::new(), what });
    }

    fn close(&mut self) -> (Vec<Inst>, What) {
        let b = self.blocks.pop().expect("an open block");
        (b.insts, b.what)
    }

    fn types(&self, regs: &[Reg]) -> Vec<RegType> {
        regs.iter().map(|&r| self.ty(r)).collect()
    }

    fn same(&self, a: Reg, b: Reg) -> RegType {
        assert_eq!(self.ty(a), self.ty(b), "kernel '{}': operand types differ", self.name);
        self.ty(a)
    }

    /// Type of a register.
    pub fn ty(&self, r: Reg) -> RegType {
        self.regs[r.0 as usize]
    }

    /// The task's number (i64).
    pub fn task(&self) -> Reg {
        Reg(0)
    }

    /// The worker's number (i64).
    pub fn worker(&mut self) -> Reg {
        match self.worker {
            Some(r) => r,
            None => {
                let r = self.reg(RegType::scalar(Elem::I64));
                *self.worker.insert(r)
            }
        }
    }

    /// Tells emitters to keep the order of instructions.
    pub fn keep_order(&mut self) {
        self.ordered = true;
    }

    /// Adds a buffer that is only read; its parameter number.
    pub fn input(&mut self, name: impl Into<String>, dtype: DType) -> usize {
        self.params.push(Param::Ptr { name: name.into(), dtype, write: false });
        self.params.len() - 1
    }

    /// Adds a buffer that is written; its parameter number.
    pub fn output(&mut self, name: impl Into<String>, dtype: DType) -> usize {
        self.params.push(Param::Ptr { name: name.into(), dtype, write: true });
        self.params.len() - 1
    }

    /// Adds a run-time integer; its register.
    pub fn int_param(&mut self, name: impl Into<String>) -> Reg {
        let reg = self.reg(RegType::scalar(Elem::I64));
        self.params.push(Param::Int { name: name.into(), reg });
        reg
    }

    /// A float constant of type `ty`.
    pub fn const_f(&mut self, ty: RegType, value: f64) -> Reg {
        let dst = self.reg(ty);
        self.push(Inst::ConstF { dst, value });
        dst
    }

    /// An integer or mask constant of type `ty`.
    pub fn const_i(&mut self, ty: RegType, value: i64) -> Reg {
        let dst = self.reg(ty);
        self.push(Inst::ConstI { dst, value });
        dst
    }

    /// An i64 scalar constant.
    pub fn int(&mut self, value: i64) -> Reg {
        self.const_i(RegType::scalar(Elem::I64), value)
    }

    /// One-operand operation.
    pub fn un(&mut self, op: Un, a: Reg) -> Reg {
        let dst = self.reg(self.ty(a));
        self.push(Inst::Un { dst, op, a });
        dst
    }

    /// Two-operand operation.
    pub fn bin(&mut self, op: Bin, a: Reg, b: Reg) -> Reg {
        let ty = self.same(a, b);
        let dst = self.reg(ty);
        self.push(Inst::Bin { dst, op, a, b });
        dst
    }

    /// a + b.
    pub fn add(&mut self, a: Reg, b: Reg) -> Reg {
        self.bin(Bin::Add, a, b)
    }

    /// a - b.
    pub fn sub(&mut self, a: Reg, b: Reg) -> Reg {
        self.bin(Bin::Sub, a, b)
    }

    /// a · b.
    pub fn mul(&mut self, a: Reg, b: Reg) -> Reg {
        self.bin(Bin::Mul, a, b)
    }

    /// a / b.
    pub fn div(&mut self, a: Reg, b: Reg) -> Reg {
        self.bin(Bin::Div, a, b)
    }

    /// min(a, b).
    pub fn min(&mut self, a: Reg, b: Reg) -> Reg {
        self.bin(Bin::Min, a, b)
    }

    /// max(a, b).
    pub fn max(&mut self, a: Reg, b: Reg) -> Reg {
        self.bin(Bin::Max, a, b)
    }

    /// a·b + c.
    pub fn fma(&mut self, a: Reg, b: Reg, c: Reg) -> Reg {
        self.same(a, b);
        let ty = self.same(b, c);
        let dst = self.reg(ty);
        self.push(Inst::Fma { dst, a, b, c });
        dst
    }

    /// c plus the dot products of the lanes of a and b.
    pub fn dot(&mut self, kind: DotKind, a: Reg, b: Reg, c: Reg) -> Reg {
        self.same(a, b);
        let dst = self.reg(self.ty(c));
        self.push(Inst::Dot { dst, kind, a, b, c });
        dst
    }

    /// Comparison (integers signed).
    pub fn cmp(&mut self, op: CmpOp, a: Reg, b: Reg) -> Reg {
        self.cmp_sign(op, false, a, b)
    }

    /// Comparison with an explicit signedness for integers.
    pub fn cmp_sign(&mut self, op: CmpOp, unsigned: bool, a: Reg, b: Reg) -> Reg {
        let lanes = self.same(a, b).lanes;
        let dst = self.reg(RegType::vector(Elem::Mask, lanes));
        self.push(Inst::Cmp { dst, op, unsigned, a, b });
        dst
    }

    /// `m ? a : b`.
    pub fn select(&mut self, m: Reg, a: Reg, b: Reg) -> Reg {
        let ty = self.same(a, b);
        let mt = self.ty(m);
        assert!(mt.elem == Elem::Mask && mt.lanes == ty.lanes, "kernel '{}': select on {mt:?}", self.name);
        let dst = self.reg(ty);
        self.push(Inst::Select { dst, m, a, b });
        dst
    }

    /// Value conversion to `elem`; integers are signed.
    pub fn convert(&mut self, a: Reg, elem: Elem) -> Reg {
        self.convert_sign(a, elem, false)
    }

    /// Value conversion with an explicit signedness of the integer side.
    pub fn convert_sign(&mut self, a: Reg, elem: Elem, unsigned: bool) -> Reg {
        let dst = self.reg(RegType { elem, lanes: self.ty(a).lanes });
        self.push(Inst::Convert { dst, a, unsigned });
        dst
    }

    /// Same bits as `elem`.
    pub fn bitcast(&mut self, a: Reg, elem: Elem) -> Reg {
        let dst = self.reg(RegType { elem, lanes: self.ty(a).lanes });
        self.push(Inst::Bitcast { dst, a });
        dst
    }

    /// A scalar in `lanes` lanes; with 1 lane the scalar itself.
    pub fn splat(&mut self, a: Reg, lanes: u8) -> Reg {
        let ty = self.ty(a);
        assert_eq!(ty.lanes, 1, "kernel '{}': splat of a vector", self.name);
        if lanes == 1 {
            return a;
        }
        let dst = self.reg(RegType::vector(ty.elem, lanes));
        self.push(Inst::Splat { dst, a });
        dst
    }

    /// One lane as a scalar.
    pub fn extract(&mut self, a: Reg, lane: u8) -> Reg {
        let dst = self.reg(RegType::scalar(self.ty(a).elem));
        self.push(Inst::Extract { dst, a, lane });
        dst
    }

    /// Reduces a vector's lanes to a scalar with `op` in the order of [`Inst::Reduce`]; a scalar stays.
    pub fn reduce(&mut self, op: Bin, a: Reg) -> Reg {
        let ty = self.ty(a);
        if ty.lanes == 1 {
            return a;
        }
        let dst = self.reg(RegType::scalar(ty.elem));
        self.push(Inst::Reduce { dst, op, a });
        dst
    }

    /// Lanes of the first halves of two vectors, or of the second ones, by turns.
    pub fn zip(&mut self, high: bool, a: Reg, b: Reg) -> Reg {
        let ty = self.same(a, b);
        let dst = self.reg(ty);
        self.push(Inst::Zip { dst, high, a, b });
        dst
    }

    /// The address of `ptr[index + offset]`.
    pub fn address(&mut self, ptr: usize, index: Reg, offset: i64) -> Reg {
        let dst = self.reg(RegType::scalar(Elem::Addr));
        self.push(Inst::Address { dst, ptr, index, offset });
        dst
    }

    /// Loads `lanes` elements at `ptr[index + offset]`.
    pub fn load(&mut self, ptr: usize, index: Reg, offset: i64, lanes: u8) -> Reg {
        self.load_at(Place { ptr, base: None, index, offset, active: None }, lanes)
    }

    /// Loads `lanes` elements.
    pub fn load_at(&mut self, at: Place, lanes: u8) -> Reg {
        self.load_as(at, Elem::of(self.dtype_of(at.ptr)), lanes)
    }

    /// Loads `lanes` pairs of bf16.
    pub fn load_pairs_at(&mut self, at: Place, lanes: u8) -> Reg {
        self.load_as(at, Elem::I32, lanes)
    }

    /// The dtype of a pointer parameter.
    pub fn dtype_of(&self, ptr: usize) -> DType {
        let Param::Ptr { dtype, .. } = &self.params[ptr] else {
            panic!("kernel '{}': parameter {ptr} is an integer", self.name)
        };
        *dtype
    }

    fn load_as(&mut self, at: Place, elem: Elem, lanes: u8) -> Reg {
        let dtype = self.dtype_of(at.ptr);
        let fits = lane_in_memory(dtype, elem).is_some() && (lanes == 1 || elem.vectorises());
        assert!(fits, "kernel '{}': load of {lanes} lanes of {} from {dtype}", self.name, elem.name());
        let dst = self.reg(RegType::vector(elem, lanes));
        self.push(Inst::Load { dst, at });
        dst
    }

    /// Stores `value` at `ptr[index + offset]`.
    pub fn store(&mut self, ptr: usize, index: Reg, offset: i64, value: Reg) {
        self.store_at(Place { ptr, base: None, index, offset, active: None }, value);
    }

    /// Stores `value`.
    pub fn store_at(&mut self, at: Place, value: Reg) {
        let Param::Ptr { dtype, write: true, .. } = &self.params[at.ptr] else {
            panic!("kernel '{}': store to a read-only parameter", self.name)
        };
        let fits = lane_in_memory(*dtype, self.ty(value).elem).is_some();
        assert!(fits, "kernel '{}': store to {dtype}", self.name);
        self.push(Inst::Store { at, value });
    }

    /// Asks for the cache line of an element.
    pub fn prefetch(&mut self, at: Place) {
        self.push(Inst::Prefetch { at });
    }

    /// Opens a counted loop: its induction variable and carried values. What follows is its body, up to
    /// [`end_for`](Self::end_for).
    pub fn begin_for(&mut self, lo: Reg, hi: Reg, step: i64, init: &[Reg]) -> (Reg, Vec<Reg>) {
        assert!(step > 0, "kernel '{}': loop step {step}", self.name);
        let var = self.reg(RegType::scalar(Elem::I64));
        let args: Vec<Reg> = self.types(init).into_iter().map(|t| self.reg(t)).collect();
        let (dst, init, body) = (Vec::new(), init.to_vec(), Block::default());
        self.open(What::Loop(Inst::For { dst, var, args: args.clone(), lo, hi, step, init, body }));
        (var, args)
    }

    /// Closes a loop with the next values of what it carries; the results.
    pub fn end_for(&mut self, yields: Vec<Reg>) -> Vec<Reg> {
        let (insts, What::Loop(mut inst)) = self.close() else { panic!("kernel '{}': no open loop", self.name) };
        let Inst::For { dst, init, body, .. } = &mut inst else { unreachable!("only loops are opened so") };
        let types = self.types(init);
        assert_eq!(types, self.types(&yields), "kernel '{}': a loop's carried types differ", self.name);
        *dst = types.into_iter().map(|t| self.reg(t)).collect();
        *body = Block { insts, yields };
        let dst = dst.clone();
        self.push(inst);
        dst
    }

    /// Opens a conditional; what follows runs when `cond` holds, up to [`begin_else`](Self::begin_else) or
    /// [`end_if`](Self::end_if).
    pub fn begin_if(&mut self, cond: Reg) {
        assert_eq!(self.ty(cond), RegType::scalar(Elem::Mask), "kernel '{}': condition type", self.name);
        self.open(What::Then { cond });
    }

    /// Ends the first branch of a conditional with its values and begins the second one.
    pub fn begin_else(&mut self, yields: Vec<Reg>) {
        let (insts, What::Then { cond }) = self.close() else { panic!("kernel '{}': no open branch", self.name) };
        self.open(What::Else { cond, then: Block { insts, yields } });
    }

    /// Closes a conditional with its last branch's values; the results.
    pub fn end_if(&mut self, yields: Vec<Reg>) -> Vec<Reg> {
        let (insts, what) = self.close();
        let last = Block { insts, yields };
        let (cond, then, otherwise) = match what {
            What::Then { cond } => (cond, last, Block::default()),
            What::Else { cond, then } => (cond, then, last),
            _ => panic!("kernel '{}': no open branch", self.name),
        };
        let types = self.types(&then.yields);
        assert_eq!(types, self.types(&otherwise.yields), "kernel '{}': branch types differ", self.name);
        let dst: Vec<Reg> = types.into_iter().map(|t| self.reg(t)).collect();
        self.push(Inst::If { dst: dst.clone(), cond, then, otherwise });
        dst
    }

    /// A counted loop; `body` gets the induction variable and the carried values and returns their next values.
    pub fn for_loop(
        &mut self,
        lo: Reg,
        hi: Reg,
        step: i64,
        init: &[Reg],
        body: impl FnOnce(&mut Self, Reg, &[Reg]) -> Vec<Reg>,
    ) -> Vec<Reg> {
        let (var, args) = self.begin_for(lo, hi, step, init);
        let yields = body(self, var, &args);
        self.end_for(yields)
    }

    /// A conditional; both branches return values of the same types.
    pub fn if_else(
        &mut self,
        cond: Reg,
        then: impl FnOnce(&mut Self) -> Vec<Reg>,
        otherwise: impl FnOnce(&mut Self) -> Vec<Reg>,
    ) -> Vec<Reg> {
        self.begin_if(cond);
        let yields = then(self);
        self.begin_else(yields);
        let yields = otherwise(self);
        self.end_if(yields)
    }

    /// Sets the call's error flag.
    pub fn fail(&mut self) {
        self.push(Inst::Fail);
    }
}
