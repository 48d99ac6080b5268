//! `src/import/onnx/onnx.rs` is what `proto/onnx.proto` generates. `BLESS=1` rewrites it.

use std::path::Path;

#[test]
fn generated_types_match_the_proto_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let set = protox::compile([root.join("proto/onnx.proto")], [root.join("proto")]).expect("onnx.proto compiles");
    let out = tempfile::tempdir().expect("a temporary folder");
    // Weights stay slices of the file's memory map: `bytes` fields are `bytes::Bytes`. The enormous comments of the
    // proto file are not repeated.
    prost_build::Config::new()
        .out_dir(out.path())
        .bytes(["."])
        .disable_comments(["."])
        .compile_fds(set)
        .expect("prost generates");
    let new = std::fs::read_to_string(out.path().join("onnx.rs")).expect("the generated file");
    let at = root.join("src/import/onnx/onnx.rs");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&at, &new).expect("the checked-in file is writable");
    }
    let old = std::fs::read_to_string(&at).unwrap_or_default();
    assert!(old == new, "{} is out of date: run this test with BLESS=1", at.display());
}
