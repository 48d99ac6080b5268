//! Objects of a small hand-built program, linked into C programs and run.

mod common;

use std::path::Path;
use std::process::Command;

use bertc_backends::header::{emit_header, emit_header_for};
use bertc_backends::object::{EmitOptions, Variant, emit_asm, emit_clif, emit_object, emit_variants};
use bertc_backends::plan::{Arg, Program};
use bertc_backends::target::{Needs, Target};
use bertc_ir::{Dim, SymbolId, Tensor};
use common::{program, target};
use object::{Object, ObjectSection, ObjectSymbol};

const TRIPLES: [&str; 5] = [
    "x86_64-unknown-linux-gnu",
    "aarch64-unknown-linux-gnu",
    "x86_64-apple-darwin",
    "aarch64-apple-darwin",
    "x86_64-pc-windows-msvc",
];

fn emit(p: &Program, triple: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let opts = EmitOptions { hash: "abc123".into(), ..EmitOptions::default() };
    let stats = emit_object(p, &target(triple), &opts, &mut out).unwrap_or_else(|e| panic!("{triple}: {e:?}"));
    assert_eq!(stats.kernels.len(), p.kernels.len());
    assert!(stats.text > 0 && stats.rodata > 96 && stats.consts > 0, "{stats:?}");
    out
}

fn write_model(dir: &Path, p: &Program, triple: &str) {
    std::fs::write(dir.join(format!("{}.o", p.name)), emit(p, triple)).unwrap();
    std::fs::write(dir.join(format!("{}.h", p.name)), emit_header(p)).unwrap();
}

fn run(command: &mut Command) -> String {
    let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{command:?}: {}\n{text}", out.status);
    text
}

/// Whether a program is there; says that the test is skipped if not.
fn have(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success());
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// Links two models with the C test program, and runs it.
fn link_and_run(triple: &str, cc: &str, runner: Option<&str>) {
    let dir = tempfile::tempdir().unwrap();
    for name in ["first", "second"] {
        write_model(dir.path(), &program(name), triple);
    }
    let app = dir.path().join("app");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/object/app.c");
    let mut c = Command::new(cc);
    c.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-I"]).arg(dir.path()).arg(source);
    c.args([dir.path().join("first.o"), dir.path().join("second.o")]).arg("-o").arg(&app);
    if runner.is_some() {
        c.arg("-static");
    }
    assert_eq!(run(&mut c), "", "warnings of the compiler or linker");
    let mut c = match runner {
        Some(r) => Command::new(r),
        None => Command::new(&app),
    };
    if runner.is_some() {
        c.arg(&app);
    }
    assert_eq!(run(&mut c), "all good\n");
}

#[test]
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn models_run_from_c() {
    if have("cc") {
        link_and_run("x86_64-unknown-linux-gnu", "cc", None);
    }
}

#[test]
fn models_run_on_aarch64() {
    if have("aarch64-linux-gnu-gcc") && have("qemu-aarch64") {
        link_and_run("aarch64-unknown-linux-gnu", "aarch64-linux-gnu-gcc", Some("qemu-aarch64"));
    }
}

/// An object for more than this machine has must say so, and one for just this machine must run.
#[test]
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn a_cpu_without_the_features_is_an_error() {
    if !have("cc") {
        return;
    }
    let pinned = |cpu: &str| {
        let (dir, p) = (tempfile::tempdir().unwrap(), program("m"));
        let target = Target::parse("x86_64", cpu).unwrap();
        let mut out = Vec::new();
        emit_object(&p, &target, &EmitOptions::default(), &mut out).unwrap();
        std::fs::write(dir.path().join("m.o"), out).unwrap();
        std::fs::write(dir.path().join("m.h"), emit_header(&p)).unwrap();
        let source = "#include \"m.h\"\n#include <stdio.h>\n\
            static int64_t ids[1]; static float bias[20], y[20]; static _Alignas(64) char ws[4096];\n\
            int main(void) { m_inputs i = {ids, bias}; m_outputs o = {y}; m_dims d = {1, 1};\n\
            printf(\"%d\", m_run(&i, &d, &o, ws, sizeof ws, 0, 0)); return 0; }\n";
        std::fs::write(dir.path().join("a.c"), source).unwrap();
        let app = dir.path().join("app");
        run(Command::new("cc").args([dir.path().join("a.c"), dir.path().join("m.o")]).arg("-o").arg(&app));
        (run(&mut Command::new(app)), target.runs_here())
    };
    for cpu in ["native", "x86-64-v2", "x86-64-v3", "x86-64-v4", "znver4"] {
        let (code, here) = pinned(cpu);
        assert_eq!(code, if here { "0" } else { "8" }, "{cpu}");
    }
}

/// Of variants whose tables differ, the result says which one ran: the last that the CPU has instructions for.
#[test]
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn the_cpu_chooses_the_variant() {
    if !have("cc") {
        return;
    }
    let targets = target(TRIPLES[0]).variants(Needs::default());
    assert_eq!(targets.iter().map(|t| t.cpu.as_str()).collect::<Vec<_>>(), ["x86-64", "x86-64-v3", "x86-64-v4"]);
    let programs: Vec<Program> = (0..targets.len())
        .map(|i| {
            let mut p = program("m");
            let table: Vec<f32> = (0..80).map(|k| (k * (i + 1)) as f32).collect();
            p.consts[0].parts = vec![Tensor::from_f32(vec![10, 8], &table).into()];
            p
        })
        .collect();
    let variants: Vec<Variant<'_>> =
        programs.iter().zip(&targets).map(|(program, target)| Variant { program, target }).collect();
    let dir = tempfile::tempdir().unwrap();
    let mut out = Vec::new();
    let stats = emit_variants(&variants, &EmitOptions::default(), &mut out).unwrap();
    // Three tables of 320 bytes, and one packed matrix.
    assert_eq!((stats.consts, stats.kernels.len()), (3 * 320 + 2 * 16 * 8 * 4, 9));
    std::fs::write(dir.path().join("m.o"), out).unwrap();
    let names: Vec<&str> = targets.iter().map(|t| t.cpu.as_str()).collect();
    std::fs::write(dir.path().join("m.h"), emit_header_for(&programs[0], &names)).unwrap();
    let source = "#include \"m.h\"\n#include <stdio.h>\n\
        static int64_t ids[1] = {1}; static float bias[20], y[20]; static _Alignas(64) char ws[4096];\n\
        int main(void) { m_inputs i = {ids, bias}; m_outputs o = {y}; m_dims d = {1, 1};\n\
        for (int k = 0; k < 2; k++) { y[0] = 0; if (!m_workspace_size(&d, 1)) return 1;\n\
        if (m_run(&i, &d, &o, ws, sizeof ws, 0, 0)) return 2; printf(\"%g \", y[0]); }\n\
        uint32_t n = 0; for (; m_variants[n]; n++) { int32_t code = m_select_variant(n); y[0] = 0;\n\
        if (!code && m_run(&i, &d, &o, ws, sizeof ws, 0, 0)) return 3;\n\
        if (code) printf(\"%s=error%d \", m_variants[n], code); else printf(\"%s=%g \", m_variants[n], y[0]); }\n\
        if (m_select_variant(n) != BERTC_INDEX_OUT_OF_RANGE) return 4;\n\
        if (m_run(&i, &d, &o, ws, sizeof ws, 0, 0)) return 5; printf(\"%g\", y[0]); return 0; }\n";
    std::fs::write(dir.path().join("a.c"), source).unwrap();
    let app = dir.path().join("app");
    run(Command::new("cc")
        .arg("-I")
        .arg(dir.path())
        .args([dir.path().join("a.c"), dir.path().join("m.o")])
        .arg("-o")
        .arg(&app));
    let first: f64 = (8..16).map(|k| f64::from(k) * (f64::from((k - 8) * 20 % 7) - 3.0)).sum();
    let here = targets.iter().filter(|t| t.runs_here()).count();
    let mut machines = vec![(Command::new(&app), here)];
    if have("qemu-x86_64") {
        for (cpu, level) in [("Nehalem", 1), ("Haswell", 2)] {
            let mut c = Command::new("qemu-x86_64");
            c.args(["-cpu", cpu]).arg(&app).stderr(std::process::Stdio::null());
            machines.push((c, level));
        }
    }
    for (mut machine, level) in machines {
        let want = first * level as f64;
        // Any that the CPU can run is run when it is asked for; what it can't run changes nothing.
        let each = names.iter().enumerate().map(|(i, name)| match i < level {
            true => format!("{name}={} ", first * (i + 1) as f64),
            false => format!("{name}=error8 "),
        });
        assert_eq!(run(&mut machine), format!("{want} {want} {}{want}", each.collect::<String>()), "{machine:?}");
    }
}

#[test]
fn variants_of_different_models_are_refused() {
    let (targets, mut programs) = (target(TRIPLES[0]).variants(Needs::default()), [program("m"), program("m")]);
    let emit = |programs: &[Program; 2], targets: [&Target; 2]| {
        let variants = [0, 1].map(|i| Variant { program: &programs[i], target: targets[i] });
        emit_variants(&variants, &EmitOptions::default(), &mut Vec::new()).map_err(|e| e[0].message.clone())
    };
    assert!(emit(&programs, [&targets[0], &targets[1]]).is_ok());
    let e = emit(&programs, [&targets[1], &targets[2]]).unwrap_err();
    assert!(e.contains("the first variant is for 'x86-64-v3'"), "{e}");
    let e = emit(&programs, [&targets[0], &targets[0]]).unwrap_err();
    assert!(e.contains("no CPU would choose the variant for 'x86-64'"), "{e}");
    programs[1].inputs.pop();
    assert!(emit(&programs, [&targets[0], &targets[1]]).is_err());
}

#[test]
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn an_object_links_into_a_shared_library() {
    if !have("cc") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    write_model(dir.path(), &program("lib"), TRIPLES[0]);
    let mut c = Command::new("cc");
    c.args(["-shared", "-Wl,-z,defs", "-Wl,-z,text", "-nostdlib", "-o"]).arg(dir.path().join("lib.so"));
    c.arg(dir.path().join("lib.o"));
    assert_eq!(run(&mut c), "");
}

#[test]
fn no_format_has_undefined_symbols() {
    for triple in TRIPLES {
        let bytes = emit(&program("bert"), triple);
        let file = object::File::parse(&*bytes).unwrap();
        let prefix = if triple.contains("darwin") { "_" } else { "" };
        for s in file.symbols() {
            assert!(!s.is_undefined() || s.index().0 == 0 || s.name() == Ok(""), "{triple}: undefined {:?}", s.name());
        }
        let mut exported: Vec<&str> =
            file.symbols().filter(|s| s.is_global()).map(|s| s.name().unwrap().strip_prefix(prefix).unwrap()).collect();
        exported.sort_unstable();
        let want = ["bert_model", "bert_output_shape", "bert_run", "bert_strerror", "bert_workspace_size"];
        assert_eq!(exported, want, "{triple}");
        let kernel = file.symbols().find(|s| s.name() == Ok(&format!("{prefix}bert_k_gather")));
        assert!(kernel.is_some_and(|s| s.is_local()), "{triple}: kernels are named");
        let weights = file
            .sections()
            .find(|s| s.name().is_ok_and(|n| n.contains("weights") || n == ".rdata$w"))
            .unwrap_or_else(|| panic!("{triple}: no section of weights"));
        assert_eq!(weights.align(), 64, "{triple}");
        assert_eq!(weights.kind(), object::SectionKind::ReadOnlyData, "{triple}");
        if triple.contains("linux") {
            assert!(file.section_by_name(".note.GNU-stack").is_some(), "{triple}");
        }
        assert!(bytes == emit(&program("bert"), triple), "{triple}: bytes differ from run to run");
    }
}

/// What chooses a variant is exported where there is a choice.
#[test]
fn variants_are_exported_by_name() {
    let (p, targets) = (program("m"), target(TRIPLES[0]).variants(Needs::default()));
    let variants: Vec<_> = targets.iter().map(|target| Variant { program: &p, target }).collect();
    let mut out = Vec::new();
    emit_variants(&variants, &EmitOptions::default(), &mut out).unwrap();
    let file = object::File::parse(&*out).unwrap();
    let mut exported: Vec<&str> = file.symbols().filter(|s| s.is_global()).map(|s| s.name().unwrap()).collect();
    exported.sort_unstable();
    let want =
        ["m_model", "m_output_shape", "m_run", "m_select_variant", "m_strerror", "m_variants", "m_workspace_size"];
    assert_eq!(exported, want);
    let header = emit_header_for(&p, &["x86-64", "x86-64-v3"]);
    assert!(header.contains("int32_t m_select_variant(uint32_t variant);") && header.contains("x86-64, x86-64-v3"));
    assert!(!emit_header(&p).contains("select_variant"));
}

#[test]
fn listings_name_every_function() {
    for triple in &TRIPLES[..2] {
        let (p, t) = (program("bert"), target(triple));
        let v = Variant { program: &p, target: &t };
        let (clif, asm) = (emit_clif(&[v]).unwrap(), emit_asm(&[v]).unwrap());
        for f in ["bert_k_gather", "bert_k_project", "bert_k_add", "bert_launch", "bert_steps_0", "bert_run"] {
            assert!(clif.contains(&format!("; {f} (u0:")), "{f} in\n{clif}");
            assert!(asm.contains(&format!("; {f} (u0:")), "{f} in\n{asm}");
        }
        assert!(clif.contains("func_addr.i64") && asm.contains("block0:"));
    }
}

#[test]
fn headers_are_c99_and_cpp() {
    let mut odd = program("odd");
    odd.inputs[0].name = "class".into();
    odd.inputs[1].name = "9 lives*/ ??/".into();
    let mut twin = odd.outputs[0].clone();
    twin.name = "__out:0".into();
    odd.outputs[0].name = "out.0".into();
    odd.outputs.push(twin);
    let text = emit_header(&odd);
    for want in ["*class_;", "*input_9_lives_;", "*out_0;", "*out_0_2;", "'class' in the model", "[batch, seq, 20]"] {
        assert!(text.contains(want), "{want} in\n{text}");
    }
    let mut none = program("none");
    (none.inputs, none.outputs, none.symbols) = Default::default();
    let dir = tempfile::tempdir().unwrap();
    let mut source = String::new();
    for p in [&odd, &none, &program("plain")] {
        std::fs::write(dir.path().join(format!("{}.h", p.name)), emit_header(p)).unwrap();
        source += &format!("#include \"{0}.h\"\n#include \"{0}.h\"\nconst bertc_model *{0}(void);\n", p.name);
        source += &format!("const bertc_model *{0}(void) {{ return &{0}_model; }}\n", p.name);
    }
    std::fs::write(dir.path().join("a.c"), source).unwrap();
    for (compiler, args) in [("cc", ["-xc", "-std=c99"]), ("c++", ["-xc++", "-std=c++11"])] {
        if have(compiler) {
            let mut c = Command::new(compiler);
            c.args(args)
                .args(["-pedantic", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"])
                .arg(dir.path().join("a.c"));
            run(&mut c);
        }
    }
}

#[test]
fn programs_that_can_t_be_compiled_are_diagnosed() {
    let message = |p: &Program| {
        let e = emit_object(p, &target(TRIPLES[0]), &EmitOptions::default(), &mut Vec::new()).unwrap_err();
        e.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    assert!(message(&program("9x")).contains("not a C identifier"));
    assert!(message(&program("bertc")).contains("belongs to the C interface"));
    let mut p = program("m");
    p.symbols.get_mut(SymbolId(1)).max = i64::MAX / 2;
    let text = message(&p);
    assert!(text.contains("2^62") && text.contains("narrow dim 'seq'"), "{text}");
    let mut p = program("m");
    let seq = Dim::symbol(SymbolId(1));
    p.steps[0].args[3] = Arg::Int(Dim::product([&seq; 16]).unwrap());
    let text = message(&p);
    assert!(text.contains("an index") && text.contains("narrow dim 'seq'") && text.contains("step 0"), "{text}");
    let mut p = program("m");
    p.steps.swap(0, 2);
    assert!(message(&p).contains("already written an output"));
    let mut p = program("m");
    p.steps[1].args.pop();
    assert!(message(&p).contains("kernel 'project' takes 4 arguments, not 3"));
    let mut p = program("m");
    p.symbols.get_mut(SymbolId(0)).min = 9;
    assert!(message(&p).contains("dim 'batch' has the empty or negative range 9..=4"));
}

/// A model of BERT-base's length must not take long, however its steps look.
#[test]
fn many_steps_compile_fast() {
    let mut p = program("long");
    let (gather, rest) = (p.steps[0].clone(), p.steps[1..].to_vec());
    p.steps = std::iter::once(gather).chain(rest.into_iter().cycle().take(500)).collect();
    let n = p.symbols.find("seq").map(Dim::symbol).unwrap();
    for (i, s) in p.steps.iter_mut().enumerate().skip(1) {
        s.tasks = vec![(n.mul(&n).unwrap(), (1 + i as i64 % 7).into()), (n.clone(), 4.into())];
    }
    let start = std::time::Instant::now();
    emit(&p, TRIPLES[0]);
    let took = start.elapsed();
    assert!(took.as_secs_f64() < 4.0, "500 steps took {took:?}");
}
