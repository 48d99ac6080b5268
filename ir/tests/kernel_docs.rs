//! The examples in `docs/kernel-ir.md`: each parses, prints to text that parses back, and computes what its `// run`
//! lines say. Every instruction has one.

use std::collections::BTreeSet;

use bertc_ir::kernel::interp::{Arg, Memory, run};
use bertc_ir::kernel::{Bin, Block, Inst, Kernel, Param, Un, parse, print};
use bertc_ir::text::line_col;
use bertc_ir::{DType, Loc};
use half::{bf16, f16};

const PAGE: &str = include_str!("../../docs/kernel-ir.md");

/// The `kir` blocks with the line each starts on.
fn examples() -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut lines = PAGE.lines().enumerate();
    while let Some((i, line)) = lines.next() {
        if line == "```kir" {
            let body = lines.by_ref().map(|(_, l)| l).take_while(|l| *l != "```").collect::<Vec<_>>().join("\n");
            found.push((i + 2, body));
        }
    }
    found
}

fn checked(first_line: usize, text: &str) -> Vec<Kernel> {
    parse(text).unwrap_or_else(|e| {
        for d in &e {
            if let Loc::Text { start, .. } = d.loc {
                eprintln!("docs/kernel-ir.md:{}: {}", first_line - 1 + line_col(text, start).0, d.message);
            }
        }
        panic!("an example does not parse");
    })
}

fn bytes(dtype: DType, text: &str) -> Vec<u8> {
    let f = || text.parse::<f64>().unwrap_or_else(|_| panic!("'{text}' is not a number"));
    let i = || text.parse::<i64>().unwrap_or_else(|_| panic!("'{text}' is not an integer"));
    match dtype {
        DType::F32 => (f() as f32).to_le_bytes().to_vec(),
        DType::F64 => f().to_le_bytes().to_vec(),
        DType::F16 => f16::from_f64(f()).to_le_bytes().to_vec(),
        DType::BF16 => bf16::from_f64(f()).to_le_bytes().to_vec(),
        _ => i().to_le_bytes()[..dtype.size()].to_vec(),
    }
}

/// `[1, 2], 3, _` split at its outer commas.
fn items(list: &str) -> Vec<&str> {
    let mut depth = 0;
    let split = |c| {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => (),
        }
        c == ',' && depth == 0
    };
    list.split(split).map(str::trim).collect()
}

fn buffer(dtype: DType, text: &str) -> Vec<u8> {
    let inner = text.trim_start_matches('[').trim_end_matches(']');
    inner.split(',').flat_map(|v| bytes(dtype, v.trim())).collect()
}

/// Runs one task as a `// run` line says and compares.
fn check_run(k: &Kernel, line: &str) {
    let (given, wanted) = line.split_once("=>").expect("a run line has '=>'");
    let (wanted, fails) = match wanted.trim().strip_suffix("fails") {
        Some(w) => (w.trim(), true),
        None => (wanted.trim(), false),
    };
    let (given, wanted) = (items(given), items(wanted));
    assert_eq!(given.len(), k.params.len(), "{line}");
    let (mut memory, mut args, mut dtypes) = (Memory::default(), Vec::new(), Vec::new());
    for (text, param) in given.iter().zip(&k.params) {
        args.push(match param {
            Param::Int { .. } => Arg::Int(text.parse().expect("an integer")),
            Param::Ptr { dtype, .. } => {
                dtypes.push(*dtype);
                Arg::buffer(memory.add(buffer(*dtype, text)))
            }
        });
    }
    let outcome = run(k, &mut memory, &args, 0..1).unwrap_or_else(|e| panic!("{line}: {e}"));
    assert_eq!(outcome.failed, fails, "{line}");
    assert!(wanted.len() <= dtypes.len(), "{line}: more results than buffers");
    for ((text, dtype), got) in wanted.iter().zip(dtypes).zip(&memory.buffers) {
        if *text != "_" {
            assert_eq!(*got, buffer(dtype, text), "{line}");
        }
    }
}

#[test]
fn examples_parse_print_and_run() {
    for (line, text) in examples() {
        let kernels = checked(line, &text);
        let printed: String = kernels.iter().map(print).collect();
        assert_eq!(checked(line, &printed), kernels, "docs/kernel-ir.md:{line}");
        let mut next = kernels.iter();
        let mut runs = Vec::new();
        for l in text.lines() {
            if let Some(r) = l.strip_prefix("// run ") {
                runs.push(r);
            } else if l.starts_with("kernel ") {
                let k = next.next().expect("a kernel a head");
                assert!(!runs.is_empty(), "docs/kernel-ir.md: kernel '{}' has no run line", k.name);
                runs.drain(..).for_each(|r| check_run(k, r));
            }
        }
    }
}

fn mnemonics(b: &Block, found: &mut BTreeSet<&'static str>) {
    for i in &b.insts {
        found.insert(i.mnemonic());
        match i {
            Inst::For { body, .. } => mnemonics(body, found),
            Inst::If { then, otherwise, .. } => {
                mnemonics(then, found);
                mnemonics(otherwise, found);
            }
            _ => (),
        }
    }
}

#[test]
fn every_instruction_has_an_example() {
    let mut found = BTreeSet::new();
    for (line, text) in examples() {
        checked(line, &text).iter().for_each(|k| mnemonics(&k.body, &mut found));
    }
    let rest = ["const", "fma", "dot", "cmp", "select", "convert", "bitcast", "splat", "extract", "reduce", "zip"];
    let control = ["load", "store", "prefetch", "for", "if", "fail"];
    let all = Un::ALL.iter().map(|u| u.name()).chain(Bin::ALL.iter().map(|b| b.name())).chain(rest).chain(control);
    let missing: Vec<&str> = all.filter(|n| !found.contains(n)).collect();
    assert!(missing.is_empty(), "docs/kernel-ir.md has no example of {missing:?}");
}
