//! `bertc-fuzz`: runs the fuzz targets and the corruption trials. `docs/fuzzing.md` tells how to use it.

// It speaks to people on the standard output.
#![allow(clippy::print_stdout)]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use bertc_fuzz::supervise::{self, Finding, Limits, Report, Until};
use bertc_fuzz::{TARGETS, Target};

const USAGE: &str = "usage:
  bertc-fuzz list
  bertc-fuzz run TARGET [--seconds CPU | --cases N] [--seed S] [--from N] [--out DIR]
  bertc-fuzz replay TARGET FILE...
  bertc-fuzz show TARGET FILE
  bertc-fuzz minimise TARGET FILE
  bertc-fuzz corrupt [--cases N] [--seed S] [--from N] [--structure] [--models A,B] [--out DIR]";

fn main() -> ExitCode {
    match dispatch(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(2),
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Whether there was no finding.
fn dispatch(args: &[String]) -> Result<bool, String> {
    let (job, rest) = args.split_first().ok_or(USAGE)?;
    let with_target = || {
        let (name, rest) = rest.split_first().ok_or(USAGE)?;
        let known: Vec<&str> = TARGETS.iter().map(|t| t.name).collect();
        let target = bertc_fuzz::find(name)
            .ok_or_else(|| format!("unknown target '{name}', expected one of {}", known.join(", ")))?;
        Ok::<_, String>((target, rest))
    };
    match job.as_str() {
        "list" => {
            TARGETS.iter().for_each(|t| println!("{:12} {}", t.name, t.doc));
            Ok(true)
        }
        "run" => {
            let (target, rest) = with_target()?;
            run(target, &Flags::parse(rest)?)
        }
        "replay" => {
            let (target, files) = with_target()?;
            replay(target, files)
        }
        "show" => {
            let (target, files) = with_target()?;
            let file = files.first().ok_or(USAGE)?;
            let data = std::fs::read(file).map_err(|e| format!("can't read '{file}': {e}"))?;
            match target.kind {
                bertc_fuzz::mutate::Kind::Choices => {
                    let generate = match target.name {
                        "int8" => bertc_fuzz::graph::generate_bytes,
                        _ => bertc_fuzz::graph::generate,
                    };
                    let (graph, dims) = generate(data.get(1..).unwrap_or_default());
                    println!("// dims: {dims:?}\n{}", bertc_fuzz::targets::text_of(&graph));
                }
                _ => println!("{}", String::from_utf8_lossy(&data)),
            }
            Ok(true)
        }
        "minimise" => {
            let (target, files) = with_target()?;
            minimise(target, Path::new(files.first().ok_or(USAGE)?))
        }
        "corrupt" => corrupt(&Flags::parse(rest)?),
        _ => Err(USAGE.to_string()),
    }
}

/// Flags of the jobs that run cases.
#[derive(Clone, Debug)]
struct Flags {
    seconds: Option<u64>,
    cases: Option<u64>,
    seed: u64,
    from: u64,
    out: Option<PathBuf>,
    structure: bool,
    models: Option<Vec<String>>,
    /// The parent's word that this is the child.
    child: bool,
}

impl Flags {
    fn parse(args: &[String]) -> Result<Flags, String> {
        let mut f = Flags {
            seconds: None,
            cases: None,
            seed: 1,
            from: 0,
            out: None,
            structure: false,
            models: None,
            child: false,
        };
        let mut args = args.iter();
        while let Some(a) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{a} needs a value\n{USAGE}"));
            let number = |v: &String| v.parse::<u64>().map_err(|_| format!("'{v}' is not a number"));
            match a.as_str() {
                "--seconds" => f.seconds = Some(number(value()?)?),
                "--cases" => f.cases = Some(number(value()?)?),
                "--seed" => f.seed = number(value()?)?,
                "--from" => f.from = number(value()?)?,
                "--out" => f.out = Some(value()?.into()),
                "--structure" => f.structure = true,
                "--models" => f.models = Some(value()?.split(',').map(str::to_string).collect()),
                "--child" => f.child = true,
                _ => return Err(format!("unexpected '{a}'\n{USAGE}")),
            }
        }
        Ok(f)
    }

    fn until(&self, cases: u64) -> Until {
        match (self.seconds, self.cases) {
            (Some(s), _) => Until::Cpu(Duration::from_secs(s)),
            (None, n) => Until::Cases(n.unwrap_or(cases)),
        }
    }
}

/// The same job in a child process, from case `from` on.
fn again(job: &[&str], f: &Flags, from: u64) -> Command {
    let exe = std::env::current_exe().unwrap_or_else(|_| "bertc-fuzz".into());
    let mut c = Command::new(exe);
    c.args(job).args(["--child", "--seed", &f.seed.to_string(), "--from", &from.to_string()]);
    c
}

fn run(target: &Target, f: &Flags) -> Result<bool, String> {
    let seeds = (target.seeds)();
    let limits = Limits::default();
    if f.child {
        let case = |i| (target.run)(&target.case(&seeds, f.seed, i));
        return supervise::child(f.from, u64::MAX, &limits, case).map(|()| true).map_err(|e| e.to_string());
    }
    let input = |i| Some(target.case(&seeds, f.seed, i));
    let all = seeds.len() as u64 + 10_000;
    watch(target.name, f, f.until(all), &limits, &mut |from| again(&["run", target.name], f, from), &input)
}

#[cfg(feature = "compiler")]
fn corrupt(f: &Flags) -> Result<bool, String> {
    use bertc_fuzz::corrupt::{MODELS, Trials};
    let names = f.models.clone().unwrap_or_else(|| MODELS.map(str::to_string).into());
    let mut trials = Trials::new(&names, f.seed, f.structure)?;
    let limits = Limits::default();
    if f.child {
        let done = supervise::child(f.from, u64::MAX, &limits, |i| trials.run(i));
        return done.map(|()| true).map_err(|e| e.to_string());
    }
    let models = names.join(",");
    let mut command = |from| {
        let mut c = again(&["corrupt", "--models", &models], f, from);
        if f.structure {
            c.arg("--structure");
        }
        c
    };
    let input = |i| Some(trials.bytes(&trials.trial(i)));
    watch("corrupt", f, f.until(10_000), &limits, &mut command, &input)
}

#[cfg(not(feature = "compiler"))]
fn corrupt(_: &Flags) -> Result<bool, String> {
    Err("built without the compiler".to_string())
}

/// Runs cases in children, shows and saves what they find.
fn watch(
    name: &str,
    f: &Flags,
    until: Until,
    limits: &Limits,
    command: &mut dyn FnMut(u64) -> Command,
    input: &dyn Fn(u64) -> Option<Vec<u8>>,
) -> Result<bool, String> {
    let start = Instant::now();
    let mut new = |found: &Finding| {
        println!("case {}: {}", found.index, found.message);
        if let (Some(dir), Some(data)) = (&f.out, input(found.index)) {
            let path = dir.join(format!("{name}-{}-{}", f.seed, found.index));
            if let Err(e) = std::fs::create_dir_all(dir).and_then(|()| std::fs::write(&path, data)) {
                eprintln!("can't write '{}': {e}", path.display());
            }
        }
    };
    let line = |r: &Report| {
        let outcomes: Vec<String> = r.outcomes.iter().map(|(k, n)| format!("{n} {k}")).collect();
        format!(
            "{name}: {} cases, {:.0} s of CPU, {} findings; {}",
            r.cases,
            r.cpu.as_secs_f64(),
            r.findings.len(),
            outcomes.join(", ")
        )
    };
    let r = supervise::supervise(f.from, until, limits, command, &mut new, &mut |r| println!("{}", line(r)))?;
    println!("{} (seed {}, {:.0} s by the clock)", line(&r), f.seed, start.elapsed().as_secs_f64());
    for found in &r.findings {
        println!("  {} cases, first {}: {}", found.cases, found.index, found.message.lines().next().unwrap_or(""));
    }
    Ok(r.findings.is_empty())
}

fn replay(target: &Target, files: &[String]) -> Result<bool, String> {
    let mut clean = true;
    for file in files {
        let data = std::fs::read(file).map_err(|e| format!("can't read '{file}': {e}"))?;
        match supervise::caught(|| (target.run)(&data)) {
            Ok(outcome) => println!("{file}: {outcome}"),
            Err(m) => {
                println!("{file}: {m}");
                clean = false;
            }
        }
    }
    Ok(clean)
}

/// Removes pieces of an input as long as it fails in the same way, and writes what is left to `FILE.min`. For
/// findings that leave the process alive.
fn minimise(target: &Target, file: &Path) -> Result<bool, String> {
    let mut data = std::fs::read(file).map_err(|e| format!("can't read '{}': {e}", file.display()))?;
    let cause = |data: &[u8]| {
        let m = supervise::caught(|| (target.run)(data)).err()?;
        Some(m.chars().filter(|c| !c.is_ascii_digit()).take(60).collect::<String>())
    };
    let wanted = cause(&data).ok_or("the input doesn't fail")?;
    let mut piece = data.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        let before = data.len();
        while at < data.len() {
            let mut less = data.clone();
            less.drain(at..(at + piece).min(data.len()));
            if cause(&less).as_ref() == Some(&wanted) {
                data = less;
            } else {
                at += piece;
            }
        }
        if piece == 1 && data.len() == before {
            break;
        }
        piece = (piece / 2).max(1);
    }
    let out = file.with_extension("min");
    std::fs::write(&out, &data).map_err(|e| format!("can't write '{}': {e}", out.display()))?;
    println!("{}: {} bytes", out.display(), data.len());
    Ok(true)
}
