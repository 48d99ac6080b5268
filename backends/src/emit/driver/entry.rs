//! The functions of the C interface. They check everything before they write anything.

use std::ops::Range;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I32, I64};
use cranelift_codegen::ir::{BlockArg, Function, InstBuilder, MemFlagsData, Type, Value};
use cranelift_codegen::isa::TargetIsa;

use super::{Builder, Code, Driver, DriverFunction, ERROR_TEXT, ERRORS, LEVEL, function, local, signature};
use crate::plan::ALIGN;

impl Driver<'_> {
    /// `size_t workspace_size(const int64_t *dims, uint32_t max_workers)`: 0 for dims out of range or no worker.
    pub(super) fn workspace_size(&self) -> Function {
        self.function(&[I64, I32], &[I64], |c, p| {
            let none = c.cmp(IntCC::Equal, p[1], 0);
            return_zero_if(c, none);
            if !self.program.symbols.is_empty() {
                let null = c.cmp(IntCC::Equal, p[0], 0);
                return_zero_if(c, null);
            }
            let dims = self.load_dims(c, p[0]);
            if let Some(bad) = self.out_of_range(c, &dims) {
                return_zero_if(c, bad);
            }
            let workers = c.b.ins().uextend(I64, p[1]);
            let (_, size) = self.layout(c, &dims, workers);
            c.b.ins().return_(&[size]);
        })
    }

    /// `int32_t run(inputs, dims, outputs, workspace, workspace_bytes, parallel, options)`.
    pub(super) fn run(&self, chunks: Range<u32>) -> Function {
        self.function(&[I64; 7], &[I32], |c, p| {
            let &[inputs, dims, outputs, ws, bytes, parallel, options] = p else { unreachable!("seven parameters") };
            let inputs = self.pointers(c, inputs, self.program.inputs.len());
            if !self.program.symbols.is_empty() {
                null(c, dims);
            }
            let outputs = self.pointers(c, outputs, self.program.outputs.len());
            null(c, ws);
            let dims = self.load_dims(c, dims);
            if let Some(bad) = self.out_of_range(c, &dims) {
                c.return_if(bad, Code::DimOutOfRange);
            }
            let workers = self.check_parallel(c, parallel);
            self.check_options(c, options);
            if let Some(f) = self.options.cpu_level {
                let f = c.function(f as u32, self.signature(&[], &[I32]));
                let call = c.b.ins().call(f, &[]);
                let ok = c.b.inst_results(call)[0];
                let lacks = c.cmp(IntCC::Equal, ok, 0);
                c.return_if(lacks, Code::CpuUnsupported);
            }
            let mask = c.int(ALIGN as i64 - 1);
            let low = c.b.ins().band(ws, mask);
            let misaligned = c.cmp(IntCC::NotEqual, low, 0);
            c.return_if(misaligned, Code::WorkspaceMisaligned);
            let (slots, size) = self.layout(c, &dims, workers);
            let small = c.b.ins().icmp(IntCC::UnsignedLessThan, bytes, size);
            c.return_if(small, Code::WorkspaceTooSmall);

            let h = &self.header;
            let ok = c.b.ins().iconst(I32, 0);
            c.store(ok, ws, 0);
            c.store(ws, ws, h.args);
            for (values, at) in [(&dims, h.dims), (&inputs, h.inputs), (&outputs, h.outputs)] {
                for (i, &v) in values.iter().enumerate() {
                    c.store(v, ws, at + 8 * i as i32);
                }
            }
            for (i, &offset) in slots.iter().enumerate() {
                let address = c.b.ins().iadd(ws, offset);
                c.store(address, ws, h.slots + 8 * i as i32);
            }
            c.store(workers, ws, h.slots + 8 * slots.len() as i32);
            for chunk in chunks {
                let f = c.function(chunk, self.signature(&[I64, I64], &[I32]));
                let call = c.b.ins().call(f, &[ws, parallel]);
                let code = c.b.inst_results(call)[0];
                let failed = c.cmp(IntCC::NotEqual, code, 0);
                let stop = c.branch_out(failed);
                let next = c.b.current_block().expect("an open block");
                c.b.switch_to_block(stop);
                c.b.ins().return_(&[code]);
                c.b.switch_to_block(next);
            }
            c.return_code(Code::Ok);
        })
    }

    /// `const char *strerror(int32_t code)`.
    pub(super) fn strerror(&self) -> DriverFunction {
        let body = self.function(&[I32], &[I64], |c, p| {
            let unknown = ERROR_TEXT.len() as i64 - 1;
            let over = c.b.ins().iconst(I32, unknown);
            let index = c.b.ins().umin(p[0], over);
            let index = c.b.ins().uextend(I64, index);
            let eight = c.int(8);
            let offset = c.b.ins().imul(index, eight);
            let table = c.data(ERRORS);
            let at = c.b.ins().iadd(table, offset);
            let text = c.load(I64, at, 0);
            c.b.ins().return_(&[text]);
        });
        local("strerror", body)
    }

    /// `int32_t output_shape(const int64_t *dims, uint32_t output, int64_t *shape)`.
    pub(super) fn output_shape(&self) -> DriverFunction {
        let body = self.function(&[I64, I32, I64], &[I32], |c, p| {
            if !self.program.symbols.is_empty() {
                null(c, p[0]);
            }
            null(c, p[2]);
            let dims = self.load_dims(c, p[0]);
            if let Some(bad) = self.out_of_range(c, &dims) {
                c.return_if(bad, Code::DimOutOfRange);
            }
            for (i, port) in self.program.outputs.iter().enumerate() {
                let this = c.cmp(IntCC::Equal, p[1], i as i64);
                let (found, next) = (c.b.create_block(), c.b.create_block());
                c.b.ins().brif(this, found, &[], next, &[]);
                c.b.switch_to_block(found);
                for (k, d) in port.ty.shape.iter().enumerate() {
                    let v = c.eval(d, &mut |_, s| dims[s]);
                    c.store(v, p[2], 8 * k as i32);
                }
                c.return_code(Code::Ok);
                c.b.switch_to_block(next);
            }
            c.return_code(Code::IndexOutOfRange);
        });
        local("output_shape", body)
    }

    /// Calls one of some functions with its own parameters: that of the CPU's level, the first of which suits all.
    pub(super) fn dispatch(&self, params: &[Type], result: Type, functions: &[u32]) -> Function {
        self.function(params, &[result], |c, p| {
            let call = |c: &mut Builder<'_>, function: u32| {
                let f = c.function(function, self.signature(params, &[result]));
                let call = c.b.ins().call(f, p);
                let returned = c.b.inst_results(call)[0];
                c.b.ins().return_(&[returned]);
            };
            let level = self.options.cpu_level.expect("variants are chosen by the CPU's level");
            let level = c.function(level as u32, self.signature(&[], &[I32]));
            let asked = c.b.ins().call(level, &[]);
            let level = c.b.inst_results(asked)[0];
            for (i, &f) in functions.iter().enumerate().skip(1).rev() {
                let this = c.cmp(IntCC::Equal, level, i as i64 + 1);
                let (found, next) = (c.b.create_block(), c.b.create_block());
                c.b.ins().brif(this, found, &[], next, &[]);
                c.b.switch_to_block(found);
                call(c, f);
                c.b.switch_to_block(next);
            }
            call(c, functions[0]);
        })
    }

    /// The entries of an array of pointers; returns an error if it or one of them is null.
    fn pointers(&self, c: &mut Builder<'_>, array: Value, n: usize) -> Vec<Value> {
        if n > 0 {
            null(c, array);
        }
        (0..n as i32)
            .map(|i| {
                let v = c.load(I64, array, 8 * i);
                null(c, v);
                v
            })
            .collect()
    }

    fn load_dims(&self, c: &mut Builder<'_>, dims: Value) -> Vec<Value> {
        (0..self.program.symbols.len() as i32).map(|i| c.load(I64, dims, 8 * i)).collect()
    }

    /// Whether a dim is out of its range; none if there is no dim.
    fn out_of_range(&self, c: &mut Builder<'_>, dims: &[Value]) -> Option<Value> {
        let mut bad = None;
        for ((_, s), &v) in self.program.symbols.iter().zip(dims) {
            let low = c.cmp(IntCC::SignedLessThan, v, s.min);
            let high = c.cmp(IntCC::SignedGreaterThan, v, s.max);
            let either = c.b.ins().bor(low, high);
            bad = Some(bad.map_or(either, |b| c.b.ins().bor(b, either)));
        }
        bad
    }

    /// Offset of each slot in the workspace and then of the scratch memory, and the workspace's size.
    fn layout(&self, c: &mut Builder<'_>, dims: &[Value], workers: Value) -> (Vec<Value>, Value) {
        let mut end = c.int(self.header.size);
        let mut offsets = Vec::with_capacity(self.program.slots.len());
        for slot in &self.program.slots {
            offsets.push(end);
            let mut size = c.int(0);
            for d in &slot.sizes {
                let v = c.eval(d, &mut |_, s| dims[s]);
                size = c.b.ins().smax(size, v);
            }
            let size = c.offset(size, ALIGN as i64 - 1);
            let mask = c.int(-(ALIGN as i64));
            let size = c.b.ins().band(size, mask);
            end = c.b.ins().iadd(end, size);
        }
        offsets.push(end);
        // The number of workers has 32 bits, so the product has no more than 64.
        let scratch = c.int(self.program.scratch_bytes() as i64);
        let scratch = c.b.ins().imul(scratch, workers);
        (offsets, c.b.ins().iadd(end, scratch))
    }

    /// NULL, or at least one worker, nothing in `reserved`, and a function. The number of workers.
    fn check_parallel(&self, c: &mut Builder<'_>, parallel: Value) -> Value {
        let (given, next) = (c.b.create_block(), c.b.create_block());
        let number = c.b.append_block_param(next, I64);
        let one = c.int(1);
        c.b.ins().brif(parallel, given, &[], next, &[BlockArg::Value(one)]);
        c.b.switch_to_block(given);
        let workers = c.load(I32, parallel, 8);
        let none = c.cmp(IntCC::Equal, workers, 0);
        let reserved = c.load(I32, parallel, 12);
        let reserved = c.cmp(IntCC::NotEqual, reserved, 0);
        let function = c.load(I64, parallel, 16);
        let function = c.cmp(IntCC::Equal, function, 0);
        let bad = c.b.ins().bor(none, reserved);
        let bad = c.b.ins().bor(bad, function);
        c.return_if(bad, Code::BadParallel);
        let workers = c.b.ins().uextend(I64, workers);
        c.b.ins().jump(next, &[BlockArg::Value(workers)]);
        c.b.switch_to_block(next);
        number
    }

    /// NULL, or a struct of at least today's size without unknown flags.
    fn check_options(&self, c: &mut Builder<'_>, options: Value) {
        let (given, next) = (c.b.create_block(), c.b.create_block());
        c.b.ins().brif(options, given, &[], next, &[]);
        c.b.switch_to_block(given);
        let size = c.load(I32, options, 0);
        let small = c.cmp(IntCC::UnsignedLessThan, size, 16);
        c.return_if(small, Code::BadOptions);
        let flags = c.load(I32, options, 4);
        let unknown = c.cmp(IntCC::NotEqual, flags, 0);
        c.return_if(unknown, Code::BadOptions);
        c.b.ins().jump(next, &[]);
        c.b.switch_to_block(next);
    }
}

/// [`super::cpu_level`].
pub(super) fn cpu_level(isa: &dyn TargetIsa, checks: &[Option<u32>]) -> Function {
    function(isa, &[], &[I32], |c, _| {
        let at = c.data(LEVEL);
        let known = c.b.ins().atomic_load(I32, MemFlagsData::trusted(), at);
        let none = c.cmp(IntCC::Equal, known, 0);
        let ask = c.branch_out(none);
        c.b.ins().return_(&[known]);
        c.b.switch_to_block(ask);
        let keep = |c: &mut Builder<'_>, level: usize| {
            let level = c.b.ins().iconst(I32, level as i64 + 1);
            c.b.ins().atomic_store(MemFlagsData::trusted(), level, at);
            c.b.ins().return_(&[level]);
        };
        for (i, check) in checks.iter().enumerate().rev() {
            let Some(check) = check else { return keep(c, i) };
            let f = c.function(*check, signature(isa, &[], &[I32]));
            let call = c.b.ins().call(f, &[]);
            let ok = c.b.inst_results(call)[0];
            let (found, next) = (c.b.create_block(), c.b.create_block());
            c.b.ins().brif(ok, found, &[], next, &[]);
            c.b.switch_to_block(found);
            keep(c, i);
            c.b.switch_to_block(next);
        }
        let unsuitable = c.b.ins().iconst(I32, 0);
        c.b.ins().return_(&[unsuitable]);
    })
}

/// `int32_t select_variant(uint32_t)`: from now on runs are those of this variant, if the CPU has what it needs.
pub(super) fn select_variant(isa: &dyn TargetIsa, checks: &[Option<u32>]) -> Function {
    function(isa, &[I32], &[I32], |c, p| {
        for (i, check) in checks.iter().enumerate() {
            let this = c.cmp(IntCC::Equal, p[0], i as i64);
            let (found, next) = (c.b.create_block(), c.b.create_block());
            c.b.ins().brif(this, found, &[], next, &[]);
            c.b.switch_to_block(found);
            if let Some(check) = check {
                let f = c.function(*check, signature(isa, &[], &[I32]));
                let call = c.b.ins().call(f, &[]);
                let has = c.b.inst_results(call)[0];
                let lacks = c.cmp(IntCC::Equal, has, 0);
                c.return_if(lacks, Code::CpuUnsupported);
            }
            let at = c.data(LEVEL);
            let level = c.b.ins().iconst(I32, i as i64 + 1);
            c.b.ins().atomic_store(MemFlagsData::trusted(), level, at);
            c.return_code(Code::Ok);
            c.b.switch_to_block(next);
        }
        c.return_code(Code::IndexOutOfRange);
    })
}

/// Returns the error for a null pointer if `pointer` is one.
fn null(c: &mut Builder<'_>, pointer: Value) {
    let is = c.cmp(IntCC::Equal, pointer, 0);
    c.return_if(is, Code::NullPointer);
}

fn return_zero_if(c: &mut Builder<'_>, cond: Value) {
    let stop = c.branch_out(cond);
    let next = c.b.current_block().expect("an open block");
    c.b.switch_to_block(stop);
    let zero = c.int(0);
    c.b.ins().return_(&[zero]);
    c.b.switch_to_block(next);
}
