//! The kernel templates with the widest registers, over all tails.

use bertc_backends::lower::lower;
use bertc_ir::Graph;

use crate::machine::{Arg, Case, run, target};

use crate::graphs::{self, Operand};

pub const TESTS: &[crate::Test] = &[("templates::all", all)];
pub const BF16_TESTS: &[crate::Test] = &[("templates::bf16", bf16)];

fn all() -> Result<(), String> {
    run_all(graphs::all())
}

fn bf16() -> Result<(), String> {
    run_all(graphs::bf16())
}

fn run_all(graphs: Vec<(String, Graph)>) -> Result<(), String> {
    let mut cases = Vec::new();
    for (name, g) in graphs {
        let p = lower(&g, &graphs::machine(target(), &name)).map_err(|e| format!("{name}: {e:?}"))?;
        for call in graphs::calls(&p) {
            let operand = |o| match o {
                Operand::Int(v) => Arg::Int(v),
                Operand::Buffer(b) | Operand::Scratch(b) => Arg::Buffer(b),
            };
            let mut case = Case::new(call.kernel, call.operands.into_iter().map(operand).collect());
            case.kernel.name = format!("{name}: {}", case.kernel.name);
            case.tasks = call.tasks;
            // Generic kernels have four lanes; these are other tests' matter.
            if case.kernel.regs.iter().any(|r| r.lanes > 4) {
                cases.push(case);
            }
        }
    }
    if cases.is_empty() {
        return Err("no wide kernel".to_string());
    }
    run(&cases)
}
