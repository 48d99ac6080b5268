//! Kernels emitted with AVX-512 and with AVX2 and run, bit by bit against the interpreter. On a machine without these the
//! tests that run code are reported as ignored, by name.

mod control;
mod disassembly;
#[path = "../common/templates.rs"]
mod graphs;
mod machine;
mod memory;
mod ops;
mod random;
mod shape;
mod templates;

use libtest_mimic::{Arguments, Trial};

type Test = (&'static str, fn() -> Result<(), String>);

fn main() {
    let args = Arguments::from_args();
    let mut trials = Vec::new();
    for (isa, cpu) in machine::ISAS.into_iter().chain([machine::BF16_ISA]) {
        let obstacle = machine::obstacle(cpu);
        if let Some(why) = &obstacle {
            eprintln!("skipped: tests that run {isa} code: {why}");
        }
        let bf16 = isa == machine::BF16_ISA.0;
        let running = match bf16 {
            true => [ops::BF16_TESTS, memory::BF16_TESTS, templates::BF16_TESTS].concat(),
            false => {
                [ops::TESTS, ops::BF16_TESTS, memory::TESTS, control::TESTS, random::TESTS, templates::TESTS].concat()
            }
        };
        trials.extend(running.into_iter().map(|t| trial(isa, cpu, t).with_ignored_flag(obstacle.is_some())));
        let shapes = if bf16 { shape::BF16_TESTS } else { shape::TESTS };
        trials.extend(shapes.iter().map(|&t| trial(isa, cpu, t)));
        let missing = disassembly::obstacle();
        if let Some(why) = &missing {
            eprintln!("skipped: the comparison with another disassembler: {why}");
        }
        let compared = disassembly::TESTS.iter().map(|&t| trial(isa, cpu, t).with_ignored_flag(missing.is_some()));
        trials.extend(compared);
    }
    libtest_mimic::run(&args, trials).exit();
}

fn trial(isa: &str, cpu: &'static str, (name, f): Test) -> Trial {
    Trial::test(format!("{isa}::{name}"), move || {
        machine::set_cpu(cpu);
        f().map_err(Into::into)
    })
}
