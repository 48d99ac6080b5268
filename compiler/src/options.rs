//! What the user asks for: options of a compilation and the parsers of their text forms.

use std::path::{Path, PathBuf};

use bertc_backends::target::{Emitter, Sparsity, Target};
use bertc_ir::Diag;

use crate::tuning;

/// Options of [`compile`](crate::compile).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CompileOptions {
    /// 0 to 3.
    pub opt_level: u8,
    /// `x86_64`, `aarch64`, or a triple.
    pub target: String,
    /// `generic`, `native`, or a CPU's name.
    pub cpu: String,
    /// What makes machine code of kernels.
    pub emitter: Emitter,
    /// When matrices with zeros are kept as blocks.
    pub sparsity: Sparsity,
    /// Ranges of symbolic dims: name, smallest, largest. Equal ends pin the dim.
    pub dims: Vec<(String, i64, i64)>,
    /// Shapes of inputs, all dims pinned.
    pub shapes: Vec<(String, Vec<i64>)>,
    /// Prefix of the object's symbols: a C identifier; see [`symbol_prefix`].
    pub name: String,
    /// Every step calls the caller's `parallel_for`, so that it can be timed.
    pub profile: bool,
    /// Verify the tensor IR after each pass.
    pub verify_each: bool,
    /// Outputs are 0 at padding, which is then not computed. An error if the model has no padding to skip.
    pub skip_padding: bool,
    /// Products and attentions on bf16, and bf16 between them.
    pub bf16: bool,
    /// Products with constant matrices on 8-bit integers, embedding tables of those, and attentions on bf16. With `bf16`,
    /// what integers leave is bf16.
    pub int8: bool,
    /// With `int8`: the least cosine of outputs to those of f32, in millionths. Matrices stay floats until it is kept; 0 measures
    /// nothing.
    pub int8_budget: u32,
    /// The part of the weights of products' constant matrices that becomes 0, in millionths.
    pub prune: Option<u32>,
    /// With `prune`: outputs and inputs of what becomes 0 together; nothing: as suits the precision.
    pub block: Option<[usize; 2]>,
    /// With `prune`: the matrices that are pruned, named as in `keep`; all, if empty.
    pub prune_only: Vec<String>,
    /// The part of the attention heads that goes, in millionths.
    pub prune_heads: Option<u32>,
    /// The same of neurons of feed-forward layers.
    pub prune_ffn: Option<u32>,
    /// With any of these: matrices that stay as they are, by the names of the model's nodes: whole, up to a `/` or `.`, or with `*`.
    pub keep: Vec<String>,
    /// With any of these: inputs to measure on, an `.npz`.
    pub calibrate: Option<PathBuf>,
    /// A file of choices for products, as `bertc tune` writes it.
    pub tuning: Option<PathBuf>,
    /// Passes that run in place of those of `opt_level`, as text.
    pub passes: Option<String>,
    /// What to show of the passes.
    pub watch: Watch,
}

impl CompileOptions {
    /// The machine to compile for, with its tuning.
    ///
    /// # Errors
    /// An unknown target or CPU, or a file of choices that can't be read.
    pub fn machine(&self) -> Result<Target, Diag> {
        let mut target = Target::parse(&self.target, &self.cpu)?;
        target.emitter = self.emitter;
        target.sparsity = self.sparsity;
        if let Some(path) = &self.tuning {
            target.tuning = tuning::read(path)?;
        }
        Ok(target)
    }
}

/// What to show of passes while they run.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Watch {
    /// Print the IR before these passes.
    pub print_before: Vec<String>,
    /// Print the IR after these passes.
    pub print_after: Vec<String>,
    /// Print the IR before every pass.
    pub print_before_all: bool,
    /// Print the IR after every pass.
    pub print_after_all: bool,
    /// Print what each pass changed.
    pub print_after_change: bool,
    /// Print the time of each pass and phase.
    pub timing: bool,
    /// Print the passes' remarks.
    pub explain: bool,
    /// Print the passes' counters.
    pub stats: bool,
    /// Print which matrices `--int8` makes integers and `--prune` makes 0, and what it costs.
    pub decisions: bool,
    /// Stop early.
    pub stop_after: Option<StopAfter>,
    /// File or folder of crash reproducers.
    pub reproducer: Option<PathBuf>,
}

/// Where to stop.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StopAfter {
    /// After the model was read.
    Import,
    /// After the first run of a pass.
    Pass(String),
    /// After all passes.
    Passes,
    /// After lowering to kernels.
    Lower,
    /// After machine code was made.
    Emit,
}

impl StopAfter {
    /// Their names, without those of passes.
    pub const PHASES: &[&str] = &["import", "passes", "lower", "emit"];
}

impl From<&str> for StopAfter {
    /// What is no phase is a pass.
    fn from(s: &str) -> Self {
        match s {
            "import" => StopAfter::Import,
            "passes" => StopAfter::Passes,
            "lower" => StopAfter::Lower,
            "emit" => StopAfter::Emit,
            _ => StopAfter::Pass(s.to_string()),
        }
    }
}

impl Default for CompileOptions {
    /// `-O2` for any CPU of this machine's kind.
    fn default() -> Self {
        CompileOptions {
            opt_level: DEFAULT_OPT_LEVEL,
            target: target_lexicon::HOST.to_string(),
            cpu: "generic".into(),
            emitter: Emitter::Auto,
            sparsity: Sparsity::Auto,
            dims: Vec::new(),
            shapes: Vec::new(),
            name: "bert".into(),
            profile: false,
            verify_each: false,
            skip_padding: false,
            bf16: false,
            int8: false,
            int8_budget: DEFAULT_INT8_BUDGET,
            prune: None,
            block: None,
            prune_only: Vec::new(),
            prune_heads: None,
            prune_ffn: None,
            keep: Vec::new(),
            calibrate: None,
            tuning: None,
            passes: None,
            watch: Watch::default(),
        }
    }
}

/// The level without `-O`.
pub const DEFAULT_OPT_LEVEL: u8 = 2;

/// The budget without `--int8-budget`: a cosine of 0.99.
pub const DEFAULT_INT8_BUDGET: u32 = 990_000;

/// Parses a budget, a cosine such as `0.995`, into millionths.
///
/// # Errors
/// Anything but a number from 0 to less than 1.
pub fn parse_budget(s: &str) -> Result<u32, String> {
    let found = s.parse::<f64>().ok().filter(|b| (0.0..1.0).contains(b));
    found.map(|b| (b * 1e6) as u32).ok_or_else(|| "expected a cosine from 0 to less than 1, such as 0.99".into())
}

/// Something that `--emit` can name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, clap::ValueEnum)]
pub enum Emit {
    /// Object file; writes the header beside it
    Obj,
    /// C header
    Header,
    /// Static library of the object and the runtime stub; writes the header beside it
    Staticlib,
    /// Shared library, linked with the system's cc; writes the header beside it
    Sharedlib,
    /// Tensor IR after the passes
    TensorIr,
    /// Kernel IR and the steps that call it
    KernelIr,
    /// Cranelift IR
    Clif,
    /// Disassembly of the machine code
    Asm,
    /// The graph as a page to look at in a browser
    Html,
    /// The graph for Graphviz
    Dot,
    /// The model after the passes as ONNX, for other runtimes and tools
    Onnx,
}

impl Emit {
    /// Usual extension of the file.
    pub fn extension(self) -> &'static str {
        match self {
            Emit::Obj => "o",
            Emit::Header => "h",
            Emit::Staticlib => "a",
            Emit::Sharedlib => "so",
            Emit::TensorIr => "tir",
            Emit::KernelIr => "kir",
            Emit::Clif => "clif",
            Emit::Asm => "s",
            Emit::Html => "html",
            Emit::Dot => "dot",
            Emit::Onnx => "onnx",
        }
    }

    /// Whether it is made of the tensor IR alone.
    pub fn needs_no_program(self) -> bool {
        matches!(self, Emit::TensorIr | Emit::Html | Emit::Dot | Emit::Onnx)
    }

    /// Whether it is machine code, which brings its header.
    pub fn is_machine_code(self) -> bool {
        matches!(self, Emit::Obj | Emit::Staticlib | Emit::Sharedlib)
    }

    /// Whether a person can read it.
    pub fn is_text(self) -> bool {
        !self.is_machine_code() && self != Emit::Onnx
    }
}

/// Parses an optimisation level, the `3` of `-O3`.
///
/// # Errors
/// Anything but 0 to 3.
pub fn parse_opt_level(s: &str) -> Result<u8, String> {
    match s {
        "0" => Ok(0),
        "1" => Ok(1),
        "2" => Ok(2),
        "3" => Ok(3),
        _ => Err("expected -O0, -O1, -O2 or -O3".into()),
    }
}

/// Parses when matrices are kept as blocks.
///
/// # Errors
/// A message listing what there is.
pub fn parse_sparse(s: &str) -> Result<Sparsity, String> {
    let names: Vec<_> = Sparsity::ALL.iter().map(|p| p.0).collect();
    Sparsity::ALL.iter().find(|p| p.0 == s).map(|p| p.1).ok_or_else(|| format!("expected one of: {}", names.join(", ")))
}

/// Parses an emitter's name.
///
/// # Errors
/// Another name.
pub fn parse_emitter(s: &str) -> Result<Emitter, String> {
    let found = Emitter::ALL.into_iter().find(|&(name, _)| name == s);
    found.map(|(_, e)| e).ok_or_else(|| "expected auto or clif".into())
}

/// Parses `seq=1..512` (both ends included) or `seq=128`.
///
/// # Errors
/// Another form, a negative end, or an empty range.
pub fn parse_dim(s: &str) -> Result<(String, i64, i64), String> {
    let form = || "expected NAME=MIN..MAX, such as seq=1..512, or NAME=VALUE, such as seq=128".to_string();
    let (name, range) = s.rsplit_once('=').filter(|(n, _)| !n.is_empty()).ok_or_else(form)?;
    // `seq=1..=512` splits at the last `=`.
    let (name, range) = match name.strip_suffix("..").and_then(|n| n.split_once('=')) {
        Some((n, min)) => (n, format!("{min}..{range}")),
        None => (name, range.to_string()),
    };
    let number = |t: &str| t.trim().parse::<i64>().map_err(|_| form());
    let (min, max) = match range.split_once("..") {
        Some((a, b)) => (number(a)?, number(b)?),
        None => {
            let v = number(&range)?;
            (v, v)
        }
    };
    match (min, max) {
        _ if name.is_empty() => Err(form()),
        (0.., _) if min <= max => Ok((name.to_string(), min, max)),
        (0.., _) => Err(format!("the range {min}..{max} is empty: MIN must not exceed MAX")),
        _ => Err("a dim is never negative".into()),
    }
}

/// Parses `input_ids=1x128`.
///
/// # Errors
/// Another form or a negative dim.
pub fn parse_shape(s: &str) -> Result<(String, Vec<i64>), String> {
    let form = || "expected NAME=DIMxDIM…, such as input_ids=1x128".to_string();
    let (name, dims) = s.rsplit_once('=').filter(|(n, _)| !n.is_empty()).ok_or_else(form)?;
    let dims: Result<Vec<i64>, _> = dims.split('x').map(|d| d.trim().parse::<i64>()).collect();
    match dims {
        Ok(d) if d.iter().all(|d| *d >= 0) => Ok((name.to_string(), d)),
        Ok(_) => Err("a dim is never negative".into()),
        Err(_) => Err(form()),
    }
}

/// Makes a prefix for C symbols out of a name: other characters than letters, digits and `_` become `_`.
///
/// # Errors
/// What is left is no identifier, or one whose symbols would clash with `bertc.h`.
pub fn symbol_prefix(name: &str) -> Result<String, Diag> {
    let prefix: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let prefix = prefix.trim_start_matches('_');
    let advice = "give a prefix of letters, digits and underscores with --name";
    let wrong = match prefix.chars().next() {
        None => "has no letter that a C identifier can start with",
        Some(c) if c.is_ascii_digit() => "starts with a digit, which no C identifier does",
        Some(_) if prefix == "bertc" => "is what bertc.h names its own types with",
        Some(_) => return Ok(prefix.to_string()),
    };
    let shown = if prefix.is_empty() || prefix == name { String::new() } else { format!(" (as '{prefix}')") };
    Err(Diag::new(format!("'{name}'{shown} can't be the prefix of C symbols: it {wrong}")).note(advice))
}

/// The name in a file's path: its stem, without the `lib` of libraries.
pub fn name_of(path: &Path) -> String {
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let library = path.extension().is_some_and(|e| ["a", "so", "dylib"].iter().any(|x| e == *x));
    match stem.strip_prefix("lib") {
        Some(rest) if library && !rest.is_empty() => rest.to_string(),
        _ => stem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dims() {
        assert_eq!(parse_dim("seq=1..512"), Ok(("seq".into(), 1, 512)));
        assert_eq!(parse_dim("seq=1..=512"), Ok(("seq".into(), 1, 512)));
        assert_eq!(parse_dim("past + seq=7"), Ok(("past + seq".into(), 7, 7)));
        for s in ["", "seq", "=1", "seq=", "seq=a..3", "seq=1..2..3", "seq=1...3", "seq=99999999999999999999"] {
            assert!(parse_dim(s).unwrap_err().starts_with("expected NAME="), "{s}");
        }
        assert!(parse_dim("seq=9..3").unwrap_err().contains("empty"));
        assert!(parse_dim("seq=-1").unwrap_err().contains("negative"));
    }

    #[test]
    fn budgets() {
        assert_eq!((parse_budget("0.99"), parse_budget("0")), (Ok(990_000), Ok(0)));
        for s in ["", "1", "-0.1", "NaN", "99%"] {
            assert!(parse_budget(s).unwrap_err().starts_with("expected a cosine"), "{s}");
        }
    }

    #[test]
    fn shapes() {
        assert_eq!(parse_shape("a:0=1x128"), Ok(("a:0".into(), vec![1, 128])));
        assert_eq!(parse_shape("a=5"), Ok(("a".into(), vec![5])));
        for s in ["", "a", "=1", "a=", "a=1x", "a=1,2", "a=bx2"] {
            assert!(parse_shape(s).unwrap_err().starts_with("expected NAME="), "{s}");
        }
        assert!(parse_shape("a=1x-2").unwrap_err().contains("negative"));
    }

    #[test]
    fn prefixes() {
        for (name, prefix) in [("bert", "bert"), ("bert-base.v2", "bert_base_v2"), ("_x", "x"), ("ünder", "nder")] {
            assert_eq!(symbol_prefix(name).unwrap(), prefix);
        }
        for (name, why) in
            [("", "no letter"), ("---", "no letter"), ("7b", "digit"), ("-7b", "as '7b'"), ("bertc", "bertc.h")]
        {
            let e = symbol_prefix(name).unwrap_err();
            assert!(e.message.contains(why), "{e}");
        }
        assert_eq!(name_of(Path::new("a/libbert.a")), "bert");
        assert_eq!(name_of(Path::new("a/libbert.o")), "libbert");
        assert_eq!(name_of(Path::new("..")), "");
    }
}
