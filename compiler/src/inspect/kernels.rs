//! The kernels that a model becomes: one line a step of the compiled program, by layer.

use std::collections::BTreeMap;

use bertc_backends::lower::{Decision, Traced};
use bertc_backends::plan::{Chunk, Program, Step};
use bertc_backends::target::Target;
use bertc_ir::kernel::Kernel;
use bertc_ir::{Dim, Graph, Loc, Symbols, cost};
use serde_json::{Value, json};

use super::model::text_of;
use super::sums::{self, Sums};
use super::{section, table};
use crate::layers::Layers;
use crate::progress::size;
use crate::sparse;

/// The kernels of a program.
pub(super) struct Listing {
    program: Program,
    target: String,
    steps: Vec<Line>,
    groups: Vec<Group>,
    multiply_adds: Option<Dim>,
}

/// One step.
struct Line {
    kernel: String,
    /// What the kernel was made from.
    template: String,
    isa: &'static str,
    op: String,
    /// Node of the source model.
    node: String,
    /// Shape of what the op computes.
    shape: String,
    /// Number of tasks.
    tasks: String,
    multiply_adds: Dim,
    /// Of a product of 8-bit integers.
    sums: Option<Sums>,
    /// What was found of its matrix.
    sparse: Option<Decision>,
    /// Index of the group.
    group: usize,
}

/// What belongs together: a layer, or what comes before or after them.
struct Group {
    title: String,
    /// Its position among the layers, if it is one.
    layer: Option<usize>,
    steps: usize,
}

impl Listing {
    /// The steps of the program that `graph` was lowered to.
    pub fn new(graph: &Graph, traced: Traced, target: &Target) -> Self {
        let Traced { program, values, sparse, .. } = traced;
        let layers = Layers::of(graph);
        let title = |i| Group { title: layers.title(i), layer: layers.layer(i), steps: 0 };
        let mut groups: Vec<Group> = (0..layers.groups()).map(title).collect();
        let mut counted = std::collections::BTreeSet::new();
        let mut steps = Vec::new();
        for ((step, &v), &sparse) in program.steps.iter().zip(&values).zip(&sparse) {
            let kernel = &program.kernels[step.kernel];
            let template = template(&kernel.name);
            // Of a product of two steps the first only packs an operand; a value's later steps are copies.
            let counts = !template.starts_with("pack") && counted.insert(v);
            let multiply_adds = Some(v).filter(|_| counts).and_then(|v| cost::multiply_adds_of(graph, v));
            groups[layers.group(v)].steps += 1;
            steps.push(Line {
                kernel: kernel.name.clone(),
                template: template.to_string(),
                isa: isa(kernel),
                op: graph.op(v).name().to_string(),
                node: match &graph.node(v).loc {
                    Loc::Node { name, op, .. } => format!("{op} {name}"),
                    _ => String::new(),
                },
                shape: shape(&graph.ty(v).shape, &program.symbols),
                tasks: tasks(step, &program.symbols),
                multiply_adds: multiply_adds.unwrap_or_default(),
                sums: Sums::of(graph, v, kernel, target),
                sparse,
                group: layers.group(v),
            });
        }
        let multiply_adds = cost::multiply_adds(graph);
        Listing { program, target: target.triple.to_string(), steps, groups, multiply_adds }
    }

    /// The most steps of a layer.
    fn most(&self) -> Option<usize> {
        self.groups.iter().filter(|g| g.layer.is_some()).map(|g| g.steps).max()
    }

    /// Bytes of the arena at the given dims, or `None` on overflow.
    pub fn arena_bytes(&self, dims: &[i64]) -> Option<u64> {
        self.program.arena_bytes(dims)
    }

    /// Sections on memory and kernels: a table with a heading above each group, and a summary. `at` says what `dims` are.
    pub fn text(&self, opt_level: u8, dims: &[i64], at: &str) -> String {
        let symbols = &self.program.symbols;
        let mut text = format!("\nat -O{opt_level} for {}:\n", self.target);
        text += &self.memory(dims, at);
        // Group by group; within one, steps keep their order.
        let mut order: Vec<usize> = (0..self.steps.len()).collect();
        order.sort_by_key(|&i| self.steps[i].group);
        let rows = order.iter().map(|&i| {
            let l = &self.steps[i];
            let count = text_of(&l.multiply_adds, symbols);
            let count = if count == "0" { String::new() } else { count };
            let cells = [&l.kernel, l.isa, &l.op, &l.shape, &l.tasks, &count, &l.node];
            std::iter::once(i.to_string()).chain(cells.map(str::to_string)).collect()
        });
        let header = ["step", "kernel", "isa", "op", "result", "tasks", "multiply-adds", "node"];
        let rendered = table(&header, rows.collect(), &[0]);
        let mut lines = rendered.lines();
        text += &lines.next().map(|l| format!("\n{l}\n")).unwrap_or_default();
        for (n, (&i, line)) in order.iter().zip(lines).enumerate() {
            let group = self.steps[i].group;
            if self.groups.len() > 1 && (n == 0 || self.steps[order[n - 1]].group != group) {
                text += &format!("{}: {}\n", self.groups[group].title, kernels(self.groups[group].steps));
            }
            text += &format!("{line}\n");
        }
        text += &self.isas();
        text += &sums::text(order.iter().filter_map(|&i| {
            let l = &self.steps[i];
            Some((i, l.kernel.as_str(), l.sums.as_ref()?))
        }));
        text += &sparse::text(order.iter().filter_map(|&i| {
            let l = &self.steps[i];
            Some((i, l.kernel.as_str(), l.sparse.as_ref()?))
        }));
        if let Some(n) = &self.multiply_adds {
            text += &format!("\nmultiply-adds of the kernels: {}\n", text_of(n, symbols));
        }
        text += &format!("kernels: {}, {} of them distinct", self.steps.len(), self.program.kernels.len());
        if let Some(most) = self.most() {
            text += &format!(", per layer at most {most}");
        }
        text + "\n"
    }

    fn memory(&self, dims: &[i64], at: &str) -> String {
        let p = &self.program;
        let slots = p.slots.iter().enumerate().map(|(i, s)| vec![i.to_string(), largest(&s.sizes, &p.symbols)]);
        let mut text = section("", &["slot", "bytes, rounded up to 64 each"], slots.collect(), &[0]);
        text += &match p.arena_bytes(dims) {
            Some(n) if at.is_empty() => format!("\narena {}", size(n)),
            Some(n) => format!("\narena {} {at}", size(n)),
            None => "\narena unknown".into(),
        };
        text + &format!(", scratch {} for each worker\n", size(p.scratch_bytes()))
    }

    /// How many of the distinct kernels each instruction set and template has.
    fn isas(&self) -> String {
        let mut count: BTreeMap<(&str, &str), (usize, usize)> = BTreeMap::new();
        for k in &self.program.kernels {
            count.entry((isa(k), template(&k.name))).or_default().0 += 1;
        }
        for l in &self.steps {
            count.entry((l.isa, &l.template)).or_default().1 += 1;
        }
        let row = |((isa, template), (distinct, steps)): (_, (usize, usize))| {
            let (isa, template): (&str, &str) = (isa, template);
            vec![isa.to_string(), template.to_string(), distinct.to_string(), steps.to_string()]
        };
        let rows = count.into_iter().map(row).collect();
        section("", &["isa", "template", "distinct", "steps"], rows, &[2, 3])
    }

    /// The same as JSON.
    pub fn json(&self) -> Value {
        let symbols = &self.program.symbols;
        let step = |(i, l): (usize, &Line)| {
            json!({
                "step": i,
                "part": self.groups[l.group].title,
                "layer": self.groups[l.group].layer,
                "kernel": l.kernel,
                "template": l.template,
                "isa": l.isa,
                "op": l.op,
                "node": l.node,
                "shape": l.shape,
                "tasks": l.tasks,
                "multiply_adds": text_of(&l.multiply_adds, symbols),
                "int8": l.sums.as_ref().map(Sums::json),
                "sparse": l.sparse.as_ref().map(sparse::json),
            })
        };
        let layers = self.groups.iter().filter(|g| g.layer.is_some());
        let slots: Vec<Vec<String>> =
            self.program.slots.iter().map(|s| s.sizes.iter().map(|d| text_of(d, symbols)).collect()).collect();
        json!({
            "kernels": self.steps.len(),
            "distinct_kernels": self.program.kernels.len(),
            "kernels_of_layers": layers.map(|g| g.steps).collect::<Vec<_>>(),
            "max_per_layer": self.most(),
            "multiply_adds": self.multiply_adds.as_ref().map(|n| text_of(n, symbols)),
            "arena_slots": slots,
            "scratch_bytes_per_worker": self.program.scratch_bytes(),
            "steps": self.steps.iter().enumerate().map(step).collect::<Vec<_>>(),
        })
    }
}

/// The largest of a slot's sizes, as a formula. What is never larger than another is left out.
fn largest(sizes: &[Dim], symbols: &Symbols) -> String {
    let mut kept: Vec<&Dim> = Vec::new();
    for (i, d) in sizes.iter().enumerate() {
        let below = |j: usize, o: &Dim| o.proven_ge(d, symbols) && (j < i || !d.proven_ge(o, symbols));
        if !sizes.iter().enumerate().any(|(j, o)| j != i && below(j, o)) {
            kept.push(d);
        }
    }
    let texts: Vec<String> = kept.into_iter().map(|d| text_of(d, symbols)).collect();
    match &texts[..] {
        [one] => one.clone(),
        _ => format!("max({})", texts.join(", ")),
    }
}

/// A kernel's name without its number.
fn template(kernel: &str) -> &str {
    match kernel.rsplit_once('_') {
        Some((name, number)) if number.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => kernel,
    }
}

/// What makes the machine code of a kernel: registers of more than four lanes are no business of Cranelift's.
fn isa(k: &Kernel) -> &'static str {
    match k.regs.iter().map(|r| r.lanes).max() {
        Some(16) => "avx512",
        Some(8) => "avx2",
        _ => "clif128",
    }
}

fn kernels(n: usize) -> String {
    format!("{n} kernel{}", if n == 1 { "" } else { "s" })
}

fn shape(dims: &[Dim], symbols: &Symbols) -> String {
    let dims: Vec<String> = dims.iter().map(|d| text_of(d, symbols)).collect();
    format!("[{}]", dims.join(", "))
}

/// The number of tasks: a number, or the factors with what is divided and rounded up. `share(m, n)` is an even share of
/// the workers, a multiple of m, n at most.
fn tasks(step: &Step, symbols: &Symbols) -> String {
    let mut constant = 1i64;
    let mut factors = Vec::new();
    for (extent, chunk) in &step.tasks {
        let text = text_of(extent, symbols);
        match (text.parse::<i64>(), chunk) {
            (Ok(n), &Chunk::Fixed(c)) if c > 0 => constant = constant.saturating_mul(n / c + i64::from(n % c > 0)),
            (_, Chunk::Fixed(1)) if extent.terms() == 1 => factors.push(text),
            (_, Chunk::Fixed(1)) => factors.push(format!("({text})")),
            _ => factors.push(format!("ceil({text} / {chunk})")),
        }
    }
    if constant != 1 || factors.is_empty() {
        factors.insert(0, constant.to_string());
    }
    factors.join(" * ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step() -> Step {
        Step { kernel: 0, args: vec![], tasks: vec![], fallible: false, in_place: vec![], source: String::new() }
    }

    #[test]
    fn names_and_sizes() {
        assert_eq!(["linear_12", "reduce_sum_3", "pack", "x_"].map(template), ["linear", "reduce_sum", "pack", "x"]);
        let mut s = Symbols::default();
        let b = Dim::symbol(s.intern("batch", 1, 9));
        let n = |k: i64| b.mul(&k.into()).unwrap();
        assert_eq!(largest(&[n(4), n(8), n(8)], &s), "8*batch");
        assert_eq!(largest(&[n(4), 12.into()], &s), "max(4*batch, 12)");
        assert_eq!(largest(&[64.into(), n(4), 12.into()], &s), "64");
    }

    #[test]
    fn tasks_are_polynomials() {
        let mut s = Symbols::default();
        let b = Dim::symbol(s.intern("batch", 1, 9));
        let q = Dim::symbol(s.intern("seq", 65, 65));
        let of = |t: &[(Dim, i64)]| {
            let tasks = t.iter().map(|(d, c)| (d.clone(), Chunk::Fixed(*c))).collect();
            super::tasks(&Step { tasks, ..step() }, &s)
        };
        let share = vec![(b.clone(), Chunk::Share { multiple: 2, most: 8 })];
        assert_eq!(tasks(&Step { tasks: share, ..step() }, &s), "ceil(batch / share(2, 8))");
        assert_eq!(of(&[]), "1");
        assert_eq!(of(&[(7.into(), 2), (3.into(), 1)]), "12");
        assert_eq!(of(&[(b.clone(), 1), (7.into(), 2)]), "4 * batch");
        assert_eq!(of(&[(b.clone(), 32)]), "ceil(batch / 32)");
        let n = b.mul(&q).unwrap();
        assert_eq!(of(&[(q, 32), (n, 2)]), "3 * ceil(65*batch / 2)");
    }
}
