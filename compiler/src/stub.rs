//! The runtime stub for a target, and static libraries that contain it.
//!
//! [`find`] looks in this order: `--rt PATH`, the variable `BERTC_RT` (a file, or a folder with
//! `libbertc_rt-TRIPLE.a`), `libbertc_rt-TRIPLE.a` beside this program, and for this program's own target the stub that
//! it carries. `cargo xtask stub --target TRIPLE` makes such files.

use std::borrow::Cow;
use std::io::Write;
use std::path::{Path, PathBuf};

use bertc_ir::Diag;
use bertc_rt::archive::{self, Format, Member};
use object::read::archive::ArchiveFile;
use object::{Architecture, BinaryFormat, Object, ObjectSymbol};
use target_lexicon::{Environment, OperatingSystem, Triple};

/// An object file or an archive of them, and where it comes from.
#[derive(Clone, Debug)]
pub struct Stub {
    /// For messages: a path, or "the built-in stub".
    pub origin: String,
    /// The contents.
    pub bytes: Cow<'static, [u8]>,
}

/// The name of the stub's file for a target.
#[must_use]
pub fn file_name(target: &Triple) -> String {
    format!("libbertc_rt-{target}.a")
}

/// Finds the stub for `target`; `explicit` is the value of `--rt`.
///
/// # Errors
/// The named file can't be read, or there is no stub for the target: the notes say how to get one.
pub fn find(target: &Triple, explicit: Option<&Path>) -> Result<Stub, Diag> {
    if let Some(path) = explicit {
        return read(path.to_path_buf());
    }
    if let Some(path) = std::env::var_os("BERTC_RT").filter(|path| !path.is_empty()).map(PathBuf::from) {
        return read(if path.is_dir() { path.join(file_name(target)) } else { path });
    }
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(file_name(target))));
    if let Some(path) = beside.filter(|path| path.is_file()) {
        return read(path);
    }
    if carried(target) {
        return Ok(Stub { origin: "the built-in stub".to_owned(), bytes: Cow::Borrowed(bertc_rt::STUB_OBJECT) });
    }
    Err(Diag::new(format!("no runtime stub for {target}"))
        .note(format!("make one with `cargo xtask stub --target {target}`, and name it with --rt or BERTC_RT"))
        .note("objects need no stub: --emit obj works without it"))
}

fn read(path: PathBuf) -> Result<Stub, Diag> {
    let origin = path.display().to_string();
    match std::fs::read(path) {
        Ok(bytes) => Ok(Stub { origin, bytes: Cow::Owned(bytes) }),
        Err(why) => Err(Diag::new(format!("can't read the runtime stub '{origin}': {why}"))),
    }
}

/// Whether the stub in this program serves `target`: it calls nothing in which the C libraries of a system differ.
fn carried(target: &Triple) -> bool {
    let android = |triple: &Triple| matches!(triple.environment, Environment::Android | Environment::Androideabi);
    let apple =
        |triple: &Triple| matches!(triple.operating_system, OperatingSystem::Darwin(_) | OperatingSystem::MacOSX(_));
    let Ok(own) = bertc_rt::STUB_TARGET.parse::<Triple>() else { return false };
    !bertc_rt::STUB_OBJECT.is_empty()
        && own.architecture == target.architecture
        && android(&own) == android(target)
        && (own.operating_system == target.operating_system || (apple(&own) && apple(target)))
}

/// Writes a static library of the object `model`, as a member called `name`, and the stub.
///
/// # Errors
/// Either file is no object for the other's machine, or writing fails.
pub fn write_static_library(out: &mut dyn Write, name: &str, model: &[u8], stub: &Stub) -> Result<(), Diag> {
    let (kind, model_symbols) = symbols(model).map_err(|why| Diag::new(format!("'{name}' {why}")))?;
    let bad = |why: &str| Diag::new(format!("the runtime stub '{}' {why}", stub.origin));

    let mut members = vec![Member { name, data: model, symbols: model_symbols }];
    let bytes = &stub.bytes[..];
    let parts = if bytes.starts_with(b"!<arch>\n") {
        objects_of(bytes).map_err(|why| bad(&why))?
    } else {
        vec![("bertc_rt.o".to_owned(), bytes)]
    };
    for (part, data) in &parts {
        let (stub_kind, symbols) = symbols(data).map_err(|why| bad(&why))?;
        if stub_kind != kind {
            return Err(bad(&format!("is for {}, the model is for {}", show(stub_kind), show(kind))));
        }
        members.push(Member { name: part, data, symbols });
    }
    if !members.iter().any(|member| member.symbols.iter().any(|s| s.trim_start_matches('_') == "bertc_pool_create")) {
        return Err(bad("does not define bertc_pool_create"));
    }
    let format = if kind.0 == BinaryFormat::MachO { Format::Darwin } else { Format::Gnu };
    archive::write(&mut { out }, format, &members)
        .map_err(|why| Diag::new(format!("can't write the static library: {why}")))
}

type Kind = (BinaryFormat, Architecture);

fn show((format, architecture): Kind) -> String {
    format!("{architecture:?} {format:?}")
}

/// The machine of an object, and the global symbols that it defines.
fn symbols(data: &[u8]) -> Result<(Kind, Vec<String>), String> {
    let file = object::File::parse(data).map_err(|why| format!("is no object file: {why}"))?;
    let mut names = Vec::new();
    for symbol in file.symbols().filter(|symbol| symbol.is_global() && symbol.is_definition()) {
        names.push(symbol.name().map_err(|why| format!("has a bad symbol: {why}"))?.to_owned());
    }
    Ok(((file.format(), file.architecture()), names))
}

fn objects_of(bytes: &[u8]) -> Result<Vec<(String, &[u8])>, String> {
    let damaged = |why: object::Error| format!("is a damaged archive: {why}");
    let archive = ArchiveFile::parse(bytes).map_err(damaged)?;
    let mut parts = Vec::new();
    for member in archive.members() {
        let member = member.map_err(damaged)?;
        let name = String::from_utf8_lossy(member.name()).into_owned();
        parts.push((name, member.data(bytes).map_err(damaged)?));
    }
    Ok(parts)
}
