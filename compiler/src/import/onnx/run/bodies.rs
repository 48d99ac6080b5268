//! Nodes with bodies: branches of `If`, and calls of the model's own functions.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use bertc_ir::Diag;

use super::{Failure, Run, Scope};
use crate::import::onnx::proto::attribute_proto::AttributeType;
use crate::import::onnx::proto::{AttributeProto, FunctionProto, ModelProto, NodeProto};
use crate::import::onnx::value::{R, Stop, V};
use crate::import::onnx::versions;

/// Calls inside calls end here: a function that calls itself never would.
const DEEPEST: usize = 64;

/// Calls of a model end here: functions that call others twice each are as large as they like.
const MOST: usize = 1 << 20;

/// The functions of a model, by domain, name and overload.
#[derive(Default)]
pub struct Functions<'a> {
    all: HashMap<[&'a str; 3], &'a FunctionProto>,
    /// Calls so far.
    calls: usize,
}

impl<'a> Functions<'a> {
    /// Those of `model`.
    pub fn of(model: &'a ModelProto) -> Self {
        let key = |f: &'a FunctionProto| [plain(f.domain()), f.name(), f.overload()];
        Functions { all: model.functions.iter().map(|f| (key(f), f)).collect(), calls: 0 }
    }

    /// The function that a node calls. The model's own comes before an operator of the same name: what it says is what is meant.
    pub fn find(&self, domain: &str, n: &NodeProto) -> Option<&'a FunctionProto> {
        self.all.get(&[domain, n.op_type(), n.overload()]).copied()
    }
}

fn plain(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

/// A call that the walk is in.
pub struct Call<'a> {
    /// The node.
    pub name: String,
    /// The values of the function's attributes.
    pub attributes: Vec<(&'a str, &'a AttributeProto)>,
}

/// An attribute by its name.
pub fn find<'a>(all: &[(&str, &'a AttributeProto)], name: &str) -> Option<&'a AttributeProto> {
    all.iter().find(|(n, _)| *n == name).map(|(_, a)| *a)
}

impl<'a> Run<'a> {
    /// The nodes of a function, with names, attributes and operator sets of its own.
    pub(super) fn call(&mut self, domain: &str, n: &'a NodeProto) -> Result<(), Failure> {
        let loc = self.b.loc.clone();
        let Some(f) = self.functions.find(domain, n) else { return Ok(()) };
        self.functions.calls += 1;
        let inputs: R<Vec<_>> = n.input.iter().map(|i| self.optional(i)).collect();
        let checked = inputs.and_then(|inputs| {
            if self.calls.len() >= DEEPEST || self.functions.calls > MOST {
                return Err(Stop::Fail(format!("the function '{}' calls others without end", f.name())));
            }
            if inputs.len() > f.input.len() || n.output.len() > f.output.len() {
                return Err(Stop::Fail(format!(
                    "the function '{}' has {} inputs and {} outputs",
                    f.name(),
                    f.input.len(),
                    f.output.len()
                )));
            }
            Ok((inputs, versions(&f.opset_import)?))
        });
        let (inputs, opset) = match checked {
            Ok(found) => found,
            Err(e) => {
                self.scope.poisoned.extend(n.output.iter().map(String::as_str));
                return self.fail(e, None);
            }
        };
        let mut scope = Scope::default();
        for (name, v) in f.input.iter().zip(inputs.into_iter().chain(std::iter::repeat(None))) {
            match v {
                Some(v) => drop(scope.values.insert(name, v)),
                None => drop(scope.absent.insert(name)),
            }
        }
        let outer = std::mem::replace(&mut self.scope, scope);
        let versions = std::mem::replace(&mut self.opset, Cow::Owned(opset));
        let name = if n.name().is_empty() { n.output.first().map_or("", String::as_str) } else { n.name() };
        let attributes = self.attributes(f, n);
        self.calls.push(Call { name: name.to_string(), attributes });
        let walked = self.nodes(&f.node);
        self.calls.pop();
        self.opset = versions;
        let inner = std::mem::replace(&mut self.scope, outer);
        self.b.loc = loc.clone();
        walked?;
        for (o, name) in n.output.iter().zip(&f.output).filter(|(o, _)| !o.is_empty()) {
            if let Some(v) = inner.values.get(name.as_str()) {
                self.scope.values.insert(o, v.clone());
                continue;
            }
            self.scope.poisoned.insert(o);
            if !inner.poisoned.contains(name.as_str()) {
                let m = format!("the function '{}' has no value '{name}'", f.name());
                self.errors.push(Diag::new(m).at(loc.clone()));
            }
        }
        Ok(())
    }

    /// A value, unless it is left out.
    pub(super) fn optional(&mut self, name: &'a str) -> R<Option<V>> {
        let absent = name.is_empty() || self.scope.absent.contains(name);
        if absent { Ok(None) } else { self.value(name).map(Some) }
    }

    /// What a function's attributes are in a call: given there, perhaps as an attribute of a function around it, or by default.
    fn attributes(&self, f: &'a FunctionProto, n: &'a NodeProto) -> Vec<(&'a str, &'a AttributeProto)> {
        let given = n.attribute.iter().filter_map(|a| match a.ref_attr_name() {
            "" => Some((a.name(), a)),
            outer => find(&self.calls.last()?.attributes, outer).map(|value| (a.name(), value)),
        });
        let mut all: BTreeMap<&str, &AttributeProto> = f.attribute_proto.iter().map(|a| (a.name(), a)).collect();
        all.extend(given);
        all.into_iter().collect()
    }

    /// `If` whose condition is known: the nodes of one branch.
    pub(super) fn branch(&mut self, n: &'a NodeProto) -> Result<(), Failure> {
        let loc = self.b.loc.clone();
        let cond = n.input.first().ok_or_else(|| Stop::from("input 0 is missing")).and_then(|i| self.value(i));
        let known =
            cond.and_then(|c| c.as_splat().ok_or_else(|| Stop::from("the condition is not known at compile time")));
        let body = known.and_then(|c| {
            let name = if c.to_int() != 0 { "then_branch" } else { "else_branch" };
            let a = n.attribute.iter().find(|a| a.name() == name && a.r#type() == AttributeType::Graph);
            a.and_then(|a| a.g.as_ref()).ok_or_else(|| Stop::Fail(format!("attribute '{name}' is missing")))
        });
        match body {
            Ok(g) => {
                self.add_initializers(g);
                self.nodes(&g.node)?;
                self.b.loc = loc;
                for (o, inner) in n.output.iter().zip(&g.output) {
                    if self.scope.poisoned.contains(inner.name()) {
                        self.scope.poisoned.insert(o);
                        continue;
                    }
                    match self.value(inner.name()) {
                        Ok(v) => drop(self.scope.values.insert(o, v)),
                        Err(e) => {
                            self.scope.poisoned.insert(o);
                            self.fail(e, None)?;
                        }
                    }
                }
                Ok(())
            }
            Err(e) => {
                self.scope.poisoned.extend(n.output.iter().map(String::as_str));
                self.fail(e, self.opset.get("").copied())
            }
        }
    }
}
