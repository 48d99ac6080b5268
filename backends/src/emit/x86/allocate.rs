//! Register allocation: registers are coloured in the order in which they become live; only general registers spill,
//! for their whole life, the ones that loops use least first.

use iced_x86::Register;

use super::live::{Ranges, join_copies, overlap};
use super::mir::{Class, Func, Isa, Item, V};

/// Where a virtual register lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Home {
    /// Never live.
    None,
    /// In a register, by its number.
    Reg(u8),
    /// On the stack, by its slot of 8 bytes.
    Slot(u32),
}

/// The result: homes by register, and the number of slots. If there are slots, rax and rdx are free for the encoder.
#[derive(Debug)]
pub(super) struct Homes {
    pub of: Vec<Home>,
    pub slots: u32,
}

pub(super) const RAX: u8 = 0;
pub(super) const RDX: u8 = 2;
const RSI: u8 = 6;
const RDI: u8 = 7;

/// General registers, the caller's last: those must be saved.
const GPRS: [u8; 15] = [1, RSI, RDI, 8, 9, 10, 11, RAX, RDX, 3, 5, 12, 13, 14, 15];
/// Registers that belong to the caller.
pub(super) const SAVED: [u8; 6] = [3, 5, 12, 13, 14, 15];

/// The register's name as the encoder knows it, whole.
pub(super) fn gpr(number: u8) -> Register {
    const NAMES: [Register; 16] = [
        Register::RAX,
        Register::RCX,
        Register::RDX,
        Register::RBX,
        Register::RSP,
        Register::RBP,
        Register::RSI,
        Register::RDI,
        Register::R8,
        Register::R9,
        Register::R10,
        Register::R11,
        Register::R12,
        Register::R13,
        Register::R14,
        Register::R15,
    ];
    NAMES[usize::from(number & 15)]
}

/// Joins copies and finds a home for every register.
///
/// # Errors
/// More vectors or masks are live at once than there are registers; says how many.
pub(super) fn allocate(func: &mut Func) -> Result<Homes, String> {
    let ranges = join_copies(func);
    let mut of = vec![Home::None; func.classes.len()];
    let all = |class: Class| -> Vec<V> {
        let live = |v: &u32| !ranges[*v as usize].is_empty() && func.classes[*v as usize].same_file(class);
        (0..func.classes.len() as u32).filter(live).map(V).collect()
    };
    let vectors: Vec<u8> = (0..if func.isa == Isa::Avx512 { 32 } else { 16 }).collect();
    let masks: Vec<u8> = (1..8).collect();
    for (class, file, what) in [(Class::Vec(0), &vectors, "vectors"), (Class::Mask, &masks, "masks")] {
        colour(&ranges, &all(class), file, &mut of)
            .map_err(|live| format!("{live} {what} are live at once and there are {} registers", file.len()))?;
    }
    let general = all(Class::Gpr);
    let mut slots = colour_general(func, &ranges, &general, &GPRS, &mut of);
    if slots > 0 {
        let rest: Vec<u8> = GPRS.iter().copied().filter(|&r| r != RAX && r != RDX).collect();
        slots = colour_general(func, &ranges, &general, &rest, &mut of);
    }
    Ok(Homes { of, slots })
}

/// The number of registers that are live at once where most are.
fn pressure(ranges: &[Ranges], regs: &[V]) -> usize {
    let mut events: Vec<(u32, i32)> = Vec::new();
    for v in regs {
        events.extend(ranges[v.0 as usize].iter().flat_map(|r| [(r.start, 1), (r.end, -1)]));
    }
    events.sort_unstable();
    let (mut now, mut most) = (0, 0);
    for (_, change) in events {
        now += change;
        most = most.max(now);
    }
    usize::try_from(most).unwrap_or(0)
}

/// Colours by order of birth, which is optimal without holes in the ranges; else by length.
fn colour(ranges: &[Ranges], regs: &[V], file: &[u8], of: &mut [Home]) -> Result<(), usize> {
    let live = pressure(ranges, regs);
    if live > file.len() {
        return Err(live);
    }
    let birth = |v: &V| ranges[v.0 as usize].first().map_or(0, |r| r.start);
    let length = |v: &V| ranges[v.0 as usize].iter().map(|r| r.end - r.start).sum::<u32>();
    let span = |v: &V| ranges[v.0 as usize].last().map_or(0, |r| r.end) - birth(v);
    let mut orders = [regs.to_vec(), regs.to_vec(), regs.to_vec()];
    orders[0].sort_by_key(birth);
    orders[1].sort_by_key(|v| std::cmp::Reverse(length(v)));
    orders[2].sort_by_key(|v| std::cmp::Reverse(span(v)));
    for order in &orders {
        if colour_in_order(ranges, order, file, of) {
            return Ok(());
        }
    }
    // Holes have made it harder than the pressure says.
    Err(live.max(file.len() + 1))
}

fn colour_in_order(ranges: &[Ranges], order: &[V], file: &[u8], of: &mut [Home]) -> bool {
    let mut taken: Vec<Vec<V>> = vec![Vec::new(); file.len()];
    for &v in order {
        let mine = &ranges[v.0 as usize];
        let free = taken.iter().position(|t| !t.iter().any(|u| overlap(mine, &ranges[u.0 as usize])));
        let Some(i) = free else { return false };
        taken[i].push(v);
        of[v.0 as usize] = Home::Reg(file[i]);
    }
    true
}

/// What it costs to keep each register on the stack: its uses, eight times as many for each loop around them.
fn weights(func: &Func) -> Vec<u64> {
    let mut w = vec![0u64; func.classes.len()];
    for (item, &depth) in func.items.iter().zip(&func.depths) {
        let cost = 1u64 << (3 * depth.min(15));
        item.registers(|v, _| w[v.0 as usize] += cost);
    }
    w
}

/// Colours general registers; the number of stack slots.
fn colour_general(func: &Func, ranges: &[Ranges], regs: &[V], file: &[u8], of: &mut [Home]) -> u32 {
    let weights = weights(func);
    let mut order = regs.to_vec();
    order.sort_by_key(|v| ranges[v.0 as usize].first().map_or(0, |r| r.start));
    // Division overwrites rax and rdx.
    let clobbers: Ranges = (0u32..)
        .zip(&func.items)
        .filter(|(_, i)| matches!(i, Item::Divide { .. }))
        .map(|(i, _)| 2 * i..2 * i + 2)
        .collect();
    let mut arrives = vec![None; func.classes.len()];
    for item in &func.items {
        if let Item::Entry { args, task, worker } = item {
            for (v, r) in [(args, RDI), (task, RSI), (worker, RDX)] {
                arrives[v.0 as usize] = Some(r);
            }
        }
    }
    let mut taken: Vec<Vec<V>> = vec![Vec::new(); file.len()];
    let mut spilled = Vec::new();
    for &v in &order {
        let mine = &ranges[v.0 as usize];
        // An argument stays where it comes, or goes to the stack.
        let allowed = |r: u8| {
            arrives[v.0 as usize].is_none_or(|a| a == r) && !(matches!(r, RAX | RDX) && overlap(mine, &clobbers))
        };
        let rivals = |i: usize, taken: &[Vec<V>]| -> u64 {
            taken[i].iter().filter(|u| overlap(mine, &ranges[u.0 as usize])).map(|u| weights[u.0 as usize]).sum()
        };
        let best = (0..file.len()).filter(|&i| allowed(file[i])).map(|i| (rivals(i, &taken), i)).min();
        match best {
            Some((cost, i)) if cost == 0 || cost < weights[v.0 as usize] => {
                let (stay, go): (Vec<V>, Vec<V>) = taken[i].iter().partition(|u| !overlap(mine, &ranges[u.0 as usize]));
                spilled.extend(go);
                taken[i] = stay;
                taken[i].push(v);
                of[v.0 as usize] = Home::Reg(file[i]);
            }
            _ => spilled.push(v),
        }
    }
    place_on_stack(ranges, &spilled, of)
}

/// Gives registers on the stack slots, which those that are never live at once share; the number of slots.
fn place_on_stack(ranges: &[Ranges], spilled: &[V], of: &mut [Home]) -> u32 {
    let mut slots: Vec<Vec<V>> = Vec::new();
    for &v in spilled {
        let mine = &ranges[v.0 as usize];
        let free = slots.iter().position(|s| !s.iter().any(|u| overlap(mine, &ranges[u.0 as usize])));
        let slot = free.unwrap_or(slots.len());
        if slot == slots.len() {
            slots.push(Vec::new());
        }
        slots[slot].push(v);
        of[v.0 as usize] = Home::Slot(slot as u32);
    }
    slots.len() as u32
}
