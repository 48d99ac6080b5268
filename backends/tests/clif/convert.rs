//! Conversions, bit casts, splats and extracts.

use bertc_ir::kernel::{Bin, Elem, KernelBuilder, Reg, RegType};

use crate::arith::column_case;
use crate::machine::run_all;
use crate::value::{self, ELEMS, V, lanes, pairs, samples};

fn padded(e: Elem) -> Vec<V> {
    let mut v = samples(e);
    while !v.len().is_multiple_of(4) {
        v.push(v[0]);
    }
    v
}

#[test]
fn every_pair_of_elements() {
    let mut cases = Vec::new();
    for from in ELEMS {
        let a = padded(from);
        for to in ELEMS {
            for &l in lanes(from).iter().filter(|l| lanes(to).contains(l)) {
                for unsigned in [false, true] {
                    let x = a.clone();
                    let name = format!("convert_{}_{}_{unsigned}", from.name(), to.name());
                    let build = |b: &mut KernelBuilder, r: &[Reg]| b.convert_sign(r[0], to, unsigned);
                    cases.push(column_case(&name, l, &[(from, &a)], to, false, build, move |i, _| {
                        value::convert(x[i], to, unsigned)
                    }));
                }
            }
        }
    }
    run_all(&cases);
}

#[test]
fn bit_casts() {
    let mut cases = Vec::new();
    for (from, to) in [(Elem::F32, Elem::I32), (Elem::I32, Elem::F32), (Elem::F64, Elem::I64), (Elem::I64, Elem::F64)] {
        let a = padded(from);
        for &l in lanes(from) {
            let x = a.clone();
            let name = format!("bitcast_{}", from.name());
            cases.push(column_case(
                &name,
                l,
                &[(from, &a)],
                to,
                false,
                |b, r| b.bitcast(r[0], to),
                move |i, _| match x[i] {
                    V::F32(v) => V::I32(v.to_bits() as i32),
                    V::I32(v) => V::F32(f32::from_bits(v as u32)),
                    V::F64(v) => V::I64(v.to_bits() as i64),
                    V::I64(v) => V::F64(f64::from_bits(v as u64)),
                    v => v,
                },
            ));
        }
    }
    run_all(&cases);
}

/// Each lane is extracted and splatted; so is a constant.
#[test]
fn lanes_move() {
    let mut cases = Vec::new();
    for e in [Elem::F32, Elem::I32, Elem::Mask] {
        let a = pairs(e).0;
        for lane in 0..4u8 {
            let x = a.clone();
            let build = |b: &mut KernelBuilder, r: &[Reg]| {
                let v = b.extract(r[0], lane);
                b.splat(v, 4)
            };
            let name = format!("lane{lane}_{}", e.name());
            cases
                .push(column_case(&name, 4, &[(e, &a)], e, false, build, move |i, _| x[i / 4 * 4 + usize::from(lane)]));
        }
        for l in [1u8, 4] {
            let build = |b: &mut KernelBuilder, _: &[Reg]| match e {
                Elem::F32 => b.const_f(RegType::vector(e, l), -0.1),
                _ => b.const_i(RegType::vector(e, l), -2),
            };
            let want = match e {
                Elem::F32 => V::F32(-0.1),
                Elem::I32 => V::I32(-2),
                _ => V::M(true),
            };
            cases.push(column_case(&format!("const_{}", e.name()), l, &[(e, &a)], e, false, build, move |_, _| want));
        }
    }
    let a = pairs(Elem::I32).0;
    let x = a.clone();
    let build = |b: &mut KernelBuilder, r: &[Reg]| {
        let sum = b.reduce(Bin::Add, r[0]);
        b.splat(sum, 4)
    };
    cases.push(column_case("reduce_i32", 4, &[(Elem::I32, &a)], Elem::I32, false, build, move |i, _| {
        let lane = |l: usize| if let V::I32(v) = x[i / 4 * 4 + l] { v } else { 0 };
        V::I32((0..4).fold(0, |s, l| s.wrapping_add(lane(l))))
    }));
    run_all(&cases);
}
