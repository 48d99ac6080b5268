//! Generic lowering: every tensor op becomes one or two steps over kernels of its own, with no fusion.
//!
//! Reshapes cost nothing: they share their operand's memory. Steps that can fail are ordered before every step that
//! writes an output, so that an error leaves the outputs untouched.

mod attention;
mod ctx;
mod elementwise;
mod fused;
mod gather;
mod gemm;
mod lengths;
mod matmul;
mod micro;
mod nest;
mod norm;
mod quantise;
mod rows;
mod scatter;
mod sparse;
mod sum_norm;
mod top_k;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bertc_ir::kernel::{Kernel, Reg};
use bertc_ir::{BinaryOp, DType, Diag, Dim, Graph, Loc, Op, Tensor, ValueId};

use self::ctx::Ctx;
use self::gather::Operand;
pub use self::gemm::Tile;
pub use self::matmul::PANEL;
use self::matmul::Shape;
use self::micro::Group;
use self::nest::{Source, View, pointwise, scalar_nest, strides};
pub use self::sparse::Decision;
use crate::arena;
use crate::plan::{Arg, Chunk, ConstData, ConstLayout, Lane, PortSpec, Program, Step};
use crate::target::Target;
use crate::tuning::Product;

/// Lanes of the vectors that generic kernels use: 128 bits.
pub const LANES: u8 = 4;

/// Lowers a verified, legalised graph to a scheduled program.
///
/// # Errors
/// All ops that compiled code doesn't support, sizes that don't fit 64 bits, and a tuning that the target has no registers
/// for.
pub fn lower(graph: &Graph, target: &Target) -> Result<Program, Vec<Diag>> {
    Ok(lower_traced(graph, target)?.program)
}

/// A program, and where its steps come from.
#[derive(Clone, Debug)]
pub struct Traced {
    /// The program.
    pub program: Program,
    /// For each step the value of the graph that it computes, or helps to compute.
    pub values: Vec<ValueId>,
    /// For each step the product by a constant matrix that it is, if it is one, and its tile.
    pub products: Vec<Option<(Product, Tile)>>,
    /// For each step what was found of its matrix, if that has enough zeros to be looked at.
    pub sparse: Vec<Option<Decision>>,
}

/// [`lower`], for those who show a program next to its graph.
///
/// # Errors
/// As [`lower`].
pub fn lower_traced(graph: &Graph, target: &Target) -> Result<Traced, Vec<Diag>> {
    let (tile, narrow) = (Tile::for_target(target), Tile::narrow(target));
    let l = Lowering {
        g: graph,
        target,
        tile,
        pairs_tile: Tile::for_pairs(target),
        quads_tile: Tile::for_quads(target),
        narrow,
        roots: BTreeMap::new(),
        homes: BTreeMap::new(),
        temps: Vec::new(),
        consts: Vec::new(),
        const_of: HashMap::new(),
        kernels: Vec::new(),
        kernel_of: HashMap::new(),
        steps: Vec::new(),
        values: Vec::new(),
        product: None,
        products: Vec::new(),
        decision: None,
        sparse: Vec::new(),
        made: BTreeSet::new(),
    };
    l.run()
}

/// Where a value that some step computes lives.
#[derive(Clone, Debug)]
enum Home {
    Temp(usize),
    Output(usize),
}

struct Lowering<'a> {
    g: &'a Graph,
    target: &'a Target,
    tile: Tile,
    /// For pairs of bf16.
    pairs_tile: Tile,
    /// For 8-bit integers.
    quads_tile: Tile,
    /// For element types that wide code doesn't have.
    narrow: Tile,
    /// The value whose memory a value shares: itself, or the source of its reshapes.
    roots: BTreeMap<ValueId, ValueId>,
    homes: BTreeMap<ValueId, Home>,
    /// Sizes in bytes of the temporaries.
    temps: Vec<Dim>,
    consts: Vec<ConstData>,
    const_of: HashMap<(ValueId, ConstLayout), usize>,
    kernels: Vec<Kernel>,
    kernel_of: HashMap<String, usize>,
    steps: Vec<Step>,
    /// The value of each step.
    values: Vec<ValueId>,
    /// What the next step is, as in [`Traced::products`].
    product: Option<(Product, Tile)>,
    products: Vec<Option<(Product, Tile)>>,
    /// What was found of the next step's matrix.
    decision: Option<Decision>,
    sparse: Vec<Option<Decision>>,
    /// Values that an earlier step has made besides its own.
    made: BTreeSet<ValueId>,
}

impl Lowering<'_> {
    fn run(mut self) -> Result<Traced, Vec<Diag>> {
        let order = self.schedule();
        let mut errors = Vec::new();
        for &v in &order {
            let root = match self.g.op(v) {
                Op::Reshape { .. } => self.roots[&self.g.operands(v)[0]],
                _ => v,
            };
            self.roots.insert(v, root);
        }
        let copies = self.place_outputs(&order);
        let mut failed = BTreeSet::new();
        for &v in &order {
            // What a failed value feeds has no operands, and fails for no reason of its own.
            if self.g.operands(v).iter().any(|o| failed.contains(o)) {
                failed.insert(v);
            } else if let Err(e) = self.lower_value(v) {
                failed.insert(v);
                errors.push(e);
            }
        }
        if errors.is_empty() {
            for (v, output) in copies {
                if let Err(e) = self.copy(v, Arg::Output(output)) {
                    errors.push(e);
                }
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let port = |p: &bertc_ir::Port| PortSpec { name: p.name.clone(), ty: self.g.ty(p.value).clone() };
        let (buffers, slots) = arena::plan(&self.temps, &self.steps, &self.g.symbols);
        let program = Program {
            name: self.g.name.clone(),
            symbols: self.g.symbols.clone(),
            inputs: self.g.inputs().iter().map(port).collect(),
            outputs: self.g.outputs().iter().map(port).collect(),
            kernels: self.kernels,
            consts: self.consts,
            buffers,
            slots,
            steps: self.steps,
        };
        program.verify()?;
        Ok(Traced { program, values: self.values, products: self.products, sparse: self.sparse })
    }

    /// Topological order in which everything a fallible op needs comes first.
    fn schedule(&self) -> Vec<ValueId> {
        let topo = self.g.topo();
        let mut early = BTreeSet::new();
        for &v in topo.iter().rev() {
            if early.contains(&v) || self.fallible(v) {
                early.insert(v);
                early.extend(self.g.operands(v));
            }
        }
        let (a, b): (Vec<_>, Vec<_>) = topo.into_iter().partition(|v| early.contains(v));
        a.into_iter().chain(b).collect()
    }

    /// Whether a value's step may set the error flag: an index that isn't proven to be in range.
    fn fallible(&self, v: ValueId) -> bool {
        let Op::Gather { axis } = self.g.op(v) else { return self.g.op(v).fallible() };
        let [data, indices] = self.g.operands(v) else { return true };
        let Op::Iota { len, start, step } = self.g.op(*indices) else { return true };
        let size = &self.g.ty(*data).shape[*axis];
        let last = len.sub(&1.into()).and_then(|n| n.mul(step)).and_then(|n| n.add(start));
        let inside = |d: &Dim| {
            let below = size.sub(&1.into()).is_some_and(|m| m.proven_ge(d, &self.g.symbols));
            below && d.proven_ge(&0.into(), &self.g.symbols)
        };
        !(inside(start) && last.is_some_and(|l| inside(&l)))
    }

    /// Decides which values are computed straight into an output; the others that are outputs need a copy at the end.
    fn place_outputs(&mut self, order: &[ValueId]) -> Vec<(ValueId, usize)> {
        let mut copies = Vec::new();
        // The position of the last fallible value: outputs may be written only after it.
        let barrier = order.iter().rposition(|&v| self.fallible(v));
        for (i, o) in self.g.outputs().iter().enumerate() {
            let root = self.roots[&o.value];
            let computed = !matches!(self.g.op(root), Op::Input { .. } | Op::Constant(_));
            let late = order.iter().position(|&v| v == root) > barrier;
            if computed && late && !self.homes.contains_key(&root) {
                self.homes.insert(root, Home::Output(i));
            } else {
                copies.push((o.value, i));
            }
        }
        copies
    }

    fn overflow(&self, v: ValueId) -> Diag {
        Diag::new("a size overflows 64 bits; narrow the dims' ranges").at(self.g.node(v).loc.clone())
    }

    /// The memory of a value.
    fn arg(&mut self, v: ValueId) -> Arg {
        let root = self.roots[&v];
        match self.g.op(root) {
            Op::Input { index } => Arg::Input(*index),
            Op::Constant(_) => Arg::Const(self.constant(root, ConstLayout::Plain)),
            _ => match self.homes[&root] {
                Home::Temp(t) => Arg::Buffer(t),
                Home::Output(o) => Arg::Output(o),
            },
        }
    }

    /// Memory for a computed value's result.
    fn define(&mut self, v: ValueId) -> Result<Arg, Diag> {
        if !self.homes.contains_key(&v) {
            let ty = self.g.ty(v);
            let bytes = ty.elements().and_then(|n| n.mul(&(ty.dtype.size() as i64).into()));
            let t = self.temp(bytes.ok_or_else(|| self.overflow(v))?);
            self.homes.insert(v, Home::Temp(t));
        }
        Ok(self.arg(v))
    }

    fn temp(&mut self, bytes: Dim) -> usize {
        self.temps.push(bytes);
        self.temps.len() - 1
    }

    fn constant(&mut self, v: ValueId, layout: ConstLayout) -> usize {
        if let Some(&c) = self.const_of.get(&(v, layout)) {
            return c;
        }
        let one = |v: ValueId| self.g.as_const(v).expect("caller checked for a constant").clone().into();
        let parts = self.parts_of(v).into_iter().map(one).collect();
        self.consts.push(ConstData { parts, layout });
        self.const_of.insert((v, layout), self.consts.len() - 1);
        self.consts.len() - 1
    }

    /// Appends a step; kernels that are equal but for their name are shared.
    fn step<C: Into<Chunk>>(&mut self, v: ValueId, c: Ctx, tasks: Option<Vec<(Dim, C)>>) -> Result<(), Diag> {
        let tasks = tasks.ok_or_else(|| self.overflow(v))?.into_iter().map(|(d, c)| (d, c.into())).collect();
        let mut kernel = c.b.finish();
        let key = format!("{kernel:?}");
        let next = self.kernels.len();
        let index = *self.kernel_of.entry(key).or_insert(next);
        if index == next {
            kernel.name = format!("{}_{next}", kernel.name);
            self.kernels.push(kernel);
        }
        let source = match &self.g.node(v).loc {
            Loc::Node { name, op, .. } => format!("{} ({op} {name})", self.g.op(v).name()),
            _ => self.g.op(v).name().to_string(),
        };
        let fallible = self.fallible(v);
        self.steps.push(Step { kernel: index, args: c.args, tasks, fallible, in_place: c.in_place, source });
        self.values.push(v);
        self.products.push(self.product.take());
        self.sparse.push(self.decision.take());
        Ok(())
    }

    /// A view of an operand broadcast to `shape`; constants of one element become immediates.
    fn view(&mut self, v: ValueId, shape: &[Dim]) -> Option<View> {
        let ty = self.g.ty(v).clone();
        let own = strides(&ty.shape)?;
        let lead = shape.len() - ty.rank();
        let strides = (0..shape.len())
            .map(|i| match i.checked_sub(lead) {
                Some(j) if ty.shape[j] == shape[i] && ty.shape[j] != Dim::constant(1) => own[j].clone(),
                _ => Dim::constant(0),
            })
            .collect();
        let scalar = self.g.as_const(self.roots[&v]).and_then(Tensor::single);
        let source = match scalar {
            Some(s) => Source::Immediate(s),
            None => Source::Memory(self.arg(v)),
        };
        Some(View { source, dtype: ty.dtype, base: Dim::constant(0), strides })
    }

    fn whole(arg: Arg, dtype: DType, shape: &[Dim]) -> Option<View> {
        Some(View { source: Source::Memory(arg), dtype, base: Dim::constant(0), strides: strides(shape)? })
    }

    /// An elementwise op over broadcast operands.
    fn elementwise(&mut self, v: ValueId, name: &str, body: impl Fn(&mut Ctx, &[Reg]) -> Reg) -> Result<(), Diag> {
        let ty = self.g.ty(v).clone();
        let mut inputs = Vec::new();
        for &o in &self.g.operands(v).to_vec() {
            inputs.push(self.view(o, &ty.shape).ok_or_else(|| self.overflow(v))?);
        }
        let out = self.define(v)?;
        let out = Self::whole(out, ty.dtype, &ty.shape).ok_or_else(|| self.overflow(v))?;
        let mut c = Ctx::new(name);
        let tasks = pointwise(&mut c, &ty.shape, out, &inputs, &body);
        self.step(v, c, tasks)
    }

    /// A copy of `v`'s operand elements through `from` to `to` over `shape`.
    fn copy_views(&mut self, v: ValueId, shape: &[Dim], from: View, to: View) -> Result<(), Diag> {
        let mut c = Ctx::new(self.g.op(v).name());
        let tasks = pointwise(&mut c, shape, to, &[from], &|_, x| x[0]);
        self.step(v, c, tasks)
    }

    fn copy(&mut self, v: ValueId, to: Arg) -> Result<(), Diag> {
        let ty = self.g.ty(v).clone();
        let from = self.view(v, &ty.shape).ok_or_else(|| self.overflow(v))?;
        let to = Self::whole(to, ty.dtype, &ty.shape).ok_or_else(|| self.overflow(v))?;
        self.copy_views(v, &ty.shape, from, to)?;
        // The fallible step of this value came long before; its copy can't fail.
        if let Some(s) = self.steps.last_mut() {
            s.fallible = false;
        }
        Ok(())
    }

    fn lower_value(&mut self, v: ValueId) -> Result<(), Diag> {
        let node = self.g.node(v).clone();
        let t: Vec<DType> = node.operands.iter().map(|&o| self.g.ty(o).dtype).collect();
        match node.op {
            Op::Input { .. } | Op::Constant(_) | Op::Reshape { .. } => Ok(()),
            _ if self.made.contains(&v) => Ok(()),
            Op::Unary(u) => self.elementwise(v, u.name(), move |c, x| elementwise::unary(c, u, t[0], x[0])),
            Op::Binary(b) if elementwise::scalar_only(b, t[0]) => self.scalar_binary(v, b),
            Op::Binary(b) => self.elementwise(v, b.name(), move |c, x| elementwise::binary(c, b, t[0], x[0], x[1])),
            Op::Compare(p) => self.elementwise(v, p.name(), move |c, x| elementwise::compare(c, p, t[0], x[0], x[1])),
            Op::Select => self.elementwise(v, "select", |c, x| c.b.select(x[0], x[1], x[2])),
            Op::Cast(_) if self.is_packed_cast(v) => Ok(()),
            Op::Cast(to) => self.elementwise(v, "cast", move |c, x| elementwise::cast(c, t[0], to, x[0])),
            Op::Broadcast { .. } => self.elementwise(v, "broadcast", |_, x| x[0]),
            Op::Slice { .. } if self.is_view(v) => Ok(()),
            Op::Concat { .. } if self.is_packed_concat(v) => Ok(()),
            Op::RowScale(_) | Op::RowOffset(_) | Op::QuantiseRows(_) if self.is_made_at_product(v) => Ok(()),
            Op::RowScale(_) | Op::RowOffset(_) | Op::QuantiseRows(_) => self.quantise_rows(v),
            Op::Quantise { to } => self.quantise(v, to),
            Op::Transpose { .. } | Op::Slice { .. } | Op::Concat { .. } => self.movement(v),
            Op::Dim(d) => {
                let y = self.define(v)?;
                let mut c = Ctx::new("dim");
                let y = c.output(y, DType::I64);
                let (zero, d) = (c.b.int(0), c.dim(&d));
                c.b.store(y, zero, 0, d);
                self.step::<i64>(v, c, Some(Vec::new()))
            }
            Op::Iota { len, start, step } => {
                let y = self.define(v)?;
                let mut c = Ctx::new("iota");
                let y = c.output(y, DType::I64);
                let tasks = scalar_nest(&mut c, &[len], nest::TASK_ELEMENTS, |c, e, _| {
                    let s = c.dim(&start);
                    let x = c.mul_add(s, e, &step);
                    c.b.store(y, e, 0, x);
                });
                self.step(v, c, tasks)
            }
            Op::MatMul { trans_b } => self.matmul(v, trans_b),
            Op::Linear(l) => self.linear(v, l),
            Op::Attention(a) => self.attention(v, a),
            Op::SumNorm(s) => self.sum_norm(v, s),
            Op::ScatterElements { .. } | Op::ScatterNd { .. } => self.scatter(v),
            _ => self.one_kernel(v),
        }
    }

    /// Integer ops that no vector unit has: one lane at a time.
    fn scalar_binary(&mut self, v: ValueId, op: BinaryOp) -> Result<(), Diag> {
        let ty = self.g.ty(v).clone();
        let operands = self.g.operands(v).to_vec();
        let views: Option<Vec<View>> = operands.iter().map(|&o| self.view(o, &ty.shape)).collect();
        let views = views.ok_or_else(|| self.overflow(v))?;
        let args: Vec<Arg> = operands.iter().map(|&o| self.arg(o)).collect();
        let y = self.define(v)?;
        let mut c = Ctx::new(op.name());
        let ptrs: Vec<usize> = args.into_iter().map(|a| c.input(a, ty.dtype)).collect();
        let y = c.output(y, ty.dtype);
        let tasks = scalar_nest(&mut c, &ty.shape, 4096, |c, e, coords| {
            let x: Vec<Reg> = views
                .iter()
                .zip(&ptrs)
                .map(|(view, &p)| {
                    let mut at = c.b.int(0);
                    for (i, s) in coords.iter().zip(&view.strides) {
                        at = c.mul_add(at, *i, s);
                    }
                    c.b.load(p, at, 0, 1)
                })
                .collect();
            let r = elementwise::binary(c, op, ty.dtype, x[0], x[1]);
            c.b.store(y, e, 0, r);
        });
        self.step(v, c, tasks)
    }

    /// Transpose, slice and concat: strided copies.
    fn movement(&mut self, v: ValueId) -> Result<(), Diag> {
        let node = self.g.node(v).clone();
        let y = self.define(v)?;
        let to = Self::whole(y, node.ty.dtype, &node.ty.shape).ok_or_else(|| self.overflow(v))?;
        let source = |s: &mut Self, o: ValueId| {
            let shape = s.g.ty(o).shape.clone();
            let a = s.arg(o);
            Self::whole(a, node.ty.dtype, &shape).ok_or_else(|| s.overflow(v))
        };
        match &node.op {
            Op::Transpose { perm } => {
                let mut from = source(self, node.operands[0])?;
                from.strides = perm.iter().map(|&p| from.strides[p].clone()).collect();
                self.copy_views(v, &node.ty.shape, from, to)
            }
            Op::Slice { axis, start, step, .. } => {
                let mut from = source(self, node.operands[0])?;
                let stride = from.strides[*axis].clone();
                from.base = start.mul(&stride).ok_or_else(|| self.overflow(v))?;
                from.strides[*axis] = stride.mul(&(*step).into()).ok_or_else(|| self.overflow(v))?;
                self.copy_views(v, &node.ty.shape, from, to)
            }
            Op::Concat { axis } => {
                let mut at = Dim::constant(0);
                for &o in &node.operands {
                    let from = source(self, o)?;
                    let shape = self.g.ty(o).shape.clone();
                    let mut part = to.clone();
                    part.base = at.mul(&to.strides[*axis]).ok_or_else(|| self.overflow(v))?;
                    at = at.add(&shape[*axis]).ok_or_else(|| self.overflow(v))?;
                    self.copy_views(v, &shape, from, part)?;
                }
                Ok(())
            }
            _ => unreachable!("only data movement comes here"),
        }
    }

    /// Ops with a kernel of their own over the operands' whole memory.
    fn one_kernel(&mut self, v: ValueId) -> Result<(), Diag> {
        let node = self.g.node(v).clone();
        let y = self.define(v)?;
        let x = self.arg(node.operands[0]);
        let ty = self.g.ty(node.operands[0]).clone();
        let (shape, dtype) = (&ty.shape, ty.dtype);
        let mut c = Ctx::new(node.op.name());
        let operand = |s: &mut Self, i: usize| {
            let o = node.operands[i];
            let ty = s.g.ty(o).clone();
            Operand { arg: s.arg(o), dtype: ty.dtype, shape: ty.shape }
        };
        let tasks = match &node.op {
            Op::Softmax { axis } => rows::softmax(&mut c, shape, *axis, dtype, x, y),
            Op::RmsNorm { eps } => {
                let ins = [x, self.arg(node.operands[1])];
                rows::rms_norm(&mut c, shape, *eps, dtype, ins, y)
            }
            Op::LayerNorm { eps } => {
                let ins = [x, self.arg(node.operands[1]), self.arg(node.operands[2])];
                rows::layer_norm(&mut c, shape, *eps, dtype, ins, y)
            }
            Op::Reduce { op, axes, .. } => rows::reduce(&mut c, shape, *op, axes, dtype, x, y),
            Op::ArgMax { axis, min } => rows::arg_max(&mut c, shape, *axis, *min, dtype, x, y),
            Op::TopK { axis, k, smallest } => top_k::top_k(&mut c, shape, (*axis, k, *smallest), dtype, x, y),
            Op::CumSum { axis, exclusive, reverse } => {
                rows::cum_sum(&mut c, shape, (*axis, *exclusive, *reverse), dtype, x, y)
            }
            Op::Gather { axis } => {
                let (d, i) = (operand(self, 0), operand(self, 1));
                gather::gather(&mut c, *axis, &d, &i, y)
            }
            Op::GatherElements { axis } => {
                let (d, i) = (operand(self, 0), operand(self, 1));
                gather::gather_elements(&mut c, *axis, &d, &i, y)
            }
            Op::GatherNd { batch_dims } => {
                let (d, i) = (operand(self, 0), operand(self, 1));
                gather::gather_nd(&mut c, *batch_dims, &d, &i, y)
            }
            op => return Err(Diag::new(format!("'{}' has no lowering", op.name())).at(node.loc)),
        };
        self.step(v, c, tasks)
    }

    /// A step that packs the right operand `b` of `v` at run time; where the result is.
    fn pack(&mut self, v: ValueId, b: ValueId, s: &Shape, trans: bool, dtype: DType) -> Result<Arg, Diag> {
        let bytes = s.packed_elements().and_then(|n| n.mul(&s.batch)).and_then(|n| n.mul(&4.into()));
        let packed = self.temp(bytes.ok_or_else(|| self.overflow(v))?);
        let from = self.arg(b);
        let mut c = Ctx::new("pack");
        let tasks = matmul::pack(&mut c, s, trans, dtype, from, Arg::Buffer(packed));
        self.step(v, c, tasks)?;
        Ok(Arg::Buffer(packed))
    }

    fn matmul(&mut self, v: ValueId, trans: bool) -> Result<(), Diag> {
        let node = self.g.node(v).clone();
        let [a, b] = [node.operands[0], node.operands[1]];
        let (ta, tb) = (self.g.ty(a).clone(), self.g.ty(b).clone());
        let rank = ta.rank();
        let lead = &ta.shape[..rank - 2];
        // One right operand for all batches: its batch dims are absent or 1. Then the batches are just more rows.
        let shared = tb.shape[..tb.rank() - 2].iter().all(|d| d.as_const() == Some(1));
        if !shared && *lead != tb.shape[..tb.rank() - 2] {
            return Err(Diag::new("batch dims of a matmul differ: run the 'legalise' pass").at(node.loc));
        }
        let product = Dim::product(lead).ok_or_else(|| self.overflow(v))?;
        let (m, k, n) = (&ta.shape[rank - 2], ta.shape[rank - 1].clone(), node.ty.shape[node.ty.rank() - 1].clone());
        let s = if shared {
            Shape { batch: 1.into(), m: product.mul(m).ok_or_else(|| self.overflow(v))?, k, n }
        } else {
            Shape { batch: product, m: m.clone(), k, n }
        };
        let (dtype, left) = (ta.dtype, self.arg(a));
        if dtype == DType::F64 {
            let (right, y) = (self.arg(b), self.define(v)?);
            let mut c = Ctx::new("matmul_f64");
            let tasks = matmul::matmul_f64(&mut c, &s, trans, shared, [left, right, y]);
            return self.step(v, c, tasks);
        }
        let root = self.roots[&b];
        let plain_matrix = self.g.ty(root).shape[..].iter().rev().take(2).eq(tb.shape.iter().rev().take(2));
        let right = if shared && plain_matrix && self.g.as_const(root).is_some() {
            Arg::Const(self.constant(root, ConstLayout::Packed { trans, lane: Lane::One }))
        } else {
            self.pack(v, b, &s, trans, dtype)?
        };
        let y = self.define(v)?;
        let mut c = Ctx::new("matmul");
        let row_stride = s.k.clone();
        let spec = gemm::Spec {
            shape: &s,
            shared,
            row_stride,
            dtype,
            group: Group::One,
            residual: dtype,
            y: dtype,
            act: None,
            norm: None,
            matrix_rows: None,
        };
        let a = (left, Dim::constant(0));
        let args = gemm::Args {
            a,
            b: gemm::RightArg::Packed(right),
            bias: None,
            residual: None,
            norm: None,
            lengths: None,
            scaling: None,
            left: None,
            quantised: None,
            y: Some(y),
        };
        let tile = if dtype == DType::F32 { self.tile } else { self.narrow };
        let tasks = gemm::gemm(&mut c, tile, &spec, args);
        self.step(v, c, tasks)
    }
}

#[cfg(test)]
mod tests;
