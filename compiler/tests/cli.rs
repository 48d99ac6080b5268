//! The command line as its users meet it: exit codes, messages, and what is on disk afterwards.

mod common;

use std::path::Path;
use std::process::Stdio;

use common::{Sandbox, model};

#[test]
fn the_main_job_writes_an_object_and_its_header() {
    let s = Sandbox::new();
    assert!(s.ok("m.onnx -O3 -o bert.o").is_empty());
    assert_eq!(s.files(), ["bert.h", "bert.o", "m.onnx"]);
    let header = std::fs::read_to_string(s.path("bert.h")).unwrap();
    assert!(header.contains("bert_run(") && header.contains("input_ids"), "{header}");
    let first = std::fs::read(s.path("bert.o")).unwrap();
    s.ok("m.onnx -O3 -o bert.o");
    assert!(first == std::fs::read(s.path("bert.o")).unwrap(), "same input and flags, other bytes");
}

#[test]
fn wrong_usage_exits_with_2_and_says_what_was_expected() {
    let s = Sandbox::new();
    s.fails(2, "m.onnx -O4 -o b.o", &["expected -O0, -O1, -O2 or -O3"]);
    s.fails(2, "m.onnx", &["-o OUT is missing"]);
    s.fails(2, "", &["MODEL.onnx"]);
    s.fails(2, "m.onnx --dim sequence -o b.o", &["expected NAME=MIN..MAX"]);
    s.fails(2, "m.onnx --dim sequence=9..3 -o b.o", &["is empty"]);
    s.fails(2, "m.onnx --shape input_ids=1,2 -o b.o", &["expected NAME=DIMxDIM"]);
    s.fails(2, "m.onnx --emit exe -o b.o", &["possible values", "sharedlib"]);
    s.fails(2, "run m.onnx --repeat 0", &["repeat"]);
}

#[test]
fn errors_exit_with_1_and_touch_nothing() {
    let s = Sandbox::new();
    std::fs::write(s.path("text.onnx"), "this is no model").unwrap();
    std::fs::write(s.path("empty.onnx"), "").unwrap();
    std::fs::write(s.path("b.o"), "precious").unwrap();
    s.fails(1, "none.onnx -o b.o", &["error: can't read 'none.onnx'"]);
    s.fails(1, "text.onnx -o b.o", &["error: "]);
    s.fails(1, "empty.onnx -o b.o", &["is empty"]);
    s.fails(1, ". -o b.o", &["is a folder"]);
    s.fails(1, "m.onnx -o none/b.o", &["can't write 'none/b.o'"]);
    s.fails(1, "m.onnx -o m.onnx", &["the output 'm.onnx' is the input"]);
    s.fails(1, "m.onnx --emit header -o m.onnx", &["the output 'm.onnx' is the input"]);
    s.fails(1, "m.onnx -o b.h", &["would be both"]);
    s.fails(1, "m.onnx -o nowhere/b.o", &["there is no folder 'nowhere'"]);
    s.fails(1, "m.onnx -o 7.o", &["starts with a digit", "--name"]);
    s.fails(1, "m.onnx -o b.o --name=---", &["no letter"]);
    s.fails(1, "m.onnx -o b.o --target vax", &["vax"]);
    s.fails(1, "m.onnx -o b.o --cpu i486", &["i486"]);
    s.fails(1, "m.onnx -o b.o --dim nosuch=1..2", &["nosuch"]);
    s.fails(1, "m.onnx -o b.a --emit staticlib --rt none.a", &["none.a"]);
    assert_eq!(std::fs::read(s.path("b.o")).unwrap(), b"precious");
}

#[test]
fn a_failed_second_file_leaves_the_first_as_it_was() {
    let s = Sandbox::new();
    std::fs::write(s.path("b.o"), "precious").unwrap();
    std::fs::create_dir(s.path("b.h")).unwrap();
    s.fails(1, "m.onnx -o b.o", &["b.h", "folder"]);
    assert_eq!(std::fs::read(s.path("b.o")).unwrap(), b"precious");
}

#[test]
fn the_prefix_comes_from_the_output_or_the_flag() {
    let s = Sandbox::new();
    s.ok("m.onnx -o my-model.v2.o");
    assert!(std::fs::read_to_string(s.path("my-model.v2.h")).unwrap().contains("my_model_v2_run("));
    s.ok("m.onnx -o x.o --name encoder");
    assert!(std::fs::read_to_string(s.path("x.h")).unwrap().contains("encoder_run("));
}

#[test]
fn text_goes_to_standard_output_or_files() {
    let s = Sandbox::new();
    let text = |args: &str| String::from_utf8(s.ok(args)).unwrap();
    assert!(text("m.onnx --emit tensor-ir -O1").contains("matmul"));
    assert!(text("m.onnx --emit tensor-ir").contains("attention"));
    assert!(text("m.onnx --emit kernel-ir").contains("program @m"));
    assert!(text("m.onnx --emit clif").contains("function "));
    assert!(text("m.onnx --emit asm --target aarch64").contains("fmla"));
    assert!(text("m.onnx --emit header").contains("m_run("));
    assert_eq!(s.files(), ["m.onnx"]);
    s.ok("m.onnx --emit obj,tensor-ir,clif -o b.o");
    assert_eq!(s.files(), ["b.clif", "b.h", "b.o", "b.tir", "m.onnx"]);
    assert_eq!(&s.ok("m.onnx --emit obj -o -")[..4], b"\x7fELF");
}

#[test]
fn a_reader_that_went_away_is_fine() {
    let s = Sandbox::new();
    let mut child = s.command("m.onnx --emit asm").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let o = child.wait_with_output().unwrap();
    assert!(o.status.success() && o.stderr.is_empty(), "{o:?}");
}

#[test]
fn libraries_hold_what_they_promise() {
    let s = Sandbox::new();
    s.ok("m.onnx --emit staticlib -o libenc.a");
    assert_eq!(s.files(), ["libenc.a", "libenc.h", "m.onnx"]);
    let a = std::fs::read(s.path("libenc.a")).unwrap();
    for symbol in ["enc_run", "bertc_pool_create"] {
        assert!(a.windows(symbol.len()).any(|w| w == symbol.as_bytes()), "{symbol}");
    }
    s.ok("m.onnx --emit sharedlib -o libenc.so");
    assert!(bertc::load::LoadedModel::open(&s.path("libenc.so"), "enc").is_ok());
    let o = s.command("m.onnx --emit sharedlib -o x.so").env("CC", "no-such-compiler").output().unwrap();
    let err = String::from_utf8_lossy(&o.stderr);
    assert!(o.status.code() == Some(1) && err.contains("'no-such-compiler' is not installed"), "{err}");
    assert!(!s.path("x.so").exists());
}

#[test]
fn run_prints_and_writes_outputs() {
    let s = Sandbox::new();
    let text = String::from_utf8(s.ok("run m.onnx --threads 2 --repeat 3 --output o.npz --dim sequence=9")).unwrap();
    assert!(text.contains("last_hidden_state: f32 [1, 9, 64]") && text.contains("3 runs on 2 threads: min "), "{text}");
    let out = bertc::npz::read(std::fs::File::open(s.path("o.npz")).unwrap()).unwrap();
    assert_eq!(out["last_hidden_state"].shape(), [1, 9, 64]);
    assert!(out["pooler_output"].to_f32_vec().iter().all(|x| x.abs() <= 1.0));
    s.fails(1, "run m.onnx --output m.onnx", &["is the input"]);
}

#[test]
fn run_takes_inputs_by_name() {
    use bertc_ir::Tensor;
    let s = Sandbox::new();
    let write = |arrays: &[(&str, Tensor)]| {
        let file = std::fs::File::create(s.path("i.npz")).unwrap();
        bertc::npz::write(file, arrays.iter().map(|(n, t)| (*n, t))).unwrap();
    };
    let ids = |v: &[i64]| Tensor::from_i64(vec![1, v.len()], v);
    let names = ["input_ids", "attention_mask", "token_type_ids"];
    write(&names.map(|n| (n, ids(&[1, 1, 1]))));
    let text = String::from_utf8(s.ok("run m.onnx --input i.npz")).unwrap();
    assert!(text.contains("pooler_output: f32 [1, 64]"), "{text}");
    write(&[("input_ids", ids(&[1, 2, 3])), ("attention_mask", ids(&[1])), ("ids", ids(&[1]))]);
    s.fails(
        1,
        "run m.onnx --input i.npz",
        &["no input 'ids'", "'token_type_ids' is missing", "dim 1 is 1, but 'sequence' is 3"],
    );
    write(&names.map(|n| (n, ids(&[1_000_000]))));
    s.fails(1, "run m.onnx --input i.npz", &["error 5"]);
    std::fs::write(s.path("i.npz"), "no zip").unwrap();
    s.fails(1, "run m.onnx --input i.npz", &["can't read 'i.npz'"]);
}

#[test]
fn inspect_describes_models_and_objects() {
    let s = Sandbox::new();
    let text = String::from_utf8(s.ok("inspect m.onnx")).unwrap();
    for part in ["opset 17", "input_ids", "[batch, sequence]", "matmul", "parameters"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    for target in ["x86_64-unknown-linux-gnu", "aarch64-apple-darwin", "x86_64-pc-windows-msvc"] {
        s.ok(&format!("m.onnx --target {target} -o bert.o"));
        let text = String::from_utf8(s.ok("inspect bert.o")).unwrap();
        for part in ["bert_run", "undefined symbols: none", "model bert, hash ", "[batch, sequence, 64]"] {
            assert!(text.contains(part), "{target}: {part} in\n{text}");
        }
    }
    s.fails(1, "inspect none.o", &["can't read 'none.o'"]);
}

#[test]
fn the_demo_runs() {
    let s = Sandbox::new();
    let text = String::from_utf8(s.ok("demo --keep here")).unwrap();
    for part in ["1. bertc small.onnx -o small.o", "2. cc ", "last_hidden_state:", "3. ./app 1", "ran the app"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(s.path("here/small.h").exists());
    s.ok("demo --model m.onnx --dim sequence=1..32");
}

/// Every object of a document: the paths of its keys, those of list elements joined.
fn keys(v: &serde_json::Value, at: &str, out: &mut std::collections::BTreeSet<String>) {
    match v {
        // Names of dims, not of the schema.
        serde_json::Value::Object(o) if at != "sample.dims" => {
            for (k, v) in o {
                let path = if at.is_empty() { k.clone() } else { format!("{at}.{k}") };
                keys(v, &path, out);
                out.insert(path);
            }
        }
        serde_json::Value::Array(a) => a.iter().for_each(|v| keys(v, at, out)),
        _ => {}
    }
}

/// The keys that `docs/inspect.md` documents for a kind, in its tables.
fn documented(kind: &str) -> std::collections::BTreeSet<String> {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/inspect.md")).unwrap();
    let mut section = "";
    let mut out = std::collections::BTreeSet::new();
    for line in page.lines() {
        if let Some(title) = line.strip_prefix("### ") {
            section = title;
        }
        let key = line.strip_prefix("| `").and_then(|l| l.split_once('`')).map(|l| l.0);
        out.extend(key.filter(|_| section == "Every document" || section.contains(kind)).map(str::to_string));
    }
    out
}

#[test]
fn the_json_of_every_model_has_the_documented_keys() {
    let zoo = model().parent().unwrap().to_path_buf();
    let s = Sandbox::new();
    let mut seen = std::collections::BTreeSet::new();
    for file in std::fs::read_dir(zoo).unwrap().map(|f| f.unwrap().path()) {
        if file.extension().is_none_or(|e| e != "onnx") {
            continue;
        }
        let v = json(&s.ok(&format!("inspect {} --json", file.display())));
        assert_eq!((&v["schema"], &v["version"], &v["kind"]), (&"bertc-inspect".into(), &1.into(), &"model".into()));
        assert_eq!(v["errors"], serde_json::json!([]), "{}", file.display());
        // What the parts have adds up to what the whole has.
        let parts = v["parts"].as_array().unwrap();
        let sum = |key: &str| parts.iter().map(|p| p[key].as_u64().unwrap()).sum::<u64>();
        assert_eq!(
            (sum("parameters"), sum("bytes")),
            (v["parameters"].as_u64().unwrap(), v["parameter_bytes"].as_u64().unwrap())
        );
        keys(&v, "", &mut seen);
    }
    // No model of the zoo has zeros.
    let (pruned, _) = s.exits(0, &format!("inspect {} --prune 0.8 --block 16x1 --json", model().display()));
    keys(&json(pruned.as_bytes()), "", &mut seen);
    assert_eq!(seen, documented("model"));
}

#[test]
fn the_json_of_objects_has_the_documented_keys() {
    let s = Sandbox::new();
    for target in ["x86_64-unknown-linux-gnu", "aarch64-apple-darwin", "x86_64-pc-windows-msvc"] {
        s.ok(&format!("m.onnx --target {target} -o bert.o"));
        let v = json(&s.ok("inspect bert.o --json"));
        assert_eq!((&v["kind"], &v["version"]), (&"object".into(), &1.into()));
        assert_eq!(v["undefined"], serde_json::json!([]), "{target}");
        let kernels = v["kernels"].as_array().unwrap();
        let bytes: u64 = kernels.iter().map(|k| k["bytes"].as_u64().unwrap()).sum();
        assert!(kernels.len() > 5 && bytes > 0 && bytes < v["code_bytes"].as_u64().unwrap(), "{target}: {v:#}");
        let m = &v["models"][0];
        assert_eq!((&m["name"], &m["inputs"][0]["name"]), (&"bert".into(), &"input_ids".into()));
        assert_eq!(m["inputs"][0]["shape"], serde_json::json!(["batch", "sequence"]));
        let mut seen = std::collections::BTreeSet::new();
        keys(&v, "", &mut seen);
        assert_eq!(seen, documented("object"), "{target}");
    }
}

#[test]
fn pictures_are_made_without_compiling() {
    let s = Sandbox::new();
    s.ok("m.onnx --emit html,dot -o g.html");
    assert_eq!(s.files(), ["g.dot", "g.html", "m.onnx"]);
    let read = |name: &str| std::fs::read_to_string(s.path(name)).unwrap();
    assert!(read("g.html").starts_with("<!DOCTYPE html>") && read("g.html").contains("layer 1"));
    assert!(read("g.dot").starts_with("digraph ") && read("g.dot").contains("label = \"layer 1, same as layer 0\""));
    assert_eq!(s.ok("m.onnx --emit dot"), read("g.dot").into_bytes());
}

#[test]
fn inspect_reads_ir_text() {
    let s = Sandbox::new();
    let text =
        "func @f(%x: tensor<4 x f32>) -> (y: tensor<4 x f32>) {\n  %0 = exp %x : tensor<4 x f32>\n  return %0\n}\n";
    std::fs::write(s.path("f.tir"), text).unwrap();
    let v = json(&s.ok("inspect f.tir --json"));
    assert_eq!((&v["format"], &v["opset"]), (&"tensor-ir".into(), &serde_json::Value::Null));
    assert_eq!(v["ops"], serde_json::json!([{"op": "exp", "imported": 1, "optimised": 1}]));
    std::fs::write(s.path("f.tir"), text.replace("exp", "explode")).unwrap();
    s.fails(1, "inspect f.tir", &["explode"]);
}

fn json(text: &[u8]) -> serde_json::Value {
    serde_json::from_slice(text).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(text)))
}

#[test]
fn bench_measures_the_model_and_the_machine() {
    let s = Sandbox::new();
    let v = json(&s.ok("bench m.onnx --json --threads 1,2 --repeat 3 --warmup 0 --dim sequence=8..16"));
    assert_eq!(v["dims"], serde_json::json!({"batch": 1, "sequence": 16}));
    // Two layers of 73728/2 a token and 256/2 a pair of tokens, and a pooler of 64 x 64.
    assert_eq!(v["multiply_adds"], 256 * 16 * 16 + 73728 * 16 + 4096);
    let positive = |v: &serde_json::Value, key: &str| {
        let n = v[key].as_f64().unwrap_or_else(|| panic!("'{key}' is no number in {v:#}"));
        assert!(n > 0.0 && n.is_finite(), "'{key}' is {n}");
        n
    };
    for key in ["weights_bytes", "code_bytes", "arena_bytes", "read_buffer_bytes"] {
        positive(&v, key);
    }
    if cfg!(target_os = "linux") {
        assert!(positive(&v, "peak_rss_bytes") >= positive(&v, "rss_before_load_bytes"));
    }
    let runs = v["runs"].as_array().unwrap();
    let threads: Vec<_> = runs.iter().map(|r| r["threads"].as_u64().unwrap()).collect();
    assert_eq!((threads, &v["repeat"]), (vec![1, 2], &serde_json::json!(3)));
    assert_eq!(runs[0]["speedup"], 1.0);
    for r in runs {
        let ascending = ["min_s", "median_s", "p90_s", "p99_s"].map(|k| positive(r, k));
        assert!(ascending.is_sorted(), "{r:#}");
        positive(r, "memory_bytes_per_s");
        positive(r, "cache_bytes_per_s");
        positive(r, "multiply_adds_per_s");
        assert!(positive(r, "workspace_bytes") >= positive(&v, "arena_bytes"));
        let peaks = r["peaks"].as_array().unwrap();
        assert_eq!((&peaks[0]["bits"], &peaks[0]["type"]), (&128.into(), &"f32".into()));
        for p in peaks {
            positive(p, "multiply_adds_per_s");
            assert!(positive(p, "percent") <= positive(p, "percent_best"), "{p:#}");
        }
    }
}

#[test]
fn bench_prints_a_table_and_its_errors() {
    let s = Sandbox::new();
    let text = String::from_utf8(s.ok("bench m.onnx --repeat 1 --warmup 0 -O0 --shape input_ids=1x5")).unwrap();
    for part in [
        "multiply-adds of the model: 0.0",
        "of 128-bit FMA peak",
        "speed-up",
        "1.00x",
        "%",
        "arena",
        "-O0",
        "p99",
        "this machine, best of the runs",
        "last-level cache: ",
        "memory read",
        "cache read",
    ] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
    s.fails(1, "bench m.onnx --html m.onnx", &["the output 'm.onnx' is the input 'm.onnx'"]);
    s.fails(1, "bench m.onnx --html no/x.html", &["there is no folder 'no'"]);
    s.fails(1, "bench m.onnx --profile --html x --trace x", &["the same file"]);
    s.fails(1, "bench none.onnx", &["can't read 'none.onnx'"]);
    s.fails(1, "bench m.onnx --cpu i486", &["i486"]);
    s.fails(1, "bench m.onnx --dim nosuch=1", &["nosuch"]);
    s.fails(1, "bench m.onnx --threads 1,4000", &["can't start 4000 threads"]);
    s.fails(2, "bench m.onnx --threads 1,x", &["--threads"]);
    s.fails(2, "bench m.onnx --repeat 0", &["--repeat"]);
    s.fails(1, "measure-memory m.onnx model 1 1 2", &["can't load 'm.onnx'"]);
}

#[test]
fn inspect_lists_the_kernels_in_layers() {
    let s = Sandbox::new();
    let v = json(&s.ok("inspect m.onnx --json"));
    let c = &v["compiled"];
    let steps = c["steps"].as_array().unwrap();
    assert_eq!(c["kernels"], steps.len());
    let layers = c["kernels_of_layers"].as_array().unwrap();
    assert_eq!((layers.len(), &c["max_per_layer"]), (2, &layers[0]));
    assert!(layers[0].as_u64().unwrap() <= 6, "{c:#}");
    let of_layer = |n: u64| steps.iter().filter(|s| s["layer"] == n).collect::<Vec<_>>();
    for (n, count) in layers.iter().enumerate() {
        let layer = of_layer(n as u64);
        assert_eq!(layer.len() as u64, count.as_u64().unwrap());
        let attention: Vec<_> = layer.iter().filter(|s| s["op"] == "attention").collect();
        assert_eq!(attention.len(), 1);
        assert_eq!(attention[0]["multiply_adds"], "128*batch*sequence^2");
        // From the product that makes the queries on.
        assert_eq!(layer[0]["op"], "linear");
        for s in layer {
            assert!(s["node"].as_str().unwrap().contains(&format!("layer.{n}/")), "{s}");
        }
    }
    assert_eq!(c["multiply_adds"], "256*batch*sequence^2 + 73728*batch*sequence + 4096*batch");
    let text = String::from_utf8(s.ok("inspect m.onnx --dim batch=1 --dim sequence=8")).unwrap();
    for part in ["before layer 0: ", "layer 0: ", "layer 1: ", "after layer 1: ", "per layer at most ", "arena "] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
    // What is not fused has its softmaxes as marks, and the same products.
    let plain = json(&s.ok("inspect m.onnx --json -O1 --target aarch64"));
    assert_eq!(plain["compiled"]["kernels_of_layers"].as_array().unwrap().len(), 2);
    assert_eq!(plain["compiled"]["multiply_adds"], c["multiply_adds"]);
    assert!(plain["compiled"]["kernels"].as_u64() > c["kernels"].as_u64());
    let wide = json(&s.ok("inspect m.onnx --json --target x86_64 --cpu x86-64-v4"));
    assert!(wide["compiled"]["steps"].as_array().unwrap().iter().any(|s| s["isa"] == "avx512"));
    s.fails(1, "inspect m.onnx --cpu i486", &["i486"]);
}

/// Each product of the listing is one of the graph's: their counts add up to the graph's, whatever the exporter.
#[test]
fn the_listed_multiply_adds_add_up() {
    let zoo = model().parent().unwrap().to_path_buf();
    for name in ["bert-dynamo", "albert", "distilbert-qa", "electra-ner", "minilm-dynamo-cls", "bert-eager+qdq"] {
        let s = Sandbox::new();
        std::fs::copy(zoo.join(format!("{name}.onnx")), s.path("z.onnx")).unwrap();
        for level in ["-O0", "-O1", "-O2"] {
            let v = json(&s.ok(&format!("inspect z.onnx --json {level} --dim batch=2 --dim sequence=8")));
            let number = |v: &serde_json::Value| v.as_str().and_then(|s| s.parse::<i64>().ok());
            let sum: Option<i64> =
                v["compiled"]["steps"].as_array().unwrap().iter().map(|s| number(&s["multiply_adds"])).sum();
            assert!(sum.is_some_and(|n| n > 0), "{name} {level}: {sum:?}");
            assert_eq!(sum, number(&v["compiled"]["multiply_adds"]), "{name} {level}");
        }
    }
}

/// Products of bytes: the instruction that `inspect` tells is the one in the code, the only one, and no sum overflows.
#[test]
fn inspect_tells_why_sums_of_bytes_are_exact() {
    let s = Sandbox::new();
    let int8 = "--int8 --int8-budget 0";
    let all = ["pmaddwd", "vpmaddwd", "vpmaddubsw", "vpdpbusd", "vpdpbusds", "smull", "sdot", "usdot"];
    for (target, name, dot) in [
        ("x86_64 --cpu x86-64", "pmaddwd", "u8i8"),
        ("x86_64 --cpu x86-64-v3", "vpmaddwd", "u8i8"),
        ("x86_64 --cpu alderlake", "vpdpbusd", "u8i8"),
        ("x86_64 --cpu x86-64-v4", "vpmaddwd", "u8i8"),
        ("x86_64 --cpu cascadelake", "vpdpbusd", "u8i8"),
        ("x86_64 --cpu cascadelake --emitter clif", "vpdpbusd", "u8i8"),
        ("aarch64", "smull", "i8"),
        ("aarch64 --cpu cortex-a76", "sdot", "i8"),
    ] {
        let v = json(s.exits(0, &format!("inspect m.onnx --json {int8} --target {target}")).0.as_bytes());
        let products: Vec<_> = v["compiled"]["steps"].as_array().unwrap().iter().map(|s| &s["int8"]).collect();
        let products: Vec<_> = products.into_iter().filter(|p| !p.is_null()).collect();
        assert_eq!(products.len(), 9, "{target}");
        for p in products {
            assert_eq!(
                (&p["dot"], &p["left"], &p["fits"]),
                (&dot.into(), &serde_json::json!([-128, 127]), &true.into())
            );
            let most = p["k"].as_u64().unwrap() * 128 * 127;
            // Each column's largest weight is 127, and no left operand makes all products the largest.
            let sum = p["largest_sum"].as_u64().unwrap();
            assert!(p["largest_weight"] == 127 && (128 * 127..most).contains(&sum), "{target}: {p}");
            let code = p["code"].as_array().unwrap();
            assert_eq!((code.len(), &code[0]["instruction"]), (1, &name.into()), "{target}");
        }
        let asm = s.exits(0, &format!("m.onnx {int8} --target {target} --emit asm")).0;
        let found: Vec<_> =
            all.into_iter().filter(|op| asm.lines().any(|l| l.split_whitespace().any(|word| word == *op))).collect();
        assert_eq!(found, [name], "{target}");
    }
    // An object for several CPUs has the same sums on each.
    let text = s.exits(0, &format!("inspect m.onnx {int8} --target x86_64")).0;
    for part in ["64x192", "no sum reaches 2^31", "\npmaddwd (x86-64): ", "\nvpdpbusd (alderlake, cascadelake): "] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
    // The file's own zero points count.
    std::fs::copy(model().with_file_name("bert-eager+qdq.onnx"), s.path("q.onnx")).unwrap();
    let v = json(&s.ok("inspect q.onnx --json --target x86_64 --cpu cascadelake"));
    let steps = v["compiled"]["steps"].as_array().unwrap();
    let left: Vec<_> = steps.iter().filter_map(|s| s["int8"]["left"].as_array()).collect();
    let span = |l: &&Vec<serde_json::Value>| l[1].as_i64().unwrap() - l[0].as_i64().unwrap() == 255;
    assert!(left.len() > 10 && left.iter().all(span) && left.iter().any(|l| l[0] != -128), "{left:?}");
}
