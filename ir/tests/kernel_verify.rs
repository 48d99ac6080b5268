//! The kernel verifier: every invariant of its header, broken once.

use bertc_ir::kernel::{Bin, Block, DotKind, Elem, Inst, Kernel, Param, Place, Reg, RegType, Un, parse, verify};
use bertc_ir::{CmpOp, DType};

const GOOD: &str = "
kernel @good(%x: ptr<f32>, %y: mut ptr<f32>, %n: i64) task %t {
  %zero = const 0 : i64
  %v0 = const 0.0 : f32x4
  %v = for %i = %zero to %n step 4 iter(%a = %v0) {
    %l = load %x[%i] : f32x4
    %s = add %a, %l : f32x4
    yield %s
  }
  %m = const 1 : mask
  %r = if %m { yield %v } else { yield %v0 }
  store %y[%t], %r
  fail
}";

fn good() -> Kernel {
    parse(GOOD).expect("parses").remove(0)
}

fn place(ptr: usize, index: Reg) -> Place {
    Place { ptr, base: None, index, offset: 0, active: None }
}

/// The first message about the good kernel after a change.
fn broken(change: impl FnOnce(&mut Kernel)) -> String {
    let mut k = good();
    change(&mut k);
    let diags = verify(&k).expect_err("must be refused");
    diags[0].message.strip_prefix(&format!("kernel '{}': ", k.name)).expect("names the kernel").to_owned()
}

#[test]
fn a_good_kernel_is_accepted() {
    assert_eq!(verify(&good()), Ok(()));
}

#[test]
fn heads() {
    let rename =
        |k: &mut Kernel, to: &str| k.params[0] = Param::Ptr { name: to.into(), dtype: DType::F32, write: false };
    assert_eq!(broken(|k| k.name.clear()), "has no name");
    assert_eq!(broken(|k| rename(k, "")), "parameter name '' is empty or begins with a digit");
    assert_eq!(broken(|k| rename(k, "0x")), "parameter name '0x' is empty or begins with a digit");
    assert_eq!(broken(|k| rename(k, "y")), "two parameters are named 'y'");
    assert_eq!(broken(|k| k.regs[3].lanes = 3), "register %3 is f32x3, which doesn't exist");
    assert_eq!(broken(|k| k.regs[3].lanes = 0), "register %3 is f32x0, which doesn't exist");
    assert_eq!(broken(|k| k.regs[2].lanes = 2), "register %2 is i64x2, which doesn't exist");
    assert_eq!(broken(|k| k.regs[0] = RegType::scalar(Elem::I32)), "%0 is i32, expected i64");
    assert_eq!(broken(|k| k.task = Reg(99)), "register %99 has no type");
    assert_eq!(broken(|k| k.task = Reg(1)), "register %n is defined twice");
    let int = |k: &mut Kernel| k.params.push(Param::Int { name: "z".into(), reg: Reg(3) });
    assert_eq!(broken(int), "%z is f32x4, expected i64");
}

#[test]
fn definitions_and_scopes() {
    let again = |k: &mut Kernel| k.body.insts.extend_from_within(..1);
    assert_eq!(broken(again), "register %2 is defined twice");
    assert_eq!(broken(|k| drop(k.body.insts.remove(0))), "register %2 is used where it isn't defined");
    assert_eq!(broken(|k| k.body.insts.swap(0, 2)), "register %2 is used where it isn't defined");
    let store = |value| Inst::Store { at: place(1, Reg(0)), value };
    // 5 is the loop's carried value, 6 is loaded in its body.
    assert_eq!(broken(|k| k.body.insts.push(store(Reg(5)))), "register %5 is used where it isn't defined");
    assert_eq!(broken(|k| k.body.insts.push(store(Reg(6)))), "register %6 is used where it isn't defined");
    assert_eq!(broken(|k| k.body.insts.push(store(Reg(99)))), "register %99 has no type");
    let diags = {
        let mut k = good();
        k.body.insts.push(store(Reg(6)));
        verify(&k).expect_err("must be refused")
    };
    assert_eq!(diags[0].notes, ["in instruction 9 (store)"]);
}

#[test]
fn memory() {
    let load = |ptr, dst| {
        move |k: &mut Kernel| {
            k.regs.push(dst);
            k.body.insts.push(Inst::Load { dst: Reg(k.regs.len() as u32 - 1), at: place(ptr, Reg(0)) });
        }
    };
    assert_eq!(broken(load(7, RegType::scalar(Elem::F32))), "there is no parameter 7");
    assert_eq!(broken(load(2, RegType::scalar(Elem::I64))), "parameter 'n' is an integer, expected a pointer");
    assert_eq!(broken(load(0, RegType::scalar(Elem::F64))), "f32 in memory is f32 in a register, not f64");
    let store = |ptr, value| move |k: &mut Kernel| k.body.insts.push(Inst::Store { at: place(ptr, Reg(0)), value });
    assert_eq!(broken(store(0, Reg(3))), "parameter 'x' is read-only");
    assert_eq!(broken(store(1, Reg(0))), "f32 in memory is f32 in a register, not i64");
    let prefetch = |ptr, active| {
        move |k: &mut Kernel| k.body.insts.push(Inst::Prefetch { at: Place { active, ..place(ptr, Reg(0)) } })
    };
    assert_eq!(broken(prefetch(2, None)), "parameter 2 is not a pointer");
    assert_eq!(broken(prefetch(0, Some(Reg(0)))), "active lanes of a prefetch");
    let index = |k: &mut Kernel| k.body.insts.push(Inst::Store { at: place(1, Reg(3)), value: Reg(3) });
    assert_eq!(broken(index), "%3 is f32x4, expected i64");
}

/// Changes the good kernel's loop.
fn with_loop(f: impl FnOnce(&mut Vec<Reg>, &mut i64, &mut Reg, &mut Block)) -> String {
    broken(|k| {
        let Inst::For { dst, step, lo, body, .. } = &mut k.body.insts[2] else { panic!("the third is the loop") };
        f(dst, step, lo, body);
    })
}

#[test]
fn loops_and_branches() {
    assert_eq!(with_loop(|_, step, _, _| *step = 0), "step 0 is not positive");
    assert_eq!(with_loop(|_, step, _, _| *step = -1), "step -1 is not positive");
    assert_eq!(with_loop(|_, _, lo, _| *lo = Reg(3)), "%3 is f32x4, expected i64");
    assert_eq!(with_loop(|_, _, _, body| body.yields.clear()), "yields 0 values, expected 1");
    assert_eq!(with_loop(|_, _, _, body| body.yields[0] = Reg(2)), "%2 is i64, expected f32x4");
    assert_eq!(with_loop(|dst, _, _, _| dst.clear()), "results in 0 values, expected 1");
    let branch = |f: fn(&mut Reg, &mut Block)| {
        broken(|k| {
            let Inst::If { cond, otherwise, .. } = &mut k.body.insts[4] else { panic!("the fifth is the branch") };
            f(cond, otherwise);
        })
    };
    assert_eq!(branch(|cond, _| *cond = Reg(2)), "%2 is i64, expected mask");
    assert_eq!(branch(|_, b| b.yields.clear()), "yields 0 values, expected 1");
    assert_eq!(branch(|_, b| b.yields[0] = Reg(0)), "%0 is i64, expected f32x4");
    assert_eq!(broken(|k| k.body.yields.push(Reg(0))), "the outermost block yields values");
    let deep = |k: &mut Kernel| {
        for _ in 0..65 {
            let then = std::mem::take(&mut k.body);
            let inst = Inst::If { dst: vec![], cond: Reg(0), then, otherwise: Block::default() };
            k.body.insts.push(inst);
        }
    };
    let mut k = good();
    deep(&mut k);
    let diags = verify(&k).expect_err("must be refused");
    assert!(diags.iter().any(|d| d.message.ends_with("blocks nest deeper than 64")));
}

/// The message for a kernel of the constants `%f: f32`, `%v: f32x4`, `%d: f64`, `%i: i32`, `%w: i32x4`, `%l: i64`,
/// `%m: mask`, `%q: maskx4` and one more instruction, `None` if it is accepted.
fn typed(inst: impl Fn([Reg; 8], Reg) -> Inst, result: RegType) -> Option<String> {
    let [f, v] = [1, 4].map(|n| RegType::vector(Elem::F32, n));
    let [i, w] = [1, 4].map(|n| RegType::vector(Elem::I32, n));
    let [m, q] = [1, 4].map(|n| RegType::vector(Elem::Mask, n));
    let (d, l) = (RegType::scalar(Elem::F64), RegType::scalar(Elem::I64));
    let types = [f, v, d, i, w, l, m, q];
    let mut regs = vec![l];
    let mut insts = Vec::new();
    for ty in types {
        regs.push(ty);
        let dst = Reg(regs.len() as u32 - 1);
        insts.push(match ty.elem {
            Elem::F32 | Elem::F64 => Inst::ConstF { dst, value: 1.0 },
            _ => Inst::ConstI { dst, value: 1 },
        });
    }
    regs.push(result);
    insts.push(inst([1, 2, 3, 4, 5, 6, 7, 8].map(Reg), Reg(9)));
    let body = Block { insts, yields: vec![] };
    let k = Kernel { name: "t".into(), params: vec![], regs, task: Reg(0), worker: None, ordered: false, body };
    verify(&k).err().map(|d| d[0].message.trim_start_matches("kernel 't': ").to_owned())
}

#[test]
fn types_of_plain_instructions() {
    let ty = |s| RegType::from_name(s).expect("a type");
    let refused = |message: &str| Some(message.to_owned());
    let un = |op: Un, a: usize, to| typed(move |r, dst| Inst::Un { dst, op, a: r[a] }, ty(to));
    let bin = |op: Bin, a: usize, b: usize, to| typed(move |r, dst| Inst::Bin { dst, op, a: r[a], b: r[b] }, ty(to));
    assert_eq!(typed(|_, dst| Inst::ConstF { dst, value: 1.0 }, ty("i32")), refused("a float constant of type i32"));
    assert_eq!(typed(|_, dst| Inst::ConstI { dst, value: 1 }, ty("f32")), refused("an integer constant of type f32"));
    assert_eq!(
        typed(|_, dst| Inst::ConstI { dst, value: 1 << 32 }, ty("i32x4")),
        refused("4294967296 doesn't fit i32x4")
    );
    assert_eq!((un(Un::Sqrt, 1, "f32x4"), un(Un::Not, 7, "maskx4"), un(Un::Abs, 5, "i64")), (None, None, None));
    assert_eq!(un(Un::Sqrt, 3, "i32"), refused("no sqrt of i32"));
    assert_eq!(un(Un::Not, 0, "f32"), refused("no not of f32"));
    assert_eq!(un(Un::Neg, 6, "mask"), refused("no neg of mask"));
    assert_eq!(un(Un::Neg, 0, "f32x4"), refused("an operand is f32, expected f32x4"));
    assert_eq!((bin(Bin::Div, 1, 1, "f32x4"), bin(Bin::Div, 3, 3, "i32")), (None, None));
    assert_eq!(bin(Bin::Div, 4, 4, "i32x4"), refused("no div of i32x4"));
    assert_eq!(bin(Bin::RemU, 2, 2, "f64"), refused("no rem_u of f64"));
    assert_eq!(bin(Bin::And, 0, 0, "f32"), refused("no and of f32"));
    assert_eq!(bin(Bin::Shl, 6, 6, "mask"), refused("no shl of mask"));
    assert_eq!(bin(Bin::Max, 6, 6, "mask"), refused("no max of mask"));
    assert_eq!(bin(Bin::Add, 0, 2, "f32"), refused("an operand is f64, expected f32"));
    let fma = |a: usize, to| typed(move |r, dst| Inst::Fma { dst, a: r[a], b: r[a], c: r[a] }, ty(to));
    assert_eq!((fma(1, "f32x4"), fma(3, "i32")), (None, refused("no fma of i32")));
    let dot =
        |kind, a: usize, c: usize, to| typed(move |r, dst| Inst::Dot { dst, kind, a: r[a], b: r[a], c: r[c] }, ty(to));
    let bf16 = DotKind::Bf16;
    assert_eq!((dot(bf16, 4, 1, "f32x4"), dot(bf16, 3, 0, "f32")), (None, refused("no dot products of bf16 in f32")));
    assert_eq!(dot(bf16, 1, 1, "f32x4"), refused("an operand is f32x4, expected i32x4"));
    assert_eq!(dot(bf16, 4, 4, "f32x4"), refused("an operand is i32x4, expected f32x4"));
    for kind in [DotKind::I8, DotKind::I8Full, DotKind::U8I8] {
        let none = |ty: &str| refused(&format!("no dot products of {} in {ty}", kind.name()));
        assert_eq!((dot(kind, 4, 4, "i32x4"), dot(kind, 4, 1, "f32x4")), (None, none("f32x4")));
        assert_eq!(dot(kind, 3, 3, "i32"), none("i32"));
        assert_eq!(dot(kind, 1, 4, "i32x4"), refused("an operand is f32x4, expected i32x4"));
        assert_eq!(dot(kind, 4, 1, "i32x4"), refused("an operand is f32x4, expected i32x4"));
    }
    let cmp = |op, unsigned, a: usize, b: usize, to| {
        typed(move |r, dst| Inst::Cmp { dst, op, unsigned, a: r[a], b: r[b] }, ty(to))
    };
    assert_eq!((cmp(CmpOp::Lt, true, 4, 4, "maskx4"), cmp(CmpOp::Eq, false, 6, 6, "mask")), (None, None));
    assert_eq!(cmp(CmpOp::Lt, false, 6, 6, "mask"), refused("no comparison lt of mask"));
    assert_eq!(cmp(CmpOp::Lt, true, 0, 0, "mask"), refused("no unsigned comparison of f32"));
    assert_eq!(cmp(CmpOp::Lt, false, 0, 2, "mask"), refused("an operand is f64, expected f32"));
    assert_eq!(cmp(CmpOp::Lt, false, 1, 1, "mask"), refused("an operand is mask, expected maskx4"));
    let select = |m: usize, a: usize, to| typed(move |r, dst| Inst::Select { dst, m: r[m], a: r[a], b: r[a] }, ty(to));
    assert_eq!((select(7, 1, "f32x4"), select(6, 5, "i64")), (None, None));
    assert_eq!(select(6, 1, "f32x4"), refused("an operand is mask, expected maskx4"));
    assert_eq!(select(7, 4, "f32x4"), refused("an operand is i32x4, expected f32x4"));
    let convert = |a: usize, to| typed(move |r, dst| Inst::Convert { dst, a: r[a], unsigned: false }, ty(to));
    assert_eq!((convert(1, "i32x4"), convert(6, "f64")), (None, None));
    assert_eq!(convert(1, "i32"), refused("no conversion of f32x4 to i32"));
    let bitcast = |a: usize, to| typed(move |r, dst| Inst::Bitcast { dst, a: r[a] }, ty(to));
    assert_eq!((bitcast(1, "i32x4"), bitcast(2, "i64")), (None, None));
    assert_eq!(bitcast(0, "i64"), refused("no bitcast of f32 to i64"));
    assert_eq!(bitcast(7, "i32x4"), refused("no bitcast of maskx4 to i32x4"));
    let splat = |a: usize, to| typed(move |r, dst| Inst::Splat { dst, a: r[a] }, ty(to));
    assert_eq!((splat(0, "f32x8"), splat(0, "f32")), (None, refused("a splat gives a vector")));
    assert_eq!(splat(1, "f32x4"), refused("an operand is f32x4, expected f32"));
    let extract = |a: usize, lane, to| typed(move |r, dst| Inst::Extract { dst, a: r[a], lane }, ty(to));
    assert_eq!((extract(1, 3, "f32"), extract(1, 4, "f32")), (None, refused("no lane 4 in f32x4")));
    assert_eq!(extract(0, 0, "f32"), refused("no lane 0 in f32"));
    assert_eq!(extract(1, 0, "i32"), refused("an operand is i32, expected f32"));
    let zip = |a: usize, b: usize, to| typed(move |r, dst| Inst::Zip { dst, high: true, a: r[a], b: r[b] }, ty(to));
    assert_eq!((zip(1, 1, "f32x4"), zip(0, 0, "f32")), (None, refused("no zip of f32")));
    assert_eq!(
        (zip(7, 7, "maskx4"), zip(1, 4, "f32x4")),
        (refused("no zip of maskx4"), refused("an operand is i32x4, expected f32x4"))
    );
}

#[test]
fn places() {
    let address = |k: &mut Kernel, ptr| {
        k.regs.push(RegType::scalar(Elem::Addr));
        let dst = Reg(k.regs.len() as u32 - 1);
        k.body.insts.insert(0, Inst::Address { dst, ptr, index: Reg(0), offset: 0 });
        dst
    };
    let value = |k: &mut Kernel| {
        k.regs.push(RegType::scalar(Elem::F32));
        let dst = Reg(k.regs.len() as u32 - 1);
        k.body.insts.insert(0, Inst::ConstF { dst, value: 0.0 });
        dst
    };
    let store = |base, active| {
        move |k: &mut Kernel| {
            let base = address(k, base);
            let value = value(k);
            let active = if active { Some(Reg(0)) } else { None };
            k.body.insts.push(Inst::Store { at: Place { base: Some(base), active, ..place(1, Reg(0)) }, value });
        }
    };
    assert_eq!(broken(store(0, false)), "%11 is an address in another buffer");
    assert_eq!(broken(store(1, true)), "active lanes of f32");
    assert_eq!(broken(|k| _ = address(k, 2)), "parameter 2 is not a pointer");
    let sum = |k: &mut Kernel| {
        let a = address(k, 0);
        k.regs.push(RegType::scalar(Elem::Addr));
        let dst = Reg(k.regs.len() as u32 - 1);
        k.body.insts.insert(1, Inst::Bin { dst, op: Bin::Add, a, b: a });
    };
    assert_eq!(broken(sum), "no add of addr");
}
