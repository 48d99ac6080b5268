//! Where registers of a kernel are defined and used: what selection must know before it reaches the use.

use bertc_ir::DType;
use bertc_ir::kernel::{Block, Elem, Inst, Kernel, Param, Reg, lane_in_memory};

/// Facts about every register, by its number.
pub(super) struct Uses {
    pub of: Vec<Use>,
    /// Vector widths for which a register counts active lanes.
    pub active: Vec<Vec<u8>>,
}

/// Facts about a register.
#[derive(Clone, Default)]
pub(super) struct Use {
    /// Number of operands that name it.
    pub count: u32,
    /// The instruction, counted in program order, that uses it last; a nested block's yields count as the end of the
    /// block.
    pub last: u32,
    /// The innermost loop around its definition, 0 for none.
    pub in_loop: u32,
    /// Whether it is a value that a loop carries, inside the loop.
    pub carried: bool,
    /// Whether its only user can take it as it is made: a load as a memory operand, a comparison as a condition.
    pub defer: bool,
}

/// Where a register that may be deferred was made.
#[derive(Clone, Copy)]
struct Made {
    block: u32,
    /// Number of stores and nested blocks before it.
    barriers: u32,
}

struct Walk<'a> {
    kernel: &'a Kernel,
    uses: Uses,
    made: Vec<Option<Made>>,
    next: u32,
    blocks: u32,
    loops: u32,
}

/// Walks the kernel.
pub(super) fn analyse(kernel: &Kernel) -> Uses {
    let n = kernel.regs.len();
    let mut w = Walk {
        kernel,
        uses: Uses { of: vec![Use::default(); n], active: vec![Vec::new(); n] },
        made: vec![None; n],
        next: 0,
        blocks: 0,
        loops: 0,
    };
    w.block(&kernel.body, 0);
    for (u, made) in w.uses.of.iter_mut().zip(&w.made) {
        u.defer &= u.count == 1 && made.is_some();
    }
    w.uses
}

impl Walk<'_> {
    fn at(&mut self, r: Reg) -> &mut Use {
        &mut self.uses.of[r.0 as usize]
    }

    fn used(&mut self, r: Reg) {
        let now = self.next;
        let u = self.at(r);
        u.count += 1;
        u.last = now;
    }

    fn block(&mut self, b: &Block, in_loop: u32) {
        self.blocks += 1;
        let block = self.blocks;
        let mut barriers = 0;
        for i in &b.insts {
            self.next += 1;
            i.operands(|r| self.used(r));
            self.deferred(i, block, barriers);
            i.results(|r| self.at(r).in_loop = in_loop);
            match i {
                Inst::Load { dst, at } => self.count_active(at.active, *dst),
                Inst::Store { at, value } => self.count_active(at.active, *value),
                Inst::For { var, args, body, .. } => {
                    self.loops += 1;
                    let inner = self.loops;
                    self.at(*var).in_loop = inner;
                    for &r in args {
                        self.at(r).in_loop = inner;
                        self.at(r).carried = true;
                    }
                    self.block(body, inner);
                }
                Inst::If { then, otherwise, .. } => {
                    self.block(then, in_loop);
                    self.block(otherwise, in_loop);
                }
                _ => (),
            }
            if matches!(i, Inst::Store { .. } | Inst::For { .. } | Inst::If { .. } | Inst::Fail) {
                barriers += 1;
            }
        }
        self.next += 1;
        for &r in &b.yields {
            self.used(r);
        }
    }

    fn count_active(&mut self, active: Option<Reg>, r: Reg) {
        let lanes = self.kernel.ty(r).lanes;
        if let Some(a) = active
            && !self.uses.active[a.0 as usize].contains(&lanes)
        {
            self.uses.active[a.0 as usize].push(lanes);
        }
    }

    /// Marks operands that `user` takes deferred, and what `user` makes if that may be deferred in turn.
    fn deferred(&mut self, user: &Inst, block: u32, barriers: u32) {
        let fits = |w: &Self, r: Reg| w.made[r.0 as usize].is_some_and(|m| m.block == block && m.barriers == barriers);
        let mut takes = Vec::new();
        match user {
            Inst::Bin { a, b, .. } | Inst::Cmp { a, b, .. } => takes.extend([*a, *b]),
            Inst::Fma { a, b, c, .. } => takes.extend([*a, *b, *c]),
            Inst::Dot { a, b, .. } => takes.extend([*a, *b]),
            Inst::Select { m, a, b, .. } => takes.extend([*m, *a, *b]),
            Inst::Splat { a, .. } => takes.push(*a),
            Inst::If { cond, .. } => takes.push(*cond),
            _ => (),
        }
        for r in takes {
            let ok = fits(self, r) && self.takes(user, r);
            self.at(r).defer = ok;
        }
        let scalar_int =
            |r: Reg| self.kernel.ty(r).lanes == 1 && matches!(self.kernel.ty(r).elem, Elem::I32 | Elem::I64);
        let made = match user {
            Inst::Load { dst, at } => {
                let exact = match self.kernel.params.get(at.ptr) {
                    Some(Param::Ptr { dtype, .. }) => {
                        let lane = lane_in_memory(*dtype, self.kernel.ty(*dst).elem);
                        matches!(lane, Some(DType::F32 | DType::I32 | DType::F64))
                    }
                    _ => false,
                };
                (exact && at.active.is_none()).then_some(*dst)
            }
            // Only of a load that has come so far; its own deferral is decided above.
            Inst::Splat { dst, a } if self.at(*a).defer => Some(*dst),
            Inst::Cmp { dst, a, .. } if scalar_int(*a) => Some(*dst),
            _ => None,
        };
        if let Some(r) = made {
            self.made[r.0 as usize] = Some(Made { block, barriers });
        }
    }

    /// Whether the instruction has a form that takes `r` as it is made.
    fn takes(&self, user: &Inst, r: Reg) -> bool {
        let t = self.kernel.ty(r);
        let vector_file = !(t.lanes == 1 && matches!(t.elem, Elem::I32 | Elem::I64 | Elem::Mask));
        match user {
            Inst::Bin { .. } | Inst::Fma { .. } | Inst::Dot { .. } | Inst::Cmp { .. } => vector_file,
            // A scalar comparison is the condition of a choice of integers.
            Inst::Select { m, dst, .. } if *m == r => {
                t.lanes == 1 && matches!(self.kernel.ty(*dst).elem, Elem::I32 | Elem::I64 | Elem::Mask)
            }
            Inst::Select { .. } => vector_file,
            Inst::Splat { .. } => matches!(t.elem, Elem::F32 | Elem::I32),
            Inst::If { .. } => t.lanes == 1,
            _ => false,
        }
    }
}
