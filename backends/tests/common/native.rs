//! Links compiled kernels with `driver.c`, runs them in a process of their own and hands back what is in the buffers.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use object::{Object, ObjectSymbol};

/// What is passed for a kernel's parameter.
#[derive(Clone)]
pub enum Arg {
    Int(i64),
    Buffer(Vec<u8>),
}

/// The buffers after a run, in the order of the parameters, and the error flag.
pub struct Outcome {
    pub flag: i32,
    pub buffers: Vec<Vec<u8>>,
}

/// Names that the object expects from elsewhere.
pub fn undefined(bytes: &[u8]) -> Vec<String> {
    let file = object::File::parse(bytes).unwrap();
    file.symbols().filter(|s| s.is_undefined()).map(|s| s.name().unwrap_or("?").to_string()).collect::<Vec<_>>()
}

/// What a kernel is called with.
pub struct Call<'a> {
    pub args: &'a [Arg],
    pub tasks: u64,
}

fn input(calls: &[Call<'_>]) -> Vec<u8> {
    let mut v = (calls.len() as u64).to_le_bytes().to_vec();
    for c in calls {
        v.extend(c.tasks.to_le_bytes());
        v.extend((c.args.len() as u64).to_le_bytes());
        for a in c.args {
            match a {
                Arg::Int(i) => v.extend([0u64.to_le_bytes(), i.to_le_bytes()].concat()),
                Arg::Buffer(b) => {
                    v.extend([1u64.to_le_bytes(), (b.len() as u64).to_le_bytes()].concat());
                    v.extend(b);
                }
            }
        }
    }
    v
}

fn link(dir: &Path, cc: &str, object: &[u8], count: usize) {
    let mut table =
        String::from("#include <stdint.h>\ntypedef void (*kernel_fn)(const uint64_t *, uint64_t, uint32_t);\n");
    let names: Vec<String> = (0..count).map(|i| format!("k{i}")).collect();
    for n in &names {
        writeln!(table, "void {n}(const uint64_t *, uint64_t, uint32_t);").unwrap();
    }
    writeln!(table, "const kernel_fn kernels[] = {{{}}};", names.join(", ")).unwrap();
    std::fs::write(dir.join("table.c"), table).unwrap();
    std::fs::write(dir.join("driver.c"), include_str!("driver.c")).unwrap();
    std::fs::write(dir.join("kernels.o"), object).unwrap();
    let args = ["-O1", "-Wall", "-Wextra", "-Werror", "-Wl,-z,noexecstack", "-o", "run"];
    let out = Command::new(cc).current_dir(dir).args(args).args(["driver.c", "table.c", "kernels.o"]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

fn execute(dir: &Path, emulator: Option<&str>, input: Vec<u8>) -> Vec<u8> {
    let exe = dir.join("run");
    let mut command = match emulator {
        Some(e) => {
            let mut c = Command::new(e);
            c.args(["-L", "/usr/aarch64-linux-gnu"]).arg(&exe);
            c
        }
        None => Command::new(&exe),
    };
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().expect("a piped input");
    // From another thread: the child writes results while it still reads. A child that dies shows in its status.
    let writer = std::thread::spawn(move || stdin.write_all(&input).is_ok());
    let out = child.wait_with_output().unwrap();
    let written = writer.join().unwrap();
    assert!(out.status.success() && written, "{}: {}", out.status, String::from_utf8_lossy(&out.stderr));
    out.stdout
}

/// Calls the kernels `k0`, `k1`, … of an object, each as `calls` says.
pub fn run(object: &[u8], calls: &[Call<'_>], cc: &str, emulator: Option<&str>) -> Vec<Outcome> {
    let dir = tempfile::tempdir().unwrap();
    link(dir.path(), cc, object, calls.len());
    let out = execute(dir.path(), emulator, input(calls));
    let mut rest = &out[..];
    let mut take = |n: usize| {
        let (a, b) = rest.split_at(n);
        rest = b;
        a.to_vec()
    };
    calls
        .iter()
        .map(|c| {
            let flag = i32::from_le_bytes(take(4).try_into().expect("four bytes"));
            let sizes = c.args.iter().filter_map(|a| if let Arg::Buffer(b) = a { Some(b.len()) } else { None });
            Outcome { flag, buffers: sizes.map(&mut take).collect() }
        })
        .collect()
}
