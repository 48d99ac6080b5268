//! Arbitrary valid kernels, a function of a list of numbers, so that proptest shrinks them.

use bertc_ir::kernel::{Bin, DotKind, Elem, Kernel, KernelBuilder, Place, Reg, RegType, Un};
use bertc_ir::{CmpOp, DType};

/// Elements that every buffer of a generated kernel must have.
pub const LEN: usize = 64;

/// Elements of registers that hold values.
const VALUES: &[Elem] = &[Elem::F32, Elem::F64, Elem::I32, Elem::I64, Elem::Mask];

/// A kernel of one input and one output of each type (parameters 2i and 2i + 1 for the i-th type) and then two
/// integers; it accesses nothing past [`LEN`] elements, and its loops are short.
pub fn kernel(choices: &[u32]) -> Kernel {
    let mut k = KernelBuilder::new("any kernel");
    for d in DType::ALL {
        k.input(format!("in.{d}"), d);
        k.output(format!("out {d}"), d);
    }
    let mut g = Gen { choices: choices.iter(), pool: vec![k.task()], depth: 0 };
    for name in ["n", "\"odd\"\n"] {
        g.pool.push(k.int_param(name));
    }
    while g.choices.len() > 0 {
        g.step(&mut k);
    }
    k.finish()
}

struct Gen<'a> {
    choices: std::slice::Iter<'a, u32>,
    /// Registers in scope.
    pool: Vec<Reg>,
    depth: usize,
}

impl Gen<'_> {
    fn below(&mut self, n: usize) -> usize {
        self.choices.next().map_or(0, |&c| c as usize % n)
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn ty(&mut self) -> RegType {
        let elem = self.one_of(VALUES);
        let lanes = if elem.vectorises() { self.one_of(&[1, 2, 4, 8, 16]) } else { 1 };
        RegType::vector(elem, lanes)
    }

    /// A register of type `ty`: one in scope, or a new constant.
    fn reg(&mut self, k: &mut KernelBuilder, ty: RegType) -> Reg {
        let fit: Vec<Reg> = self.pool.iter().copied().filter(|&r| k.ty(r) == ty).collect();
        let i = self.below(fit.len() + 1);
        if let Some(&r) = fit.get(i) {
            return r;
        }
        let r = match ty.elem {
            Elem::F32 | Elem::F64 => {
                let v = self.one_of(&[0.0, -0.0, 1.5, 0.1, 1e30, -1e-30, f64::INFINITY, f64::NEG_INFINITY, 5e-324]);
                k.const_f(ty, v)
            }
            Elem::Mask => {
                let v = self.below(2) as i64;
                k.const_i(ty, v)
            }
            Elem::I32 => {
                let v = self.one_of(&[0, 1, -1, 7, 4_294_967_295, -2_147_483_648]);
                k.const_i(ty, v)
            }
            Elem::I64 | Elem::Addr => {
                let v = self.one_of(&[0, 1, -1, 7, i64::MAX, i64::MIN]);
                k.const_i(ty, v)
            }
        };
        self.pool.push(r);
        r
    }

    /// An index that leaves room for 16 lanes and an offset of up to 31.
    fn index(&mut self, k: &mut KernelBuilder) -> Reg {
        let i = self.reg(k, RegType::scalar(Elem::I64));
        let mask = k.int(15);
        k.bin(Bin::And, i, mask)
    }

    /// Element `index + offset` of a pointer: now and then from an address, and with some lanes only.
    fn place(&mut self, k: &mut KernelBuilder, ptr: usize, index: Reg, offset: i64, lanes: u8) -> Place {
        let mut at = Place { ptr, base: None, index, offset, active: None };
        if self.below(3) == 0 {
            at.base = Some(k.address(ptr, index, offset - 7));
            (at.index, at.offset) = (k.int(7), 0);
        }
        if lanes > 1 && self.below(3) == 0 {
            at.active = Some(self.reg(k, RegType::scalar(Elem::I64)));
        }
        at
    }

    fn step(&mut self, k: &mut KernelBuilder) {
        let ty = self.ty();
        let float = matches!(ty.elem, Elem::F32 | Elem::F64);
        let number = ty.elem != Elem::Mask;
        let made = match self.below(16) {
            0 => {
                let a = self.reg(k, ty);
                let op = match (float, number) {
                    (true, _) => {
                        self.one_of(&[Un::Neg, Un::Abs, Un::Sqrt, Un::Floor, Un::Ceil, Un::Nearest, Un::Trunc])
                    }
                    (_, true) => self.one_of(&[Un::Neg, Un::Abs, Un::Not]),
                    _ => Un::Not,
                };
                k.un(op, a)
            }
            1 | 2 => {
                let (a, b) = (self.reg(k, ty), self.reg(k, ty));
                let op = match (float, number) {
                    (true, _) => self.one_of(&[Bin::Add, Bin::Sub, Bin::Mul, Bin::Div, Bin::Min, Bin::Max]),
                    (_, true) if ty.lanes == 1 => self.one_of(&Bin::ALL),
                    (_, true) => self.one_of(&[Bin::Add, Bin::Mul, Bin::Min, Bin::Xor, Bin::Shl, Bin::ShrS, Bin::ShrU]),
                    _ => self.one_of(&[Bin::And, Bin::Or, Bin::Xor]),
                };
                k.bin(op, a, b)
            }
            3 if float => {
                let (a, b, c) = (self.reg(k, ty), self.reg(k, ty), self.reg(k, ty));
                k.fma(a, b, c)
            }
            4 if number => {
                let (a, b) = (self.reg(k, ty), self.reg(k, ty));
                let (op, unsigned) = (self.one_of(CmpOp::ALL), !float && self.below(2) == 1);
                k.cmp_sign(op, unsigned, a, b)
            }
            5 => {
                let m = self.reg(k, RegType::vector(Elem::Mask, ty.lanes));
                let (a, b) = (self.reg(k, ty), self.reg(k, ty));
                k.select(m, a, b)
            }
            6 => {
                let a = self.reg(k, ty);
                let to = self.one_of(if ty.lanes == 1 { VALUES } else { &[Elem::F32, Elem::I32, Elem::Mask] });
                let unsigned = self.below(2) == 1;
                k.convert_sign(a, to, unsigned)
            }
            7 if number => {
                let a = self.reg(k, ty);
                let to = match ty.elem {
                    Elem::F32 => Elem::I32,
                    Elem::I32 => Elem::F32,
                    Elem::F64 => Elem::I64,
                    _ => Elem::F64,
                };
                k.bitcast(a, to)
            }
            8 if ty.lanes > 1 => {
                let scalar = self.reg(k, RegType::scalar(ty.elem));
                let v = k.splat(scalar, ty.lanes);
                let lane = self.below(ty.lanes.into());
                k.extract(v, lane as u8)
            }
            9 => return self.nested(k),
            10 => {
                let d = self.below(DType::ALL.len());
                let lanes = if Elem::of(DType::ALL[d]).vectorises() { ty.lanes } else { 1 };
                let (index, offset) = (self.index(k), self.below(32) as i64);
                let at = self.place(k, 2 * d, index, offset, lanes);
                k.load_at(at, lanes)
            }
            11 => {
                let d = self.below(DType::ALL.len());
                let elem = Elem::of(DType::ALL[d]);
                let value = self.reg(k, RegType::vector(elem, if elem.vectorises() { ty.lanes } else { 1 }));
                let (index, offset) = (self.index(k), self.below(32) as i64);
                let at = self.place(k, 2 * d + 1, index, offset, k.ty(value).lanes);
                return k.store_at(at, value);
            }
            12 if ty.lanes > 1 && number => {
                let a = self.reg(k, ty);
                let op = self.one_of(&[Bin::Add, Bin::Min, Bin::Max]);
                k.reduce(op, a)
            }
            14 => {
                let d = self.below(DType::ALL.len());
                let (index, offset) = (self.index(k), self.below(1 << 12) as i64);
                let at = self.place(k, 2 * d, index, offset, 1);
                return k.prefetch(at);
            }
            13 if ty.lanes > 1 && number => {
                let (a, b) = (self.reg(k, ty), self.reg(k, ty));
                k.zip(self.below(2) == 1, a, b)
            }
            15 if ty.lanes > 1 => {
                // Not of bf16: targets round its sums as they like.
                let kind = self.one_of(&[DotKind::I8, DotKind::I8Full, DotKind::U8I8]);
                let int = RegType::vector(Elem::I32, ty.lanes);
                let (a, mut b, c) = (self.reg(k, int), self.reg(k, int), self.reg(k, int));
                if kind == DotKind::I8 {
                    // An odd byte is not -128.
                    let odd = k.const_i(int, 0x0101_0101);
                    b = k.bin(Bin::Or, b, odd);
                }
                k.dot(kind, a, b, c)
            }
            _ => {
                k.fail();
                return;
            }
        };
        self.pool.push(made);
    }

    /// A loop or a conditional with up to two values.
    fn nested(&mut self, k: &mut KernelBuilder) {
        // Short loops, three deep, run in no time.
        if self.depth == 3 {
            return;
        }
        let types: Vec<RegType> = (0..self.below(3)).map(|_| self.ty()).collect();
        self.depth += 1;
        let made = if self.below(2) == 0 {
            let (lo, hi, step) = (self.below(4) as i64, self.below(6) as i64, 1 + self.below(3) as i64);
            let (lo, hi) = (k.int(lo), k.int(hi));
            let init: Vec<Reg> = types.iter().map(|&t| self.reg(k, t)).collect();
            k.for_loop(lo, hi, step, &init, |k, var, args| {
                self.body(k, &types, |pool| {
                    pool.push(var);
                    pool.extend(args);
                })
            })
        } else {
            let c = self.reg(k, RegType::scalar(Elem::Mask));
            let this = std::cell::RefCell::new(&mut *self);
            k.if_else(c, |k| this.borrow_mut().body(k, &types, |_| ()), |k| this.borrow_mut().body(k, &types, |_| ()))
        };
        self.depth -= 1;
        self.pool.extend(made);
    }

    fn body(&mut self, k: &mut KernelBuilder, types: &[RegType], enter: impl FnOnce(&mut Vec<Reg>)) -> Vec<Reg> {
        let mark = self.pool.len();
        enter(&mut self.pool);
        for _ in 0..self.below(4) {
            self.step(k);
        }
        let yields = types.iter().map(|&t| self.reg(k, t)).collect();
        self.pool.truncate(mark);
        yields
    }
}
