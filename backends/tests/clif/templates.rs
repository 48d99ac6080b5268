//! The kernel templates, step by step: compiled code against the interpreter, over all tails, in buffers that end at an
//! inaccessible page.

use bertc_backends::lower::lower;
use bertc_backends::target::{Emitter, Target};
use bertc_ir::DType;
use bertc_ir::kernel::Param;
use bertc_ir::kernel::interp::{self, Memory};

use crate::machine::{Arg, Case, Outcome, TARGETS, run_on};

#[path = "../common/templates.rs"]
mod graphs;
use graphs::{Call, Operand};

/// The elements as f32: those of bf16 by their value, others of four bytes by their bits, the rest byte by byte.
fn f32s(bytes: &[u8], dtype: DType) -> Vec<f32> {
    match dtype {
        DType::BF16 => bytes.chunks(2).map(|c| f32::from_bits(u32::from(c[1]) << 24 | u32::from(c[0]) << 16)).collect(),
        _ if dtype.size() < 4 => bytes.iter().copied().map(f32::from).collect(),
        _ => bytes.chunks(4).map(|c| f32::from_le_bytes(c.try_into().expect("four bytes"))).collect(),
    }
}

fn case(call: Call, name: &str) -> Case {
    let mut memory = Memory::default();
    let (mut native, mut model, mut compared) = (Vec::new(), Vec::new(), Vec::new());
    for o in call.operands {
        let scratch = matches!(o, Operand::Scratch(_));
        match o {
            Operand::Int(v) => {
                model.push(interp::Arg::Int(v));
                native.push(Arg::Int(v));
            }
            Operand::Buffer(b) | Operand::Scratch(b) => {
                model.push(interp::Arg::buffer(memory.add(b.clone())));
                native.push(Arg::Buffer(b));
                compared.push(!scratch);
            }
        }
    }
    interp::run(&call.kernel, &mut memory, &model, 0..call.tasks).unwrap_or_else(|e| panic!("{name}: {e}"));
    let name = format!("{name}: {}", call.kernel.name);
    let dtypes: Vec<DType> = call.kernel.params.iter().filter_map(Param::dtype).collect();
    let check = move |o: &Outcome, t: &Target| {
        let both = o.buffers.iter().zip(&memory.buffers).enumerate();
        for (i, (got, want)) in both.filter(|(i, _)| compared[*i]) {
            // Without a fused multiply-add every product rounds; a result on the edge between two bf16 goes either way.
            let tolerance = if dtypes[i] == DType::BF16 { 1.0 / 128.0 } else { 2e-5 };
            for (k, (a, b)) in f32s(got, dtypes[i]).into_iter().zip(f32s(want, dtypes[i])).enumerate() {
                let close = (a - b).abs() <= tolerance * b.abs().max(1.0) || a.to_bits() == b.to_bits();
                assert!(close, "{name} on {} {}: buffer {i}, element {k}: {a} for {b}", t.triple, t.cpu);
            }
        }
    };
    let mut case = Case::new(call.kernel, native, check);
    case.tasks = call.tasks;
    case
}

#[test]
fn every_template() {
    let graphs = graphs::all();
    for (triple, cpu) in TARGETS {
        let mut target = Target::parse(triple, cpu).expect("a known target");
        target.emitter = Emitter::Clif;
        let mut cases = Vec::new();
        for (name, g) in &graphs {
            let p = lower(g, &graphs::machine(target.clone(), name)).unwrap_or_else(|e| panic!("{name}: {e:?}"));
            cases.extend(graphs::calls(&p).into_iter().map(|c| case(c, name)));
        }
        run_on(&target, &cases);
    }
}
