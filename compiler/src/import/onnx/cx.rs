//! One node being lowered: its inputs, its attributes, the graph.

use std::cell::RefCell;

use bertc_ir::{DType, Dim, Tensor};

use super::build::Builder;
use super::load::External;
use super::proto::attribute_proto::AttributeType;
use super::proto::{AttributeProto, NodeProto};
use super::run::find;
use super::tensor::constant;
use super::value::{R, Stop, V};

/// A node with everything that its lowering may look at.
pub struct Cx<'a> {
    /// The graph under construction.
    pub b: &'a mut Builder,
    /// The node.
    pub node: &'a NodeProto,
    /// Version of the node's operator set.
    pub opset: i64,
    /// Inputs; `None` where an optional one is left out.
    pub ins: Vec<Option<V>>,
    /// Files of external data.
    pub external: &'a mut External,
    /// The attributes of the function that the node is in.
    given: &'a [(&'a str, &'a AttributeProto)],
    used: RefCell<Vec<&'a str>>,
}

impl<'a> Cx<'a> {
    /// The context of `node`.
    pub fn new(
        b: &'a mut Builder,
        node: &'a NodeProto,
        opset: i64,
        ins: Vec<Option<V>>,
        external: &'a mut External,
    ) -> Self {
        Cx { b, node, opset, ins, external, given: &[], used: RefCell::new(Vec::new()) }
    }

    /// The same for a node of a function with these attributes, to which its own may refer.
    pub fn in_function(self, given: &'a [(&'a str, &'a AttributeProto)]) -> Self {
        Cx { given, ..self }
    }

    /// Input `i`, which must be there.
    pub fn input(&self, i: usize) -> R<V> {
        self.opt(i).ok_or_else(|| Stop::Fail(format!("input {i} is missing")))
    }

    /// Input `i`, if it is given.
    pub fn opt(&self, i: usize) -> Option<V> {
        self.ins.get(i).cloned().flatten()
    }

    /// Whether output `i` has a name.
    pub fn wants(&self, i: usize) -> bool {
        self.node.output.get(i).is_some_and(|s| !s.is_empty())
    }

    /// An attribute, checked to be of type `ty`. Attributes that nobody asks for are errors in [`Cx::finish`].
    pub fn attr(&self, name: &'a str, ty: AttributeType) -> R<Option<&'a AttributeProto>> {
        self.used.borrow_mut().push(name);
        let Some(a) = self.own(name) else { return Ok(None) };
        // Old files have no type.
        if a.r#type() != ty && a.r#type() != AttributeType::Undefined {
            return Err(format!("attribute '{name}' is not {}", ty.as_str_name().to_lowercase()).into());
        }
        Ok(Some(a))
    }

    /// An attribute of the node; one that refers to what the function's call doesn't give is not there.
    fn own(&self, name: &str) -> Option<&'a AttributeProto> {
        let a = self.node.attribute.iter().find(|a| a.name() == name)?;
        if a.ref_attr_name().is_empty() { Some(a) } else { find(self.given, a.ref_attr_name()) }
    }

    /// Marks an attribute as one without influence on the result.
    pub fn ignore(&self, name: &'a str) {
        self.used.borrow_mut().push(name);
    }

    /// Whether an attribute is given.
    pub fn has(&self, name: &str) -> bool {
        self.own(name).is_some()
    }

    /// An integer attribute.
    pub fn int(&self, name: &'a str, default: i64) -> R<i64> {
        Ok(self.attr(name, AttributeType::Int)?.map_or(default, |a| a.i()))
    }

    /// A 0/1 attribute.
    pub fn flag(&self, name: &'a str, default: bool) -> R<bool> {
        Ok(self.int(name, default.into())? != 0)
    }

    /// A float attribute.
    pub fn float(&self, name: &'a str, default: f32) -> R<f32> {
        Ok(self.attr(name, AttributeType::Float)?.map_or(default, |a| a.f()))
    }

    /// A string attribute.
    pub fn string(&self, name: &'a str, default: &str) -> R<String> {
        let a = self.attr(name, AttributeType::String)?;
        Ok(a.map_or_else(|| default.to_string(), |a| String::from_utf8_lossy(a.s()).into_owned()))
    }

    /// A list of integers.
    pub fn ints(&self, name: &'a str) -> R<Option<Vec<i64>>> {
        Ok(self.attr(name, AttributeType::Ints)?.map(|a| a.ints.clone()))
    }

    /// A tensor attribute.
    pub fn tensor(&mut self, name: &'a str) -> R<Option<V>> {
        let Some(a) = self.attr(name, AttributeType::Tensor)? else { return Ok(None) };
        let t = a.t.as_ref().ok_or("a tensor attribute is empty")?;
        Ok(Some(constant(t, self.external)?))
    }

    /// Fails if an attribute was not looked at: it may change what the node computes.
    pub fn finish(&self) -> R<()> {
        let used = self.used.borrow();
        let unused = |a: &&AttributeProto| !used.contains(&a.name()) && self.has(a.name());
        match self.node.attribute.iter().find(unused) {
            Some(a) => Err(format!("attribute '{}' is not supported", a.name()).into()),
            None => Ok(()),
        }
    }

    /// An axis of a tensor of `rank` dims; negative ones count from the end.
    pub fn axis_of(&self, axis: i64, rank: usize) -> R<usize> {
        let a = if axis < 0 { axis.checked_add(rank as i64) } else { Some(axis) };
        let a = a.and_then(|a| usize::try_from(a).ok()).filter(|&a| a < rank);
        a.ok_or_else(|| Stop::Fail(format!("axis {axis} is out of range for rank {rank}")))
    }

    /// An axis attribute.
    pub fn axis(&self, default: i64, rank: usize) -> R<usize> {
        self.axis_of(self.int("axis", default)?, rank)
    }

    /// Ascending, distinct axes.
    pub fn axes_of(&self, axes: &[i64], rank: usize) -> R<Vec<usize>> {
        let mut v = axes.iter().map(|&a| self.axis_of(a, rank)).collect::<R<Vec<_>>>()?;
        v.sort_unstable();
        if v.windows(2).any(|w| w[0] == w[1]) {
            return Err(format!("axes {axes:?} name a dim twice").into());
        }
        Ok(v)
    }

    /// The integers of input `i`, which must be known at compile time.
    pub fn const_ints(&self, i: usize) -> R<Option<Vec<i64>>> {
        let Some(v) = self.opt(i) else { return Ok(None) };
        let known = v.as_ints().or_else(|| {
            // Axes of unusual integer types.
            v.as_const().filter(|t| t.dtype().is_int() && t.len() <= 64).map(Tensor::to_i64_vec)
        });
        known.map(Some).ok_or_else(|| Stop::Fail(format!("input {i} must be a constant")))
    }

    /// The integers of input `i` as polynomials, known at compile time.
    pub fn sym_ints(&self, i: usize) -> R<Vec<Dim>> {
        let v = self.input(i)?;
        v.as_sym().filter(|_| v.dtype != DType::Bool).ok_or_else(|| {
            Stop::Fail(format!("input {i} must be computable at compile time: it may depend on shapes, not on data"))
        })
    }

    /// Axes that are an attribute before opset `since` and input `i` from there on.
    pub fn axes(&self, since: i64, i: usize) -> R<Option<Vec<i64>>> {
        if self.opset < since { self.ints("axes") } else { self.const_ints(i) }
    }
}
