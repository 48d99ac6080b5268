//! The machines that compiled code runs on: this one, older ones and AArch64 under qemu, and Windows under wine. Links a
//! model with the C driver and runs it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::golden::Case;

/// A machine that tests run compiled code on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Machine {
    /// This x86-64 machine.
    X86_64,
    /// An x86-64 CPU by qemu-user's name, which has its instructions only.
    Older(&'static str),
    /// AArch64 Linux under qemu-user.
    Aarch64,
    /// x86-64 Windows under wine.
    Windows,
}

fn on_path(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|p| p.join(program).is_file())
}

/// Debian keeps wine's 64-bit loader off the path.
fn wine() -> Option<PathBuf> {
    let debian = Path::new("/usr/lib/wine/wine64");
    if on_path("wine64") { Some("wine64".into()) } else { debian.is_file().then(|| debian.to_path_buf()) }
}

impl Machine {
    /// Name in test names, and the compiler's `--target`.
    pub fn name(self) -> &'static str {
        match self {
            Machine::X86_64 | Machine::Older(_) => "x86_64",
            Machine::Aarch64 => "aarch64",
            Machine::Windows => "x86_64-windows-gnu",
        }
    }

    /// What is missing here to link and run code of this machine.
    pub fn missing(self) -> Option<&'static str> {
        match self {
            Machine::X86_64 if !cfg!(target_arch = "x86_64") => Some("an x86-64 host"),
            Machine::X86_64 => (!on_path("cc")).then_some("cc"),
            Machine::Older(_) => Machine::X86_64.missing().or((!on_path("qemu-x86_64")).then_some("qemu-x86_64")),
            Machine::Aarch64 if !on_path("aarch64-linux-gnu-gcc") => Some("aarch64-linux-gnu-gcc"),
            Machine::Aarch64 => (!on_path("qemu-aarch64")).then_some("qemu-aarch64"),
            Machine::Windows if !on_path("x86_64-w64-mingw32-gcc") => Some("x86_64-w64-mingw32-gcc"),
            Machine::Windows => wine().is_none().then_some("wine64"),
        }
    }

    fn cc(self) -> &'static str {
        match self {
            Machine::X86_64 | Machine::Older(_) => "cc",
            Machine::Aarch64 => "aarch64-linux-gnu-gcc",
            Machine::Windows => "x86_64-w64-mingw32-gcc",
        }
    }

    /// The runtime stub for this machine in a file of `dir`, or the driver's own threads where this compiler carries no
    /// stub for it and the folder `BERTC_TEST_RT` holds none.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn stub(self, dir: &Path) -> Result<PathBuf, String> {
        let target = bertc_backends::target::Target::parse(self.name(), "generic").map_err(|e| e.to_string())?;
        let given = std::env::var_os("BERTC_TEST_RT").map(PathBuf::from);
        let given = given.map(|d| d.join(format!("libbertc_rt-{}.a", target.triple))).filter(|f| f.is_file());
        let Ok(stub) = bertc::stub::find(&target.triple, given.as_deref()) else {
            return Ok(Path::new(env!("CARGO_MANIFEST_DIR")).join("harness/threads.c"));
        };
        let file = dir.join("libbertc_rt.a");
        std::fs::write(&file, &stub.bytes).map_err(|e| e.to_string())?;
        Ok(file)
    }

    /// Links the C driver with a model's object and the runtime stub's archive, or a C file in its place.
    ///
    /// # Errors
    /// The compiler's messages.
    pub fn link(self, object: &Path, model: &str, stub: &Path, out: &Path) -> Result<(), String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut cmd = Command::new(self.cc());
        cmd.args(["-O1", "-std=gnu99", "-Wall", "-Werror", "-pthread"])
            .arg(format!("-DMODEL={model}"))
            .arg(format!("-I{}", root.join("../runtime-stub/include").display()))
            .arg(root.join("harness/drive.c"))
            .args([object, stub])
            .arg("-o")
            .arg(out);
        if self == Machine::Windows {
            // The thread library of mingw is no part of Windows.
            cmd.arg("-static");
        }
        run(&mut cmd).map(|_| ())
    }

    /// Runs a linked driver.
    ///
    /// # Errors
    /// What it printed, with its exit code.
    pub fn run(self, program: &Path, args: &[OsString]) -> Result<(), String> {
        let mut cmd = match self {
            Machine::X86_64 => Command::new(program),
            Machine::Older(cpu) => {
                let mut c = Command::new("qemu-x86_64");
                c.args(["-cpu", cpu]).arg(program);
                c
            }
            Machine::Aarch64 => {
                let mut c = Command::new("qemu-aarch64");
                // One glibc for loader and library, even where arm64 packages are installed too.
                c.args(["-L", "/usr/aarch64-linux-gnu", "-E", "LD_LIBRARY_PATH=/usr/aarch64-linux-gnu/lib"]);
                c.arg(program);
                c
            }
            Machine::Windows => {
                let mut c = Command::new(wine().ok_or("no wine64")?);
                c.env("WINEDEBUG", "-all").arg(program);
                c
            }
        };
        run(cmd.args(args)).map(|_| ())
    }
}

fn run(cmd: &mut Command) -> Result<Vec<u8>, String> {
    let out = cmd.output().map_err(|e| format!("{cmd:?}: {e}"))?;
    if out.status.success() {
        return Ok(out.stdout);
    }
    Err(format!("{cmd:?}: {}\n{}", out.status, String::from_utf8_lossy(&out.stderr)))
}

/// The driver's case file: dims in the order of `symbols`, inputs in the order of `inputs`.
pub fn case_bytes(case: &Case, dims: &[i64], inputs: &[String]) -> Result<Vec<u8>, String> {
    let mut bytes: Vec<u8> = dims.iter().flat_map(|d| d.to_le_bytes()).collect();
    for name in inputs {
        let a = case.inputs.get(name).ok_or_else(|| format!("the case has no input '{name}'"))?;
        bytes.extend(a.iter().flat_map(|v| v.to_le_bytes()));
    }
    Ok(bytes)
}

/// Shape and bytes of an output.
pub type Output = (Vec<i64>, Vec<u8>);

/// The outputs in a driver's result file: shape and bytes of each, for the given element sizes.
pub fn read_outputs(path: &Path, sizes: &[usize]) -> Result<Vec<Output>, String> {
    let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
    let mut rest = bytes.as_slice();
    let mut take = |n: usize| -> Result<Vec<u8>, String> {
        let (a, b) = rest.split_at_checked(n).ok_or("the driver's result is too short")?;
        rest = b;
        Ok(a.to_vec())
    };
    let mut out = Vec::new();
    for size in sizes {
        let mut int = || take(8).map(|b| i64::from_le_bytes(b.try_into().unwrap_or([0; 8])));
        let rank = int()?;
        let shape = (0..rank).map(|_| int()).collect::<Result<Vec<i64>, _>>()?;
        let n: i64 = shape.iter().product();
        out.push((shape, take(n as usize * size)?));
    }
    Ok(out)
}
