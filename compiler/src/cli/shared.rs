//! Groups of flags that several commands take. Structs here are described by plain comments: clap takes a doc comment
//! for the help of the command.

use std::path::PathBuf;

use bertc_backends::target::{Emitter, Sparsity};
use clap::Args;

use crate::options::{
    CompileOptions, DEFAULT_OPT_LEVEL, Watch, parse_budget, parse_dim, parse_emitter, parse_opt_level, parse_shape,
    parse_sparse,
};
use crate::pruning::{parse_block, parse_sparsity};

/// The heading of flags that show passes at work.
const LOOK: &str = "Seeing into the passes (on standard error)";

// Which dims a model is compiled for.
#[derive(Args, Clone, Debug)]
pub struct DimArgs {
    /// Fix all dims of an input: input_ids=1x128 (repeatable)
    #[arg(long = "shape", value_name = "NAME=1x128", value_parser = parse_shape)]
    pub shapes: Vec<(String, Vec<i64>)>,
    /// Limit a dim (both ends included) or fix it: seq=1..512, seq=128 (repeatable)
    #[arg(long = "dim", value_name = "NAME=1..512", value_parser = parse_dim)]
    pub dims: Vec<(String, i64, i64)>,
}

/// What `--block` says; clap would make an option of an `Option`.
type Block = Option<[usize; 2]>;

/// The flags that make weights something else.
const COMPRESSES: &str = "compresses";

// Which passes run, and what they show of themselves.
#[derive(Args, Clone, Debug)]
#[command(group = clap::ArgGroup::new(COMPRESSES).args(["int8", "prune", "prune_heads", "prune_ffn"]).multiple(true))]
pub struct PassArgs {
    /// Optimise: 0 lowers only, 1 simplifies, 2 and 3 also fuse and tune as far as passes exist
    #[arg(short = 'O', value_name = "LEVEL", value_parser = parse_opt_level, default_value_t = DEFAULT_OPT_LEVEL)]
    pub opt_level: u8,
    /// Don't compute padding: outputs with a row for each token are 0 from behind the last token on
    #[arg(long)]
    pub skip_padding: bool,
    /// Products and attentions on bf16: half the size, up to twice the speed where the CPU has instructions for it
    #[arg(long)]
    pub bf16: bool,
    /// Products and embedding tables on 8-bit integers, attentions on bf16: a quarter of the size; --bf16 is for the rest
    #[arg(long)]
    pub int8: bool,
    /// Least cosine of outputs to those of f32; outliers and matrices stay floats until it is kept. 0 measures nothing
    #[arg(long, value_name = "COSINE", value_parser = parse_budget, default_value = "0.99", requires = "int8")]
    pub int8_budget: u32,
    /// Make this part of the weights of products 0, such as 0.8: those that matter least, in blocks
    #[arg(long, value_name = "SPARSITY", value_parser = parse_sparsity)]
    pub prune: Option<u32>,
    /// Outputs x inputs of a block of --prune: 1x4, 4x1, 4x4, 16x1, 16x4, 32x1, 64x1; auto: 16x1, or 16x4 with --int8 or --bf16
    #[arg(long, value_name = "ROWSxCOLS", value_parser = parse_block, default_value = "auto", requires = "prune")]
    pub block: Block,
    /// Prune this matrix and no others, named as in --keep (repeatable)
    #[arg(long, value_name = "NAME", requires = "prune")]
    pub prune_only: Vec<String>,
    /// Remove this part of the attention heads, such as 0.25: those that matter least
    #[arg(long, value_name = "PART", value_parser = parse_sparsity)]
    pub prune_heads: Option<u32>,
    /// Remove this part of the neurons of feed-forward layers
    #[arg(long, value_name = "PART", value_parser = parse_sparsity)]
    pub prune_ffn: Option<u32>,
    /// A matrix that --int8 and the --prune flags leave as it is: a node's name, its beginning up to a / or ., or a pattern with *
    /// (repeatable)
    #[arg(long, value_name = "NAME", requires = COMPRESSES)]
    pub keep: Vec<String>,
    /// Texts that --int8 measures on and that weights left by --prune are fitted to: inputs by their ONNX names [default: made
    /// up ones; none for --prune]
    #[arg(long, value_name = "DATA.npz", requires = COMPRESSES)]
    pub calibrate: Option<PathBuf>,
    /// Run these passes in place of those of -O: a,b{option=1;other=2},c
    #[arg(long, value_name = "LIST")]
    pub passes: Option<String>,
    /// Verify the tensor IR after each pass; always, in debug builds of bertc
    #[arg(long)]
    pub verify_each: bool,
    /// Print the tensor IR before these passes
    #[arg(long, value_name = "PASS", value_delimiter = ',', help_heading = LOOK)]
    pub print_ir_before: Vec<String>,
    /// Print the tensor IR after these passes
    #[arg(long, value_name = "PASS", value_delimiter = ',', help_heading = LOOK)]
    pub print_ir_after: Vec<String>,
    /// Print the tensor IR before every pass
    #[arg(long, help_heading = LOOK)]
    pub print_ir_before_all: bool,
    /// Print the tensor IR after every pass
    #[arg(long, help_heading = LOOK)]
    pub print_ir_after_all: bool,
    /// Print what each pass changed, as a difference
    #[arg(long, help_heading = LOOK)]
    pub print_ir_after_change: bool,
    /// Print the time of each phase and pass
    #[arg(long, help_heading = LOOK)]
    pub timing: bool,
    /// Print what fused, what did not, and why
    #[arg(long, help_heading = LOOK)]
    pub explain: bool,
    /// Print what each pass did: nodes before and after, patterns applied and rejected
    #[arg(long, help_heading = LOOK)]
    pub pass_stats: bool,
    /// Where a pass that fails leaves its input, a file or a folder [default: the current folder]
    #[arg(long, value_name = "PATH", help_heading = LOOK)]
    pub reproducer: Option<PathBuf>,
}

// How to compile a model that is run or written.
#[derive(Args, Clone, Debug)]
pub struct BuildArgs {
    /// What makes machine code of kernels: auto (the widest registers of the CPU), clif (Cranelift, 128 bits)
    #[arg(long, value_name = "EMITTER", value_parser = parse_emitter, default_value = "auto")]
    pub emitter: Emitter,
    /// Keep matrices with many zeros as blocks: auto (where that is faster), never, always
    #[arg(long, value_name = "WHEN", value_parser = parse_sparse, default_value = "auto")]
    pub sparse: Sparsity,
    /// Tiles and tasks of products, as `bertc tune` found them to be fastest
    #[arg(long, value_name = "TUNING.json")]
    pub tuning: Option<PathBuf>,
    /// Print nothing but errors
    #[arg(long, short)]
    pub quiet: bool,
    #[command(flatten)]
    pub pass: PassArgs,
    #[command(flatten)]
    pub dims: DimArgs,
}

impl DimArgs {
    /// Puts the flags into `options`.
    pub fn apply(self, options: &mut CompileOptions) {
        options.dims = self.dims;
        options.shapes = self.shapes;
    }
}

impl PassArgs {
    /// Puts the flags into `options`.
    pub fn apply(self, options: &mut CompileOptions) {
        options.opt_level = self.opt_level;
        options.verify_each = self.verify_each || cfg!(debug_assertions);
        options.skip_padding = self.skip_padding;
        options.bf16 = self.bf16;
        options.int8 = self.int8;
        options.int8_budget = self.int8_budget;
        options.prune = self.prune;
        options.block = self.block;
        options.prune_only = self.prune_only;
        options.prune_heads = self.prune_heads;
        options.prune_ffn = self.prune_ffn;
        options.keep = self.keep;
        options.calibrate = self.calibrate;
        options.passes = self.passes;
        options.watch = Watch {
            print_before: self.print_ir_before,
            print_after: self.print_ir_after,
            print_before_all: self.print_ir_before_all,
            print_after_all: self.print_ir_after_all,
            print_after_change: self.print_ir_after_change,
            timing: self.timing,
            explain: self.explain,
            stats: self.pass_stats,
            decisions: true,
            stop_after: None,
            reproducer: self.reproducer,
        };
    }
}

impl BuildArgs {
    /// The options of a compilation, the rest by default.
    pub fn options(self) -> CompileOptions {
        let (emitter, tuning, sparsity) = (self.emitter, self.tuning, self.sparse);
        let mut options = CompileOptions { emitter, tuning, sparsity, ..CompileOptions::default() };
        self.pass.apply(&mut options);
        self.dims.apply(&mut options);
        options.watch.decisions &= !self.quiet;
        options
    }
}
