//! Unwind information of objects: each function has an entry, which agrees with what its instructions do to the stack.

use std::collections::BTreeMap;

use bertc_backends::lower;
use bertc_backends::object::{EmitOptions, Variant, emit_variants};
use bertc_backends::target::{Needs, Target};
use bertc_ir::text::{no_resources, parse};
use gimli::{
    BaseAddresses, CfaRule, EhFrame, LittleEndian, Register, RegisterRule, UnwindContext, UnwindSection, X86_64,
};
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind};
use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget, SymbolKind};

/// Steps of many kinds: products, an attention that needs more general registers than there are, softmaxes, copies.
const MODEL: &str = "dims batch in 1..=3, seq in 1..=40
func @f(%q: tensor<batch x seq x 10 x f32>, %k: tensor<batch x 7 x 10 x f32>, %v: tensor<batch x 7 x 6 x f32>, %w: tensor<6 x 20 x f32>) -> tensor<batch x 20 x seq x f32> {
  %0 = attention %q, %k, %v {heads = 2, scale = 0.5}
  %1 = matmul %0, %w
  %2 = softmax %1 {axis = 2}
  %3 = transpose %2 {perm = [0, 2, 1]}
  return %3
}
";

/// An object of [`MODEL`] with all variants of a target.
fn emit(target: &str, cpu: &str) -> Vec<u8> {
    let graph = parse(MODEL, &no_resources).unwrap_or_else(|e| panic!("{e:?}"));
    let targets = Target::parse(target, cpu).unwrap().variants(Needs::default());
    let programs: Vec<_> =
        targets.iter().map(|t| lower::lower(&graph, t).unwrap_or_else(|e| panic!("{e:?}"))).collect();
    let variants: Vec<_> = programs.iter().zip(&targets).map(|(program, target)| Variant { program, target }).collect();
    let mut out = Vec::new();
    let stats = emit_variants(&variants, &EmitOptions::default(), &mut out).unwrap();
    assert!(stats.unwind == 0 || stats.unwind * 10 < stats.text, "{stats:?}");
    out
}

/// Where the section would lie; code is at 0.
const AT: u64 = 1 << 24;

/// A function of an object.
struct Function {
    name: String,
    bytes: Vec<u8>,
    /// What is told: from an offset on, the canonical frame address and where registers are.
    rows: Vec<(u64, Row)>,
}

/// The register and the offset that make the frame's address, and the saved registers' offsets from it.
type Row = ((Register, i64), BTreeMap<u16, i64>);

/// Every function of an ELF object with its entry; panics where there is none, or where entries are left over.
fn functions(bytes: &[u8]) -> Vec<Function> {
    let file = object::File::parse(bytes).unwrap();
    let section = file.section_by_name(".eh_frame").expect("unwind information");
    let mut data = section.data().unwrap().to_vec();
    for (offset, r) in section.relocations() {
        let RelocationTarget::Symbol(symbol) = r.target() else { panic!("{r:?}") };
        let symbol = file.symbol_by_index(symbol).unwrap();
        // A linker refuses relative references to symbols that another library may replace.
        assert!(symbol.is_local() && !symbol.is_undefined(), "{symbol:?}");
        assert_eq!((r.kind(), r.size()), (object::RelocationKind::Relative, 32));
        let value = symbol.address().wrapping_add_signed(r.addend()).wrapping_sub(AT + offset);
        let at = usize::try_from(offset).unwrap();
        data[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
    }
    let mut frames = EhFrame::new(&data, LittleEndian);
    frames.set_address_size(8);
    let bases = BaseAddresses::default().set_eh_frame(AT);
    let mut entries = BTreeMap::new();
    let mut all = frames.entries(&bases);
    while let Some(entry) = all.next().unwrap() {
        if let gimli::CieOrFde::Fde(partial) = entry {
            let fde = partial.parse(EhFrame::cie_from_offset).unwrap();
            let mut rows = Vec::new();
            let mut context = UnwindContext::new();
            let mut table = fde.rows(&frames, &bases, &mut context).unwrap();
            while let Some(row) = table.next_row().unwrap() {
                let CfaRule::RegisterAndOffset { register, offset } = *row.cfa() else { panic!("{row:?}") };
                let saved = row.registers().filter_map(|(r, rule)| match rule {
                    RegisterRule::Offset(n) => Some((r.0, *n)),
                    _ => None,
                });
                rows.push((row.start_address() - fde.initial_address(), ((register, offset), saved.collect())));
            }
            let old = entries.insert(fde.initial_address(), (fde.len(), rows));
            assert!(old.is_none(), "two entries for {:#x}", fde.initial_address());
        }
    }
    let text = file.section_by_name(".text").unwrap().data().unwrap();
    let symbols = file.symbols().filter(|s| s.kind() == SymbolKind::Text && s.is_definition());
    let found = symbols.map(|s| {
        let name = s.name().unwrap().to_string();
        let (len, rows) = entries.remove(&s.address()).unwrap_or_else(|| panic!("no entry for '{name}'"));
        assert!(s.size() > 0 && s.size() == len, "'{name}': {} bytes, {len} told", s.size());
        let range = s.address() as usize..(s.address() + s.size()) as usize;
        Function { name, bytes: text[range].to_vec(), rows }
    });
    let found = found.collect();
    assert!(entries.is_empty(), "entries for no function: {entries:?}");
    found
}

/// Bytes between where a pointer points and what the caller had on the stack, if it points there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Depths {
    rsp: i64,
    rbp: Option<i64>,
}

/// Follows the stack pointer through x86-64 code, along all its branches, and compares it with what is told.
fn follow(f: &Function) {
    let own = f.rows.iter().all(|(_, (cfa, _))| cfa.0 == X86_64::RSP);
    let mut seen: BTreeMap<u64, Depths> = BTreeMap::new();
    let mut open = vec![(0, Depths { rsp: 8, rbp: None })];
    let mut returns = 0;
    while let Some((at, depths)) = open.pop() {
        if let Some(before) = seen.insert(at, depths) {
            assert_eq!(before, depths, "'{}' at {at:#x}", f.name);
            continue;
        }
        let code = &f.bytes[usize::try_from(at).unwrap()..];
        let i = Decoder::with_ip(64, code, at, DecoderOptions::NONE).decode();
        assert!(!i.is_invalid(), "'{}' at {at:#x} is no code", f.name);
        let (_, (cfa, saved)) = f.rows.iter().rev().find(|row| row.0 <= at).expect("a row from the start on");
        let is = match cfa.0 {
            X86_64::RSP => Some(depths.rsp),
            X86_64::RBP => depths.rbp,
            r => panic!("'{}': the frame is relative to {r:?}", f.name),
        };
        // Cranelift tells nothing of epilogues. In all but their last instruction the frame pointer is still there.
        let excused = i.mnemonic() == Mnemonic::Ret && !own;
        assert!(excused || is == Some(cfa.1), "'{}' at {at:#x}: {i}: {cfa:?} is told, {depths:?} is", f.name);
        assert!(i.mnemonic() != Mnemonic::Call || cfa.0 == X86_64::RBP, "'{}' calls without a frame", f.name);
        if i.mnemonic() == Mnemonic::Ret {
            assert_eq!(depths.rsp, 8, "'{}' at {at:#x}", f.name);
            assert!(!own || saved.len() == 1, "'{}' returns with registers of its caller's: {saved:?}", f.name);
            returns += 1;
        }
        let after = step(&i, depths, own);
        let target = (i.op_count() > 0 && i.op0_kind() == OpKind::NearBranch64).then(|| i.near_branch_target());
        if let Some(to) = target.filter(|_| i.mnemonic() != Mnemonic::Call) {
            open.push((to, after));
        }
        match i.mnemonic() {
            Mnemonic::Ret | Mnemonic::Ud2 => {}
            Mnemonic::Jmp => assert!(target.is_some(), "'{}' at {at:#x}: {i} goes anywhere", f.name),
            _ => open.push((i.next_ip(), after)),
        }
    }
    assert!(returns > 0, "'{}' never returns", f.name);
}

/// What an instruction does to the pointers. In code that is all relative to the stack pointer, rbp is like any other
/// register.
fn step(i: &Instruction, d: Depths, own: bool) -> Depths {
    use iced_x86::Register::{RBP, RSP};
    let on = |n: u32, r| i.op_count() > n && i.op_kind(n) == OpKind::Register && i.op_register(n) == r;
    match i.mnemonic() {
        Mnemonic::Push => Depths { rsp: d.rsp + 8, ..d },
        Mnemonic::Pop => Depths { rsp: d.rsp - 8, rbp: d.rbp.filter(|_| !on(0, RBP)) },
        Mnemonic::Sub if on(0, RSP) => Depths { rsp: d.rsp + i.immediate(1) as i64, ..d },
        Mnemonic::Add if on(0, RSP) => Depths { rsp: d.rsp - i.immediate(1) as i64, ..d },
        Mnemonic::Mov if !own && on(0, RBP) && on(1, RSP) => Depths { rbp: Some(d.rsp), ..d },
        Mnemonic::Mov if on(0, RSP) && on(1, RBP) => Depths { rsp: d.rbp.expect("a frame pointer"), ..d },
        _ => d,
    }
}

#[test]
fn every_function_of_every_variant_can_be_unwound() {
    let all = functions(&emit("x86_64", "generic"));
    for (what, least) in
        [("f_x86_64_v4_k_attention", 1), ("f_x86_64_v3_k_attention", 1), ("f_x86_64_k_", 4), ("_cpu_check", 2)]
    {
        let found = all.iter().filter(|f| f.name.contains(what)).count();
        assert!(found >= least, "{what}: {:?}", all.iter().map(|f| &f.name).collect::<Vec<_>>());
    }
    for f in &all {
        // As every function is entered: the return address on top.
        assert_eq!(f.rows[0], (0, ((X86_64::RSP, 8), BTreeMap::from([(X86_64::RA.0, -8)]))), "{}", f.name);
        follow(f);
    }
    // Of both kinds, some have something to tell.
    for part in ["v4_k_attention", "_run"] {
        let f = all.iter().find(|f| f.name.contains(part)).unwrap();
        assert!(f.rows.iter().any(|(_, (_, saved))| saved.len() > 3), "{part}: {:?}", f.rows);
    }
    assert!(emit("x86_64", "generic") == emit("x86_64", "generic"), "bytes differ from run to run");
}

#[test]
fn aarch64_is_told_of_too() {
    let all = functions(&emit("aarch64", "generic"));
    assert!(all.iter().any(|f| f.name == "f_run"));
    for f in &all {
        assert_eq!(f.rows[0], (0, ((gimli::AArch64::SP, 0), BTreeMap::new())), "{}", f.name);
    }
    // A function that calls has saved where it returns to.
    let run = all.iter().find(|f| f.name == "f_run").unwrap();
    assert!(run.rows.last().unwrap().1.1.contains_key(&gimli::AArch64::X30.0), "{:?}", run.rows);
}

#[test]
fn other_formats_have_none() {
    for target in ["x86_64-apple-darwin", "aarch64-apple-darwin", "x86_64-pc-windows-msvc"] {
        let bytes = emit(target, "generic");
        let file = object::File::parse(&*bytes).unwrap();
        let names: Vec<_> = file.sections().map(|s| s.name().unwrap().to_string()).collect();
        assert!(!names.iter().any(|n| n.contains("eh_frame") || n == ".pdata"), "{target}: {names:?}");
    }
}
