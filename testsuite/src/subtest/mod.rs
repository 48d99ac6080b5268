//! The commands of file tests, one file each.

mod compiled;
pub mod coverage;
mod import;
mod interp;
mod kernel;
mod lower;
pub mod onnx_text;
mod opt;
mod parse;
mod run;
mod values;
mod verify;

use bertc_ir::kernel::Kernel;
use bertc_ir::text::{PrintOptions, no_resources};
use bertc_ir::{Diag, Graph};

use crate::filetest::{Command, FileTest, Kind};

/// Commands that print something. What the last one of a file prints is what the file's directives are about.
const PRINTING: [&str; 7] = ["parse", "verify", "import", "opt", "lower", "clif", "asm"];

/// Commands that compare by themselves.
const CHECKING: [&str; 2] = ["interp", "run"];

/// Why a command fails.
enum Fail {
    /// The compiler's diagnostics, which the file may expect.
    Diags(Vec<Diag>),
    /// Everything else.
    Test(String),
}

impl From<Vec<Diag>> for Fail {
    fn from(d: Vec<Diag>) -> Self {
        Fail::Diags(d)
    }
}

impl From<Diag> for Fail {
    fn from(d: Diag) -> Self {
        Fail::Diags(vec![d])
    }
}

impl From<String> for Fail {
    fn from(m: String) -> Self {
        Fail::Test(m)
    }
}

impl From<&str> for Fail {
    fn from(m: &str) -> Self {
        Fail::Test(m.to_string())
    }
}

type Outcome<T> = Result<T, Fail>;

/// What the commands of a file hand on to each other.
struct State<'a> {
    test: &'a FileTest,
    /// The graph as read, verified.
    source: Option<Graph>,
    /// The graph after `opt`.
    graph: Option<Graph>,
    /// Whether a command made something of the graph that `run` can compare with it.
    made: bool,
    /// What `opt` started from, printed.
    before: Option<String>,
    /// Remarks of the passes with their lines.
    remarks: Vec<(usize, String)>,
}

/// Runs a test's commands.
///
/// # Errors
/// Why the test fails.
pub fn run(test: &FileTest) -> Result<(), String> {
    let mut s = State { test, source: None, graph: None, made: false, before: None, remarks: Vec::new() };
    let known = |c: &Command| PRINTING.iter().chain(&CHECKING).any(|k| c.name == *k);
    if let Some(c) = test.commands.iter().find(|c| !known(c)) {
        return Err(format!("unknown command '{}'", c.name));
    }
    let last = test.commands.iter().rposition(|c| PRINTING.contains(&c.name.as_str()));
    match last {
        None if test.checks_output() => return Err("no command prints anything that could be checked".to_string()),
        Some(i) if !test.checks_output() && test.errors.is_empty() => {
            return Err(format!(
                "nothing checks the output of '{}': add '{c} check:' lines, a '{c}>' block or expected errors",
                test.commands[i].name,
                c = test.kind.comment()
            ));
        }
        _ => {}
    }
    for (i, c) in test.commands.iter().enumerate() {
        match s.command(c) {
            Ok(output) if Some(i) == last && test.errors.is_empty() => {
                test.check_output(s.before.as_deref(), &output)?;
                test.check_rejects(&s.remarks)?;
            }
            Ok(_) => {}
            Err(Fail::Diags(d)) => return test.check_errors(&d),
            Err(Fail::Test(m)) => return Err(m),
        }
    }
    // Those that are still expected did not come.
    test.check_errors(&[])
}

impl State<'_> {
    /// Runs a command; what it prints.
    fn command(&mut self, c: &Command) -> Outcome<String> {
        match c.name.as_str() {
            "parse" => parse::run(self, c),
            "verify" => verify::run(self, c),
            "import" => import::run(self, c),
            "opt" => opt::run(self, c),
            "lower" | "clif" | "asm" => lower::run(self, c),
            "interp" => interp::run(self, c),
            "run" => run::run(self, c),
            other => Err(Fail::Test(format!("unknown command '{other}'"))),
        }
    }

    /// Refuses a command in files of another kind.
    fn only(&self, c: &Command, kind: Kind, extension: &str) -> Outcome<()> {
        if self.test.kind == kind { Ok(()) } else { Err(format!("'{}' is for {extension} files", c.name).into()) }
    }

    /// The file's graph as read, verified.
    fn source(&mut self) -> Outcome<&Graph> {
        if self.source.is_none() {
            let g = match self.test.kind {
                Kind::Tir => tensor_ir(self.test)?,
                Kind::Onnx => import::import(self.test, &bertc::import::onnx::ImportOptions::default())?,
                Kind::Kir | Kind::Sir => return Err("a .kir or .sir file has no graph".into()),
            };
            bertc_ir::verify::verify(&g)?;
            self.source = Some(g);
        }
        self.source.as_ref().ok_or_else(|| "no graph".into())
    }

    /// The graph as the commands so far have left it.
    fn graph(&mut self) -> Outcome<Graph> {
        match &self.graph {
            Some(g) => Ok(g.clone()),
            None => self.source().cloned(),
        }
    }
}

fn no_options(c: &Command) -> Result<(), String> {
    if c.args.is_empty() { Ok(()) } else { Err(format!("'{}' takes no options", c.name)) }
}

fn print(g: &Graph) -> String {
    bertc_ir::text::print(g, &PrintOptions { inline_constants: true, locations: false })
}

fn tensor_ir(test: &FileTest) -> Result<Graph, Vec<Diag>> {
    bertc_ir::text::parse(&test.source, &no_resources)
}

fn schedule(test: &FileTest) -> Result<bertc::Program, Vec<Diag>> {
    bertc_backends::schedule::parse(&test.source, &no_resources)
}

fn kernels(test: &FileTest) -> Result<Vec<Kernel>, Vec<Diag>> {
    bertc_ir::kernel::parse(&test.source)
}
