//! `bertc check` and `bertc bench --profile`, as their users meet them.

mod common;

use common::Sandbox;
use serde_json::Value;

/// What a run that exits with `code` prints, as JSON, and its standard error.
fn json(s: &Sandbox, code: i32, args: &str) -> (Value, String) {
    let (out, err) = s.exits(code, args);
    (serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}")), err)
}

#[test]
fn a_model_is_checked() {
    let s = Sandbox::new();
    let (out, _) = s.exits(0, "check m.onnx --cpu generic");
    assert!(out.contains("attention") && out.ends_with("all within the tolerance of 1.0e-4\n"), "{out}");
    let (v, err) = json(&s, 1, "check m.onnx --cpu generic --tol 0 --json --bisect --dim batch=3");
    assert!(err.contains("error: outputs deviate by") && err.contains("the tolerance is 0"), "{err}");
    assert_eq!((&v["ok"], v["dims"]["batch"].as_i64()), (&Value::Bool(false), Some(3)));
    let ops = v["ops"].as_array().unwrap();
    assert!(ops.len() > 5 && ops.iter().any(|o| o["own"]["max_rel"].as_f64() > Some(0.0)), "{ops:?}");
    // Fusion rounds less often, so that some pass changes the last bits.
    assert!(v["bisect"]["pass"].is_string(), "{}", v["bisect"]);
    let (v, _) = json(&s, 0, "check m.onnx --cpu generic -O0 --no-taps --json");
    assert_eq!((&v["ok"], &v["ops"]), (&Value::Bool(true), &Value::Null));
    let (_, err) = s.exits(2, "check m.onnx --tol -1");
    assert!(err.contains("not negative"), "{err}");
    let (_, err) = s.exits(1, "check m.onnx --input nothing.npz");
    assert!(err.contains("can't read 'nothing.npz'"), "{err}");
}

#[test]
fn every_step_is_timed() {
    let s = Sandbox::new();
    for threads in [1, 2] {
        let args = format!(
            "bench m.onnx --profile --trace t.json --repeat 2 --warmup 0 --threads {threads} --dim sequence=8 --json"
        );
        let (v, _) = json(&s, 0, &args);
        let steps = v["profile"]["steps"].as_array().unwrap();
        assert_eq!(v["profile"]["threads"].as_u64(), Some(threads));
        let sum: u64 = steps.iter().map(|s| s["multiply_adds"].as_u64().unwrap()).sum();
        assert!(sum > 0 && sum <= v["multiply_adds"].as_u64().unwrap(), "{sum}");
        let weights: u64 = steps.iter().map(|s| s["weight_bytes"].as_u64().unwrap()).sum();
        assert!(weights > 0 && weights <= v["weights_bytes"].as_u64().unwrap(), "{weights}");
        for s in steps {
            // Every step moves something, and its bound is one of the three.
            let [bound, percent, data] = ["bound_s", "percent_of_bound", "data_bytes"].map(|k| s[k].as_f64().unwrap());
            assert!(bound > 0.0 && percent > 0.0 && data > 0.0, "{s:#}");
            let by = s["bound_by"].as_str().unwrap();
            let known = ["multiply-adds", "memory", "cache"].contains(&by);
            assert!(known && (by != "multiply-adds" || s["multiply_adds"].as_u64() > Some(0)), "{s:#}");
        }
        let kernels = v["profile"]["kernels"].as_array().unwrap();
        let called: u64 = kernels.iter().map(|k| k["steps"].as_u64().unwrap()).sum();
        assert_eq!(called, steps.len() as u64);
        let trace: Value = serde_json::from_slice(&std::fs::read(s.path("t.json")).unwrap()).unwrap();
        let events = trace["traceEvents"].as_array().unwrap();
        assert_eq!(events.len(), steps.len(), "steps of one task too");
        let starts: Vec<f64> = events.iter().map(|e| e["ts"].as_f64().unwrap()).collect();
        assert!(starts.is_sorted() && events.iter().any(|e| e["args"]["tasks"] == 1), "{starts:?}");
    }
    let (out, _) = s.exits(0, "bench m.onnx --profile --repeat 1 --warmup 0 --dim sequence=8");
    assert!(out.contains("steps in order:") && out.contains("share") && out.contains("of bound"), "{out}");
    // The page has what the tables have, and times steps without being told.
    let (out, _) = s.exits(0, "bench m.onnx --html p.html --repeat 2 --warmup 0 --dim sequence=8 --json");
    let v: Value = serde_json::from_str(&out).unwrap();
    let page = std::fs::read_to_string(s.path("p.html")).unwrap();
    for kernel in v["profile"]["kernels"].as_array().unwrap() {
        assert!(page.contains(&format!("<td>{}</td>", kernel["kernel"].as_str().unwrap())), "{kernel}");
    }
    assert!(page.contains("<title>bertc bench m.onnx</title>") && page.ends_with("</html>\n"));
    assert!(page.contains("<svg") && page.contains("<circle") && page.contains("128-bit FMA"));
    // Of several variants, the steps are those of the one that runs.
    s.exits(0, "bench m.onnx --profile --repeat 1 --warmup 0 --dim sequence=8 --cpu generic");
    let (_, err) = s.exits(2, "bench m.onnx --trace t.json");
    assert!(err.contains("--profile"), "{err}");
    // Another object, and so another hash.
    s.exits(0, "m.onnx -o a.o --profile");
    s.exits(0, "m.onnx -o b.o --name a");
    assert_ne!(std::fs::read(s.path("a.o")).unwrap(), std::fs::read(s.path("b.o")).unwrap());
}
