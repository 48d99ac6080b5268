//! `bertc opt` and the flags that show passes at work, as their users meet them.

mod common;

use common::Sandbox;

const TEXT: &str = "func @f(%x: tensor<4 x f32>) -> (y: tensor<4 x f32>) {
  %0 = neg %x
  %1 = neg %0
  %2 = exp %1
  return %2
}
";

/// A folder with a model and a text, `m.onnx` and `f.tir`.
fn sandbox() -> Sandbox {
    let s = Sandbox::new();
    std::fs::write(s.path("f.tir"), TEXT).unwrap();
    s
}

#[test]
fn text_goes_through_the_passes_that_are_named() {
    let s = sandbox();
    let (out, err) = s.exits(0, "opt f.tir --passes canonicalise,dce");
    assert!(!out.contains("neg") && out.contains("exp %x") && err.is_empty(), "{out}{err}");
    let (same, _) = s.exits(0, "opt f.tir --passes canonicalise{max-iterations=0}");
    assert_eq!(same.matches("neg").count(), 2, "{same}");
    s.exits(0, "opt f.tir --passes canonicalise,dce -o g.tir");
    assert_eq!(std::fs::read_to_string(s.path("g.tir")).unwrap(), out);
    assert_eq!(s.exits(0, "opt g.tir --stop-after import").0, out, "what is printed can be read");
    s.fails(1, "opt f.tir -o f.tir", &["the output 'f.tir' is the input"]);
}

#[test]
fn mistakes_in_the_text_of_a_pipeline_are_shown() {
    let s = sandbox();
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
    s.fails(2, "m.onnx --stop-after lower --emit asm", &["only tensor-ir, html, dot and onnx go"]);
    s.fails(2, "opt", &["FILE.tir"]);
}

#[test]
fn wrong_text_is_told_with_its_place() {
    let s = sandbox();
    std::fs::write(s.path("bad.tir"), TEXT.replace("exp %1", "exp %7")).unwrap();
    s.fails(1, "opt bad.tir", &["%7", "bad.tir:4:12"]);
    s.fails(1, "opt none.tir", &["can't read 'none.tir'"]);
    s.fails(1, "opt f.tir --dim seq=3", &["--dim and --shape are for models"]);
    std::fs::write(s.path("noise.bin"), [0xff, 0xfe, 0, 1]).unwrap();
    s.fails(1, "opt noise.bin", &["not an ONNX model"]);
}

#[test]
fn passes_are_shown_at_work_on_standard_error() {
    let s = sandbox();
    let (plain, _) = s.exits(0, "opt m.onnx");
    let flags = "--print-ir-after-change --explain --pass-stats --timing --verify-each";
    let (out, err) = s.exits(0, &format!("opt m.onnx {flags}"));
    assert_eq!(out, plain, "the result is the same");
    for part in ["// ---- change by", "\n@@ ", "fuse-linear\n  applied: linear", "nodes before", "passes", "merge-qkv"]
    {
        assert!(err.contains(part), "{part:?} in\n{err}");
    }
    let (_, err) = s.exits(0, "m.onnx -o m.o --print-ir-before fuse-gelu,cse --timing");
    assert!(err.contains("// ---- IR before fuse-gelu, run 1 ----") && err.contains("before cse, run 2"), "{err}");
    let phases: Vec<_> = err.lines().filter_map(|l| l.split_whitespace().next()).collect();
    for phase in ["import", "passes", "fuse-gelu", "lower", "emit"] {
        assert!(phases.contains(&phase), "{phase} in\n{err}");
    }
}

#[test]
fn the_main_command_stops_where_asked() {
    let s = sandbox();
    let ops = |phase: &str, op: &str| s.exits(0, &format!("m.onnx --stop-after {phase}")).0.matches(op).count();
    assert!(ops("import", " = softmax ") > 0 && ops("import", " = attention ") == 0);
    assert!(ops("fuse-attention", " = attention ") > 0 && ops("fuse-attention", " = linear ") == 0);
    assert!(ops("passes", " = linear ") > 0);
    assert!(s.exits(0, "m.onnx --stop-after lower").0.contains("kernel @"));
    assert!(s.exits(0, "m.onnx --stop-after emit").0.contains("ret"));
    assert!(!s.path("m.o").exists());
}

#[test]
fn the_list_names_passes_and_options() {
    let (out, _) = sandbox().exits(0, "opt --list-passes");
    for part in ["fuse-attention", "{max-iterations=N}", "[default: 4194304]"] {
        assert!(out.contains(part), "{part} in\n{out}");
    }
}
