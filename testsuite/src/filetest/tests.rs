//! The runner itself: what must fail fails, with a message that says why.

use super::*;

const BODY: &str = "func @f(%x: tensor<f32>) -> tensor<f32> {\n  %0 = neg %x\n  return %0\n}\n";

fn run_text(text: &str) -> Result<(), String> {
    subtest::run(&FileTest::parse(text, Kind::Tir)?)
}

fn outcome(header: &str, footer: &str) -> Result<(), String> {
    run_text(&format!("{header}\n{BODY}{footer}\n"))
}

fn fails(header: &str, footer: &str, with: &str) {
    let e = outcome(header, footer).unwrap_err();
    assert!(e.contains(with), "expected '{with}' in: {e}");
}

#[test]
fn a_test_can_fail() {
    assert_eq!(outcome("//! parse", "// check: neg %x"), Ok(()));
    assert_eq!(outcome("//! parse", "// check: neg %x\n// not: abs"), Ok(()));
    fails("//! parse", "// check: abs %x", "does not match");
    fails("//! parse", "// check: neg\n// not: return", "does not match");
    fails("//! parse", "", "nothing checks the output of 'parse'");
    fails("//! parse", "// not: abs", "nothing to check");
    fails("//! parse", "// chekc: neg", "unknown directive 'chekc'");
    fails("//! parse", "// run: 1", "unknown directive 'run'");
    fails("//! parse", "// check:", "no pattern");
    fails("", "// check: neg", "no command");
    fails("//! frobnicate", "// check: neg", "unknown command 'frobnicate'");
    fails("//! parse --fast", "// check: neg", "takes no options");
    fails("//! parse", "// expected-error: bad", "stands behind the line");
    fails("//! parse", "// reject: bad", "stands behind the line");
    fails("//! opt --passes nonsense", "// check: neg", "unknown pass 'nonsense'");
    fails("//! parse", "// check: unchanged", "is about 'opt'");
    fails("//! run tol=1", "// check: neg", "no command prints");
    fails("//! run tol=1", "", "'run' compares with what 'opt' or 'lower' made");
    fails("//! import", "// check: neg", "'import' is for .onnxtxt files");
    fails("//! interp", "", "'interp' is for .kir files");
    fails("//! lower --cpu z80", "// check: neg", "z80");
    fails("//! lower --fast", "// check: neg", "unknown option '--fast'");
    fails("//! opt --passes dce\n//! run compiled tol=1 cpu=z80", "// check: neg", "z80");
    fails("//! opt --passes dce\n//! run compiled speed=1 tol=1", "// check: neg", "bad option 'speed=1'");
}

#[test]
fn errors_are_matched_by_line() {
    let bad = |note: &str| format!("//! parse\nfunc @f() -> () {{\n  %0 = nag %x{note}\n  return\n}}\n");
    assert_eq!(run_text(&bad(" // expected-error: '%x' is not defined")), Ok(()));
    let two = "//! parse\nfunc @f() -> () {\n  %0 = ; neg %x // expected-error: character // expected-error: op, got\n  \
               return\n}\n";
    assert!(run_text(two).unwrap_err().contains("lacks the error 'op, got'"));
    assert_eq!(run_text(&two.replace("op, got", "'%x' is not defined")), Ok(()));
    assert!(run_text(&bad(" // expected-error: something else")).unwrap_err().contains("lacks the error"));
    assert!(run_text(&(bad("") + "// check: neg")).unwrap_err().contains("unexpected error in line 3"));
    let none = format!("//! parse\n{}", BODY.replace("neg %x", "neg %x // expected-error: bad"));
    assert!(run_text(&none).unwrap_err().contains("line 3 lacks the error 'bad'"));
}

#[test]
fn remarks_are_matched_by_line() {
    let twice = |at_linear: &str, at_relu: &str| {
        format!(
            "//! opt --passes fuse-linear\n\
             func @f(%x: tensor<2 x 2 x f32>) -> (a: tensor<2 x 2 x f32>, b: tensor<2 x 2 x f32>) {{\n\
             \x20 %0 = linear %x, %x{at_linear}\n  %1 = relu %0{at_relu}\n  return %0, %1\n}}\n"
        )
    };
    assert_eq!(run_text(&twice(" // reject: other uses", "")), Ok(()));
    let e = run_text(&twice("", " // reject: other uses")).unwrap_err();
    assert!(e.contains("line 4 lacks the remark 'other uses'") && e.contains("remarked in line 3"), "{e}");
    assert!(run_text(&twice(" // reject: no such reason", "")).unwrap_err().contains("lacks the remark"));
}

#[test]
fn exact_blocks_are_compared_and_blessed() {
    let text = format!("//! parse\n{BODY}//> old\n//>\n// The end.\n");
    let e = run_text(&text).unwrap_err();
    assert!(e.contains("BLESS=1") && e.contains("-old\n") && e.contains("+  %0 = neg %x : tensor<f32>\n"), "{e}");
    let test = FileTest { bless: true, ..FileTest::parse(&text, Kind::Tir).unwrap() };
    assert_eq!(subtest::run(&test), Ok(()));
    let new = test.blessed_source().unwrap();
    assert!(
        new.starts_with(&format!("//! parse\n{BODY}//> func @f")) && new.ends_with("//> }\n// The end.\n"),
        "{new}"
    );
    assert_eq!(run_text(&new), Ok(()));
    let again = FileTest { bless: true, ..FileTest::parse(&new, Kind::Tir).unwrap() };
    assert_eq!(subtest::run(&again), Ok(()));
    assert_eq!(again.blessed_source(), None);
    let split = format!("//! parse\n{BODY}//> a\n\n//> b\n");
    assert!(run_text(&split).unwrap_err().contains("not in one block"));
}

#[test]
fn kernels_run_as_their_lines_say() {
    let run = |line: &str| {
        let text = format!(
            "//! interp\n// run: {line}\nkernel @f(%x: ptr<f32>, %y: mut ptr<f32>) task %t {{\n  \
             %a = load %x[%t] : f32\n  %b = neg %a : f32\n  store %y[%t], %b\n}}\n"
        );
        subtest::run(&FileTest::parse(&text, Kind::Kir)?)
    };
    assert_eq!(run("[1.5, 2], [0] => _, [-1.5]"), Ok(()));
    assert_eq!(run("[], [0] => error: which has 0 elements"), Ok(()));
    assert!(run("[1, 2], [0] => _, [1]").unwrap_err().contains("buffer 1 is [-1.0], expected [1.0]"));
    assert!(run("[1, 2], [0] => _, [-1] fails").unwrap_err().contains("error flag"));
    assert!(run("[1, 2], [0] => error: outside").unwrap_err().contains("no error"));
    assert!(run("[1, 2] => _").unwrap_err().contains("2 parameters"));
    assert!(run("[1, 2], [0]").unwrap_err().contains("'=>'"));
    assert!(run("[x], [0] => _").unwrap_err().contains("'x' is not a number"));
    let none = "//! interp\nkernel @f(%x: ptr<f32>) task %t {\n}\n";
    assert!(subtest::run(&FileTest::parse(none, Kind::Kir).unwrap()).unwrap_err().contains("no 'run:' line"));
}

#[test]
fn models_are_imported() {
    let run = |attribute: &str, footer: &str| {
        let text = format!(
            "#! import\n<ir_version: 8, opset_import: [\"\" : 17]>\n\
             f (float[N, 3] x) => (y)\n{{\n  y = Softmax <axis = {attribute}> (x){footer}\n}}\n"
        );
        subtest::run(&FileTest::parse(&text, Kind::Onnx)?)
    };
    assert_eq!(run("1", "\n# check: softmax %x {axis = 1}"), Ok(()));
    assert_eq!(run("2", " # expected-error: axis 2 is out of range"), Ok(()));
    assert!(run("1", " # expected-error: axis 2").unwrap_err().contains("line 5 lacks the error"));
    assert!(run("[", "\n# check: y").unwrap_err().contains("line 5"));
}
