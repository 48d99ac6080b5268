//! Kernels emitted with AVX-512 and with AVX2 and run, bit by bit against the interpreter. On a machine without these the
//! tests that run code are reported as ignored, by name.

mod control;
mod disassembly;
mod dot;
#[path = "../common/dots.rs"]
mod dots;
mod evex;
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
    for (isa, cpu) in machine::ISAS.into_iter().chain([machine::BF16_ISA]).chain(machine::INT8_ISAS) {
        let obstacle = machine::obstacle(cpu);
        if let Some(why) = &obstacle {
            eprintln!("skipped: tests that run {isa} code: {why}");
        }
        let (running, shapes) = tests(isa);
        trials.extend(running.into_iter().map(|t| trial(isa, cpu, t).with_ignored_flag(obstacle.is_some())));
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

/// The tests of some code that run it, and those that only look at it.
fn tests(isa: &str) -> (Vec<Test>, &'static [Test]) {
    if isa == machine::BF16_ISA.0 {
        return ([ops::BF16_TESTS, memory::BF16_TESTS, templates::BF16_TESTS].concat(), shape::BF16_TESTS);
    }
    if machine::INT8_ISAS.iter().any(|i| i.0 == isa) {
        return ([dot::TESTS, random::TESTS].concat(), shape::VNNI_TESTS);
    }
    let all = [ops::TESTS, ops::BF16_TESTS, dot::TESTS, memory::TESTS, control::TESTS, random::TESTS, templates::TESTS];
    (all.concat(), shape::TESTS)
}

fn trial(isa: &str, cpu: &'static str, (name, f): Test) -> Trial {
    Trial::test(format!("{isa}::{name}"), move || {
        machine::set_cpu(cpu);
        f().map_err(Into::into)
    })
}
