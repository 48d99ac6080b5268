//! The kernels that a model becomes: one line a step of the compiled program, in layers.
//!
//! A layer is what runs from one attention step up to the next. So the product that makes the first layer's queries,
//! keys and values counts as before it, each layer ends with the next one's, and the last layer goes on to the end. A
//! step of attention is one of the fused op, or, in a program without, a softmax.

use std::collections::BTreeMap;
use std::ops::Range;

use bertc_backends::plan::{Chunk, Program, Step};
use bertc_ir::{Dim, Graph, Loc, Op, Symbols, ValueId, cost};
use serde_json::{Value, json};

use super::table;

/// The kernels of a program.
pub(super) struct Listing<'a> {
    symbols: &'a Symbols,
    steps: Vec<Line>,
    /// Number of the first layer's first step.
    layers: Vec<Range<usize>>,
    /// Kernels that differ: steps share the others.
    distinct: usize,
    multiply_adds: Option<Dim>,
}

/// One step.
struct Line {
    kernel: String,
    op: String,
    /// Node of the source model.
    node: String,
    /// Shape of what the op computes, where it is known.
    shape: Option<String>,
    /// Number of tasks.
    tasks: String,
    multiply_adds: Dim,
}

impl<'a> Listing<'a> {
    /// The steps of `program`, which was lowered from `graph`.
    pub fn new(graph: &'a Graph, program: &'a Program) -> Self {
        let values = values_of(graph, program);
        let mut counted = std::collections::BTreeSet::new();
        let mut steps = Vec::new();
        for (step, value) in program.steps.iter().zip(&values) {
            let (op, node) = split_source(&step.source);
            // A value's later steps are copies.
            let counts = !is_packing(program, step) && value.is_some_and(|v| counted.insert(v));
            let multiply_adds = value.filter(|_| counts).and_then(|v| cost::multiply_adds_of(graph, v));
            steps.push(Line {
                kernel: program.kernels[step.kernel].name.clone(),
                op: op.to_string(),
                node: node.to_string(),
                shape: value.map(|v| shape(&graph.ty(v).shape, &program.symbols)),
                tasks: tasks(step, &program.symbols),
                multiply_adds: multiply_adds.unwrap_or_default(),
            });
        }
        let layers = layers(&program.steps);
        let multiply_adds = cost::multiply_adds(graph);
        Listing { symbols: &program.symbols, steps, layers, distinct: program.kernels.len(), multiply_adds }
    }

    /// The most steps of a layer. The last one counts only if it is the only one, because it has what follows it too.
    fn most(&self) -> Option<usize> {
        let whole = match self.layers.len() {
            0 | 1 => &self.layers[..],
            n => &self.layers[..n - 1],
        };
        whole.iter().map(Range::len).max()
    }

    fn layer_of(&self, step: usize) -> Option<usize> {
        self.layers.iter().position(|l| l.contains(&step))
    }

    /// A table with a heading above each layer, and a summary.
    pub fn text(&self) -> String {
        let rows = self.steps.iter().enumerate().map(|(i, l)| {
            let count = text_of(&l.multiply_adds, self.symbols);
            let count = if count == "0" { String::new() } else { count };
            let shape = l.shape.clone().unwrap_or_default();
            vec![i.to_string(), l.kernel.clone(), l.op.clone(), shape, l.tasks.clone(), count, l.node.clone()]
        });
        let header = ["step", "kernel", "op", "result", "tasks", "multiply-adds", "node"];
        let rendered = table(&header, rows.collect(), &[0]);
        let mut lines = rendered.lines();
        let mut text = lines.next().map(|l| format!("{l}\n")).unwrap_or_default();
        let first = self.layers.first().map_or(self.steps.len(), |l| l.start);
        for (i, line) in lines.enumerate() {
            if i == 0 && first > 0 && !self.layers.is_empty() {
                text += &format!("before layer 0: {}\n", kernels(first));
            }
            if let Some(n) = self.layers.iter().position(|l| l.start == i) {
                let rest = if n + 1 == self.layers.len() { " and what follows it" } else { "" };
                text += &format!("layer {n}{rest}: {}\n", kernels(self.layers[n].len()));
            }
            text += &format!("{line}\n");
        }
        if let Some(n) = &self.multiply_adds {
            text += &format!("\nmultiply-adds: {}\n", text_of(n, self.symbols));
        }
        text += &format!("kernels: {}, {} of them distinct", self.steps.len(), self.distinct);
        if let (Some(most), Some(last)) = (self.most(), self.layers.last()) {
            text += &format!(", per layer at most {most}");
            if self.layers.len() > 1 && last.len() > most {
                text += &format!(" (the last with what follows it: {})", last.len());
            }
        }
        text + "\n"
    }

    /// The same as JSON.
    pub fn json(&self) -> Value {
        let steps: Vec<Value> = self
            .steps
            .iter()
            .enumerate()
            .map(|(i, l)| {
                json!({
                    "step": i,
                    "layer": self.layer_of(i),
                    "kernel": l.kernel,
                    "op": l.op,
                    "node": l.node,
                    "shape": l.shape,
                    "tasks": l.tasks,
                    "multiply_adds": text_of(&l.multiply_adds, self.symbols),
                })
            })
            .collect();
        json!({
            "kernels": self.steps.len(),
            "distinct_kernels": self.distinct,
            "kernels_of_layers": self.layers.iter().map(Range::len).collect::<Vec<_>>(),
            "max_per_layer": self.most(),
            "multiply_adds": self.multiply_adds.as_ref().map(|n| text_of(n, self.symbols)),
            "steps": steps,
        })
    }
}

/// A polynomial as text, with the numbers of dims that have only one value.
fn text_of(d: &Dim, symbols: &Symbols) -> String {
    let fixed = symbols.iter().filter(|(_, s)| s.min == s.max);
    let known = fixed.fold(d.clone(), |d, (id, s)| d.substitute(id, &s.min.into()).unwrap_or(d));
    known.display(symbols).to_string()
}

fn kernels(n: usize) -> String {
    format!("{n} kernel{}", if n == 1 { "" } else { "s" })
}

/// Op and node of a step's source: `linear (MatMul /a/b)`.
fn split_source(source: &str) -> (&str, &str) {
    match source.split_once(" (") {
        Some((op, rest)) => (op, rest.strip_suffix(')').unwrap_or(rest)),
        None => (source, ""),
    }
}

/// Whether a step only packs an operand of the product that follows.
fn is_packing(program: &Program, step: &Step) -> bool {
    program.kernels[step.kernel].name.starts_with("pack_")
}

/// The value that each step computes, where it is clear.
///
/// Steps name their op and source node, and keep the graph's order among those of one name.
fn values_of(graph: &Graph, program: &Program) -> Vec<Option<ValueId>> {
    let mut values: BTreeMap<String, Vec<ValueId>> = BTreeMap::new();
    for v in graph.topo() {
        let op = graph.op(v);
        if matches!(op, Op::Input { .. } | Op::Constant(_) | Op::Reshape { .. }) {
            continue;
        }
        let source = match &graph.node(v).loc {
            Loc::Node { name, op: onnx } => format!("{} ({onnx} {name})", op.name()),
            _ => op.name().to_string(),
        };
        values.entry(source).or_default().push(v);
    }
    let mut steps: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, s) in program.steps.iter().enumerate() {
        steps.entry(&s.source).or_default().push(i);
    }
    let mut out = vec![None; program.steps.len()];
    for (source, steps) in steps {
        let Some(values) = values.get(source) else { continue };
        if let [v] = values[..] {
            steps.iter().for_each(|&s| out[s] = Some(v));
            continue;
        }
        let main = steps.iter().filter(|&&s| !is_packing(program, &program.steps[s]));
        if main.clone().count() != values.len() {
            continue;
        }
        let mut next = 0;
        for &s in &steps {
            out[s] = values.get(next).copied();
            next += usize::from(!is_packing(program, &program.steps[s]));
        }
    }
    out
}

fn layers(steps: &[Step]) -> Vec<Range<usize>> {
    let op = |s: &Step| split_source(&s.source).0.to_string();
    let marker = if steps.iter().any(|s| op(s) == "attention") { "attention" } else { "softmax" };
    let mut starts = Vec::new();
    for (i, s) in steps.iter().enumerate() {
        let goes_on = i > 0 && steps[i - 1].source == s.source;
        if op(s) == marker && !goes_on {
            starts.push(i);
        }
    }
    let ends = starts.iter().skip(1).copied().chain([steps.len()]);
    starts.iter().zip(ends).map(|(&a, b)| a..b).collect()
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

    fn step(source: &str) -> Step {
        Step { kernel: 0, args: vec![], tasks: vec![], fallible: false, source: source.into() }
    }

    #[test]
    fn layers_go_from_attention_to_attention() {
        let of = |names: &[&str]| layers(&names.iter().map(|n| step(n)).collect::<Vec<_>>());
        let fused = of(&["sum_norm", "linear (a)", "attention (a)", "linear (b)", "attention (b)", "linear (c)"]);
        assert_eq!(fused, [2..4, 4..6]);
        assert_eq!(of(&["matmul (a)", "softmax (a)", "softmax (a)", "matmul", "softmax (b)"]), [1..4, 4..5]);
        assert_eq!(of(&["softmax", "attention (a)", "softmax"]), std::slice::from_ref(&(1..3)));
        assert!(of(&["linear", "tanh"]).is_empty());
    }

    #[test]
    fn tasks_are_polynomials() {
        let mut s = Symbols::default();
        let b = Dim::symbol(s.intern("batch", 1, 9));
        let q = Dim::symbol(s.intern("seq", 65, 65));
        let of = |t: &[(Dim, i64)]| {
            let tasks = t.iter().map(|(d, c)| (d.clone(), Chunk::Fixed(*c))).collect();
            super::tasks(&Step { tasks, ..step("x") }, &s)
        };
        let share = vec![(b.clone(), Chunk::Share { multiple: 2, most: 8 })];
        assert_eq!(tasks(&Step { tasks: share, ..step("x") }, &s), "ceil(batch / share(2, 8))");
        assert_eq!(of(&[]), "1");
        assert_eq!(of(&[(7.into(), 2), (3.into(), 1)]), "12");
        assert_eq!(of(&[(b.clone(), 1), (7.into(), 2)]), "4 * batch");
        assert_eq!(of(&[(b.clone(), 32)]), "ceil(batch / 32)");
        let n = b.mul(&q).unwrap();
        assert_eq!(of(&[(q, 32), (n, 2)]), "3 * ceil(65*batch / 2)");
        assert_eq!(split_source("linear (MatMul /a/b (c))"), ("linear", "MatMul /a/b (c)"));
    }
}
