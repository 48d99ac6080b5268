//! Kernel IR to Cranelift CLIF, with 128-bit vectors: registers of 1 and 4 lanes.
//!
//! Values: a vector mask is an `i32x4` of all ones or all zeros, a scalar mask is an `i8` of 0 or 1; every other register
//! has CLIF's type of the same name. No instruction may become a call into a runtime library: what Cranelift would lower
//! so on a baseline x86-64 (rounding, fused multiply-add) is expanded here.

mod arith;
mod convert;
mod dot;
mod memory;
mod round;

use bertc_ir::Diag;
use bertc_ir::kernel::{Block, Elem, Inst, Kernel, Param, Reg, RegType};
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    AbiParam, BlockArg, ConstantData, Function, InstBuilder, MemFlagsData, Signature, Type, UserFuncName, Value, types,
};
use cranelift_codegen::isa::TargetIsa;
use cranelift_codegen::{CodegenResult, CompiledCode, Context};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};

use self::dot::{Bytes, Parts};
use crate::target::Target;

/// Lowers a kernel to a function `(i64 args, i64 task, i32 worker)` in the target's default calling convention.
///
/// # Errors
/// The kernel uses lanes or an operation that 128-bit code does not have; the message names the kernel.
pub fn emit_kernel(kernel: &Kernel, isa: &dyn TargetIsa, target: &Target) -> Result<Function, Diag> {
    let mut sig = Signature::new(isa.default_call_conv());
    sig.params.extend([types::I64, types::I64, types::I32].map(AbiParam::new));
    let mut func = Function::with_name_signature(UserFuncName::testcase(kernel.name.as_bytes()), sig);
    let mut context = FunctionBuilderContext::new();
    let mut e = Emitter {
        b: FunctionBuilder::new(&mut func, &mut context),
        kernel,
        values: vec![None; kernel.regs.len()],
        facts: vec![Fact::None; kernel.regs.len()],
        pointers: Vec::new(),
        flag: None,
        parts: Vec::new(),
        fma: target.has_fma(),
        bytes: Bytes::of(target),
        sse41: !target.is_x86_64() || target.has("sse41"),
    };
    e.check_lanes()?;
    e.entry();
    e.block(&kernel.body)?;
    e.b.ins().return_(&[]);
    e.b.seal_all_blocks();
    e.b.finalize(isa.frontend_config());
    Ok(func)
}

/// Compiles a function to machine code. With `ordered` its instructions keep their order: Cranelift's optimiser, which
/// moves them and joins blocks, doesn't run.
///
/// # Errors
/// Cranelift refuses the function.
pub fn compile(func: &Function, ordered: bool, isa: &dyn TargetIsa, listing: bool) -> CodegenResult<CompiledCode> {
    let mut ctx = Context::for_function(func.clone());
    ctx.set_disasm(listing);
    let mut plane = ControlPlane::default();
    if !ordered {
        ctx.compile(isa, &mut plane).map_err(|e| e.inner)?;
        return Ok(ctx.take_compiled_code().expect("just compiled"));
    }
    ctx.verify_if(isa)?;
    ctx.compute_cfg();
    ctx.compute_domtree();
    let mut registers = regalloc2::Ctx::default();
    let code = isa.compile_function(&ctx.func, &ctx.domtree, &mut registers, listing, &mut plane)?;
    Ok(code.apply_params(&ctx.func.params))
}

/// What is known of a register beyond its value.
#[derive(Clone, Copy)]
enum Fact {
    None,
    /// Every lane is this integer.
    Const(i64),
    /// Every lane is this scalar value.
    Splat(Value),
    /// This lane of a vector value.
    Lane(Value, u8),
    /// An i64 that is another plus a constant.
    Offset(Reg, i64),
}

struct Emitter<'a> {
    b: FunctionBuilder<'a>,
    kernel: &'a Kernel,
    values: Vec<Option<Value>>,
    facts: Vec<Fact>,
    /// Base address of each pointer parameter.
    pointers: Vec<Option<Value>>,
    /// Address of the error flag.
    flag: Option<Value>,
    /// What this block has made of the factors of dot products. Cranelift finds equal instructions only where it is free
    /// to move them.
    parts: Vec<Parts>,
    /// Whether fused multiply-add is an instruction.
    fma: bool,
    /// How bytes are multiplied.
    bytes: Bytes,
    /// Whether x86-64 has SSE4.1 (true elsewhere).
    sse41: bool,
}

impl Emitter<'_> {
    fn error(&self, what: impl std::fmt::Display) -> Diag {
        Diag::new(format!("kernel '{}': {what}", self.kernel.name))
    }

    fn check_lanes(&self) -> Result<(), Diag> {
        for (i, t) in self.kernel.regs.iter().enumerate() {
            if !(t.lanes == 1 || t.lanes == 4 && t.elem.vectorises()) {
                let what = format!("register {i} has {} lanes of {}", t.lanes, t.elem.name());
                return Err(self.error(what).note("128-bit code has registers of 1 lane, and of 4 lanes of 32 bits"));
            }
        }
        Ok(())
    }

    /// The CLIF type of a register.
    fn clif_type(t: RegType) -> Type {
        match (t.elem, t.lanes) {
            (Elem::F32, 1) => types::F32,
            (Elem::F32, _) => types::F32X4,
            (Elem::F64, _) => types::F64,
            (Elem::I32, 1) => types::I32,
            (Elem::I64 | Elem::Addr, _) => types::I64,
            (Elem::Mask, 1) => types::I8,
            (Elem::I32 | Elem::Mask, _) => types::I32X4,
        }
    }

    fn ty(&self, r: Reg) -> RegType {
        self.kernel.ty(r)
    }

    fn get(&self, r: Reg) -> Result<Value, Diag> {
        self.values[r.0 as usize].ok_or_else(|| self.error(format!("register {} is used before it is defined", r.0)))
    }

    fn get_all(&self, regs: &[Reg]) -> Result<Vec<Value>, Diag> {
        regs.iter().map(|&r| self.get(r)).collect()
    }

    fn set(&mut self, r: Reg, v: Value) {
        self.values[r.0 as usize] = Some(v);
    }

    fn fact(&self, r: Reg) -> Fact {
        self.facts[r.0 as usize]
    }

    /// An integer constant, in every lane for an `i32x4`.
    fn int(&mut self, ty: Type, value: i64) -> Value {
        if ty.is_vector() {
            self.splat_bits(ty, value as u32)
        } else if ty == types::I64 {
            self.b.ins().iconst(ty, value)
        } else {
            // Narrower immediates are kept zero-extended.
            let mask = (1i64 << ty.bits()) - 1;
            self.b.ins().iconst(ty, value & mask)
        }
    }

    /// A float constant, in every lane for an `f32x4`.
    fn float(&mut self, ty: Type, value: f64) -> Value {
        match ty {
            types::F32 => self.b.ins().f32const(value as f32),
            types::F64 => self.b.ins().f64const(value),
            _ => self.splat_bits(ty, (value as f32).to_bits()),
        }
    }

    fn splat_bits(&mut self, ty: Type, bits: u32) -> Value {
        let bytes = bits.to_le_bytes().repeat(4);
        let handle = self.b.func.dfg.constants.insert(ConstantData::from(bytes));
        self.b.ins().vconst(ty, handle)
    }

    /// `cond ? a : b`: `cond` is an `i8` for scalars, an `i32x4` mask for vectors.
    fn choose(&mut self, cond: Value, a: Value, b: Value) -> Value {
        let ty = self.b.func.dfg.value_type(a);
        if !ty.is_vector() {
            return self.b.ins().select(cond, a, b);
        }
        let cond = self.cast(ty, cond);
        self.b.ins().bitselect(cond, a, b)
    }

    /// The same bits as another type of the same size.
    fn cast(&mut self, ty: Type, v: Value) -> Value {
        if self.b.func.dfg.value_type(v) == ty {
            return v;
        }
        let flags = MemFlagsData::new().with_endianness(cranelift_codegen::ir::Endianness::Little);
        self.b.ins().bitcast(ty, flags, v)
    }

    fn entry(&mut self) {
        let block = self.b.create_block();
        self.b.append_block_params_for_function_params(block);
        self.b.switch_to_block(block);
        let params = self.b.block_params(block).to_vec();
        self.set(self.kernel.task, params[1]);
        if let Some(w) = self.kernel.worker {
            let wide = self.b.ins().uextend(types::I64, params[2]);
            self.set(w, wide);
        }
        // The argument array is written before the call and is never changed during it.
        let flags = MemFlagsData::trusted().with_readonly().with_can_move();
        self.flag = Some(self.b.ins().load(types::I64, flags, params[0], 0));
        for (i, p) in self.kernel.params.iter().enumerate() {
            let v = self.b.ins().load(types::I64, flags, params[0], 8 * (i as i32 + 1));
            match p {
                Param::Ptr { .. } => self.pointers.push(Some(v)),
                Param::Int { reg, .. } => {
                    self.set(*reg, v);
                    self.pointers.push(None);
                }
            }
        }
    }

    fn block(&mut self, block: &Block) -> Result<(), Diag> {
        let parts = self.parts.len();
        block.insts.iter().try_for_each(|i| self.inst(i))?;
        self.parts.truncate(parts);
        Ok(())
    }

    fn inst(&mut self, inst: &Inst) -> Result<(), Diag> {
        let (dst, v) = match inst {
            Inst::ConstF { dst, value } => (dst, self.float(Self::clif_type(self.ty(*dst)), *value)),
            Inst::ConstI { dst, value } => (dst, self.const_int(*dst, *value)),
            Inst::Un { dst, op, a } => (dst, self.un(*op, *a)?),
            Inst::Bin { dst, op, a, b } => (dst, self.bin(*dst, *op, *a, *b)?),
            Inst::Fma { dst, a, b, c } => (dst, self.fma(*a, *b, *c)?),
            Inst::Dot { dst, kind, a, b, c } => (dst, self.dot(*kind, *a, *b, *c)?),
            Inst::Cmp { dst, op, unsigned, a, b } => (dst, self.cmp(*op, *unsigned, *a, *b)?),
            Inst::Select { dst, m, a, b } => {
                let (m, a, b) = (self.get(*m)?, self.get(*a)?, self.get(*b)?);
                (dst, self.choose(m, a, b))
            }
            Inst::Convert { dst, a, unsigned } => (dst, self.convert(*dst, *a, *unsigned)?),
            Inst::Bitcast { dst, a } => {
                let a = self.get(*a)?;
                (dst, self.cast(Self::clif_type(self.ty(*dst)), a))
            }
            Inst::Splat { dst, a } => (dst, self.splat(*dst, *a)?),
            Inst::Extract { dst, a, lane } => (dst, self.extract(*dst, *a, *lane)?),
            Inst::Reduce { dst, op, a } => (dst, self.reduce(*op, *a)?),
            Inst::Zip { dst, high, a, b } => (dst, self.zip(*high, *a, *b)?),
            Inst::Address { dst, ptr, index, offset } => (dst, self.element(*ptr, *index, *offset)?),
            Inst::Load { dst, at } => (dst, self.load(*dst, at)?),
            Inst::Store { at, value } => return self.store(at, *value),
            // Cranelift has no such instruction.
            Inst::Prefetch { .. } => return Ok(()),
            Inst::For { .. } => return self.for_loop(inst),
            Inst::If { dst, cond, then, otherwise } => return self.if_else(dst, *cond, then, otherwise),
            Inst::Fail => return self.fail(),
        };
        self.set(*dst, v);
        Ok(())
    }

    fn const_int(&mut self, dst: Reg, value: i64) -> Value {
        let t = self.ty(dst);
        let value = match (t.elem, t.lanes) {
            (Elem::Mask, 1) => i64::from(value != 0),
            (Elem::Mask, _) => -i64::from(value != 0),
            _ => value,
        };
        self.facts[dst.0 as usize] = Fact::Const(value);
        self.int(Self::clif_type(t), value)
    }

    fn splat(&mut self, dst: Reg, a: Reg) -> Result<Value, Diag> {
        let mut v = self.get(a)?;
        let t = self.ty(dst);
        if t.lanes == 1 {
            return Ok(v);
        }
        if t.elem == Elem::Mask {
            let wide = self.b.ins().uextend(types::I32, v);
            v = self.b.ins().ineg(wide);
        }
        let fact = self.fact(a);
        self.facts[dst.0 as usize] = match fact {
            Fact::Const(c) if t.elem == Elem::I32 => Fact::Const(c),
            _ => Fact::Splat(v),
        };
        if let Fact::Lane(from, lane) = fact {
            return Ok(self.repeat(from, lane));
        }
        let v = self.b.ins().splat(Self::clif_type(t), v);
        if !self.kernel.ordered || t.elem == Elem::Mask {
            return Ok(v);
        }
        // A load merges into the instruction that uses it only if that is needed once: as the argument of a block.
        let next = self.b.create_block();
        let v1 = self.b.append_block_param(next, Self::clif_type(t));
        self.b.ins().jump(next, &[BlockArg::Value(v)]);
        self.b.switch_to_block(next);
        Ok(v1)
    }

    /// A lane of a vector in all its lanes, without a way through a scalar.
    fn repeat(&mut self, v: Value, lane: u8) -> Value {
        let ty = self.b.func.dfg.value_type(v);
        let bytes: Vec<u8> = (0..16).map(|i| lane * 4 + i % 4).collect();
        let mask = self.b.func.dfg.immediates.push(ConstantData::from(bytes));
        let v = self.cast(types::I8X16, v);
        let v = self.b.ins().shuffle(v, v, mask);
        self.cast(ty, v)
    }

    fn zip(&mut self, high: bool, a: Reg, b: Reg) -> Result<Value, Diag> {
        let (x, y) = (self.get(a)?, self.get(b)?);
        let ty = self.b.func.dfg.value_type(x);
        let first = if high { 8 } else { 0 };
        let bytes: Vec<u8> = (0..16).map(|i| first + i / 8 * 4 + i % 4 + if i % 8 < 4 { 0 } else { 16 }).collect();
        let mask = self.b.func.dfg.immediates.push(ConstantData::from(bytes));
        let (x, y) = (self.cast(types::I8X16, x), self.cast(types::I8X16, y));
        let v = self.b.ins().shuffle(x, y, mask);
        Ok(self.cast(ty, v))
    }

    fn extract(&mut self, dst: Reg, a: Reg, lane: u8) -> Result<Value, Diag> {
        let (t, v) = (self.ty(a), self.get(a)?);
        if lane >= t.lanes {
            return Err(self.error(format!("lane {lane} of a register of {} lanes", t.lanes)));
        }
        if t.lanes == 1 {
            return Ok(v);
        }
        if t.elem != Elem::Mask {
            self.facts[dst.0 as usize] = Fact::Lane(v, lane);
        }
        let x = self.b.ins().extractlane(v, lane);
        Ok(if t.elem == Elem::Mask { self.b.ins().icmp_imm_u(IntCC::NotEqual, x, 0) } else { x })
    }

    /// The loop is rotated: one test before it, one at its end, so an iteration has a single branch.
    fn for_loop(&mut self, inst: &Inst) -> Result<(), Diag> {
        let Inst::For { dst, var, args, lo, hi, step, init, body } = inst else {
            return Err(self.error("not a loop"));
        };
        if *step <= 0 || dst.len() != init.len() || args.len() != init.len() || body.yields.len() != init.len() {
            return Err(self.error("a malformed loop"));
        }
        let (head, exit) = (self.b.create_block(), self.b.create_block());
        let v = self.b.append_block_param(head, types::I64);
        self.set(*var, v);
        for (block, regs) in [(head, args), (exit, dst)] {
            for &r in regs {
                let v = self.b.append_block_param(block, Self::clif_type(self.ty(r)));
                self.set(r, v);
            }
        }
        let (lo, hi) = (self.get(*lo)?, self.get(*hi)?);
        let init = self.get_all(init)?;
        self.next_iteration(lo, hi, &init, head, exit);
        self.b.switch_to_block(head);
        self.block(body)?;
        let yields = self.get_all(&body.yields)?;
        let next = self.b.ins().iadd_imm_s(v, *step);
        self.next_iteration(next, hi, &yields, head, exit);
        self.b.switch_to_block(exit);
        Ok(())
    }

    fn next_iteration(
        &mut self,
        var: Value,
        hi: Value,
        carried: &[Value],
        head: cranelift_codegen::ir::Block,
        exit: cranelift_codegen::ir::Block,
    ) {
        let more = self.b.ins().icmp(IntCC::SignedLessThan, var, hi);
        let out: Vec<BlockArg> = carried.iter().map(|&v| BlockArg::Value(v)).collect();
        let mut again = vec![BlockArg::Value(var)];
        again.extend(&out);
        self.b.ins().brif(more, head, &again, exit, &out);
    }

    fn if_else(&mut self, dst: &[Reg], cond: Reg, then: &Block, otherwise: &Block) -> Result<(), Diag> {
        if then.yields.len() != dst.len() || otherwise.yields.len() != dst.len() {
            return Err(self.error("a malformed conditional"));
        }
        let (yes, no, exit) = (self.b.create_block(), self.b.create_block(), self.b.create_block());
        for &r in dst {
            let v = self.b.append_block_param(exit, Self::clif_type(self.ty(r)));
            self.set(r, v);
        }
        let cond = self.get(cond)?;
        self.b.ins().brif(cond, yes, &[], no, &[]);
        for (start, block) in [(yes, then), (no, otherwise)] {
            self.b.switch_to_block(start);
            self.block(block)?;
            let yields: Vec<BlockArg> = self.get_all(&block.yields)?.into_iter().map(BlockArg::Value).collect();
            self.b.ins().jump(exit, &yields);
        }
        self.b.switch_to_block(exit);
        Ok(())
    }

    /// Several tasks may store the same word at once; each stores the same value.
    fn fail(&mut self) -> Result<(), Diag> {
        let flag = self.flag.ok_or_else(|| self.error("no error flag"))?;
        let one = self.b.ins().iconst(types::I32, 1);
        self.b.ins().store(MemFlagsData::new().with_notrap(), one, flag, 0);
        Ok(())
    }
}
