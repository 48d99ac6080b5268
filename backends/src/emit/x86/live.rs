//! Where each virtual register is live, and the joining of copies.
//!
//! Item `i` reads at position `2i` and writes at `2i + 1`; a range holds the positions from a write up to, but without,
//! the one after the last read.

use std::ops::Range;

use super::mir::{Class, Func, Item, Label, Role, V};

/// Sorted, disjoint ranges of positions.
pub(super) type Ranges = Vec<Range<u32>>;

/// Whether two have a position in common.
pub(super) fn overlap(a: &Ranges, b: &Ranges) -> bool {
    let (mut i, mut j) = (0, 0);
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        if x.start < y.end && y.start < x.end {
            return true;
        }
        if x.end <= y.end { i += 1 } else { j += 1 }
    }
    false
}

fn merge(a: &Ranges, b: &Ranges) -> Ranges {
    let mut all: Vec<_> = a.iter().chain(b).cloned().collect();
    all.sort_by_key(|r| r.start);
    let mut out: Ranges = Vec::with_capacity(all.len());
    for r in all {
        match out.last_mut() {
            Some(last) if last.end >= r.start => last.end = last.end.max(r.end),
            _ => out.push(r),
        }
    }
    out
}

/// A straight piece of code.
struct Piece {
    items: Range<usize>,
    next: Vec<usize>,
}

fn pieces(func: &Func) -> Vec<Piece> {
    let mut starts = vec![0];
    for (i, item) in func.items.iter().enumerate() {
        match item {
            Item::Label { .. } => starts.push(i),
            Item::Jump { .. } => starts.push(i + 1),
            _ => (),
        }
    }
    starts.dedup();
    starts.retain(|&s| s < func.items.len());
    let mut at = vec![0; func.labels as usize];
    for (p, &s) in starts.iter().enumerate() {
        if let Item::Label { label: Label(l), .. } = func.items[s] {
            at[l as usize] = p;
        }
    }
    let ends = starts.iter().skip(1).copied().chain([func.items.len()]);
    starts
        .iter()
        .zip(ends)
        .enumerate()
        .map(|(p, (&start, end))| {
            let mut next = Vec::new();
            let mut falls = true;
            if let Some(Item::Jump { code, label }) = func.items[start..end].last() {
                next.push(at[label.0 as usize]);
                falls = *code != iced_x86::Code::Jmp_rel32_64;
            }
            if falls && p + 1 < starts.len() {
                next.push(p + 1);
            }
            Piece { items: start..end, next }
        })
        .collect()
}

/// Bits by register.
#[derive(Clone, PartialEq)]
struct Set(Vec<u64>);

impl Set {
    fn new(n: usize) -> Set {
        Set(vec![0; n.div_ceil(64)])
    }

    fn set(&mut self, v: V, to: bool) {
        let (word, bit) = (v.0 as usize / 64, 1 << (v.0 % 64));
        if to {
            self.0[word] |= bit;
        } else {
            self.0[word] &= !bit;
        }
    }

    fn members(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(i, &w)| (0..64).filter(move |b| w >> b & 1 == 1).map(move |b| i * 64 + b))
    }
}

/// The ranges of every register.
pub(super) fn ranges(func: &Func) -> Vec<Ranges> {
    let n = func.classes.len();
    let pieces = pieces(func);
    let mut live_in = vec![Set::new(n); pieces.len()];
    let mut changed = true;
    while changed {
        changed = false;
        for (p, piece) in pieces.iter().enumerate().rev() {
            let mut live = live_out(&live_in, piece, n);
            for i in piece.items.clone().rev() {
                func.items[i].registers(|v, role| {
                    if role == Role::Def {
                        live.set(v, false);
                    }
                });
                func.items[i].registers(|v, role| {
                    if role != Role::Def {
                        live.set(v, true);
                    }
                });
            }
            if live != live_in[p] {
                live_in[p] = live;
                changed = true;
            }
        }
    }
    let mut out: Vec<Ranges> = vec![Vec::new(); n];
    for piece in &pieces {
        let end = 2 * piece.items.end as u32;
        // The end of each live register's current range, walking backwards.
        let mut until: Vec<Option<u32>> = vec![None; n];
        for v in live_out(&live_in, piece, n).members() {
            until[v] = Some(end);
        }
        for i in piece.items.clone().rev() {
            let write = 2 * i as u32 + 1;
            func.items[i].registers(|v, role| {
                if role == Role::Def {
                    // What nobody reads still needs a place for a moment.
                    let to = until[v.0 as usize].take().unwrap_or(write + 1);
                    out[v.0 as usize].push(write..to);
                }
            });
            func.items[i].registers(|v, role| {
                if role != Role::Def {
                    let least = if role == Role::Mod { write + 1 } else { write };
                    let slot = &mut until[v.0 as usize];
                    *slot = Some(slot.unwrap_or(0).max(least));
                }
            });
        }
        let start = 2 * piece.items.start as u32;
        for (v, to) in until.iter().enumerate() {
            if let Some(to) = to {
                out[v].push(start..*to);
            }
        }
    }
    for r in &mut out {
        *r = merge(r, &Vec::new());
    }
    out
}

fn live_out(live_in: &[Set], piece: &Piece, n: usize) -> Set {
    let mut out = Set::new(n);
    for &s in &piece.next {
        for (o, i) in out.0.iter_mut().zip(&live_in[s].0) {
            *o |= i;
        }
    }
    out
}

/// Joins the two registers of a copy where they are never live at once, deepest loops first; what joined copies leave
/// is removed. The ranges of the registers that remain.
pub(super) fn join_copies(func: &mut Func) -> Vec<Ranges> {
    let mut ranges = ranges(func);
    let mut leader: Vec<u32> = (0..func.classes.len() as u32).collect();
    fn find(leader: &[u32], V(mut v): V) -> V {
        while leader[v as usize] != v {
            v = leader[v as usize];
        }
        V(v)
    }
    let mut copies: Vec<(u32, V, V)> = Vec::new();
    for (item, &depth) in func.items.iter().zip(&func.depths) {
        if let Item::Copy { dst, src } = item {
            copies.push((depth, *dst, *src));
        }
    }
    copies.sort_by_key(|c| std::cmp::Reverse(c.0));
    for (_, dst, src) in copies {
        let (d, s) = (find(&leader, dst), find(&leader, src));
        if d == s || !func.class(d).same_file(func.class(s)) || overlap(&ranges[d.0 as usize], &ranges[s.0 as usize]) {
            continue;
        }
        let joined = merge(&ranges[d.0 as usize], &ranges[s.0 as usize]);
        ranges[d.0 as usize] = joined;
        ranges[s.0 as usize] = Vec::new();
        leader[s.0 as usize] = d.0;
        if let (Class::Vec(a), Class::Vec(b)) = (func.class(d), func.class(s)) {
            func.classes[d.0 as usize] = Class::Vec(a.max(b));
        }
    }
    for item in &mut func.items {
        item.rename(|v| find(&leader, v));
    }
    ranges
}
