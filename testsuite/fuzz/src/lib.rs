//! Fuzz targets of the bertc compiler, and what runs them: seeds, mutation, a supervisor that survives crashes.
//!
//! A target is a plain function of bytes, so the same code serves this crate's own driver (`bertc-fuzz`), libFuzzer
//! (`testsuite/fuzz/libfuzzer`) and the bounded run in `cargo test`. `docs/fuzzing.md` tells how to use them.

pub mod corpus;
#[cfg(feature = "compiler")]
pub mod corrupt;
pub mod graph;
pub mod mutate;
#[cfg(feature = "compiler")]
pub mod native;
pub mod oracle;
pub mod random;
pub mod supervise;
pub mod targets;

use mutate::Kind;
use random::Random;

/// What became of an input that is no finding: a word for the statistics, such as `refused`.
pub type Outcome = &'static str;

/// A fuzz target.
#[derive(Debug)]
pub struct Target {
    /// Name, as on the command line; also the folder of its regressions.
    pub name: &'static str,
    /// What it checks, in one line.
    pub doc: &'static str,
    /// How its inputs are mutated.
    pub kind: Kind,
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Checks one input; an error is a finding, and so is a panic.
    pub run: fn(&[u8]) -> Result<Outcome, String>,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    #[cfg(feature = "compiler")]
    Target {
        name: "import",
        doc: "bytes of an ONNX model: importer, verifier, passes, lowering",
        kind: Kind::Onnx,
        seeds: corpus::models,
        run: targets::import::run,
    },
    Target {
        name: "text",
        doc: "tensor IR text: parser, verifier, printer, parser again; passes",
        kind: Kind::Text,
        seeds: corpus::tensor_ir,
        run: targets::text::run,
    },
    Target {
        name: "kernel-text",
        doc: "kernel IR text: parser, verifier, printer, parser again",
        kind: Kind::Text,
        seeds: corpus::kernel_ir,
        run: targets::kernel_text::run,
    },
    Target {
        name: "passes",
        doc: "random graphs: all passes, or some in random order; the evaluator before and after",
        kind: Kind::Choices,
        seeds: || corpus::kept("passes"),
        run: targets::passes::run,
    },
    #[cfg(feature = "compiler")]
    Target {
        name: "compile",
        doc: "random graphs: code of both emitters, loaded into this process, against the evaluator",
        kind: Kind::Choices,
        seeds: || corpus::kept("compile"),
        run: targets::compile::run,
    },
    #[cfg(feature = "compiler")]
    Target {
        name: "int8",
        doc: "random graphs about products of 8-bit integers, with --int8 or their own: code against the evaluator",
        kind: Kind::Choices,
        seeds: || corpus::kept("int8"),
        run: targets::int8::run,
    },
    #[cfg(feature = "compiler")]
    Target {
        name: "export",
        doc: "random graphs, after some passes, written as ONNX and imported again: the evaluator before and after",
        kind: Kind::Choices,
        seeds: || corpus::kept("export"),
        run: targets::export::run,
    },
];

/// The target called `name`.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|t| t.name == name)
}

impl Target {
    /// The input of case `index` under `seed`: first the seeds themselves, then mutants of them.
    pub fn case(&self, seeds: &[Vec<u8>], seed: u64, index: u64) -> Vec<u8> {
        match usize::try_from(index).ok().and_then(|i| seeds.get(i)) {
            Some(s) => s.clone(),
            None => mutate::mutate(self.kind, seeds, &mut Random::new(seed, index)),
        }
    }
}
