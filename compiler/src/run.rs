//! `bertc run`: compiles a model, loads it, and runs it on given or plausible inputs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bertc_ir::{DType, Diag, Scalar, Tensor};
use bertc_rt::ThreadPool;

use crate::load::{Descriptor, Extent, LoadedModel, PortInfo, RunError, Session};
use crate::npz;
use crate::options::CompileOptions;
use crate::output::{Staged, check_target, to_stdout};
use crate::progress::{Phase, Progress, time};
use crate::{driver, link};

/// What `run` was asked to do.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The model.
    pub model: PathBuf,
    /// How to compile it.
    pub compile: CompileOptions,
    /// Inputs; without, plausible ones are made.
    pub input: Option<PathBuf>,
    /// Where the outputs go.
    pub output: Option<PathBuf>,
    /// Threads; 1 runs serially, 0 takes one for each CPU.
    pub threads: u32,
    /// Timed runs.
    pub repeat: u32,
    /// Which of the object's variants runs; by default, the one that its check of the CPU finds.
    pub variant: Option<String>,
    /// No progress bar.
    pub quiet: bool,
}

/// Ids that every vocabulary has: special tokens and the first characters.
pub(crate) const RANDOM_IDS: i128 = 100;

/// Compiles a model to a shared library in a temporary folder and loads it.
///
/// # Errors
/// What compilation, the system's linker or the loader report.
pub fn compile_and_load(
    model: &Path,
    options: &CompileOptions,
    progress: &mut Progress,
) -> Result<LoadedModel, Vec<Diag>> {
    let one = |d: Diag| vec![d];
    let dir = tempfile::tempdir().map_err(|e| one(Diag::new(format!("can't make a temporary folder: {e}"))))?;
    let compiled = driver::compile_with(model, options, progress)?;
    let library = dir.path().join(format!("model{}", std::env::consts::DLL_SUFFIX));
    link::shared_library(&compiled, &library, progress)?;
    // The library stays mapped after its file is gone.
    progress.phase(Phase::Link, || LoadedModel::open(&library, &options.name)).map_err(one)
}

/// Runs the subcommand.
///
/// # Errors
/// Everything that can be wrong with model, inputs or outputs.
pub fn run(o: &RunOptions) -> Result<(), Vec<Diag>> {
    let one = |d: Diag| vec![d];
    if let Some(out) = &o.output {
        driver::refuse_overwrite(out, &[Some(&o.model), o.input.as_ref()]).map_err(one)?;
        check_target(out).map_err(one)?;
    }
    let given = o.input.as_deref().map(read_inputs).transpose().map_err(one)?;
    let mut progress = Progress::new(o.quiet);
    let loaded = compile_and_load(&o.model, &o.compile, &mut progress)?;
    progress.finish();
    if let Some(name) = &o.variant {
        select_variant(&loaded, name).map_err(one)?;
    }
    let d = loaded.descriptor();
    let pool = pool(o.threads).map_err(one)?;
    let dims = match &given {
        Some(arrays) => unify(d, arrays)?,
        None => plausible_dims(d),
    };
    let mut session = match &given {
        Some(arrays) => {
            let inputs: Vec<Tensor> = d.inputs.iter().map(|p| typed(p, &arrays[&p.name])).collect();
            let mut session = loaded.session(&inputs, &dims, pool.as_ref()).map_err(one)?;
            session.run().map_err(|e| one(Diag::new(e.to_string())))?;
            session
        }
        None => plausible_session(&loaded, &dims, pool.as_ref())?,
    };
    let mut times = Vec::new();
    for _ in 0..o.repeat.max(1) {
        let start = Instant::now();
        session.run().map_err(|e| one(Diag::new(e.to_string())))?;
        times.push(start.elapsed());
    }
    let outputs = session.outputs();
    if let Some(path) = &o.output {
        let mut staged = Staged::default();
        staged.add(path, |w| {
            let mut file = std::io::Cursor::new(Vec::new());
            let named = d.outputs.iter().map(|p| p.name.as_str()).zip(&outputs);
            npz::write(&mut file, named).map_err(|e| one(Diag::new(e.to_string())))?;
            w.write_all(file.get_ref()).map_err(|e| one(Diag::new(e.to_string())))
        })?;
        staged.commit().map_err(one)?;
    }
    let report = describe(d, &dims, &outputs, &session, &mut times, pool.as_ref());
    to_stdout(report.as_bytes()).map_err(one)
}

/// Makes later runs those of a variant by its name.
///
/// # Errors
/// There is no such variant, or the CPU can't run it: with those that there are.
pub fn select_variant(loaded: &LoadedModel, name: &str) -> Result<(), Diag> {
    let all = loaded.variants();
    if all.is_empty() {
        return Err(Diag::new(format!("there is no variant '{name}': the object has code for one CPU only"))
            .note("an object for '--cpu generic' has variants, on x86-64"));
    }
    let there_are = format!("the object has code for {}", all.join(", "));
    let Some(number) = all.iter().position(|v| v == name) else {
        return Err(Diag::new(format!("there is no variant '{name}'")).note(there_are));
    };
    let refused = |e: RunError| Diag::new(format!("this machine can't run the variant '{name}'")).note(e.to_string());
    loaded.select_variant(number).map_err(|e| refused(e).note(there_are))
}

/// The threads that a number of them asks for; none for 1, one for each CPU for 0.
///
/// # Errors
/// The system has no more threads.
pub fn pool(threads: u32) -> Result<Option<ThreadPool>, Diag> {
    match threads {
        1 => Ok(None),
        n => ThreadPool::new(n).map(Some).ok_or_else(|| Diag::new(format!("can't start {n} threads"))),
    }
}

/// A session with plausible inputs, which has run once.
///
/// # Errors
/// Inputs that can't be made, or that the model refuses.
pub fn plausible_session<'a>(
    loaded: &'a LoadedModel,
    dims: &[i64],
    pool: Option<&'a ThreadPool>,
) -> Result<Session<'a>, Vec<Diag>> {
    let one = |d: Diag| vec![d];
    let with = |ids: i128| {
        let inputs = plausible_inputs(loaded.descriptor(), dims, ids)?;
        loaded.session(&inputs, dims, pool).map_err(one)
    };
    let mut session = with(RANDOM_IDS)?;
    if let Err(e) = session.run() {
        if e.code != bertc_rt::abi::status::INDEX_OUT_OF_RANGE {
            return Err(one(Diag::new(e.to_string())));
        }
        // A table of few rows, such as segments under an unusual name.
        session = with(1)?;
        session.run().map_err(|e| one(Diag::new(e.to_string())))?;
    }
    Ok(session)
}

fn describe(
    d: &Descriptor,
    dims: &[i64],
    outputs: &[Tensor],
    session: &Session<'_>,
    times: &mut [Duration],
    pool: Option<&ThreadPool>,
) -> String {
    let mut text = String::new();
    if !dims.is_empty() {
        let dims: Vec<_> = d.symbols.iter().zip(dims).map(|(s, v)| format!("{} = {v}", s.name)).collect();
        text += &format!("dims: {}\n", dims.join(", "));
    }
    for (p, t) in d.outputs.iter().zip(outputs) {
        text += &format!("{}: {} {:?}{}\n", p.name, t.dtype(), t.shape(), statistics(t));
    }
    times.sort_unstable();
    let (min, median) = (times[0], times[times.len() / 2]);
    let threads = pool.map_or(1, |p| p.parallel().max_workers);
    let plural = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    text += &format!(
        "{} on {}: min {}, median {}; workspace {} bytes\n",
        plural(times.len(), "run"),
        plural(threads as usize, "thread"),
        time(min),
        time(median),
        session.workspace_bytes()
    );
    text
}

fn statistics(t: &Tensor) -> String {
    if t.is_empty() {
        return " (empty)".into();
    }
    let v = t.to_f64_vec();
    let finite: Vec<f64> = v.iter().copied().filter(|x| x.is_finite()).collect();
    let strange = v.len() - finite.len();
    let strange = if strange > 0 { format!(", {strange} not finite") } else { String::new() };
    if finite.is_empty() {
        return strange;
    }
    let (min, max) = finite.iter().fold((f64::MAX, f64::MIN), |(a, b), &x| (a.min(x), b.max(x)));
    let n = finite.len() as f64;
    let mean = finite.iter().sum::<f64>() / n;
    let deviation = (finite.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
    format!(" min {min:.6} max {max:.6} mean {mean:.6} std {deviation:.6}{strange}")
}

pub(crate) fn read_inputs(path: &Path) -> Result<BTreeMap<String, Tensor>, Diag> {
    let fail = |e: &dyn std::fmt::Display| Diag::new(format!("can't read '{}': {e}", path.display()));
    let file = File::open(path).map_err(|e| fail(&e))?;
    npz::read(BufReader::new(file)).map_err(|e| fail(&e))
}

/// Values of the symbols from the arrays' shapes.
///
/// # Errors
/// Missing or extra arrays, wrong types or ranks, dims that contradict each other or are out of range: all at once.
pub fn unify(d: &Descriptor, arrays: &BTreeMap<String, Tensor>) -> Result<Vec<i64>, Vec<Diag>> {
    let mut errors = Vec::new();
    let expected = || {
        let list: Vec<_> = d.inputs.iter().map(|p| format!("'{}' ({} {})", p.name, p.dtype, d.shape(p))).collect();
        format!("the model's inputs are {}", list.join(", "))
    };
    for name in arrays.keys().filter(|n| d.inputs.iter().all(|p| p.name != **n)) {
        errors.push(Diag::new(format!("the model has no input '{name}'")).note(expected()));
    }
    // Which input gave a symbol its value, for the message when another disagrees.
    let mut values: Vec<Option<(i64, &str)>> = vec![None; d.symbols.len()];
    for p in &d.inputs {
        let Some(t) = arrays.get(&p.name) else {
            errors.push(Diag::new(format!("input '{}' is missing", p.name)).note(expected()));
            continue;
        };
        check_input(d, p, t, &mut values, &mut errors);
    }
    let mut dims = Vec::new();
    for (s, v) in d.symbols.iter().zip(values) {
        match v {
            Some((v, _)) => dims.push(v),
            None if s.min == s.max => dims.push(s.min),
            // Errors above already say which input is missing.
            None if !errors.is_empty() => {}
            None => errors.push(Diag::new(format!("no input has the dim '{}'", s.name))),
        }
    }
    if errors.is_empty() { Ok(dims) } else { Err(errors) }
}

/// The array as the port's type: NumPy has no bfloat16, so its bits come as u16.
pub(crate) fn typed(p: &PortInfo, t: &Tensor) -> Tensor {
    let bits = p.dtype == DType::BF16 && t.dtype() == DType::U16;
    let cast = bits.then(|| Tensor::new(p.dtype, t.shape().to_vec(), t.bytes().clone())).flatten();
    cast.unwrap_or_else(|| t.clone())
}

fn check_input<'a>(
    d: &Descriptor,
    p: &'a PortInfo,
    t: &Tensor,
    values: &mut [Option<(i64, &'a str)>],
    errors: &mut Vec<Diag>,
) {
    let mut wrong = |what: String| errors.push(Diag::new(format!("input '{}': {what}", p.name)));
    if typed(p, t).dtype() != p.dtype {
        wrong(format!("elements are {}, expected {}", t.dtype(), p.dtype));
    }
    if t.shape().len() != p.dims.len() {
        wrong(format!("shape {:?} has {} dims, expected {}", t.shape(), t.shape().len(), d.shape(p)));
        return;
    }
    for (i, (&have, &want)) in t.shape().iter().zip(&p.dims).enumerate() {
        let have = have as i64;
        match want {
            Extent::Const(c) if c != have => wrong(format!("dim {i} is {have}, expected {c}")),
            Extent::Symbol(s) => {
                let symbol = &d.symbols[s];
                match values[s] {
                    Some((v, by)) if v != have => {
                        wrong(format!("dim {i} is {have}, but '{}' is {v} in input '{by}'", symbol.name));
                    }
                    Some(_) => {}
                    None if !(symbol.min..=symbol.max).contains(&have) => {
                        let (name, min, max) = (&symbol.name, symbol.min, symbol.max);
                        wrong(format!("dim {i} is {have}, but '{name}' must be in {min}..={max}"));
                        values[s] = Some((have, &p.name));
                    }
                    None => values[s] = Some((have, &p.name)),
                }
            }
            _ => {}
        }
    }
}

/// A batch of 1 and a length of 128, as far as the ranges allow.
pub fn plausible_dims(d: &Descriptor) -> Vec<i64> {
    let leads = |s: usize| d.inputs.iter().any(|p| p.dims.len() > 1 && p.dims[0] == Extent::Symbol(s));
    let dims = d.symbols.iter().enumerate().map(|(i, s)| {
        let wanted = if leads(i) { 1 } else { 128 };
        wanted.clamp(s.min, s.max.max(s.min))
    });
    dims.collect()
}

/// Inputs that a text encoder accepts: small token ids, full masks, one segment, counted positions.
///
/// # Errors
/// An input whose shape isn't given by the dims.
pub fn plausible_inputs(d: &Descriptor, dims: &[i64], ids: i128) -> Result<Vec<Tensor>, Vec<Diag>> {
    let mut seed = 1u64;
    let mut random = move || {
        // SplitMix64: the same inputs on every run and machine.
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let make = |p: &PortInfo| {
        let shape = d
            .input_shape(p, dims)
            .ok_or_else(|| vec![Diag::new(format!("input '{}' has a computed shape", p.name))])?;
        let n = shape.iter().try_fold(1usize, |a, &b| a.checked_mul(b)).filter(|n| n.checked_mul(8).is_some());
        let n = n.ok_or_else(|| vec![Diag::new(format!("input '{}' is too large", p.name))])?;
        let name = p.name.to_ascii_lowercase();
        let row = shape.last().copied().unwrap_or(1).max(1);
        let elems: Vec<Scalar> = (0..n)
            .map(|i| match p.dtype {
                _ if name.contains("mask") => Scalar::Int(1),
                t if t.is_float() => Scalar::Float((random() >> 11) as f64 / (1u64 << 52) as f64 - 1.0),
                _ if name.contains("type") || name.contains("segment") => Scalar::Int(0),
                _ if name.contains("position") => Scalar::Int((i % row) as i128),
                DType::Bool => Scalar::Int(1),
                _ => Scalar::Int(i128::from(random()) % ids.max(1)),
            })
            .collect();
        Ok(Tensor::from_scalars(p.dtype, shape, elems))
    };
    d.inputs.iter().map(make).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::SymbolInfo;

    fn descriptor() -> Descriptor {
        let symbol = |name: &str, max| SymbolInfo { name: name.into(), min: 1, max };
        let port = |name: &str, dtype, dims: &[Extent]| PortInfo { name: name.into(), dtype, dims: dims.to_vec() };
        let rows = [Extent::Symbol(0), Extent::Symbol(1)];
        Descriptor {
            name: "m".into(),
            hash: String::new(),
            symbols: vec![symbol("batch", 8), symbol("seq", 64)],
            inputs: vec![
                port("input_ids", DType::I64, &rows),
                port("attention_mask", DType::I64, &rows),
                port("x", DType::F32, &[Extent::Const(3)]),
            ],
            outputs: vec![],
        }
    }

    fn arrays(ids: &[usize], mask: &[usize], x: usize) -> BTreeMap<String, Tensor> {
        let ints = |s: &[usize]| Tensor::from_i64(s.to_vec(), &vec![1; s.iter().product()]);
        BTreeMap::from([
            ("input_ids".into(), ints(ids)),
            ("attention_mask".into(), ints(mask)),
            ("x".into(), Tensor::from_f32(vec![x], &vec![0.0; x])),
        ])
    }

    #[test]
    fn dims_come_from_shapes() {
        assert_eq!(unify(&descriptor(), &arrays(&[2, 7], &[2, 7], 3)).unwrap(), [2, 7]);
    }

    #[test]
    fn every_disagreement_is_told() {
        let mut a = arrays(&[2, 7], &[2, 8], 4);
        a.insert("extra".into(), Tensor::from_f32(vec![], &[0.0]));
        let text: Vec<_> = unify(&descriptor(), &a).unwrap_err().iter().map(|d| d.message.clone()).collect();
        assert_eq!(
            text,
            [
                "the model has no input 'extra'",
                "input 'attention_mask': dim 1 is 8, but 'seq' is 7 in input 'input_ids'",
                "input 'x': dim 0 is 4, expected 3",
            ]
        );
        let mut a = arrays(&[9, 65], &[9], 3);
        a.insert("x".into(), Tensor::from_i64(vec![3], &[0; 3]));
        let text: Vec<_> = unify(&descriptor(), &a).unwrap_err().iter().map(|d| d.message.clone()).collect();
        assert_eq!(
            text,
            [
                "input 'input_ids': dim 0 is 9, but 'batch' must be in 1..=8",
                "input 'input_ids': dim 1 is 65, but 'seq' must be in 1..=64",
                "input 'attention_mask': shape [9] has 1 dims, expected [batch, seq]",
                "input 'x': elements are i64, expected f32",
            ]
        );
        let e = unify(&descriptor(), &BTreeMap::new()).unwrap_err();
        assert_eq!(e.len(), 3);
        assert!(e[0].notes[0].contains("'input_ids' (i64 [batch, seq])"));
    }

    #[test]
    fn made_inputs_suit_their_names() {
        let d = descriptor();
        let dims = plausible_dims(&d);
        assert_eq!(dims, [1, 64]);
        let t = plausible_inputs(&d, &dims, 100).unwrap();
        assert!(t[0].to_i64_vec().iter().all(|i| (0..100).contains(i)));
        assert!(t[0].to_i64_vec().iter().any(|i| *i > 50));
        assert_eq!(t[1].to_i64_vec(), [1; 64]);
        assert!(t[2].to_f32_vec().iter().all(|x| x.abs() <= 1.0));
    }

    #[test]
    fn statistics_survive_anything() {
        assert_eq!(statistics(&Tensor::from_f32(vec![0], &[])), " (empty)");
        assert_eq!(statistics(&Tensor::from_f32(vec![1], &[f32::NAN])), ", 1 not finite");
        let s = statistics(&Tensor::from_f32(vec![3], &[1.0, 3.0, f32::INFINITY]));
        assert_eq!(s, " min 1.000000 max 3.000000 mean 2.000000 std 1.000000, 1 not finite");
    }
}
