//! Instruction selection: kernel IR to machine instructions over virtual registers.

mod control;
mod convert;
mod dot;
mod float;
mod integer;
mod mask;
mod memory;
mod narrow;
mod scalar;
mod vector;

use bertc_ir::kernel::{Block, Elem, Inst, Kernel, Param, Place, Reg, RegType};
use bertc_ir::{CmpOp, Diag};
use iced_x86::{Code, OpKind};

use self::dot::Parts;
use super::codes;
use super::mir::{Class, Features, Func, Inst as MInst, Isa, Item, Label, Mem, Opnd, Rm, Role, V, View, size_of_lanes};
use super::uses::{Uses, analyse};

/// Lowers a verified kernel.
pub(super) fn select(kernel: &Kernel, isa: Isa, features: Features) -> Result<Func, Diag> {
    let has = |t: &RegType| matches!(t.lanes, 1 | 4 | 8 | 16) && t.lanes <= isa.lanes();
    if let Some((i, t)) = kernel.regs.iter().enumerate().find(|(_, t)| !has(t)) {
        let what = format!("kernel '{}': register {i} has {} lanes of {}", kernel.name, t.lanes, t.elem.name());
        return Err(Diag::new(what).note("AVX-512 code has registers of 1, 4, 8 and 16 lanes, AVX2 code of 1, 4 and 8"));
    }
    let n = kernel.regs.len();
    let mut s = Select {
        kernel,
        uses: analyse(kernel),
        f: Func { isa, features, ..Func::default() },
        vals: vec![Val::None; n],
        offsets: vec![None; n],
        pointers: Vec::new(),
        flag: None,
        masks: Vec::new(),
        parts: Vec::new(),
        orders: Vec::new(),
        now: 0,
        loops: 0,
        in_loop: 0,
    };
    s.entry();
    s.block(&kernel.body)?;
    Ok(s.f)
}

/// What is known of a kernel register.
#[derive(Clone, Copy)]
enum Val {
    None,
    Reg(V),
    /// The same integer (or truth value) in every lane.
    Int(i64),
    /// The same float in every lane.
    Float(f64),
    /// To be loaded by its only user.
    Load(Place),
    /// One element of memory in every lane, for its only user.
    SplatLoad(Place),
    /// An integer comparison, for its only user.
    Cmp {
        op: CmpOp,
        unsigned: bool,
        a: Reg,
        b: Reg,
    },
}

struct Select<'a> {
    kernel: &'a Kernel,
    uses: Uses,
    f: Func,
    vals: Vec<Val>,
    /// An i64 that is another register plus a constant.
    offsets: Vec<Option<(Reg, i64)>>,
    /// Base address of each pointer parameter.
    pointers: Vec<Option<V>>,
    /// Address of the error flag.
    flag: Option<V>,
    /// Masks of the first lanes: the counting register, the lanes, the mask; with AVX2 the count in the mask's place,
    /// see `mask.rs`.
    masks: Vec<(Reg, u8, V)>,
    /// What this block has made of the factors of dot products. None is carried by a loop, thus written again.
    parts: Vec<Parts>,
    /// What this block has loaded of the orders of zips: by form and half.
    orders: Vec<(usize, bool, V)>,
    /// Number of the instruction in program order, as [`analyse`] counts.
    now: u32,
    loops: u32,
    in_loop: u32,
}

fn def(v: V, view: View) -> Opnd {
    Opnd::Reg(v, view, Role::Def)
}

fn get(v: V, view: View) -> Opnd {
    Opnd::Reg(v, view, Role::Use)
}

fn modify(v: V, view: View) -> Opnd {
    Opnd::Reg(v, view, Role::Mod)
}

fn undef(v: V, view: View) -> Opnd {
    Opnd::Reg(v, view, Role::Undef)
}

fn rm(x: Rm, view: View) -> Opnd {
    match x {
        Rm::R(v) => get(v, view),
        Rm::M(m) => Opnd::Mem(m),
    }
}

fn imm8(v: u8) -> Opnd {
    Opnd::Imm(OpKind::Immediate8, v.into())
}

/// The view of a vector register by the index into a table of [`codes`].
fn vec_view(i: usize) -> View {
    match i {
        1 => View::Y,
        2 => View::Z,
        _ => View::X,
    }
}

/// Index into a table of [`codes`].
fn form(t: RegType) -> usize {
    match (t.elem, t.lanes) {
        (Elem::F64, _) => 4,
        (Elem::F32, 1) => 3,
        (_, n) => size_of_lanes(n).into(),
    }
}

impl Select<'_> {
    fn error(&self, what: impl std::fmt::Display) -> Diag {
        Diag::new(format!("kernel '{}': {what}", self.kernel.name))
    }

    fn ty(&self, r: Reg) -> RegType {
        self.kernel.ty(r)
    }

    fn set(&mut self, r: Reg, v: V) {
        self.vals[r.0 as usize] = Val::Reg(v);
    }

    fn val(&self, r: Reg) -> Val {
        self.vals[r.0 as usize]
    }

    fn gpr(&mut self) -> V {
        self.f.new_reg(Class::Gpr)
    }

    /// A new vector register by its index into a table of [`codes`].
    fn vec(&mut self, i: usize) -> V {
        self.f.new_reg(Class::Vec(if i < 3 { i as u8 } else { 0 }))
    }

    fn copy(&mut self, dst: V, src: V) {
        self.f.push(Item::Copy { dst, src });
    }

    fn push(&mut self, code: Code, ops: &[Opnd], mask: Option<V>, zeroing: bool, effect: bool) {
        self.f.push(Item::Inst(MInst { code, ops: ops.to_vec(), mask, zeroing, effect }));
    }

    /// An instruction that only defines registers.
    fn emit(&mut self, code: Code, ops: &[Opnd]) {
        self.push(code, ops, None, false, false);
    }

    /// As [`emit`](Self::emit), under a mask; the other lanes become 0.
    fn emit_zeroing(&mut self, code: Code, ops: &[Opnd], mask: Option<V>) {
        self.push(code, ops, mask, mask.is_some(), false);
    }

    /// A store, or what sets flags.
    fn emit_effect(&mut self, code: Code, ops: &[Opnd]) {
        self.push(code, ops, None, false, true);
    }

    fn label(&mut self, label: Label) {
        self.f.push(Item::Label { label, align: 1 });
    }

    fn jump(&mut self, code: Code, label: Label) {
        self.f.push(Item::Jump { code, label });
    }

    /// Whether `r` isn't used after this instruction (or is used again only in the next iteration's copy).
    fn dies(&self, r: Reg) -> bool {
        let u = &self.uses.of[r.0 as usize];
        match self.val(r) {
            Val::Reg(_) => u.last == self.now && u.in_loop == self.in_loop,
            _ => true,
        }
    }

    /// Whether an operand is better read from memory: a deferred load or a literal.
    fn in_memory(&self, r: Reg) -> bool {
        !matches!(self.val(r), Val::Reg(_))
    }

    /// The register that holds `r`.
    fn reg(&mut self, r: Reg) -> Result<V, Diag> {
        let t = self.ty(r);
        Ok(match self.val(r) {
            Val::Reg(v) => v,
            Val::Int(c) => self.int_constant(t, c),
            Val::Float(c) => self.float_constant(t, c),
            Val::Load(at) => {
                let v = self.load(t, &at)?;
                self.set(r, v);
                v
            }
            Val::SplatLoad(at) => {
                let (_, m) = self.place(&at)?;
                let v = self.splat_from(t, Rm::M(m));
                self.set(r, v);
                v
            }
            Val::Cmp { op, unsigned, a, b } => {
                let v = self.compare_to_mask(op, unsigned, a, b)?;
                self.set(r, v);
                v
            }
            Val::None => return Err(self.error(format!("register {} is used before it is defined", r.0))),
        })
    }

    /// The register or memory that holds `r`, for the last operand of a vector (or scalar float) instruction.
    fn rm(&mut self, r: Reg) -> Result<Rm, Diag> {
        let t = self.ty(r);
        Ok(match self.val(r) {
            Val::Load(at) => Rm::M(self.place(&at)?.1),
            Val::SplatLoad(at) if !self.avx2() => Rm::M(self.place(&at)?.1.broadcast()),
            Val::Float(c) => Rm::M(self.float_literal(t, c)),
            Val::Int(c) if t.elem == Elem::I32 && t.lanes > 1 => {
                Rm::M(self.repeated(form(t), &(c as i32).to_le_bytes()))
            }
            _ => Rm::R(self.reg(r)?),
        })
    }

    /// Bytes that an instruction reads for every lane of a vector: AVX2 has them in memory as often. Scalars, forms 3 and 4,
    /// count as vectors of 128 bits.
    fn repeated(&mut self, i: usize, bytes: &[u8]) -> Mem {
        if !self.avx2() {
            return self.f.literal(bytes).broadcast();
        }
        let size = if i == 1 { 32 } else { 16 };
        self.f.literal(&bytes.repeat(size / bytes.len()))
    }

    /// A literal, for every lane of a vector.
    fn float_literal(&mut self, t: RegType, c: f64) -> Mem {
        match (t.elem, t.lanes) {
            (Elem::F64, _) => self.f.literal(&c.to_le_bytes()),
            (_, 1) => self.f.literal(&(c as f32).to_le_bytes()),
            _ => self.repeated(form(t), &(c as f32).to_le_bytes()),
        }
    }

    fn float_constant(&mut self, t: RegType, c: f64) -> V {
        let i = form(t);
        if c.to_bits() == 0 {
            return self.zero(i);
        }
        let m = if t.elem == Elem::F64 {
            self.f.literal(&c.to_le_bytes())
        } else {
            self.f.literal(&(c as f32).to_le_bytes())
        };
        let v = self.vec(i);
        let code = match i {
            3 => Code::EVEX_Vmovss_xmm_k1z_m32,
            4 => Code::EVEX_Vmovsd_xmm_k1z_m64,
            i => codes::BROADCAST[i],
        };
        self.emit(code, &[def(v, vec_view(i)), Opnd::Mem(m)]);
        v
    }

    /// A vector register of zeros.
    fn zero(&mut self, i: usize) -> V {
        let v = self.vec(i);
        let (view, i) = (vec_view(i), if i < 3 { i } else { 0 });
        self.emit(codes::IXOR[i], &[def(v, view), undef(v, view), undef(v, view)]);
        v
    }

    /// A vector register of ones.
    fn ones(&mut self, i: usize) -> V {
        let (v, view) = (self.vec(i), vec_view(i));
        if self.avx2() {
            let code = codes::IEQ[i];
            self.emit(code, &[def(v, view), undef(v, view), undef(v, view)]);
        } else {
            self.emit(codes::TERNLOG[i], &[def(v, view), undef(v, view), undef(v, view), imm8(0xff)]);
        }
        v
    }

    fn int_constant(&mut self, t: RegType, c: i64) -> V {
        match Class::of(t) {
            Class::Gpr => {
                let v = self.gpr();
                match (t.elem, u32::try_from(c), i32::try_from(c)) {
                    (Elem::Mask, ..) => {
                        self.emit(
                            Code::Mov_r32_imm32,
                            &[def(v, View::D), Opnd::Imm(OpKind::Immediate32, i64::from(c != 0))],
                        );
                    }
                    (_, Ok(_), _) | (Elem::I32, ..) => {
                        self.emit(Code::Mov_r32_imm32, &[def(v, View::D), Opnd::Imm(OpKind::Immediate32, c)]);
                    }
                    (_, _, Ok(_)) => {
                        self.emit(Code::Mov_rm64_imm32, &[def(v, View::Q), Opnd::Imm(OpKind::Immediate32to64, c)]);
                    }
                    _ => self.emit(Code::Mov_r64_imm64, &[def(v, View::Q), Opnd::Imm(OpKind::Immediate64, c)]),
                }
                v
            }
            Class::Mask if self.avx2() => {
                let i = form(t);
                if c == 0 { self.zero(i) } else { self.ones(i) }
            }
            Class::Mask => {
                let v = self.mask(0);
                let code = if c == 0 { Code::VEX_Kxorw_kr_kr_kr } else { Code::VEX_Kxnorw_kr_kr_kr };
                self.emit(code, &[def(v, View::K), undef(v, View::K), undef(v, View::K)]);
                v
            }
            Class::Vec(_) => {
                let i = form(t);
                if c as i32 == 0 {
                    return self.zero(i);
                }
                if c as i32 == -1 {
                    return self.ones(i);
                }
                let (v, view) = (self.vec(i), vec_view(i));
                let m = self.f.literal(&(c as i32).to_le_bytes());
                self.emit(codes::BROADCAST[i], &[def(v, view), Opnd::Mem(m)]);
                v
            }
        }
    }

    fn entry(&mut self) {
        let [args, task, worker] = [(); 3].map(|()| self.gpr());
        self.f.push(Item::Entry { args, task, worker });
        self.set(self.kernel.task, task);
        if let Some(w) = self.kernel.worker {
            // The upper half of the register is not part of the argument.
            let v = self.gpr();
            self.emit(Code::Mov_r32_rm32, &[def(v, View::D), get(worker, View::D)]);
            self.set(w, v);
        }
        let word = |s: &mut Self, i: i32| {
            let v = s.gpr();
            s.emit(Code::Mov_r64_rm64, &[def(v, View::Q), Opnd::Mem(Mem::at(args, 8 * i))]);
            v
        };
        self.flag = Some(word(self, 0));
        for (i, p) in self.kernel.params.iter().enumerate() {
            let v = word(self, i as i32 + 1);
            match p {
                Param::Ptr { .. } => self.pointers.push(Some(v)),
                Param::Int { reg, .. } => {
                    self.set(*reg, v);
                    self.pointers.push(None);
                }
            }
        }
        let ints =
            self.kernel.params.iter().filter_map(|p| if let Param::Int { reg, .. } = p { Some(*reg) } else { None });
        for r in ints.chain([self.kernel.task]).chain(self.kernel.worker).collect::<Vec<_>>() {
            self.active_masks(r);
        }
    }

    fn block(&mut self, block: &Block) -> Result<(), Diag> {
        let (masks, parts) = (self.masks.len(), self.parts.len());
        let orders = std::mem::take(&mut self.orders);
        for i in &block.insts {
            self.now += 1;
            self.inst(i)?;
            let mut results = Vec::new();
            i.results(|r| results.push(r));
            results.into_iter().for_each(|r| self.active_masks(r));
        }
        self.now += 1;
        self.masks.truncate(masks);
        self.parts.truncate(parts);
        self.orders = orders;
        Ok(())
    }

    fn inst(&mut self, inst: &Inst) -> Result<(), Diag> {
        let (dst, v) = match inst {
            Inst::ConstF { dst, value } => {
                self.vals[dst.0 as usize] = Val::Float(*value);
                return Ok(());
            }
            Inst::ConstI { dst, value } => {
                self.vals[dst.0 as usize] = Val::Int(*value);
                return Ok(());
            }
            Inst::Un { dst, op, a } => (dst, self.un(*op, *a)?),
            Inst::Bin { dst, op, a, b } => (dst, self.bin(*dst, *op, *a, *b)?),
            Inst::Fma { dst, a, b, c } => (dst, self.fma(*a, *b, *c)?),
            Inst::Dot { dst, kind, a, b, c } => (dst, self.dot(*kind, *a, *b, *c)?),
            Inst::Cmp { dst, op, unsigned, a, b } => {
                if self.uses.of[dst.0 as usize].defer {
                    self.vals[dst.0 as usize] = Val::Cmp { op: *op, unsigned: *unsigned, a: *a, b: *b };
                    return Ok(());
                }
                (dst, self.compare_to_mask(*op, *unsigned, *a, *b)?)
            }
            Inst::Select { dst, m, a, b } => (dst, self.select(*m, *a, *b)?),
            Inst::Convert { dst, a, unsigned } => (dst, self.convert(*dst, *a, *unsigned)?),
            Inst::Bitcast { dst, a } => {
                if let Some(known) = self.bitcast_constant(*a) {
                    self.vals[dst.0 as usize] = known;
                    return Ok(());
                }
                (dst, self.bitcast(*dst, *a)?)
            }
            Inst::Splat { dst, a } => return self.splat(*dst, *a),
            Inst::Extract { dst, a, lane } => (dst, self.extract(*a, *lane)?),
            Inst::Reduce { dst, op, a } => (dst, self.reduce(*op, *a)?),
            Inst::Zip { dst, high, a, b } => (dst, self.zip(*high, *a, *b)?),
            Inst::Address { dst, ptr, index, offset } => (dst, self.address(*ptr, *index, *offset)?),
            Inst::Load { dst, at } => {
                if self.uses.of[dst.0 as usize].defer {
                    self.vals[dst.0 as usize] = Val::Load(*at);
                    return Ok(());
                }
                (dst, self.load(self.ty(*dst), at)?)
            }
            Inst::Store { at, value } => return self.store(at, *value),
            Inst::Prefetch { at } => {
                let (_, m) = self.place(at)?;
                // An effect, so that it stays.
                self.emit_effect(Code::Prefetcht1_m8, &[Opnd::Mem(m)]);
                return Ok(());
            }
            Inst::For { .. } => return self.for_loop(inst),
            Inst::If { dst, cond, then, otherwise } => return self.if_else(dst, *cond, then, otherwise),
            Inst::Fail => {
                let Some(flag) = self.flag else { return Err(self.error("no error flag")) };
                // Several tasks may store the same word at once; each stores the same value.
                let one = Opnd::Imm(OpKind::Immediate32, 1);
                self.emit_effect(Code::Mov_rm32_imm32, &[Opnd::Mem(Mem::at(flag, 0)), one]);
                return Ok(());
            }
        };
        self.set(*dst, v);
        Ok(())
    }
}
