//! Inputs to begin with: the test models, the file tests, the examples of the documentation.

use std::path::{Path, PathBuf};

/// The folder of this crate.
pub fn crate_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder of the test models.
pub fn zoo_dir() -> PathBuf {
    crate_dir().join("../models/zoo")
}

/// The folder with the findings of a target that were fixed.
pub fn regressions_dir(target: &str) -> PathBuf {
    crate_dir().join("regressions").join(target)
}

/// All files under `dir` whose name ends in `suffix`, in order. A folder that can't be read has none.
pub fn files(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut entries: Vec<PathBuf> = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            found.append(&mut files(&path, suffix));
        } else if path.to_string_lossy().ends_with(suffix) {
            found.push(path);
        }
    }
    found
}

/// The findings of a target that were fixed: file and contents.
pub fn regressions(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let all = files(&regressions_dir(target), "");
    all.into_iter().filter_map(|p| std::fs::read(&p).ok().map(|data| (p, data))).collect()
}

/// The contents of [`regressions`].
pub fn kept(target: &str) -> Vec<Vec<u8>> {
    regressions(target).into_iter().map(|(_, data)| data).collect()
}

fn with_regressions(target: &str, mut seeds: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    seeds.extend(kept(target));
    seeds
}

/// The test models.
pub fn models() -> Vec<Vec<u8>> {
    let all = files(&zoo_dir(), ".onnx");
    with_regressions("import", all.iter().filter_map(|p| std::fs::read(p).ok()).collect())
}

/// The code blocks of a page of the documentation that are marked with `language`.
fn code_blocks(page: &str, language: &str) -> Vec<Vec<u8>> {
    let text = std::fs::read_to_string(crate_dir().join("../../docs").join(page)).unwrap_or_default();
    let fence = format!("```{language}");
    let (mut blocks, mut block) = (Vec::new(), None::<String>);
    for line in text.lines() {
        match &mut block {
            None if line.starts_with(&fence) => block = Some(String::new()),
            Some(_) if line.starts_with("```") => blocks.extend(block.take().map(String::into_bytes)),
            Some(b) => {
                b.push_str(line);
                b.push('\n');
            }
            None => {}
        }
    }
    blocks
}

/// Texts of the tensor IR.
pub fn tensor_ir() -> Vec<Vec<u8>> {
    let all = files(&crate_dir().join("../filetests"), ".tir");
    let mut seeds: Vec<Vec<u8>> = all.iter().filter_map(|p| std::fs::read(p).ok()).collect();
    seeds.extend(code_blocks("ir.md", "tir"));
    seeds.extend(code_blocks("fusion.md", "tir"));
    with_regressions("text", seeds)
}

/// Texts of the kernel IR: examples, and what the lowering makes of the tensor IR's.
pub fn kernel_ir() -> Vec<Vec<u8>> {
    let all = files(&crate_dir().join("../filetests"), ".kir");
    let mut seeds: Vec<Vec<u8>> = all.iter().filter_map(|p| std::fs::read(p).ok()).collect();
    seeds.extend(code_blocks("kernel-ir.md", "kir"));
    #[cfg(feature = "compiler")]
    seeds.extend(lowered());
    with_regressions("kernel-text", seeds)
}

#[cfg(feature = "compiler")]
fn lowered() -> Vec<Vec<u8>> {
    let Ok(target) = bertc_backends::target::Target::parse("x86_64", "x86-64-v4") else { return Vec::new() };
    let kernels = |source: Vec<u8>| {
        let source = String::from_utf8(source).ok()?;
        let mut g = bertc_ir::text::parse(&source, &bertc_ir::text::no_resources).ok()?;
        bertc_ir::verify::verify(&g).ok()?;
        bertc_passes::run_named(&mut g, &bertc_passes::pipeline(2)).ok()?;
        let p = bertc_backends::lower::lower(&g, &target).ok()?;
        Some(p.kernels.iter().take(2).map(|k| bertc_ir::kernel::print(k).into_bytes()).collect::<Vec<_>>())
    };
    // The largest kernels would make mutation slow.
    tensor_ir().into_iter().filter_map(kernels).flatten().filter(|k| k.len() < 1 << 14).collect()
}
