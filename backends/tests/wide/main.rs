//! Kernels emitted with AVX-512 and run, bit by bit against the interpreter. On a machine without it the tests that run
//! code are reported as ignored, by name.

mod control;
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
    let obstacle = machine::obstacle();
    if let Some(why) = &obstacle {
        eprintln!("skipped: tests that run AVX-512 code: {why}");
    }
    let running = [ops::TESTS, memory::TESTS, control::TESTS, random::TESTS, templates::TESTS].concat();
    let trials = running.into_iter().map(|t| trial(t).with_ignored_flag(obstacle.is_some()));
    let trials = trials.chain(shape::TESTS.iter().copied().map(trial)).collect();
    libtest_mimic::run(&args, trials).exit();
}

fn trial((name, f): Test) -> Trial {
    Trial::test(name, move || f().map_err(Into::into))
}
