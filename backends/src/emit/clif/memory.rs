//! Loads and stores of every memory type.

use bertc_ir::kernel::{Elem, Param, Place, Reg, RegType, lane_in_memory};
use bertc_ir::{DType, Diag};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{BlockArg, InstBuilder, MemFlagsData, Value, types};

use super::{Emitter, Fact};

/// Buffers are the caller's: they exist, but need not be aligned.
fn flags() -> MemFlagsData {
    MemFlagsData::new().with_notrap()
}

impl Emitter<'_> {
    fn pointer(&self, ptr: usize) -> Result<(Value, DType), Diag> {
        match (self.kernel.params.get(ptr), self.pointers.get(ptr)) {
            (Some(Param::Ptr { dtype, .. }), Some(Some(v))) => Ok((*v, *dtype)),
            _ => Err(self.error(format!("parameter {ptr} is not a pointer"))),
        }
    }

    /// Address and static byte offset of `ptr[index + offset]`. Constants move from the index into the offset, so that
    /// neighbours share one address.
    fn address(&mut self, base: Value, dtype: DType, index: Reg, offset: i64) -> Result<(Value, i32), Diag> {
        let (index, constant) = match self.fact(index) {
            Fact::Const(c) => (None, c),
            Fact::Offset(r, c) => (Some(r), c),
            _ => (Some(index), 0),
        };
        let size = dtype.size() as i64;
        let bytes = offset.checked_add(constant).and_then(|o| o.checked_mul(size));
        let bytes = bytes.ok_or_else(|| self.error("an offset overflows"))?;
        let mut address = base;
        if let Some(r) = index {
            let index = self.get(r)?;
            let scaled =
                if size == 1 { index } else { self.b.ins().ishl_imm_u(index, i64::from(size.trailing_zeros())) };
            address = self.b.ins().iadd(address, scaled);
        }
        match i32::try_from(bytes) {
            Ok(o) => Ok((address, o)),
            Err(_) => Ok((self.b.ins().iadd_imm_s(address, bytes), 0)),
        }
    }

    /// The address of `ptr[index + offset]`.
    pub(super) fn element(&mut self, ptr: usize, index: Reg, offset: i64) -> Result<Value, Diag> {
        let (base, dtype) = self.pointer(ptr)?;
        let (p, o) = self.address(base, dtype, index, offset)?;
        Ok(if o == 0 { p } else { self.b.ins().iadd_imm_s(p, i64::from(o)) })
    }

    /// Type in memory, address and static offset of a place.
    fn place(&mut self, at: &Place) -> Result<(DType, Value, i32), Diag> {
        let (mut base, dtype) = self.pointer(at.ptr)?;
        if let Some(b) = at.base {
            base = self.get(b)?;
        }
        let (p, o) = self.address(base, dtype, at.index, at.offset)?;
        Ok((dtype, p, o))
    }

    pub(super) fn load(&mut self, dst: Reg, at: &Place) -> Result<Value, Diag> {
        let (dtype, p, o) = self.place(at)?;
        let t = self.ty(dst);
        let Some(dtype) = lane_in_memory(dtype, t.elem) else {
            return Err(self.error(format!("a load of {dtype} into {}", t.elem.name())));
        };
        Ok(match at.active {
            _ if t.lanes == 1 => self.load_one(dtype, p, o),
            None => self.load_four(dtype, p, o),
            Some(n) => {
                let n = self.get(n)?;
                self.load_active(t, dtype, n, p, o)
            }
        })
    }

    /// The first `n` of four elements, zero for the rest.
    fn load_active(&mut self, t: RegType, dtype: DType, n: Value, p: Value, o: i32) -> Value {
        let ty = Self::clif_type(t);
        let [all, some, done] = [(); 3].map(|()| self.b.create_block());
        self.b.append_block_param(done, ty);
        let every = self.b.ins().icmp_imm_s(IntCC::SignedGreaterThanOrEqual, n, 4);
        self.b.ins().brif(every, all, &[], some, &[]);
        self.b.switch_to_block(all);
        let v = self.load_four(dtype, p, o);
        self.b.ins().jump(done, &[BlockArg::Value(v)]);
        self.b.switch_to_block(some);
        let mut v = if t.elem == Elem::F32 { self.float(ty, 0.0) } else { self.int(ty, 0) };
        for lane in 0..3u8 {
            let more = self.b.ins().icmp_imm_s(IntCC::SignedGreaterThan, n, i64::from(lane));
            let next = self.b.create_block();
            self.b.ins().brif(more, next, &[], done, &[BlockArg::Value(v)]);
            self.b.switch_to_block(next);
            let mut x = self.load_one(dtype, p, o + i32::from(lane) * dtype.size() as i32);
            if t.elem == Elem::Mask {
                let wide = self.b.ins().uextend(types::I32, x);
                x = self.b.ins().ineg(wide);
            }
            v = self.b.ins().insertlane(v, x, lane);
        }
        self.b.ins().jump(done, &[BlockArg::Value(v)]);
        self.b.switch_to_block(done);
        self.b.block_params(done)[0]
    }

    fn load_one(&mut self, dtype: DType, p: Value, o: i32) -> Value {
        match dtype {
            DType::F32 => self.b.ins().load(types::F32, flags(), p, o),
            DType::F64 => self.b.ins().load(types::F64, flags(), p, o),
            DType::I32 => self.b.ins().load(types::I32, flags(), p, o),
            DType::I64 | DType::U64 => self.b.ins().load(types::I64, flags(), p, o),
            DType::I8 => self.b.ins().sload8(types::I32, flags(), p, o),
            DType::U8 => self.b.ins().uload8(types::I32, flags(), p, o),
            DType::I16 => self.b.ins().sload16(types::I32, flags(), p, o),
            DType::U16 => self.b.ins().uload16(types::I32, flags(), p, o),
            DType::U32 => self.b.ins().uload32(flags(), p, o),
            DType::F16 => {
                let h = self.b.ins().uload16(types::I32, flags(), p, o);
                self.f16_to_f32(h)
            }
            DType::BF16 => {
                let h = self.b.ins().uload16(types::I32, flags(), p, o);
                self.bf16_to_f32(h)
            }
            DType::Bool => {
                let v = self.b.ins().load(types::I8, flags(), p, o);
                self.b.ins().icmp_imm_u(IntCC::NotEqual, v, 0)
            }
        }
    }

    fn load_four(&mut self, dtype: DType, p: Value, o: i32) -> Value {
        match dtype {
            DType::F32 => self.b.ins().load(types::F32X4, flags(), p, o),
            DType::I8 | DType::U8 | DType::Bool => {
                let v = self.b.ins().load(types::I32, flags(), p, o);
                let v = self.b.ins().scalar_to_vector(types::I32X4, v);
                let v = self.cast(types::I8X16, v);
                let signed = dtype == DType::I8;
                let v = if signed { self.b.ins().swiden_low(v) } else { self.b.ins().uwiden_low(v) };
                let v = if signed { self.b.ins().swiden_low(v) } else { self.b.ins().uwiden_low(v) };
                if dtype != DType::Bool {
                    return v;
                }
                let zero = self.int(types::I32X4, 0);
                self.b.ins().icmp(IntCC::NotEqual, v, zero)
            }
            DType::I16 | DType::U16 | DType::F16 | DType::BF16 => {
                let v = self.b.ins().load(types::I64, flags(), p, o);
                let v = self.b.ins().scalar_to_vector(types::I64X2, v);
                let v = self.cast(types::I16X8, v);
                match dtype {
                    DType::I16 => self.b.ins().swiden_low(v),
                    DType::U16 => self.b.ins().uwiden_low(v),
                    DType::F16 => {
                        let v = self.b.ins().uwiden_low(v);
                        self.f16_to_f32(v)
                    }
                    _ => {
                        let v = self.b.ins().uwiden_low(v);
                        self.bf16_to_f32(v)
                    }
                }
            }
            // Registers of four lanes hold 32-bit elements only (`check_lanes`), so this is i32.
            _ => self.b.ins().load(types::I32X4, flags(), p, o),
        }
    }

    pub(super) fn store(&mut self, at: &Place, value: Reg) -> Result<(), Diag> {
        let (dtype, p, o) = self.place(at)?;
        let t = self.ty(value);
        let Some(dtype) = lane_in_memory(dtype, t.elem) else {
            return Err(self.error(format!("a store of {} to {dtype}", t.elem.name())));
        };
        let v = self.get(value)?;
        match at.active {
            _ if t.lanes == 1 => self.store_one(dtype, v, p, o),
            None => self.store_four(dtype, v, p, o),
            Some(n) => {
                let n = self.get(n)?;
                self.store_active(t, dtype, n, v, p, o);
            }
        }
        Ok(())
    }

    /// The first `n` of four lanes.
    fn store_active(&mut self, t: RegType, dtype: DType, n: Value, v: Value, p: Value, o: i32) {
        let [all, some, done] = [(); 3].map(|()| self.b.create_block());
        let every = self.b.ins().icmp_imm_s(IntCC::SignedGreaterThanOrEqual, n, 4);
        self.b.ins().brif(every, all, &[], some, &[]);
        self.b.switch_to_block(all);
        self.store_four(dtype, v, p, o);
        self.b.ins().jump(done, &[]);
        self.b.switch_to_block(some);
        for lane in 0..3u8 {
            let more = self.b.ins().icmp_imm_s(IntCC::SignedGreaterThan, n, i64::from(lane));
            let next = self.b.create_block();
            self.b.ins().brif(more, next, &[], done, &[]);
            self.b.switch_to_block(next);
            let mut x = self.b.ins().extractlane(v, lane);
            if t.elem == Elem::Mask {
                x = self.b.ins().icmp_imm_u(IntCC::NotEqual, x, 0);
            }
            self.store_one(dtype, x, p, o + i32::from(lane) * dtype.size() as i32);
        }
        self.b.ins().jump(done, &[]);
        self.b.switch_to_block(done);
    }

    fn store_one(&mut self, dtype: DType, v: Value, p: Value, o: i32) {
        match dtype {
            DType::I8 | DType::U8 => self.b.ins().istore8(flags(), v, p, o),
            DType::I16 | DType::U16 => self.b.ins().istore16(flags(), v, p, o),
            DType::U32 => self.b.ins().istore32(flags(), v, p, o),
            DType::F16 => {
                let h = self.f32_to_f16(v);
                self.b.ins().istore16(flags(), h, p, o)
            }
            DType::BF16 => {
                let h = self.f32_to_bf16(v);
                self.b.ins().istore16(flags(), h, p, o)
            }
            DType::F32 | DType::F64 | DType::I32 | DType::I64 | DType::U64 | DType::Bool => {
                self.b.ins().store(flags(), v, p, o)
            }
        };
    }

    fn store_four(&mut self, dtype: DType, v: Value, p: Value, o: i32) {
        match dtype {
            DType::I8 | DType::U8 => self.store_bytes(v, 0xff, p, o),
            DType::Bool => self.store_bytes(v, 1, p, o),
            DType::I16 | DType::U16 => self.store_shorts(v, p, o),
            DType::F16 => {
                let h = self.f32_to_f16(v);
                self.store_shorts(h, p, o);
            }
            DType::BF16 => {
                let h = self.f32_to_bf16(v);
                self.store_shorts(h, p, o);
            }
            _ => {
                self.b.ins().store(flags(), v, p, o);
            }
        }
    }

    /// Stores the masked low byte of each lane. The narrowing instructions saturate, so bytes are cleared first.
    fn store_bytes(&mut self, v: Value, mask: i64, p: Value, o: i32) {
        let mask = self.int(types::I32X4, mask);
        let v = self.b.ins().band(v, mask);
        let v = self.b.ins().snarrow(v, v);
        let v = self.b.ins().unarrow(v, v);
        let v = self.cast(types::I32X4, v);
        let v = self.b.ins().extractlane(v, 0);
        self.b.ins().store(flags(), v, p, o);
    }

    /// Stores the low half of each lane; sign-extended first, because the narrowing instruction saturates.
    fn store_shorts(&mut self, v: Value, p: Value, o: i32) {
        let v = self.b.ins().ishl_imm_u(v, 16);
        let v = self.b.ins().sshr_imm_u(v, 16);
        let v = self.b.ins().snarrow(v, v);
        let v = self.cast(types::I64X2, v);
        let v = self.b.ins().extractlane(v, 0);
        self.b.ins().store(flags(), v, p, o);
    }
}
