//! `bertc tune` and `--tuning`, as their users meet them.

mod common;

use common::Sandbox;
use serde_json::{Value, json};

#[test]
fn a_model_is_tuned() {
    let s = Sandbox::new();
    let (out, _) = s.exits(0, "tune m.onnx -o t.json --rounds 1 --dim sequence=8 -q");
    assert!(out.contains("product") && out.contains("all steps:"), "{out}");
    let file: Value = serde_json::from_slice(&std::fs::read(s.path("t.json")).unwrap()).unwrap();
    assert_eq!(file["format"], "bertc tuning 1");
    s.exits(0, "m.onnx --cpu native --tuning t.json -o tuned.o");
    let (_, err) = s.exits(1, "tune m.onnx -o m.onnx");
    assert!(err.contains("is the input"), "{err}");
    let (_, err) = s.exits(1, "tune m.onnx -o nowhere/t.json");
    assert!(err.contains("no folder"), "{err}");
}

/// Another tile gives another kernel with the same results, bit by bit, on f32 and on bf16.
#[test]
fn results_do_not_depend_on_the_tuning() {
    let s = Sandbox::new();
    // The second tile takes whole tasks of one strip each.
    for (flags, kind, vectors, columns) in
        [("--emitter clif", "f32", 1, 16), ("", "f32", 1, 16), ("", "f32", 2, 32), ("--bf16", "bf16", 1, 16)]
    {
        let (text, _) = s.exits(0, &format!("m.onnx {flags} --cpu native --emit kernel-ir"));
        let mut products = Vec::new();
        // Whatever sizes the model has: a choice for a product that isn't there does nothing.
        for (k, n) in
            [16i64, 32, 64, 96, 128].into_iter().flat_map(|k| [16i64, 32, 48, 64, 96, 128, 192].map(|n| (k, n)))
        {
            for lanes in [4, 8, 16] {
                products.push(json!({
                    "k": k, "n": n, "type": kind, "lanes": lanes,
                    "tile_rows": 3, "tile_registers": vectors, "unroll": 2, "task_rows": 9, "task_columns": columns,
                }));
            }
        }
        let file = json!({ "format": "bertc tuning 1", "machine": "made up", "products": products });
        std::fs::write(s.path("t.json"), file.to_string()).unwrap();
        let (tuned, _) = s.exits(0, &format!("m.onnx {flags} --cpu native --emit kernel-ir --tuning t.json"));
        assert!(text != tuned, "the tuning changes something");
        for (tuning, out) in [("", "a.npz"), ("--tuning t.json", "b.npz")] {
            s.exits(0, &format!("run m.onnx {flags} --dim sequence=13 --dim batch=2 {tuning} --output {out} -q"));
        }
        let [a, b] = ["a.npz", "b.npz"].map(|f| bertc::npz::read(std::fs::File::open(s.path(f)).unwrap()).unwrap());
        assert!(!a.is_empty() && a == b, "{flags}: the results differ");
    }
}

#[test]
fn a_bad_tuning_is_refused() {
    let s = Sandbox::new();
    let (_, err) = s.exits(1, "m.onnx --tuning nothing.json -o x.o");
    assert!(err.contains("can't read 'nothing.json'"), "{err}");
    std::fs::write(s.path("t.json"), "[]").unwrap();
    let (_, err) = s.exits(1, "run m.onnx --tuning t.json");
    assert!(err.contains("'t.json': its \"format\" is null") && err.contains("bertc tune"), "{err}");
    // Any size of the model's; which one that is, the file of a run tells.
    let sizes = [16i64, 32, 64, 96, 128].into_iter().flat_map(|k| [16i64, 32, 48, 64, 96, 128, 192].map(|n| (k, n)));
    let products: Vec<Value> = sizes
        .map(|(k, n)| {
            json!({
                "k": k, "n": n, "type": "f32", "lanes": 4,
                "tile_rows": 30, "tile_registers": 2, "unroll": 4, "task_rows": 32, "task_columns": 128,
            })
        })
        .collect();
    let file = json!({ "format": "bertc tuning 1", "products": products });
    std::fs::write(s.path("t.json"), file.to_string()).unwrap();
    let (_, err) = s.exits(1, "m.onnx --emitter clif --tuning t.json -o x.o");
    assert!(err.contains("a tile of 30 rows by 2 registers needs 64 registers"), "{err}");
    assert!(!s.path("x.o").exists());
}
