//! ONNX's backend node tests through the compiled code: `cargo xtask conformance`.
//!
//! `testsuite/conformance/generate.py` writes the tests. Each model is compiled to an object; one library of all objects is
//! loaded by a process of its own, since compiled code that is wrong may end it. What fails must stand in
//! `testsuite/conformance/expected-failures.txt` with its reason, and what stands there must fail.

mod job;
mod report;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use bertc::load::{LoadedModel, PortInfo};
use bertc::npz;
use bertc_ir::{DType, Scalar, Tensor};

use crate::machine::{Machine, read_outputs};

pub use job::{Options, run_job};

/// A test that was generated.
#[derive(Clone, Debug)]
pub struct Test {
    /// Its name.
    pub name: String,
    /// The operator that it is a test of.
    pub operator: String,
    /// Allowed difference: relative to the reference, and absolute.
    pub tolerance: [f64; 2],
    /// Inputs of the test that are constants of the model.
    pub frozen: Vec<String>,
}

/// The folder of the generator and the list of failures.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance")
}

/// The tests in a folder that the generator wrote.
///
/// # Errors
/// No such folder, or not what it writes.
pub fn tests(data: &Path) -> Result<Vec<Test>, String> {
    let path = data.join("tests.tsv");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let test = |line: &str| {
        let cells: Vec<&str> = line.split('\t').collect();
        let [name, operator, relative, absolute, frozen] = cells[..] else { return None };
        let tolerance = [relative.parse().ok()?, absolute.parse().ok()?];
        let frozen = frozen.split(',').filter(|f| !f.is_empty()).map(String::from).collect();
        Some(Test { name: name.into(), operator: operator.into(), tolerance, frozen })
    };
    text.lines().map(|l| test(l).ok_or_else(|| format!("{}: can't read '{l}'", path.display()))).collect()
}

/// Why tests fail, by name: lines `NAME: REASON`, with `#` before remarks.
///
/// # Errors
/// A line without a reason, or a name that stands there twice.
pub fn expected_failures() -> Result<BTreeMap<String, String>, String> {
    let path = folder().join("expected-failures.txt");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut all = BTreeMap::new();
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let (name, reason) = line.split_once(':').unwrap_or((line, ""));
        if reason.trim().is_empty() {
            return Err(format!("{}: '{line}' has no reason", path.display()));
        }
        if all.insert(name.to_string(), reason.trim().to_string()).is_some() {
            return Err(format!("{}: '{name}' stands there twice", path.display()));
        }
    }
    Ok(all)
}

/// What came of each test: nothing, or why it failed.
pub type Outcomes = BTreeMap<String, Result<(), String>>;

/// Compiles all tests for this machine and runs them.
///
/// # Errors
/// What has nothing to do with a test: files, the linker, the child process.
pub fn run(data: &Path, tests: &[Test], level: u8) -> Result<Outcomes, String> {
    let scratch = tempfile::tempdir().map_err(|e| e.to_string())?;
    let mut outcomes = in_parallel(tests, |t| compile(data, t, scratch.path(), Machine::X86_64, level).map(|_| ()));
    let good: Vec<&Test> = tests.iter().filter(|t| outcomes[&t.name].is_ok()).collect();
    // A library of all: linking is what takes time.
    let list = scratch.path().join("objects");
    let objects: String = good.iter().map(|t| format!("{}\n", object(scratch.path(), t).display())).collect();
    std::fs::write(&list, objects).map_err(|e| e.to_string())?;
    let library = scratch.path().join("tests.so");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-nostdlib"]).arg(format!("@{}", list.display())).arg("-o").arg(&library);
    let linked = cc.output().map_err(|e| format!("cc: {e}"))?;
    if !linked.status.success() {
        return Err(format!("linking the tests: {}", String::from_utf8_lossy(&linked.stderr)));
    }
    let mut rest: &[&Test] = &good;
    while !rest.is_empty() {
        let (results, end) = run_in_child(data, &library, rest)?;
        let done = results.len();
        outcomes.extend(rest.iter().zip(results).map(|(t, r)| (t.name.clone(), r)));
        if let Some(t) = rest.get(done) {
            outcomes.insert(t.name.clone(), Err(format!("running it ended the process: {end}")));
        }
        rest = rest.get(done + 1..).unwrap_or_default();
    }
    Ok(outcomes)
}

/// Compiles tests for AArch64 and runs each under qemu.
///
/// # Errors
/// Files that can't be written.
pub fn run_emulated(data: &Path, tests: &[Test]) -> Result<Outcomes, String> {
    let scratch = tempfile::tempdir().map_err(|e| e.to_string())?;
    let machine = Machine::Aarch64;
    let stub = machine.stub(scratch.path())?;
    let one = |t: &Test| -> Result<(), String> {
        let [inputs, outputs] = compile(data, t, scratch.path(), machine, 2)?;
        let case = Case::read(data, t)?;
        let program = scratch.path().join(&t.name);
        machine.link(&object(scratch.path(), t), &t.name, &stub, &program)?;
        let (file, out) = (program.with_extension("in"), program.with_extension("out"));
        let inputs = inputs.iter().map(|p| case.input(p)).collect::<Result<Vec<_>, _>>()?;
        let bytes: Vec<u8> = inputs.iter().flat_map(|t| t.bytes().to_vec()).collect();
        std::fs::write(&file, bytes).map_err(|e| e.to_string())?;
        machine.run(&program, &[file.into(), out.clone().into(), "0".into()])?;
        let sizes: Vec<usize> = outputs.iter().map(|p| p.dtype.size()).collect();
        for (p, (shape, bytes)) in outputs.iter().zip(read_outputs(&out, &sizes)?) {
            let shape = shape.iter().map(|&d| d as usize).collect();
            let got = Tensor::new(p.dtype, shape, bytes.into()).ok_or("the output is too short")?;
            case.check(p, &got, t.tolerance)?;
        }
        Ok(())
    };
    Ok(in_parallel(tests, one))
}

/// `f` of each test, on two threads.
fn in_parallel(tests: &[Test], f: impl Fn(&Test) -> Result<(), String> + Sync) -> Outcomes {
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Outcomes::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(t) = tests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = f(t);
                    outcomes.lock().unwrap_or_else(PoisonError::into_inner).insert(t.name.clone(), result);
                }
            });
        }
    });
    outcomes.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn object(folder: &Path, t: &Test) -> PathBuf {
    folder.join(format!("{}.o", t.name))
}

/// An input or output of compiled code.
struct Port {
    name: String,
    dtype: DType,
}

/// Compiles a test to [`object`]; its inputs and outputs in order.
fn compile(data: &Path, t: &Test, folder: &Path, machine: Machine, level: u8) -> Result<[Vec<Port>; 2], String> {
    let options = bertc::CompileOptions {
        opt_level: level,
        target: machine.name().into(),
        name: t.name.clone(),
        verify_each: true,
        shapes: Case::read(data, t).map(|c| c.empty_inputs()).unwrap_or_default(),
        ..Default::default()
    };
    let show = |e: Vec<bertc_ir::Diag>| e.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let compiled = bertc::compile(&data.join(format!("{}.onnx", t.name)), &options).map_err(show)?;
    let mut file = File::create(object(folder, t)).map_err(|e| e.to_string())?;
    compiled.write_object(&mut file).map_err(show)?;
    let p = compiled.program();
    let port = |p: &bertc_backends::plan::PortSpec| Port { name: p.name.clone(), dtype: p.ty.dtype };
    Ok([p.inputs.iter().map(port).collect(), p.outputs.iter().map(port).collect()])
}

/// The results of the first tests, as many as ran, and how the process ended.
fn run_in_child(data: &Path, library: &Path, tests: &[&Test]) -> Result<(Vec<Result<(), String>>, String), String> {
    let me = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut child = Command::new(me)
        .arg("conformance-child")
        .args([data, library])
        .args(tests.iter().map(|t| &t.name))
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    let out = child.stdout.take().ok_or("the child has no output")?;
    let result = |line: String| match line.as_str() {
        "ok" => Ok(()),
        why => Err(why.to_string()),
    };
    let results = BufReader::new(out).lines().map_while(Result::ok).map(result).collect();
    let status = child.wait().map_err(|e| e.to_string())?;
    Ok((results, status.to_string()))
}

/// What the child does: runs tests by name from a library, a line of output each.
///
/// # Errors
/// No such tests.
pub fn child(data: &Path, library: &Path, names: &[String]) -> Result<(), String> {
    let all: BTreeMap<String, Test> = tests(data)?.into_iter().map(|t| (t.name.clone(), t)).collect();
    let mut out = std::io::stdout();
    for name in names {
        let t = all.get(name).ok_or_else(|| format!("there is no test '{name}'"))?;
        let line = run_loaded(data, library, t).err().map_or("ok".into(), |why| why.replace('\n', " "));
        // Line by line: the next test may end the process.
        writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn run_loaded(data: &Path, library: &Path, t: &Test) -> Result<(), String> {
    let case = Case::read(data, t)?;
    let loaded = LoadedModel::open(library, &t.name).map_err(|d| d.to_string())?;
    let port = |p: &PortInfo| Port { name: p.name.clone(), dtype: p.dtype };
    let d = loaded.descriptor();
    let inputs = d.inputs.iter().map(|p| case.input(&port(p))).collect::<Result<Vec<_>, _>>()?;
    let dims = vec![0; d.symbols.len()];
    let mut session = loaded.session(&inputs, &dims, None).map_err(|d| d.to_string())?;
    session.run().map_err(|e| e.to_string())?;
    let mut all = d.outputs.iter().zip(session.outputs());
    all.try_for_each(|(p, got)| case.check(&port(p), &got, t.tolerance))
}

/// The arrays of a test: `in:INPUT` and `out:OUTPUT`.
struct Case(BTreeMap<String, Tensor>);

impl Case {
    fn read(data: &Path, t: &Test) -> Result<Case, String> {
        let path = data.join(format!("{}.npz", t.name));
        let file = File::open(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        npz::read(BufReader::new(file)).map(Case).map_err(|e| format!("{}: {e}", path.display()))
    }

    fn array(&self, key: &str, dtype: DType) -> Result<Tensor, String> {
        let t = self.0.get(key).ok_or_else(|| format!("the test has no '{key}'"))?;
        // NumPy has no bf16: its bits come as u16.
        let is_bits = dtype == DType::BF16 && t.dtype() == DType::U16;
        let cast = is_bits.then(|| Tensor::new(dtype, t.shape().to_vec(), t.bytes().clone())).flatten();
        Ok(cast.unwrap_or_else(|| t.clone()))
    }

    /// The inputs without elements, with their shapes: a dim of 0 in a model's file is one that isn't known, unless
    /// `--shape` says so.
    fn empty_inputs(&self) -> Vec<(String, Vec<i64>)> {
        let named = self.0.iter().filter_map(|(key, t)| Some((key.strip_prefix("in:")?, t)));
        let empty = named.filter(|(_, t)| t.is_empty());
        empty.map(|(name, t)| (name.to_string(), t.shape().iter().map(|&d| d as i64).collect())).collect()
    }

    fn input(&self, p: &Port) -> Result<Tensor, String> {
        self.array(&format!("in:{}", p.name), p.dtype)
    }

    fn check(&self, p: &Port, got: &Tensor, tolerance: [f64; 2]) -> Result<(), String> {
        let want = self.array(&format!("out:{}", p.name), p.dtype)?;
        compare(got, &want, tolerance).map_err(|e| format!("{}: {e}", p.name))
    }
}

/// As ONNX's own runner compares: types and shapes are equal, integers too, and floats are near; what isn't finite is equal. A
/// bf16 may be the next one: the tolerances are less than its last place, and references round after every step.
fn compare(got: &Tensor, want: &Tensor, [relative, absolute]: [f64; 2]) -> Result<(), String> {
    if (got.dtype(), got.shape()) != (want.dtype(), want.shape()) {
        let show = |t: &Tensor| format!("{} {:?}", t.dtype(), t.shape());
        return Err(format!("it is {}, expected {}", show(got), show(want)));
    }
    let relative = if got.dtype() == DType::BF16 { f64::max(relative, 1.0 / 128.0) } else { relative };
    for (i, (g, w)) in got.iter().zip(want.iter()).enumerate() {
        let near = match (g, w) {
            (Scalar::Float(g), Scalar::Float(w)) => {
                g == w || (g.is_nan() && w.is_nan()) || (g - w).abs() <= absolute + relative * w.abs()
            }
            (g, w) => g == w,
        };
        if !near {
            return Err(format!("element {i} is {g:?}, expected {w:?}"));
        }
    }
    Ok(())
}
