//! Compiles the model with the bertc library and links its object into the program.

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed=MINILM");
    let model = std::env::var_os("MINILM").ok_or("set MINILM to the path of all-MiniLM-L6-v2's model.onnx")?;
    let model = PathBuf::from(model);
    println!("cargo::rerun-if-changed={}", model.display());

    let options = bertc::CompileOptions {
        opt_level: 3,
        target: std::env::var("TARGET")?,
        name: "minilm".into(),
        ..Default::default()
    };
    let text = |errors: Vec<bertc::Diag>| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let compiled = bertc::compile(&model, &options).map_err(text)?;
    let object = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?).join("minilm.o");
    let mut file = BufWriter::new(File::create(&object)?);
    compiled.write_object(&mut file).map_err(text)?;
    file.flush()?;
    println!("cargo::rustc-link-arg-bins={}", object.display());
    Ok(())
}
