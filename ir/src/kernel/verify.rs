//! Checks that a kernel is well formed. What an emitter, the interpreter and the printer may rely on:
//!
//! 1. The kernel has a name; parameter names are distinct, not empty, and don't begin with a digit.
//! 2. Registers have 1, 2, 4, 8 or 16 lanes, more than one only of an element that vectorises.
//! 3. The task, the worker and every integer parameter are i64 scalars, each a register of its own.
//! 4. A register is defined at most once: as task, parameter, result, loop variable or carried value.
//! 5. A register is used only after its definition, inside the block that defines it or a block nested in that.
//! 6. Operands and results have the types that [`Inst`] documents; integer constants fit their type.
//! 7. Loads and stores name a pointer parameter (a writable one in a store), index it with an i64, and move
//!    registers of element [`Elem::of`] its dtype, as a vector only if that vectorises. A base is an address in the
//!    same parameter; only a vector has active lanes.
//! 8. Loop bounds are i64 and steps positive; `init`, `args`, the body's yields and `dst` agree in number and type.
//! 9. A condition is a scalar mask; both branches' yields and `dst` agree in number and type.
//! 10. The outermost block yields nothing; blocks nest at most [`MAX_NESTING`] deep.
//!
//! Not checked: that indices lie inside buffers (the interpreter does) and that tasks don't race.

use super::print::reg_name;
use super::{Bin, Block, Elem, Inst, Kernel, Param, Place, Reg, RegType, Un, lane_in_memory};
use crate::diag::Diag;
use crate::op::CmpOp;

/// How deep loops and conditionals may nest.
pub const MAX_NESTING: usize = 64;

/// Checks the invariants above.
///
/// # Errors
/// Every violation found, in program order. Each names the kernel; a note names the instruction by its number in
/// program order, counted from 0.
pub fn verify(kernel: &Kernel) -> Result<(), Vec<Diag>> {
    let found = violations(kernel, &|r| reg_name(kernel, r));
    if found.is_empty() {
        return Ok(());
    }
    Err(found
        .into_iter()
        .map(|v| {
            let d = Diag::new(format!("kernel '{}': {}", kernel.name, v.message));
            match v.inst {
                Some((n, what)) => d.note(format!("in instruction {n} ({what})")),
                None => d,
            }
        })
        .collect())
}

/// A broken invariant.
pub(super) struct Violation {
    /// Number of the instruction in program order and its mnemonic; `None` for the kernel's head.
    pub inst: Option<(usize, &'static str)>,
    pub message: String,
}

/// Every broken invariant, in program order; `name` says how messages call a register.
pub(super) fn violations(kernel: &Kernel, name: &dyn Fn(Reg) -> String) -> Vec<Violation> {
    let n = kernel.regs.len();
    let mut c = Checker {
        kernel,
        name,
        defined: vec![false; n],
        visible: vec![false; n],
        address_of: vec![None; n],
        scope: Vec::new(),
        count: 0,
        current: None,
        found: Vec::new(),
    };
    c.head();
    // Without sound types nothing below can be judged.
    if c.found.is_empty() {
        c.block(&kernel.body, 0);
        if !kernel.body.yields.is_empty() {
            c.current = None;
            c.err("the outermost block yields values");
        }
    }
    c.found
}

const I64: RegType = RegType::scalar(Elem::I64);

struct Checker<'a> {
    kernel: &'a Kernel,
    name: &'a dyn Fn(Reg) -> String,
    defined: Vec<bool>,
    visible: Vec<bool>,
    /// The parameter that an address points into.
    address_of: Vec<Option<usize>>,
    /// Registers that became visible, innermost scope last.
    scope: Vec<Reg>,
    /// Instructions visited.
    count: usize,
    current: Option<(usize, &'static str)>,
    found: Vec<Violation>,
}

impl Checker<'_> {
    fn err(&mut self, message: impl Into<String>) {
        self.found.push(Violation { inst: self.current, message: message.into() });
    }

    fn require(&mut self, ok: bool, message: impl FnOnce() -> String) {
        if !ok {
            self.err(message());
        }
    }

    fn define(&mut self, r: Reg) -> Option<RegType> {
        let i = r.0 as usize;
        let Some(&ty) = self.kernel.regs.get(i) else {
            self.err(format!("register {} has no type", (self.name)(r)));
            return None;
        };
        if self.defined[i] {
            self.err(format!("register {} is defined twice", (self.name)(r)));
        }
        self.defined[i] = true;
        self.visible[i] = true;
        self.scope.push(r);
        Some(ty)
    }

    fn define_as(&mut self, r: Reg, want: RegType) {
        if let Some(ty) = self.define(r) {
            let name = self.name;
            self.require(ty == want, || format!("{} is {ty}, expected {want}", name(r)));
        }
    }

    fn used(&mut self, r: Reg) -> Option<RegType> {
        match self.visible.get(r.0 as usize) {
            Some(true) => return Some(self.kernel.ty(r)),
            Some(false) => self.err(format!("register {} is used where it isn't defined", (self.name)(r))),
            None => self.err(format!("register {} has no type", (self.name)(r))),
        }
        None
    }

    fn used_as(&mut self, r: Reg, want: RegType) {
        if let Some(ty) = self.used(r) {
            let name = self.name;
            self.require(ty == want, || format!("{} is {ty}, expected {want}", name(r)));
        }
    }

    fn head(&mut self) {
        let k = self.kernel;
        self.require(!k.name.is_empty(), || "has no name".into());
        for (i, ty) in k.regs.iter().enumerate() {
            let name = self.name;
            self.require(ty.exists(), || format!("register {} is {ty}, which doesn't exist", name(Reg(i as u32))));
        }
        self.define_as(k.task, I64);
        if let Some(w) = k.worker {
            self.define_as(w, I64);
        }
        for (i, p) in k.params.iter().enumerate() {
            let (Param::Ptr { name, .. } | Param::Int { name, .. }) = p;
            let fit = name.chars().next().is_some_and(|c| !c.is_ascii_digit());
            self.require(fit, || format!("parameter name '{name}' is empty or begins with a digit"));
            let twin = k.params[..i].iter().any(|q| {
                let (Param::Ptr { name: other, .. } | Param::Int { name: other, .. }) = q;
                other == name
            });
            self.require(!twin, || format!("two parameters are named '{name}'"));
            if let Param::Int { reg, .. } = p {
                self.define_as(*reg, I64);
            }
        }
    }

    /// Checks a block after `enter` has defined what it begins with; its yields must have `types`.
    fn nested(&mut self, b: &Block, depth: usize, types: &[RegType], enter: impl FnOnce(&mut Self)) {
        let outer = self.current;
        if depth > MAX_NESTING {
            return self.err(format!("blocks nest deeper than {MAX_NESTING}"));
        }
        let mark = self.scope.len();
        enter(self);
        self.block(b, depth);
        self.current = outer;
        self.all_used(&b.yields, types, "yields");
        for r in self.scope.drain(mark..) {
            self.visible[r.0 as usize] = false;
        }
    }

    fn all_used(&mut self, regs: &[Reg], types: &[RegType], what: &str) {
        self.require(regs.len() == types.len(), || format!("{what} {} values, expected {}", regs.len(), types.len()));
        for (&r, &t) in regs.iter().zip(types) {
            self.used_as(r, t);
        }
    }

    fn all_defined(&mut self, regs: &[Reg], types: &[RegType], what: &str) {
        self.require(regs.len() == types.len(), || format!("{what} {} values, expected {}", regs.len(), types.len()));
        for (i, &r) in regs.iter().enumerate() {
            match types.get(i) {
                Some(&t) => self.define_as(r, t),
                None => drop(self.define(r)),
            }
        }
    }

    fn block(&mut self, b: &Block, depth: usize) {
        for i in &b.insts {
            self.current = Some((self.count, i.mnemonic()));
            self.count += 1;
            self.inst(i, depth);
        }
    }

    fn inst(&mut self, inst: &Inst, depth: usize) {
        match inst {
            Inst::For { dst, var, args, lo, hi, step, init, body } => {
                self.used_as(*lo, I64);
                self.used_as(*hi, I64);
                self.require(*step > 0, || format!("step {step} is not positive"));
                let types: Vec<_> = init.iter().filter_map(|&r| self.used(r)).collect();
                if types.len() != init.len() {
                    return;
                }
                self.nested(body, depth + 1, &types, |c| {
                    c.define_as(*var, I64);
                    c.all_defined(args, &types, "carries");
                });
                self.all_defined(dst, &types, "results in");
            }
            Inst::If { dst, cond, then, otherwise } => {
                self.used_as(*cond, RegType::scalar(Elem::Mask));
                let types: Vec<_> = dst.iter().filter_map(|r| self.kernel.regs.get(r.0 as usize).copied()).collect();
                self.nested(then, depth + 1, &types, |_| ());
                self.nested(otherwise, depth + 1, &types, |_| ());
                self.all_defined(dst, &types, "results in");
            }
            Inst::Address { dst, ptr, index, offset: _ } => {
                self.used_as(*index, I64);
                self.define_as(*dst, RegType::scalar(Elem::Addr));
                match self.kernel.params.get(*ptr) {
                    Some(Param::Ptr { .. }) => self.address_of[dst.0 as usize] = Some(*ptr),
                    _ => self.err(format!("parameter {ptr} is not a pointer")),
                }
            }
            Inst::Load { dst, at } => {
                self.place(at);
                if let Some(ty) = self.define(*dst) {
                    self.moved(at, ty, false);
                }
            }
            Inst::Store { at, value } => {
                self.place(at);
                if let Some(ty) = self.used(*value) {
                    self.moved(at, ty, true);
                }
            }
            Inst::Prefetch { at } => {
                self.place(at);
                self.require(at.active.is_none(), || "active lanes of a prefetch".into());
                let pointer = matches!(self.kernel.params.get(at.ptr), Some(Param::Ptr { .. }));
                self.require(pointer, || format!("parameter {} is not a pointer", at.ptr));
            }
            Inst::Fail => (),
            plain => self.plain(plain),
        }
    }

    fn place(&mut self, at: &Place) {
        self.used_as(at.index, I64);
        if let Some(b) = at.base {
            self.used_as(b, RegType::scalar(Elem::Addr));
            let own = self.address_of.get(b.0 as usize).copied().flatten();
            let name = self.name;
            self.require(own.is_none_or(|p| p == at.ptr), || format!("{} is an address in another buffer", name(b)));
        }
        if let Some(a) = at.active {
            self.used_as(a, I64);
        }
    }

    /// A load or store of `ty`.
    fn moved(&mut self, at: &Place, ty: RegType, write: bool) {
        self.require(at.active.is_none() || ty.lanes > 1, || format!("active lanes of {ty}"));
        match self.kernel.params.get(at.ptr) {
            None => self.err(format!("there is no parameter {}", at.ptr)),
            Some(Param::Int { name, .. }) => self.err(format!("parameter '{name}' is an integer, expected a pointer")),
            Some(Param::Ptr { name, dtype, write: writable }) => {
                self.require(*writable || !write, || format!("parameter '{name}' is read-only"));
                self.require(lane_in_memory(*dtype, ty.elem).is_some(), || {
                    format!("{dtype} in memory is {} in a register, not {ty}", Elem::of(*dtype).name())
                });
            }
        }
    }

    /// The instructions without control flow or memory.
    fn plain(&mut self, inst: &Inst) {
        let mut operands = Vec::with_capacity(3);
        inst.operands(|r| operands.push(r));
        let types: Vec<_> = operands.iter().filter_map(|&r| self.used(r)).collect();
        let mut dst = None;
        inst.results(|r| dst = Some(r));
        let Some(d) = dst.and_then(|r| self.define(r)) else { return };
        if types.len() == operands.len()
            && let Err(message) = typing(inst, d, &types)
        {
            self.err(message);
        }
    }
}

/// Whether a plain instruction may give `d` from operands of types `t`.
fn typing(inst: &Inst, d: RegType, t: &[RegType]) -> Result<(), String> {
    let check = |ok: bool, message: &dyn Fn() -> String| if ok { Ok(()) } else { Err(message()) };
    let float = matches!(d.elem, Elem::F32 | Elem::F64);
    let int = matches!(d.elem, Elem::I32 | Elem::I64);
    let mask = d.elem == Elem::Mask;
    let address = d.elem == Elem::Addr;
    let all = |want: RegType, of: &[RegType]| match of.iter().find(|&&x| x != want) {
        Some(x) => Err(format!("an operand is {x}, expected {want}")),
        None => Ok(()),
    };
    match inst {
        Inst::ConstF { .. } => check(float, &|| format!("a float constant of type {d}")),
        Inst::ConstI { value, .. } => {
            check(int || mask, &|| format!("an integer constant of type {d}"))?;
            let fits = d.elem != Elem::I32 || (i64::from(i32::MIN)..=i64::from(u32::MAX)).contains(value);
            check(fits, &|| format!("{value} doesn't fit {d}"))
        }
        Inst::Un { op, .. } => {
            let ok = match op {
                Un::Neg | Un::Abs => !mask && !address,
                Un::Sqrt | Un::Floor | Un::Ceil | Un::Nearest | Un::Trunc => float,
                Un::Not => int || mask,
            };
            check(ok, &|| format!("no {} of {d}", op.name()))?;
            all(d, t)
        }
        Inst::Bin { op, .. } => {
            let ok = match op {
                Bin::Add | Bin::Sub | Bin::Mul | Bin::Min | Bin::Max => int || float,
                Bin::Div => float || int && d.lanes == 1,
                Bin::Rem | Bin::DivU | Bin::RemU => int && d.lanes == 1,
                Bin::And | Bin::Or | Bin::Xor => int || mask,
                Bin::Shl | Bin::ShrS | Bin::ShrU => int,
            };
            check(ok, &|| format!("no {} of {d}", op.name()))?;
            all(d, t)
        }
        Inst::Fma { .. } => {
            check(float, &|| format!("no fma of {d}"))?;
            all(d, t)
        }
        Inst::Dot { kind, .. } => {
            check(d.elem == kind.sum() && d.lanes > 1, &|| format!("no dot products of {} in {d}", kind.name()))?;
            all(RegType::vector(Elem::I32, d.lanes), &t[..2])?;
            all(d, &t[2..])
        }
        Inst::Cmp { op, unsigned, .. } => {
            let x = t[0];
            all(x, t)?;
            let is_int = matches!(x.elem, Elem::I32 | Elem::I64);
            check(is_int || !unsigned, &|| format!("no unsigned comparison of {x}"))?;
            let ok = x.elem != Elem::Mask || matches!(op, CmpOp::Eq | CmpOp::Ne);
            check(ok, &|| format!("no comparison {} of {x}", op.name()))?;
            all(RegType::vector(Elem::Mask, x.lanes), &[d])
        }
        Inst::Select { .. } => {
            check(!address, &|| "a choice of addresses".into())?;
            all(RegType::vector(Elem::Mask, d.lanes), &t[..1])?;
            all(d, &t[1..])
        }
        Inst::Convert { .. } => check(t[0].lanes == d.lanes && !address && t[0].elem != Elem::Addr, &|| {
            format!("no conversion of {} to {d}", t[0])
        }),
        Inst::Bitcast { .. } => {
            let pair = matches!(
                (t[0].elem, d.elem),
                (Elem::F32, Elem::I32) | (Elem::I32, Elem::F32) | (Elem::F64, Elem::I64) | (Elem::I64, Elem::F64)
            );
            check(pair && t[0].lanes == d.lanes, &|| format!("no bitcast of {} to {d}", t[0]))
        }
        Inst::Splat { .. } => {
            check(d.lanes > 1, &|| "a splat gives a vector".into())?;
            all(RegType::scalar(d.elem), t)
        }
        Inst::Extract { lane, .. } => {
            check(t[0].lanes > 1 && *lane < t[0].lanes, &|| format!("no lane {lane} in {}", t[0]))?;
            all(RegType::scalar(t[0].elem), &[d])
        }
        Inst::Reduce { op, .. } => {
            let ok = matches!(op, Bin::Add | Bin::Min | Bin::Max) && t[0].lanes > 1 && (int || float);
            check(ok, &|| format!("no reduction {} of {}", op.name(), t[0]))?;
            all(RegType::scalar(t[0].elem), &[d])
        }
        Inst::Zip { .. } => {
            check(d.lanes > 1 && matches!(d.elem, Elem::F32 | Elem::I32), &|| format!("no zip of {d}"))?;
            all(d, t)
        }
        Inst::Address { .. }
        | Inst::Load { .. }
        | Inst::Store { .. }
        | Inst::Prefetch { .. }
        | Inst::For { .. }
        | Inst::If { .. }
        | Inst::Fail => Ok(()),
    }
}
