//! Rounding to integers. Baseline x86-64 has no instruction for it (Cranelift would call a library), so it is expanded.

use bertc_ir::kernel::Un;
use cranelift_codegen::ir::condcodes::FloatCC;
use cranelift_codegen::ir::{InstBuilder, Value, types};

use super::Emitter;

impl Emitter<'_> {
    pub(super) fn round(&mut self, op: Un, x: Value) -> Value {
        if !self.sse41 {
            return self.round_expanded(op, x);
        }
        match op {
            Un::Floor => self.b.ins().floor(x),
            Un::Ceil => self.b.ins().ceil(x),
            Un::Trunc => self.b.ins().trunc(x),
            _ => self.b.ins().nearest(x),
        }
    }

    /// Adding and subtracting 2^23 (2^52) rounds |x| to the nearest integer, ties to even; other modes correct that by
    /// one. What is as large already, infinities and NaN stay; the sign is copied, so -0.3 gives -0.
    fn round_expanded(&mut self, op: Un, x: Value) -> Value {
        let ty = self.b.func.dfg.value_type(x);
        let limit = if ty == types::F64 { (1u64 << 52) as f64 } else { f64::from(1u32 << 23) };
        let (limit, one, zero) = (self.float(ty, limit), self.float(ty, 1.0), self.float(ty, 0.0));
        let magnitude = self.b.ins().fabs(x);
        let up = self.b.ins().fadd(magnitude, limit);
        let nearest = self.b.ins().fsub(up, limit);
        let rounded = match op {
            Un::Nearest => nearest,
            Un::Trunc => {
                let over = self.b.ins().fcmp(FloatCC::GreaterThan, nearest, magnitude);
                let by = self.choose(over, one, zero);
                self.b.ins().fsub(nearest, by)
            }
            _ => {
                let signed = self.copy_sign(nearest, x);
                let (cc, floor) =
                    if op == Un::Floor { (FloatCC::GreaterThan, true) } else { (FloatCC::LessThan, false) };
                let wrong = self.b.ins().fcmp(cc, signed, x);
                let by = self.choose(wrong, one, zero);
                if floor { self.b.ins().fsub(signed, by) } else { self.b.ins().fadd(signed, by) }
            }
        };
        let rounded = self.copy_sign(rounded, x);
        let small = self.b.ins().fcmp(FloatCC::LessThan, magnitude, limit);
        self.choose(small, rounded, x)
    }
    /// |magnitude| with the sign of `x`. Cranelift has `fcopysign` on x86-64 for scalars only.
    fn copy_sign(&mut self, magnitude: Value, x: Value) -> Value {
        let ty = self.b.func.dfg.value_type(x);
        if !ty.is_vector() {
            return self.b.ins().fcopysign(magnitude, x);
        }
        let bit = self.int(types::I32X4, i64::from(i32::MIN));
        let bit = self.cast(ty, bit);
        let sign = self.b.ins().band(x, bit);
        let magnitude = self.b.ins().fabs(magnitude);
        self.b.ins().bor(magnitude, sign)
    }
}
