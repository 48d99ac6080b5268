//! Static libraries with the stub: a C app links one file, and a wrong stub is refused.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::process::Command;

use bertc::stub::{Stub, find, write_static_library};

fn native() -> target_lexicon::Triple {
    bertc_rt::STUB_TARGET.parse().expect("rustc's triples parse")
}

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).expect("a folder in the target directory");
    folder
}

fn cc(args: &[&str], folder: &Path) -> bool {
    Command::new("cc").args(args).current_dir(folder).status().is_ok_and(|status| status.success())
}

#[test]
fn an_app_links_the_model_and_the_stub_from_one_file() {
    if !cfg!(unix) || !cc(&["--version"], Path::new(".")) {
        eprintln!("skipped an_app_links_the_model_and_the_stub_from_one_file: no cc");
        return;
    }
    let folder = folder("staticlib");
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("a writable folder");
    write("model.c", "int a_model_with_a_long_name(void) { return 42; }");
    write(
        "app.c",
        "#include \"bertc_rt.h\"\nint a_model_with_a_long_name(void);\n\
         int main(void) { bertc_pool *p = bertc_pool_create(2); int ok = p != 0; bertc_pool_destroy(p);\n\
         return ok && a_model_with_a_long_name() == 42 ? 0 : 1; }",
    );
    write("bertc.h", bertc_rt::ABI_HEADER);
    write("bertc_rt.h", bertc_rt::RT_HEADER);
    assert!(cc(&["-c", "model.c"], &folder));
    let model = std::fs::read(folder.join("model.o")).expect("cc wrote it");

    // As carried by the compiler, and from a library that was written before, under a name of any length.
    let mut stub = find(&native(), None).expect("the native stub is built in");
    for name in ["model.o", "a_model_with_a_long_name.o"] {
        let mut library = Vec::new();
        write_static_library(&mut library, name, &model, &stub).expect("a static library");
        std::fs::write(folder.join("libmodel.a"), &library).expect("a writable folder");
        assert!(cc(&["app.c", "libmodel.a", "-pthread", "-o", "app"], &folder));
        assert!(Command::new(folder.join("app")).status().is_ok_and(|status| status.success()));

        let mut alone = Vec::new();
        bertc_rt::archive::write_stub(&mut alone, bertc_rt::STUB_TARGET, bertc_rt::STUB_OBJECT).expect("memory");
        stub.bytes = Cow::Owned(alone);
    }
}

#[test]
fn darwin_archives_are_read_back() {
    let symbols = vec!["_one".to_owned(), "_two".to_owned()];
    let members = ["a.o", "a_longer_name_than_16_bytes.o"].map(|name| bertc_rt::archive::Member {
        name,
        data: b"contents with an odd size",
        symbols: symbols.clone(),
    });
    let mut bytes = Vec::new();
    bertc_rt::archive::write(&mut bytes, bertc_rt::archive::Format::Darwin, &members).expect("memory");
    let archive = object::read::archive::ArchiveFile::parse(&bytes[..]).expect("an archive");
    assert_eq!(archive.kind(), object::read::archive::ArchiveKind::Bsd);
    for (member, read) in members.iter().zip(archive.members()) {
        let read = read.expect("a member");
        assert_eq!(read.name(), member.name.as_bytes());
        assert!(read.data(&bytes[..]).expect("data").starts_with(member.data));
        assert_eq!(read.file_range().0 % 8, 0);
    }
    let index: Vec<_> = archive.symbols().expect("an index").expect("an index").map(|s| s.expect("a symbol")).collect();
    assert_eq!(index.len(), 4);
    let second = archive.member(index[3].offset()).expect("the index points at headers");
    assert_eq!(second.name(), members[1].name.as_bytes());
    assert_eq!(index[3].name(), b"_two");
}

#[test]
fn a_missing_or_wrong_stub_is_an_error() {
    let foreign = "riscv64gc-unknown-linux-gnu".parse().expect("a triple");
    let error = find(&foreign, None).expect_err("nobody makes this stub");
    assert_eq!(error.message, "no runtime stub for riscv64gc-unknown-linux-gnu");
    assert!(error.notes.iter().any(|note| note.contains("cargo xtask stub --target riscv64gc-unknown-linux-gnu")));

    let missing = Path::new("no/such/stub.a");
    let error = find(&native(), Some(missing)).expect_err("the file does not exist");
    assert!(error.message.starts_with("can't read the runtime stub 'no/such/stub.a'"), "{}", error.message);

    for bytes in [&b"not an object"[..], b"!<arch>\nbroken"] {
        let stub = Stub { origin: "x.a".to_owned(), bytes: Cow::Borrowed(bytes) };
        let error = write_static_library(&mut Vec::new(), "m.o", bertc_rt::STUB_OBJECT, &stub).expect_err("no stub");
        assert!(error.message.starts_with("the runtime stub 'x.a' is"), "{}", error.message);
    }
}
