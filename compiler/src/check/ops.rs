//! The compiled program, op by op: every computed value becomes an output, so that none shares memory with another, and
//! is compared with the evaluator's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;

use bertc_backends::lower::{Traced, lower_traced};
use bertc_backends::object::{self, EmitOptions};
use bertc_backends::target::Target;
use bertc_ir::eval::eval_op;
use bertc_ir::{Diag, Graph, Loc, Op, Tensor, ValueId};

use super::compare::Error;
use super::inputs::Inputs;
use crate::link;
use crate::load::LoadedModel;

/// Changes a program before its code is made, to see whether that is found.
pub type Sabotage<'a> = &'a dyn Fn(&Graph, &mut Traced);

/// One op of the transformed graph that the compiled program computes.
#[derive(Clone, Debug)]
pub struct OpRow {
    /// Its value.
    pub value: ValueId,
    /// Its name.
    pub op: &'static str,
    /// The node of the model that it comes from, where that is known.
    pub node: Option<String>,
    /// The kernels that compute it.
    pub kernels: Vec<String>,
    /// Compiled value against the evaluator's, with the errors of the ops before.
    pub error: Error,
    /// Against what the evaluator makes of the compiled operands: the error of this op alone.
    pub own: Error,
}

impl OpRow {
    /// For messages: `%v7 = linear (/encoder/…)`.
    pub fn name(&self) -> String {
        let node = self.node.as_ref().map_or(String::new(), |n| format!(" ({n})"));
        format!("%v{} = {}{node}", self.value.0, self.op)
    }
}

/// A program's outputs, and what it was made of.
pub struct Ran {
    /// The outputs in order.
    pub outputs: Vec<Tensor>,
    /// Its steps.
    pub traced: Traced,
}

/// Compiles a transformed graph and runs it in this process.
///
/// # Errors
/// What lowering, emission, the system's linker or the loader report, and inputs that the model refuses.
pub fn execute(g: &Graph, target: &Target, inputs: &Inputs, sabotage: Option<Sabotage<'_>>) -> Result<Ran, Vec<Diag>> {
    let one = |d: Diag| vec![d];
    let io = |e: std::io::Error| vec![Diag::new(format!("can't write the object to link: {e}"))];
    let mut traced = lower_traced(g, target)?;
    if let Some(sabotage) = sabotage {
        sabotage(g, &mut traced);
    }
    let dir = tempfile::tempdir().map_err(io)?;
    let object = dir.path().join("model.o");
    let library = dir.path().join(format!("model{}", std::env::consts::DLL_SUFFIX));
    let mut file = File::create(&object).map_err(io)?;
    object::emit_object(&traced.program, target, &EmitOptions::default(), &mut file)?;
    drop(file);
    link::link_shared(target, &object, &library).map_err(one)?;
    let outputs = load_and_run(&library, g, inputs).map_err(one)?;
    Ok(Ran { outputs, traced })
}

fn load_and_run(library: &Path, g: &Graph, inputs: &Inputs) -> Result<Vec<Tensor>, Diag> {
    let loaded = LoadedModel::open(library, &g.name)?;
    let mut session = loaded.session(&inputs.tensors, &inputs.dims, None)?;
    session.run().map_err(|e| Diag::new(e.to_string()))?;
    Ok(session.outputs())
}

/// The values that a program computes, in the order of the graph. Views, such as reshapes and slices that are read in
/// place, are no steps and stay what they are.
fn computed(g: &Graph, traced: &Traced) -> Vec<ValueId> {
    let steps: BTreeSet<ValueId> = traced.values.iter().copied().collect();
    g.topo().into_iter().filter(|v| steps.contains(v)).collect()
}

/// The graph with these values as further outputs.
fn tapped(g: &Graph, values: &[ValueId]) -> Graph {
    let mut g = g.clone();
    let taken: BTreeSet<String> = g.inputs().iter().chain(g.outputs()).map(|p| p.name.clone()).collect();
    for v in values {
        let mut name = format!("tap_{}", v.0);
        while taken.contains(&name) {
            name.push('_');
        }
        g.add_output(name, *v);
    }
    g
}

/// What the tapped program computed.
pub struct Tapped {
    /// The model's own outputs.
    pub outputs: Vec<Tensor>,
    /// Every computed op, in the order of the graph.
    pub rows: Vec<OpRow>,
}

/// Compiles `g` with taps on what `plain` computes, and compares with `values`, the evaluator's.
///
/// # Errors
/// As [`execute`].
pub fn taps(
    g: &Graph,
    plain: &Traced,
    target: &Target,
    inputs: &Inputs,
    values: &BTreeMap<ValueId, Tensor>,
    sabotage: Option<Sabotage<'_>>,
) -> Result<Tapped, Vec<Diag>> {
    let order = computed(g, plain);
    let mut ran = execute(&tapped(g, &order), target, inputs, sabotage)?;
    let taps = ran.outputs.split_off(g.outputs().len());
    let taps: BTreeMap<ValueId, Tensor> = order.iter().copied().zip(taps).collect();
    let own = own_errors(g, inputs, &taps);
    let mut kernels: BTreeMap<ValueId, Vec<String>> = BTreeMap::new();
    for (step, v) in plain.program.steps.iter().zip(&plain.values) {
        let (name, all) = (&plain.program.kernels[step.kernel].name, kernels.entry(*v).or_default());
        if !all.contains(name) {
            all.push(name.clone());
        }
    }
    let rows = order.into_iter().map(|v| OpRow {
        value: v,
        op: g.op(v).name(),
        node: node_name(g, v),
        kernels: kernels.remove(&v).unwrap_or_default(),
        error: values.get(&v).map_or(Error::TOTAL, |r| Error::of(&taps[&v], r)),
        own: own.get(&v).copied().unwrap_or(Error::TOTAL),
    });
    Ok(Tapped { outputs: ran.outputs, rows: rows.collect() })
}

/// The model's node that a value comes from.
pub fn node_name(g: &Graph, v: ValueId) -> Option<String> {
    match &g.node(v).loc {
        Loc::Node { name, .. } => Some(name.clone()),
        _ => None,
    }
}

/// The error that each op adds: compiled values against what the evaluator makes of compiled operands.
fn own_errors(g: &Graph, inputs: &Inputs, taps: &BTreeMap<ValueId, Tensor>) -> BTreeMap<ValueId, Error> {
    let (mut have, mut errors) = (BTreeMap::<ValueId, Tensor>::new(), BTreeMap::new());
    for v in g.topo() {
        let node = g.node(v);
        let fresh = match &node.op {
            Op::Input { index } => inputs.tensors.get(*index).cloned(),
            op => {
                let x: Option<Vec<&Tensor>> = node.operands.iter().map(|o| have.get(o)).collect();
                // Compiled operands that the evaluator refuses leave no value, and so a total error.
                x.and_then(|x| eval_op(op, &node.ty, &inputs.dims, &x).ok())
            }
        };
        if let Some(tap) = taps.get(&v) {
            errors.insert(v, fresh.map_or(Error::TOTAL, |f| Error::of(tap, &f)));
            have.insert(v, tap.clone());
        } else if let Some(f) = fresh {
            have.insert(v, f);
        }
    }
    errors
}
