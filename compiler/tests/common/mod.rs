//! What the tests of the command line share. Each test uses a part of it.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A small model of the repository.
pub fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testsuite/models/zoo/bert-eager.onnx")
}

/// A folder of its own for each test.
pub struct Sandbox(tempfile::TempDir);

impl Sandbox {
    /// A folder with a model in it, `m.onnx`.
    pub fn new() -> Sandbox {
        let dir = tempfile::tempdir().unwrap();
        std::fs::copy(model(), dir.path().join("m.onnx")).unwrap();
        Sandbox(dir)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn command(&self, args: &str) -> Command {
        let mut c = Command::new(env!("CARGO_BIN_EXE_bertc"));
        c.current_dir(self.0.path()).args(args.split_whitespace());
        c.env_remove("BERTC_RT").env_remove("CC").stdin(Stdio::null());
        c
    }

    pub fn run(&self, args: &str) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs successfully and silently; returns standard output.
    pub fn ok(&self, args: &str) -> Vec<u8> {
        let o = self.run(args);
        let err = String::from_utf8_lossy(&o.stderr);
        assert!(o.status.success(), "bertc {args}: {err}");
        assert_eq!(err, "", "bertc {args} is silent in pipes");
        o.stdout
    }

    /// Standard output and standard error of a run that exits with `code`.
    pub fn exits(&self, code: i32, args: &str) -> (String, String) {
        let o = self.run(args);
        let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
        let (out, err) = (text(&o.stdout), text(&o.stderr));
        assert_eq!(o.status.code(), Some(code), "bertc {args}: {out}{err}");
        (out, err)
    }

    /// Fails with `code` and every one of `messages`, and without output.
    pub fn fails(&self, code: i32, args: &str, messages: &[&str]) {
        let before = self.files();
        let (out, err) = self.exits(code, args);
        assert!(out.is_empty(), "bertc {args} printed");
        for m in messages {
            assert!(err.contains(m), "bertc {args}: expected {m:?} in\n{err}");
        }
        assert!(!err.contains("panicked"), "{err}");
        assert_eq!(before, self.files(), "bertc {args} left files behind");
    }

    pub fn files(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.0.path()).unwrap().map(|f| f.unwrap().file_name());
        let mut names: Vec<_> = names.map(|n| n.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}
