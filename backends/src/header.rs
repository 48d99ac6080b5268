//! The C header of a compiled model: C99 and C++, to be read by a person.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use bertc_ir::{DType, Dim, Symbols};

use crate::plan::{PortSpec, Program};

/// The part that all models share, behind its own guard.
const COMMON: &str = include_str!("../../runtime-stub/include/bertc.h");

/// The header of `program`, whose object has one variant.
pub fn emit_header(program: &Program) -> String {
    emit_header_for(program, &[])
}

/// The header of an object with `variants` of `program`, by the names of their CPUs.
pub fn emit_header_for(program: &Program, variants: &[&str]) -> String {
    let names = Names::new(program);
    let mut s = String::new();
    // Writing to a string can't fail.
    let _ = write_header(program, &names, variants, &mut s);
    s
}

/// The C identifiers of struct members.
struct Names {
    dims: Vec<String>,
    inputs: Vec<String>,
    outputs: Vec<String>,
}

impl Names {
    fn new(p: &Program) -> Names {
        let dims: Vec<&str> = p.symbols.iter().map(|(_, s)| s.name.as_str()).collect();
        let ports = |v: &'_ [PortSpec]| v.iter().map(|p| p.name.clone()).collect::<Vec<_>>();
        Names {
            dims: identifiers(dims, "dim"),
            inputs: identifiers(ports(&p.inputs).iter().map(String::as_str), "input"),
            outputs: identifiers(ports(&p.outputs).iter().map(String::as_str), "output"),
        }
    }
}

fn write_header(p: &Program, names: &Names, variants: &[&str], s: &mut String) -> std::fmt::Result {
    let n = &p.name;
    let guard = format!("{}_H_", n.to_uppercase());
    writeln!(s, "/* {n}.h: the C interface of the compiled model {n}. Written by bertc; do not edit.")?;
    overview(p, names, s)?;
    usage(p, names, s)?;
    writeln!(s, " */\n#ifndef {guard}\n#define {guard}\n")?;
    writeln!(s, "{}", COMMON.trim_end())?;
    writeln!(s, "\n#ifdef __cplusplus\nextern \"C\" {{\n#endif\n")?;

    writeln!(s, "/* The dims of a run. */\ntypedef struct {n}_dims {{")?;
    let members = p.symbols.iter().zip(&names.dims).map(|((_, d), name)| {
        let was = renamed(name, &d.name);
        (format!("int64_t {name};"), format!("{}..={}{was}", d.min, d.max))
    });
    members_of(s, members.collect(), "int64_t unused;")?;
    writeln!(s, "}} {n}_dims;\n")?;

    writeln!(s, "/* The inputs: row-major, each aligned to its elements. */\ntypedef struct {n}_inputs {{")?;
    members_of(s, ports(p, &p.inputs, &names.inputs, "const "), "const void *unused;")?;
    writeln!(s, "}} {n}_inputs;\n")?;

    writeln!(s, "/* Where the outputs go: row-major; they may not overlap anything else. */")?;
    writeln!(s, "typedef struct {n}_outputs {{")?;
    members_of(s, ports(p, &p.outputs, &names.outputs, ""), "void *unused;")?;
    writeln!(s, "}} {n}_outputs;\n")?;

    s.push_str(&PROTOTYPES.replace("MODEL", n));
    if variants.len() > 1 {
        s.push_str(&VARIANTS.replace("MODEL", n).replace("NAMES", &comment(&variants.join(", "))));
    }
    writeln!(s, "\n#ifdef __cplusplus\n}}\n#endif\n#endif /* {guard} */")
}

const PROTOTYPES: &str = "\
/* Bytes of workspace that a run with these dims and at most max_workers workers needs, a multiple of
 * 64; 0 if a dim is out of range or max_workers is 0. */
size_t MODEL_workspace_size(const MODEL_dims *dims, uint32_t max_workers);

/* Runs the model; returns BERTC_OK or an error code, on which the outputs are untouched. The workspace
 * is aligned to 64 bytes; nothing in it needs to be set or kept. `parallel` may be NULL (one thread),
 * `options` may be NULL. Several threads may run at once, each with a workspace of its own. */
int32_t MODEL_run(const MODEL_inputs *inputs, const MODEL_dims *dims, const MODEL_outputs *outputs,
                  void *workspace, size_t workspace_bytes, const bertc_parallel *parallel,
                  const bertc_options *options);

/* What an error code means, in English. */
const char *MODEL_strerror(int32_t code);

/* Writes the extents of an output (0 is the first) to shape; returns BERTC_OK or an error code. */
int32_t MODEL_output_shape(const MODEL_dims *dims, uint32_t output, int64_t *shape);

/* The model's description, for tools that drive any model. */
extern const bertc_model MODEL_model;
";

const VARIANTS: &str = "
/* For tests. There is code for several CPUs, by number from 0:
 *   NAMES
 * and runs take the last one that this CPU has the instructions for. Their names, and NULL behind them: */
extern const char *const MODEL_variants[];

/* Takes the variant of this number instead, in all runs of this process that begin later; the size of the
 * workspace is that variant's, too. BERTC_CPU_UNSUPPORTED, with nothing changed, if this CPU can't run it,
 * BERTC_INDEX_OUT_OF_RANGE if there is no such number. May be called at any time, by any thread. */
int32_t MODEL_select_variant(uint32_t variant);
";

/// The table of dims, inputs and outputs that the header starts with.
fn overview(p: &Program, names: &Names, s: &mut String) -> std::fmt::Result {
    let mut rows = Vec::new();
    for ((_, d), name) in p.symbols.iter().zip(&names.dims) {
        rows.push(["dim".to_string(), name.clone(), format!("{}..={}", d.min, d.max)]);
    }
    for (kind, ports, idents) in [("input", &p.inputs, &names.inputs), ("output", &p.outputs, &names.outputs)] {
        for (port, name) in ports.iter().zip(idents) {
            let shape = format!("{} {}", describe(port.ty.dtype), shape(p, names, port));
            rows.push([kind.to_string(), name.clone(), shape]);
        }
    }
    let width = |i: usize| rows.iter().map(|r| r[i].len()).max().unwrap_or(0);
    let (a, b) = (width(0), width(1));
    writeln!(s, " *")?;
    for [kind, name, what] in &rows {
        writeln!(s, " *   {kind:a$}  {name:b$}  {}", comment(what))?;
    }
    Ok(())
}

/// An example, as part of a comment.
fn usage(p: &Program, names: &Names, s: &mut String) -> std::fmt::Result {
    let n = &p.name;
    let mut line = |text: &str| if text.is_empty() { writeln!(s, " *") } else { writeln!(s, " *   {text}") };
    line("")?;
    line(&format!("#include \"{n}.h\""))?;
    line("")?;
    line(&format!("{n}_dims dims;"))?;
    for ((_, d), name) in p.symbols.iter().zip(&names.dims) {
        // A value that looks like one: batches of one, sentences of some length.
        let value = if name.contains("batch") { 1 } else { 128 };
        line(&format!("dims.{name} = {};", value.clamp(d.min, d.max)))?;
    }
    for (kind, what, idents) in [("inputs", "in", &names.inputs), ("outputs", "out", &names.outputs)] {
        line(&format!("{n}_{kind} {what};"))?;
        for name in idents {
            line(&format!("{what}.{name} = my_{name};"))?;
        }
    }
    line(&format!("size_t bytes = {n}_workspace_size(&dims, 1);"))?;
    line("void *workspace = aligned_alloc(BERTC_WORKSPACE_ALIGN, bytes);")?;
    line(&format!("int32_t code = {n}_run(&in, &dims, &out, workspace, bytes, NULL, NULL);"))?;
    line(&format!("if (code != BERTC_OK) fprintf(stderr, \"%s\\n\", {n}_strerror(code));"))
}

/// Struct members with comments behind them, or `dummy` where there are none (C has no empty structs).
fn members_of(s: &mut String, members: Vec<(String, String)>, dummy: &str) -> std::fmt::Result {
    if members.is_empty() {
        return writeln!(s, "  {dummy} /* there are none: leave it unset */");
    }
    let width = members.iter().map(|m| m.0.len()).max().unwrap_or(0);
    for (code, note) in members {
        writeln!(s, "  {code:width$} /* {} */", comment(&note))?;
    }
    Ok(())
}

fn ports(p: &Program, ports: &[PortSpec], idents: &[String], qualifier: &str) -> Vec<(String, String)> {
    let names = Names::new(p);
    let row = |(port, name): (&PortSpec, &String)| {
        let code = format!("{qualifier}{} *{name};", c_type(port.ty.dtype));
        let note = match port.ty.dtype {
            DType::F16 | DType::BF16 | DType::Bool => format!("{} ", describe(port.ty.dtype)),
            _ => String::new(),
        };
        (code, format!("{note}{}{}", shape(p, &names, port), renamed(name, &port.name)))
    };
    ports.iter().zip(idents).map(row).collect()
}

/// A note of the model's own name where the identifier differs.
fn renamed(ident: &str, name: &str) -> String {
    if ident == name { String::new() } else { format!("; '{name}' in the model") }
}

/// A shape as `[batch, sequence, 384]`, in the header's names.
fn shape(p: &Program, names: &Names, port: &PortSpec) -> String {
    let mut renamed = Symbols::default();
    for ((_, d), name) in p.symbols.iter().zip(&names.dims) {
        renamed.intern(name, d.min, d.max);
    }
    let dims: Vec<String> = port.ty.shape.iter().map(|d: &Dim| d.display(&renamed).to_string()).collect();
    if dims.is_empty() { "scalar".to_string() } else { format!("[{}]", dims.join(", ")) }
}

fn c_type(d: DType) -> &'static str {
    match d {
        DType::F32 => "float",
        DType::F64 => "double",
        DType::F16 | DType::BF16 | DType::U16 => "uint16_t",
        DType::I8 => "int8_t",
        DType::U8 | DType::Bool => "uint8_t",
        DType::I16 => "int16_t",
        DType::I32 => "int32_t",
        DType::U32 => "uint32_t",
        DType::I64 => "int64_t",
        DType::U64 => "uint64_t",
    }
}

fn describe(d: DType) -> &'static str {
    match d {
        DType::F16 => "binary16",
        DType::BF16 => "bfloat16",
        DType::Bool => "0 or 1",
        d => c_type(d),
    }
}

/// Text that is safe in a C comment: one line, no comment marks, no trigraphs.
fn comment(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        let c = if c.is_control() { ' ' } else { c };
        let clash = matches!((out.chars().last(), c), (Some('*'), '/') | (Some('/'), '*') | (Some('?'), '?'));
        if clash {
            out.push(' ');
        }
        out.push(c);
    }
    out
}

/// Distinct C identifiers for `names`, in order; a later name gives way to an earlier one.
fn identifiers<'a>(names: impl IntoIterator<Item = &'a str>, fallback: &str) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let mut one = |name: &str| {
        let base = identifier(name, fallback);
        let mut n = base.clone();
        let mut i = 2;
        while !taken.insert(n.clone()) {
            n = format!("{base}_{i}");
            i += 1;
        }
        n
    };
    names.into_iter().map(&mut one).collect()
}

/// A C and C++ identifier like `name`: what isn't allowed becomes '_'. Leading and double underscores are reserved, so
/// they go.
fn identifier(name: &str, fallback: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        let c = if c.is_ascii_alphanumeric() { c } else { '_' };
        if c != '_' || !(out.is_empty() || out.ends_with('_')) {
            out.push(c);
        }
    }
    if out.is_empty() {
        out.push_str(fallback);
    } else if out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert_str(0, &format!("{fallback}_"));
    }
    if RESERVED.contains(&out.as_str()) {
        out = if out.ends_with('_') { format!("{out}x") } else { format!("{out}_") };
    }
    out
}

/// Keywords of C and C++, and names that headers of the common systems define as macros.
const RESERVED: &[&str] = &[
    "alignas",
    "alignof",
    "and",
    "and_eq",
    "asm",
    "auto",
    "bitand",
    "bitor",
    "bool",
    "break",
    "case",
    "catch",
    "char",
    "char16_t",
    "char32_t",
    "char8_t",
    "class",
    "co_await",
    "co_return",
    "co_yield",
    "compl",
    "concept",
    "const",
    "const_cast",
    "consteval",
    "constexpr",
    "constinit",
    "continue",
    "decltype",
    "default",
    "delete",
    "do",
    "double",
    "dynamic_cast",
    "else",
    "enum",
    "explicit",
    "export",
    "extern",
    "false",
    "float",
    "for",
    "friend",
    "goto",
    "if",
    "inline",
    "int",
    "long",
    "mutable",
    "namespace",
    "new",
    "noexcept",
    "not",
    "not_eq",
    "nullptr",
    "operator",
    "or",
    "or_eq",
    "private",
    "protected",
    "public",
    "register",
    "reinterpret_cast",
    "requires",
    "restrict",
    "return",
    "short",
    "signed",
    "sizeof",
    "static",
    "static_assert",
    "static_cast",
    "struct",
    "switch",
    "template",
    "this",
    "thread_local",
    "throw",
    "true",
    "try",
    "typedef",
    "typeid",
    "typename",
    "typeof",
    "typeof_unqual",
    "union",
    "unsigned",
    "using",
    "virtual",
    "void",
    "volatile",
    "wchar_t",
    "while",
    "xor",
    "xor_eq",
    "EOF",
    "I",
    "NULL",
    "assert",
    "complex",
    "errno",
    "far",
    "huge",
    "i386",
    "imaginary",
    "interface",
    "linux",
    "near",
    "small",
    "stderr",
    "stdin",
    "stdout",
    "unix",
];
