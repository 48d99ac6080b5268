//! `bertc opt` and the flags that show passes at work, as their users meet them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const TEXT: &str = "func @f(%x: tensor<4 x f32>) -> (y: tensor<4 x f32>) {
  %0 = neg %x
  %1 = neg %0
  %2 = exp %1
  return %2
}
";

struct Sandbox(tempfile::TempDir);

impl Sandbox {
    /// A folder with a model and a text, `m.onnx` and `f.tir`.
    fn new() -> Sandbox {
        let dir = tempfile::tempdir().unwrap();
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testsuite/models/zoo/bert-eager.onnx");
        std::fs::copy(model, dir.path().join("m.onnx")).unwrap();
        std::fs::write(dir.path().join("f.tir"), TEXT).unwrap();
        Sandbox(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, args: &str) -> Output {
        let mut c = Command::new(env!("CARGO_BIN_EXE_bertc"));
        c.current_dir(self.0.path()).args(args.split_whitespace()).stdin(Stdio::null()).output().unwrap()
    }

    /// Standard output and standard error of a success.
    fn ok(&self, args: &str) -> (String, String) {
        let o = self.run(args);
        let text = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
        let (out, err) = (text(&o.stdout), text(&o.stderr));
        assert!(o.status.success(), "bertc {args}: {err}");
        (out, err)
    }

    fn fails(&self, code: i32, args: &str, messages: &[&str]) {
        let o = self.run(args);
        let err = String::from_utf8_lossy(&o.stderr);
        assert_eq!(o.status.code(), Some(code), "bertc {args}: {err}");
        assert!(o.stdout.is_empty(), "bertc {args} printed");
        for m in messages {
            assert!(err.contains(m), "bertc {args}: expected {m:?} in\n{err}");
        }
    }
}

#[test]
fn text_goes_through_the_passes_that_are_named() {
    let s = Sandbox::new();
    let (out, err) = s.ok("opt f.tir --passes canonicalise,dce");
    assert!(!out.contains("neg") && out.contains("exp %x") && err.is_empty(), "{out}{err}");
    let (same, _) = s.ok("opt f.tir --passes canonicalise{max-iterations=0}");
    assert_eq!(same.matches("neg").count(), 2, "{same}");
    s.ok("opt f.tir --passes canonicalise,dce -o g.tir");
    assert_eq!(std::fs::read_to_string(s.path("g.tir")).unwrap(), out);
    assert_eq!(s.ok("opt g.tir --stop-after import").0, out, "what is printed can be read");
    s.fails(1, "opt f.tir -o f.tir", &["the output 'f.tir' is the input"]);
}

#[test]
fn mistakes_in_the_text_of_a_pipeline_are_shown() {
    let s = Sandbox::new();
    s.fails(
        1,
        "opt f.tir --passes dce,fuse-gel",
        &["unknown pass 'fuse-gel'", "did you mean 'fuse-gelu'?", "    ^^^^^^^^"],
    );
    s.fails(1, "opt f.tir --passes dce{x=1},cse{y=1}", &["'dce' has no options", "'cse' has no options"]);
    s.fails(1, "opt f.tir --passes canonicalise{max=1}", &["options of 'canonicalise': max-iterations"]);
    s.fails(1, "m.onnx -o m.o --passes nope", &["unknown pass 'nope'", "known passes: canonicalise"]);
    s.fails(
        1,
        "opt f.tir --print-ir-after fuse-qelu",
        &["--print-ir-after: unknown pass", "did you mean 'fuse-gelu'?"],
    );
    s.fails(1, "opt f.tir --passes dce --stop-after cse", &["'cse' is not among those that run"]);
    s.fails(1, "opt f.tir --stop-after imports", &["did you mean 'import'?"]);
    s.fails(2, "m.onnx --stop-after lower --emit asm", &["only tensor-ir, html and dot go"]);
    s.fails(2, "opt", &["FILE.tir"]);
}

#[test]
fn wrong_text_is_told_with_its_place() {
    let s = Sandbox::new();
    std::fs::write(s.path("bad.tir"), TEXT.replace("exp %1", "exp %7")).unwrap();
    s.fails(1, "opt bad.tir", &["%7", "bad.tir:4:12"]);
    s.fails(1, "opt none.tir", &["can't read 'none.tir'"]);
    s.fails(1, "opt f.tir --dim seq=3", &["--dim and --shape are for models"]);
    std::fs::write(s.path("noise.bin"), [0xff, 0xfe, 0, 1]).unwrap();
    s.fails(1, "opt noise.bin", &["not an ONNX model"]);
}

#[test]
fn passes_are_shown_at_work_on_standard_error() {
    let s = Sandbox::new();
    let (plain, _) = s.ok("opt m.onnx");
    let flags = "--print-ir-after-change --explain --pass-stats --timing --verify-each";
    let (out, err) = s.ok(&format!("opt m.onnx {flags}"));
    assert_eq!(out, plain, "the result is the same");
    for part in ["// ---- change by", "\n@@ ", "fuse-linear\n  applied: linear", "nodes before", "passes", "merge-qkv"]
    {
        assert!(err.contains(part), "{part:?} in\n{err}");
    }
    let (_, err) = s.ok("m.onnx -o m.o --print-ir-before fuse-gelu,cse --timing");
    assert!(err.contains("// ---- IR before fuse-gelu, run 1 ----") && err.contains("before cse, run 2"), "{err}");
    let phases: Vec<_> = err.lines().filter_map(|l| l.split_whitespace().next()).collect();
    for phase in ["import", "passes", "fuse-gelu", "lower", "emit"] {
        assert!(phases.contains(&phase), "{phase} in\n{err}");
    }
}

#[test]
fn the_main_command_stops_where_asked() {
    let s = Sandbox::new();
    let ops = |phase: &str, op: &str| s.ok(&format!("m.onnx --stop-after {phase}")).0.matches(op).count();
    assert!(ops("import", " = softmax ") > 0 && ops("import", " = attention ") == 0);
    assert!(ops("fuse-attention", " = attention ") > 0 && ops("fuse-attention", " = linear ") == 0);
    assert!(ops("passes", " = linear ") > 0);
    assert!(s.ok("m.onnx --stop-after lower").0.contains("kernel @"));
    assert!(s.ok("m.onnx --stop-after emit").0.contains("ret"));
    assert!(!s.path("m.o").exists());
}

#[test]
fn the_list_names_passes_and_options() {
    let (out, _) = Sandbox::new().ok("opt --list-passes");
    for part in ["fuse-attention", "{max-iterations=N}", "[default: 4194304]"] {
        assert!(out.contains(part), "{part} in\n{out}");
    }
}
