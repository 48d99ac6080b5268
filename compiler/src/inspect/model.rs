//! What a model is in its file, and what it becomes.

use std::collections::BTreeMap;

use bertc_backends::lower::{self, Traced};
use bertc_backends::target::Target;
use bertc_ir::{Diag, Dim, Graph, Op, Port, Symbols, cost};
use bertc_passes::registry::PASSES;
use serde_json::{Value, json};

use super::kernels::Listing;
use super::weights::{Part, parts};
use super::{InspectOptions, section};
use crate::import::onnx::{self, ImportOptions};
use crate::layers::Layers;
use crate::passes;
use crate::picture::grouped;
use crate::progress::{Progress, size};
use crate::tir;

/// The length of the sample dims, where the ranges allow it. The batch is one.
const LENGTH: i64 = 128;

/// A model as read.
pub(super) struct Model {
    graph: Graph,
    /// `None` for IR text.
    onnx: Option<Onnx>,
    target: Target,
}

struct Onnx {
    opset: i64,
    producer: String,
    notes: Vec<String>,
}

impl Model {
    /// Reads the file: ONNX, or the text of tensor IR.
    pub fn read(o: &InspectOptions) -> Result<Model, Vec<Diag>> {
        let c = &o.compile;
        let target = c.machine().map_err(|d| vec![d])?;
        if tir::is_text(&o.file).map_err(|d| vec![d])? {
            let graph = tir::load(&o.file, None)?;
            return Ok(Model { graph, onnx: None, target });
        }
        let import = ImportOptions { dims: c.dims.clone(), shapes: c.shapes.clone() };
        let i = onnx::import(&o.file, &import)?;
        let onnx = Onnx { opset: i.opset, producer: i.producer, notes: i.notes };
        Ok(Model { graph: i.graph, onnx: Some(onnx), target })
    }

    /// Compiles it as far as steps, and gathers what there is to tell.
    pub fn report(&self, o: &InspectOptions) -> Report<'_> {
        // A model that can't be compiled can still be described; why it can't is part of that.
        let compiled = compile(&self.graph, &self.target, o);
        let mut ops: BTreeMap<&'static str, (usize, Option<usize>)> = BTreeMap::new();
        for name in op_names(&self.graph) {
            ops.entry(name).or_default().0 += 1;
        }
        if let Ok((after, _)) = &compiled {
            ops.values_mut().for_each(|n| n.1 = Some(0));
            for name in op_names(after) {
                *ops.entry(name).or_default().1.get_or_insert(0) += 1;
            }
        }
        let mut ops: Vec<_> = ops.into_iter().map(|(name, (a, b))| (name, a, b)).collect();
        ops.sort_by_key(|&(name, a, b)| (std::cmp::Reverse(a), std::cmp::Reverse(b), name));
        let layers = Layers::of(&self.graph);
        Report {
            model: self,
            ops,
            parts: parts(&self.graph, &layers),
            by_name: layers.by_name(),
            layers: layers.count(),
            sample: sample(&self.graph.symbols),
            compiled: compiled.map(|(graph, traced)| Listing::new(&graph, traced, &self.target)),
            opt_level: o.compile.opt_level,
        }
    }
}

fn compile(graph: &Graph, target: &Target, o: &InspectOptions) -> Result<(Graph, Traced), Vec<Diag>> {
    let mut graph = graph.clone();
    let steps = passes::steps(&o.compile, PASSES, true)?;
    passes::run(&mut graph, &steps, &o.compile, &mut Progress::hidden(), &mut std::io::stderr())?;
    let traced = lower::lower_traced(&graph, target)?;
    Ok((graph, traced))
}

fn op_names(g: &Graph) -> Vec<&'static str> {
    let ops = g.topo().into_iter().map(|v| g.op(v));
    ops.filter(|op| !matches!(op, Op::Input { .. } | Op::Constant(_))).map(Op::name).collect()
}

/// A batch of one of a plausible length, as far as the ranges allow.
fn sample(symbols: &Symbols) -> Vec<i64> {
    let wanted = |name: &str| if name.to_lowercase().contains("batch") { 1 } else { LENGTH };
    symbols.iter().map(|(_, s)| wanted(&s.name).clamp(s.min, s.max.max(s.min))).collect()
}

/// A polynomial as text, with the numbers of dims that have only one value.
pub(super) fn text_of(d: &Dim, symbols: &Symbols) -> String {
    let fixed = symbols.iter().filter(|(_, s)| s.min == s.max);
    let known = fixed.fold(d.clone(), |d, (id, s)| d.substitute(id, &s.min.into()).unwrap_or(d));
    known.display(symbols).to_string()
}

/// All there is to tell of a model.
pub(super) struct Report<'a> {
    model: &'a Model,
    /// How often each op is in the model as read, and after the passes.
    ops: Vec<(&'static str, usize, Option<usize>)>,
    parts: Vec<Part>,
    by_name: bool,
    layers: usize,
    sample: Vec<i64>,
    compiled: Result<Listing, Vec<Diag>>,
    opt_level: u8,
}

impl Report<'_> {
    fn symbols(&self) -> &Symbols {
        &self.model.graph.symbols
    }

    fn ports(&self) -> [(&'static str, &[Port]); 2] {
        [("input", self.model.graph.inputs()), ("output", self.model.graph.outputs())]
    }

    fn shape(&self, p: &Port) -> Vec<String> {
        self.model.graph.ty(p.value).shape.iter().map(|d| d.display(self.symbols()).to_string()).collect()
    }

    /// Parameters and their bytes, shared ones once.
    fn parameters(&self) -> (u64, u64) {
        self.parts.iter().fold((0, 0), |(n, b), p| (n + p.parameters, b + p.bytes))
    }

    /// For people.
    pub fn text(&self) -> String {
        let g = &self.model.graph;
        let mut text = match &self.model.onnx {
            Some(o) if o.producer.is_empty() => format!("ONNX model, opset {}\n", o.opset),
            Some(o) => format!("ONNX model, opset {}, written by {}\n", o.opset, o.producer),
            None => format!("tensor IR of '{}'\n", g.name),
        };
        let mut rows = Vec::new();
        for (kind, list) in self.ports() {
            for p in list {
                let shape = format!("[{}]", self.shape(p).join(", "));
                rows.push(vec![kind.into(), p.name.clone(), g.ty(p.value).dtype.to_string(), shape]);
            }
        }
        text += &section("", &["", "name", "type", "shape"], rows, &[]);
        let rows = self.symbols().iter().map(|(_, s)| vec![s.name.clone(), s.min.to_string(), s.max.to_string()]);
        text += &section("", &["dim", "min", "max"], rows.collect(), &[1, 2]);
        let after = |n: Option<usize>| n.map(|n| n.to_string()).unwrap_or_default();
        let rows = self.ops.iter().map(|&(name, a, b)| vec![name.to_string(), a.to_string(), after(b)]).collect();
        text += &section("", &["op", "imported", &format!("after -O{}", self.opt_level)], rows, &[1, 2]);
        text += &self.parts_text();
        let (parameters, bytes) = self.parameters();
        text += &format!("\n{} parameters, {}\n", grouped(parameters), size(bytes));
        for n in self.model.onnx.iter().flat_map(|o| &o.notes) {
            text += &format!("note: {n}\n");
        }
        let at = self.at_sample();
        if let Some(n) = cost::multiply_adds(g) {
            text += &format!("\nmultiply-adds: {}\n", text_of(&n, self.symbols()));
            if let (Some(n), false) = (n.eval(&self.sample).and_then(|n| u64::try_from(n).ok()), at.is_empty()) {
                text += &format!("  {at}: {}\n", grouped(n));
            }
        }
        text + &match &self.compiled {
            Ok(l) => l.text(self.opt_level, &self.sample, &at),
            Err(errors) => errors.iter().map(|e| format!("can't be compiled: {e}\n")).collect(),
        }
    }

    /// The sample dims in words.
    fn at_sample(&self) -> String {
        let dims = self.symbols().iter().zip(&self.sample);
        let dims: Vec<String> = dims.map(|((_, s), v)| format!("{} = {v}", s.name)).collect();
        if dims.is_empty() { String::new() } else { format!("at {}", dims.join(", ")) }
    }

    fn parts_text(&self) -> String {
        if self.layers == 0 {
            return String::new();
        }
        let shared = self.parts.iter().any(|p| p.shared > 0);
        let blank = |n: u64| if n == 0 { String::new() } else { grouped(n) };
        let rows = self.parts.iter().map(|p| {
            let count = p.multiply_adds.as_ref().map(|n| text_of(n, self.symbols())).filter(|n| n != "0");
            let mut row = vec![p.title.clone(), grouped(p.parameters), size(p.bytes)];
            row.extend(shared.then(|| blank(p.shared)));
            row.push(count.unwrap_or_default());
            row
        });
        let mut header = vec!["part", "parameters", "bytes"];
        header.extend(shared.then_some("shared with earlier"));
        header.push("multiply-adds");
        section("", &header, rows.collect(), &[1, 2, if shared { 3 } else { 2 }])
    }

    /// For programs; `docs/inspect.md` describes it.
    pub fn json(&self) -> Value {
        let g = &self.model.graph;
        let port = |p: &Port| json!({"name": p.name, "type": g.ty(p.value).dtype.to_string(), "shape": self.shape(p)});
        let [inputs, outputs] = self.ports().map(|(_, list)| list.iter().map(port).collect::<Vec<_>>());
        let dims: Vec<Value> =
            g.symbols.iter().map(|(_, s)| json!({"name": s.name, "min": s.min, "max": s.max})).collect();
        let ops: Vec<Value> =
            self.ops.iter().map(|(op, a, b)| json!({"op": op, "imported": a, "optimised": b})).collect();
        let parts: Vec<Value> = self
            .parts
            .iter()
            .map(|p| {
                json!({
                    "title": p.title, "layer": p.layer, "parameters": p.parameters, "bytes": p.bytes,
                    "shared_parameters": p.shared,
                    "multiply_adds": p.multiply_adds.as_ref().map(|n| text_of(n, &g.symbols)),
                })
            })
            .collect();
        let onnx = self.model.onnx.as_ref();
        let (parameters, bytes) = self.parameters();
        let count = cost::multiply_adds(g);
        let sample: serde_json::Map<String, Value> =
            g.symbols.iter().zip(&self.sample).map(|((_, s), v)| (s.name.clone(), json!(v))).collect();
        json!({
            "format": if onnx.is_some() { "onnx" } else { "tensor-ir" },
            "opset": onnx.map(|o| o.opset),
            "producer": onnx.map(|o| &o.producer),
            "notes": onnx.map_or(&[][..], |o| &o.notes),
            "inputs": inputs,
            "outputs": outputs,
            "dims": dims,
            "ops": ops,
            "parameters": parameters,
            "parameter_bytes": bytes,
            "parts": parts,
            "layers_told_by": match (self.layers, self.by_name) {
                (0, _) => Value::Null,
                (_, true) => json!("names"),
                (_, false) => json!("attention"),
            },
            "multiply_adds": count.as_ref().map(|n| text_of(n, &g.symbols)),
            "sample": {
                "dims": sample,
                "multiply_adds": count.and_then(|n| n.eval(&self.sample)),
                "arena_bytes": self.compiled.as_ref().ok().and_then(|l| l.arena_bytes(&self.sample)),
            },
            "target": self.model.target.triple.to_string(),
            "cpu": self.model.target.cpu,
            "opt_level": self.opt_level,
            "compiled": self.compiled.as_ref().ok().map(Listing::json),
            "errors": self.compiled.as_ref().err().map_or(Vec::new(), |e| e.iter().map(ToString::to_string).collect()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bertc_ir::{BinaryOp, DType, Loc, Tensor, TensorType};

    #[test]
    fn a_model_is_counted() {
        let mut graph = Graph::new("f");
        let s = graph.symbols.intern("seq", 1, 9);
        let x = graph.add_input("x", TensorType::new(DType::F32, vec![s.into()]));
        let c = graph.add_const(Tensor::from_f32(vec![], &[2.0]), &Loc::Unknown).unwrap();
        let y = graph.add(Op::Binary(BinaryOp::Mul), &[x, c], &Loc::Unknown).unwrap();
        graph.add_output("y", y);
        let target = Target::parse("x86_64", "generic").unwrap();
        let m = Model { graph, onnx: None, target };
        let compile = crate::CompileOptions { opt_level: 1, ..Default::default() };
        let o = InspectOptions { file: "f.tir".into(), compile, json: false };
        let report = m.report(&o);
        let text = report.text();
        for part in [
            " input   x     f32   [seq]",
            " seq    1    9",
            " mul         1          1",
            "1 parameters, 4 bytes",
            "arena 0 bytes at seq = 9",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
        let v = report.json();
        assert_eq!((&v["format"], &v["sample"]["dims"]), (&json!("tensor-ir"), &json!({"seq": 9})));
        assert_eq!(v["ops"], json!([{"op": "mul", "imported": 1, "optimised": 1}]));
        assert_eq!(v["compiled"]["steps"][0]["isa"], "clif128");
    }
}
