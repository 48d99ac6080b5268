//! The steps: argument blocks, task counts, and the calls of kernels.

use std::ops::Range;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I32, I64};
use cranelift_codegen::ir::{BlockArg, Function, InstBuilder, Value};

use super::{Builder, Code, Driver, WEIGHTS};
use crate::plan::{Arg, Chunk, Step};

impl Driver<'_> {
    /// `fn launch(parallel, kernel, args, ntasks)`: all tasks of a step, through the caller's `parallel_for` if there is
    /// one that has more than one worker and there is more than one task. With `profile` through any that there is.
    pub(super) fn launch(&self) -> Function {
        self.function(&[I64; 4], &[], |c, p| {
            let &[parallel, kernel, args, ntasks] = p else { unreachable!("four parameters") };
            let serial = c.b.create_block();
            let counter = c.b.append_block_param(serial, I64);
            let zero = c.int(0);
            let start = [BlockArg::Value(zero)];
            let null = c.cmp(IntCC::Equal, parallel, 0);
            let given = c.b.create_block();
            c.b.ins().brif(null, serial, &start, given, &[]);
            c.b.switch_to_block(given);
            if !self.options.profile {
                let workers = c.load(I32, parallel, 8);
                let one = c.cmp(IntCC::UnsignedLessThanOrEqual, workers, 1);
                let few = c.cmp(IntCC::UnsignedLessThanOrEqual, ntasks, 1);
                let alone = c.b.ins().bor(one, few);
                let shared = c.b.create_block();
                c.b.ins().brif(alone, serial, &start, shared, &[]);
                c.b.switch_to_block(shared);
            }
            let (ctx, parallel_for) = (c.load(I64, parallel, 0), c.load(I64, parallel, 16));
            let sig = c.signature(self.signature(&[I64; 4], &[]));
            c.b.ins().call_indirect(sig, parallel_for, &[ctx, ntasks, kernel, args]);
            c.b.ins().return_(&[]);

            c.b.switch_to_block(serial);
            let (body, done) = (c.b.create_block(), c.b.create_block());
            let more = c.b.ins().icmp(IntCC::UnsignedLessThan, counter, ntasks);
            c.b.ins().brif(more, body, &[], done, &[]);
            c.b.switch_to_block(body);
            let worker = c.b.ins().iconst(I32, 0);
            let sig = c.signature(self.kernel_signature());
            c.b.ins().call_indirect(sig, kernel, &[args, counter, worker]);
            let next = c.offset(counter, 1);
            c.b.ins().jump(serial, &[BlockArg::Value(next)]);
            c.b.switch_to_block(done);
            c.b.ins().return_(&[]);
        })
    }

    /// `fn steps(workspace, parallel) -> code`: some consecutive steps.
    pub(super) fn steps(&self, range: Range<usize>) -> Function {
        self.function(&[I64, I64], &[I32], |c, p| {
            let steps = &self.program.steps[range];
            let weights = steps.iter().flat_map(|s| &s.args).any(|a| matches!(a, Arg::Const(_)));
            let weights = weights.then(|| c.data(WEIGHTS));
            for s in steps {
                self.step(c, s, p[0], p[1], weights);
            }
            c.return_code(Code::Ok);
        })
    }

    /// [`Chunk::of`] at run time.
    fn chunk(&self, c: &mut Builder<'_>, extent: Value, chunk: Chunk, ws: Value) -> Value {
        match chunk {
            Chunk::Fixed(n) => c.int(n),
            Chunk::Share { multiple, most } => {
                let workers = c.load(I64, ws, self.header.slots + 8 * (self.program.slots.len() as i32 + 1));
                let share = ceil_div(c, extent, workers);
                let share = c.offset(share, multiple - 1);
                let mask = c.int(-multiple);
                let share = c.b.ins().band(share, mask);
                let (least, most) = (c.int(multiple), c.int(most));
                // An empty extent has a chunk too: it is a divisor.
                let share = c.b.ins().smax(share, least);
                c.b.ins().smin(share, most)
            }
        }
    }

    fn step(&self, c: &mut Builder<'_>, step: &Step, ws: Value, parallel: Value, weights: Option<Value>) {
        let h = &self.header;
        let mut dim = |c: &mut Builder<'_>, i: usize| c.load(I64, ws, h.dims + 8 * i as i32);
        // Scratch memory that parameters before have, for each worker.
        let mut taken = 0;
        for (i, arg) in step.args.iter().enumerate() {
            let v = match arg {
                Arg::Buffer(n) => c.load(I64, ws, h.slots + 8 * self.program.buffers[*n].slot as i32),
                Arg::Input(n) => c.load(I64, ws, h.inputs + 8 * *n as i32),
                Arg::Output(n) => c.load(I64, ws, h.outputs + 8 * *n as i32),
                Arg::Const(n) => {
                    let base = weights.expect("the address of the constants");
                    c.offset(base, self.consts[*n] as i64)
                }
                Arg::Scratch(bytes) => {
                    let slots = self.program.slots.len() as i32;
                    let start = c.load(I64, ws, h.slots + 8 * slots);
                    let before = taken;
                    taken += *bytes as i64;
                    if before == 0 {
                        start
                    } else {
                        let workers = c.load(I64, ws, h.slots + 8 * (slots + 1));
                        let before = c.int(before);
                        let skipped = c.b.ins().imul(workers, before);
                        c.b.ins().iadd(start, skipped)
                    }
                }
                Arg::Again(n) => c.load(I64, ws, h.args + 8 * (1 + *n as i32)),
                Arg::Int(d) => c.eval(d, &mut dim),
                Arg::Chunk(d, chunk) => {
                    let extent = c.eval(d, &mut dim);
                    self.chunk(c, extent, *chunk, ws)
                }
            };
            // args[0] is the address of the flag, which `run` has written.
            c.store(v, ws, h.args + 8 * (1 + i as i32));
        }
        let args = c.offset(ws, h.args.into());
        let kernel = c.function((self.options.kernels + step.kernel) as u32, self.kernel_signature());
        if step.tasks.is_empty() && !self.options.profile {
            let (task, worker) = (c.int(0), c.b.ins().iconst(I32, 0));
            c.b.ins().call(kernel, &[args, task, worker]);
        } else {
            let mut count: Option<Value> = None;
            for (extent, chunk) in &step.tasks {
                let n = c.eval(extent, &mut dim);
                let chunk = self.chunk(c, n, *chunk, ws);
                let n = ceil_div(c, n, chunk);
                count = Some(count.map_or(n, |m| c.b.ins().imul(m, n)));
            }
            let count = count.unwrap_or_else(|| c.int(1));
            let address = c.b.ins().func_addr(I64, kernel);
            let launch = c.function(self.launch, self.signature(&[I64; 4], &[]));
            c.b.ins().call(launch, &[parallel, address, args, count]);
        }
        if step.fallible {
            let flag = c.load(I32, ws, 0);
            let failed = c.cmp(IntCC::NotEqual, flag, 0);
            c.return_if(failed, Code::IndexOutOfRange);
        }
    }
}

fn ceil_div(c: &mut Builder<'_>, extent: Value, chunk: Value) -> Value {
    let sum = c.b.ins().iadd(extent, chunk);
    let up = c.offset(sum, -1);
    c.b.ins().udiv(up, chunk)
}
