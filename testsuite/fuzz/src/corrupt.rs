//! Corruption trials: one byte of a test model is another one. What comes of it is a correct compile or a diagnostic.
//!
//! "Correct" means: the imported graph and the optimised one verify, the program verifies, an object is written. Where
//! the corruption gave a graph that was not seen before, weights aside, the code is also run and compared with the
//! evaluator.

use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bertc::import::onnx::{INVALID, ImportOptions, import_bytes};
use bertc_backends::lower;
use bertc_backends::object::{EmitOptions, emit_object};
use bertc_backends::target::Target;
use bertc_ir::Graph;
use bertc_ir::text::{PrintOptions, print};
use bytes::Bytes;

use crate::native::{self, Native};
use crate::oracle::expect;
use crate::random::Random;
use crate::targets::{check_diags, inputs, optimise, show};
use crate::{Outcome, corpus, mutate::proto};

/// The models of a run without a choice: what exporters write, by way of PyTorch's two exporters, ONNX Runtime's
/// quantisation and fusion, and with half precision.
pub const MODELS: [&str; 5] = ["bert-eager", "bert-dynamo", "bert-eager+dyn8", "bert-eager+fp16", "distilbert-qa"];

/// A trial in this many writes its object even though the code is known.
const EMIT_ONE_IN: usize = 50;

/// The models, and what was seen of them.
pub struct Trials {
    models: Vec<Model>,
    seed: u64,
    structure: bool,
    target: Target,
    seen: HashSet<String>,
}

struct Model {
    name: String,
    data: Vec<u8>,
    /// Where the weights are.
    blobs: Vec<Range<usize>>,
}

/// One trial.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trial {
    /// The model.
    pub model: usize,
    /// The byte that is changed.
    pub offset: usize,
    /// What it is changed to.
    pub value: u8,
}

impl Trials {
    /// Trials on test models. With `structure`, none on the bytes of weights.
    ///
    /// # Errors
    /// A model that can't be read.
    pub fn new(names: &[String], seed: u64, structure: bool) -> Result<Self, String> {
        let read = |name: &String| {
            let path: PathBuf = corpus::zoo_dir().join(format!("{name}.onnx"));
            let data = std::fs::read(&path).map_err(|e| format!("can't read '{}': {e}", path.display()))?;
            Ok(Model { name: name.clone(), blobs: proto::blobs(&data), data })
        };
        let models = names.iter().map(read).collect::<Result<Vec<_>, String>>()?;
        let target = Target::parse(&native_triple(), "native").map_err(|d| d.to_string())?;
        Ok(Trials { models, seed, structure, target, seen: HashSet::new() })
    }

    /// Trial `index`.
    pub fn trial(&self, index: u64) -> Trial {
        let mut r = Random::new(self.seed, index);
        let model = r.below(self.models.len());
        let m = &self.models[model];
        let mut offset = r.below(m.data.len());
        while self.structure && m.blobs.iter().any(|b| b.contains(&offset)) {
            offset = r.below(m.data.len());
        }
        let value = m.data[offset] ^ (1 + r.below(255) as u8);
        Trial { model, offset, value }
    }

    /// A trial in words.
    pub fn describe(&self, t: &Trial) -> String {
        let m = &self.models[t.model];
        format!("{}.onnx: byte {} from {:#04x} to {:#04x}", m.name, t.offset, m.data[t.offset], t.value)
    }

    /// The corrupted model.
    pub fn bytes(&self, t: &Trial) -> Vec<u8> {
        let mut data = self.models[t.model].data.clone();
        data[t.offset] = t.value;
        data
    }

    /// Does trial `index`.
    ///
    /// # Errors
    /// The finding.
    pub fn run(&mut self, index: u64) -> Result<Outcome, String> {
        let t = self.trial(index);
        let mut r = Random::new(!self.seed, index);
        let result = self.compile(&t, &mut r);
        result.map_err(|m| format!("{m}\n  {}", self.describe(&t)))
    }

    fn compile(&mut self, t: &Trial, r: &mut Random) -> Result<Outcome, String> {
        let data = self.bytes(t);
        let base = corpus::zoo_dir();
        let imported = match import_bytes(Bytes::from(data), Some(Path::new(&base)), &ImportOptions::default()) {
            Ok(i) => i.graph,
            Err(d) if d.iter().any(|d| d.notes.iter().any(|n| n == INVALID)) => return Err(show(&d)),
            Err(d) => return check_diags(&d).map(|()| "refused"),
        };
        let mut graph = imported.clone();
        if !optimise(&mut graph, &bertc_passes::pipeline(3))? {
            return Ok("refused by a pass");
        }
        let program = match lower::lower(&graph, &self.target) {
            Ok(p) => p,
            Err(d) => return check_diags(&d).map(|()| "refused by the lowering"),
        };
        program.verify().map_err(|d| format!("the program doesn't verify: {}", show(&d)))?;
        // Weights don't change code, and most bytes are weights.
        let new = self.seen.insert(structure(&graph));
        if !new && !r.one_in(EMIT_ONE_IN) {
            return Ok("compiled, code known");
        }
        let emitted = emit_object(&program, &self.target, &EmitOptions::default(), &mut std::io::sink());
        emitted.map_err(|d| format!("the object can't be written: {}", show(&d)))?;
        // A weight of another magnitude makes any two orders of summation differ.
        let weight = self.models[t.model].blobs.iter().any(|b| b.contains(&t.offset));
        if new && !weight { self.execute(&imported, &graph, r) } else { Ok("compiled") }
    }

    /// Compares the code with the evaluator.
    fn execute(&self, imported: &Graph, graph: &Graph, r: &mut Random) -> Result<Outcome, String> {
        let dims: Vec<i64> = imported.symbols.iter().map(|(i, s)| (3 + i64::from(i.0)).clamp(s.min, s.max)).collect();
        let Some(inputs) = inputs(imported, &dims, 2, r) else { return Ok("compiled, too large to run") };
        let expected = expect(imported, &dims, &inputs, r);
        match (expected, native::run(graph, &self.target, &dims, &inputs)?) {
            (_, Native::Refused) => Err("lowered once, but not twice".to_string()),
            (None, Native::Failed) => Ok("ran into an index out of range, as it must"),
            // A value that nobody needs may be gone, and its error with it.
            (None, Native::Ran(_)) => Ok("ran without what fails"),
            (Some(_), Native::Failed) => {
                Err("the code reports an index out of range, the evaluator doesn't".to_string())
            }
            (Some(mut a), Native::Ran(b)) => {
                a.allow(graph, &dims, &inputs, r);
                a.compare(&b).map(|()| "ran, as the evaluator does")
            }
        }
    }
}

/// The graph without its weights.
fn structure(g: &Graph) -> String {
    let text = print(g, &PrintOptions::default());
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once("dense_resource<") {
        out.push_str(before);
        rest = after.split_once('>').map_or("", |(_, r)| r);
    }
    out + rest
}

fn native_triple() -> String {
    bertc::CompileOptions::default().target
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trials_repeat_and_spare_weights_on_demand() {
        let names = ["distilbert-qa".to_string()];
        let all = Trials::new(&names, 1, false).expect("the model");
        let some = Trials::new(&names, 1, true).expect("the model");
        assert!((0..50).all(|i| all.trial(i) == all.trial(i)));
        let weights = |t: &Trials, i| t.models[0].blobs.iter().any(|b| b.contains(&t.trial(i).offset));
        assert!((0..200).any(|i| weights(&all, i)), "most bytes are weights");
        assert!((0..200).all(|i| !weights(&some, i)));
        for i in 0..50 {
            let t = all.trial(i);
            let differ = all.bytes(&t).iter().zip(&all.models[0].data).filter(|(a, b)| a != b).count();
            assert_eq!(differ, 1);
        }
    }
}
