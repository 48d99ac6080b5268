//! Objects of other formats, and kernels that can't be emitted.

use bertc_backends::emit::clif::emit_kernel;
use bertc_backends::target::Target;
use bertc_backends::vecmath;
use bertc_ir::DType;
use bertc_ir::kernel::{Bin, Elem, Inst, Kernel, KernelBuilder, Reg, RegType, Un};

use crate::machine::{object, undefined};

fn rich_kernel() -> Kernel {
    let mut b = KernelBuilder::new("rich");
    let (p, q) = (b.input("x", DType::F16), b.output("y", DType::BF16));
    let n = b.int_param("n");
    let zero = b.int(0);
    for lanes in [1u8, 4] {
        b.for_loop(zero, n, i64::from(lanes), &[], |b, i, _| {
            let mut x = b.load(p, i, 0, lanes);
            for op in [Un::Floor, Un::Ceil, Un::Nearest, Un::Trunc, Un::Sqrt] {
                x = b.un(op, x);
            }
            x = b.fma(x, x, x);
            x = vecmath::gelu(b, x);
            x = vecmath::sin(b, x);
            b.store(q, i, 0, x);
            Vec::new()
        });
    }
    b.finish()
}

#[test]
fn no_undefined_symbols_in_any_format() {
    let k = rich_kernel();
    for triple in ["x86_64", "aarch64", "x86_64-apple-darwin", "aarch64-apple-darwin", "x86_64-pc-windows-msvc"] {
        let target = Target::parse(triple, "generic").unwrap();
        assert_eq!(undefined(&object(&[&k], &target)), Vec::<String>::new(), "{triple}");
    }
}

#[test]
fn same_bytes_every_time() {
    let (k, target) = (rich_kernel(), Target::parse("x86_64", "generic").unwrap());
    assert_eq!(object(&[&k], &target), object(&[&k], &target));
}

fn message(k: &Kernel) -> String {
    let target = Target::parse("x86_64", "generic").unwrap();
    emit_kernel(k, &*target.isa().unwrap(), &target).unwrap_err().message
}

#[test]
fn what_has_no_code_is_an_error() {
    let mut b = KernelBuilder::new("wide");
    b.const_f(RegType::vector(Elem::F32, 8), 0.0);
    assert_eq!(message(&b.finish()), "kernel 'wide': register 1 has 8 lanes of f32");

    let mut b = KernelBuilder::new("division");
    let one = b.const_i(RegType::vector(Elem::I32, 4), 1);
    b.bin(Bin::Div, one, one);
    assert_eq!(message(&b.finish()), "kernel 'division': Div of 4 lanes of i32");

    let mut b = KernelBuilder::new("root");
    let one = b.int(1);
    b.un(Un::Sqrt, one);
    assert_eq!(message(&b.finish()), "kernel 'root': Sqrt of i64");

    let mut k = KernelBuilder::new("undefined").finish();
    k.regs.extend([RegType::scalar(Elem::I64); 2]);
    k.body.insts.push(Inst::Un { dst: Reg(1), op: Un::Neg, a: Reg(2) });
    assert_eq!(message(&k), "kernel 'undefined': register 2 is used before it is defined");
}
