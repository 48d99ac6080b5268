//! Plain ops: one operator of ONNX each, or a few where its operator is narrower.

use bertc_ir::{BinaryOp, CmpOp, DType, Dim, Op, ReduceOp, Scalar, TensorType, UnaryOp, ValueId};

use super::out::{float, int, string};
use super::sizes::fixed;
use super::{Writer, Written};
use crate::import::onnx::proto::AttributeProto;

/// Whether an op only moves or picks elements.
pub fn moves(op: &Op) -> bool {
    matches!(
        op,
        Op::Input { .. }
            | Op::Constant(_)
            | Op::Select
            | Op::Transpose { .. }
            | Op::Reshape { .. }
            | Op::Broadcast { .. }
            | Op::Slice { .. }
            | Op::Concat { .. }
            | Op::Gather { .. }
            | Op::GatherElements { .. }
            | Op::GatherNd { .. }
            | Op::ScatterElements { combine: None, .. }
            | Op::ScatterNd { combine: None }
            | Op::Unary(UnaryOp::Neg | UnaryOp::Abs | UnaryOp::Relu)
            | Op::Binary(BinaryOp::Min | BinaryOp::Max)
            | Op::Reduce { op: ReduceOp::Min | ReduceOp::Max, .. }
    )
}

/// What a scatter does with what is there already; nothing where it replaces it.
fn reduction(combine: Option<BinaryOp>) -> Option<AttributeProto> {
    combine.map(|c| string("reduction", c.name()))
}

impl Writer<'_> {
    pub(super) fn op(&mut self, v: ValueId) -> Written {
        let (g, ty) = (self.g, self.ty(v));
        let x = self.operands(v);
        let refs: Vec<&str> = x.iter().map(String::as_str).collect();
        let plain = |w: &mut Self, op: &str| Ok(w.out.node(op, &refs, vec![]));
        let axis = |axis: &usize| int("axis", *axis as i64);
        match g.op(v) {
            Op::Dim(d) => self.sizes.scalar(g, &mut self.out, d),
            Op::Iota { len, start, step } => self.iota(len, start, step),
            Op::Unary(u) => Ok(self.unary(*u, refs[0], ty.dtype, g.ty(g.operands(v)[0]).dtype)),
            Op::Binary(b) => Ok(self.binary(*b, v, refs[0], refs[1])),
            Op::Compare(c) => Ok(self.compare(*c, refs[0], refs[1], g.ty(g.operands(v)[0]).dtype)),
            Op::Select => plain(self, "Where"),
            Op::Cast(_) if ty.dtype == self.ty(g.operands(v)[0]).dtype => Ok(x[0].clone()),
            Op::Cast(_) => Ok(self.out.cast(refs[0], ty.dtype)),
            Op::Reduce { axes, .. } if axes.is_empty() => plain(self, "Identity"),
            Op::Reduce { op, axes, keep } => {
                let name = match op {
                    ReduceOp::Sum => "ReduceSum",
                    ReduceOp::Mean => "ReduceMean",
                    ReduceOp::Prod => "ReduceProd",
                    ReduceOp::Max => "ReduceMax",
                    ReduceOp::Min => "ReduceMin",
                };
                let axes: Vec<i64> = axes.iter().map(|&a| a as i64).collect();
                Ok(self.reduce(name, refs[0], &axes, *keep))
            }
            Op::ArgMax { axis: a, min } => {
                let op = if *min { "ArgMin" } else { "ArgMax" };
                Ok(self.out.node(op, &refs, vec![axis(a), int("keepdims", 0)]))
            }
            Op::CumSum { axis: a, exclusive, reverse } => {
                let a = self.out.scalar(DType::I64, *a as f64);
                let flags = vec![int("exclusive", (*exclusive).into()), int("reverse", (*reverse).into())];
                Ok(self.out.node("CumSum", &[refs[0], &a], flags))
            }
            Op::Softmax { axis: a } => Ok(self.out.node("Softmax", &refs, vec![axis(a)])),
            Op::LayerNorm { eps } => Ok(self.layer_norm(&refs, *eps)),
            Op::RmsNorm { eps } => Ok(self.rms_norm(refs[0], refs[1], *eps, g.ty(v))),
            Op::MatMul { trans_b: false } => plain(self, "MatMul"),
            Op::MatMul { trans_b: true } => {
                let rank = g.ty(g.operands(v)[1]).rank();
                let b = self.transposed(refs[1], rank);
                Ok(self.out.node("MatMul", &[refs[0], &b], vec![]))
            }
            Op::Transpose { perm } => Ok(self.out.transpose(refs[0], perm)),
            Op::Reshape { shape } => self.reshape(refs[0], &g.ty(g.operands(v)[0]).shape.clone(), shape),
            Op::Broadcast { shape } => {
                let shape = self.shape(shape)?;
                Ok(self.out.node("Expand", &[refs[0], &shape], vec![]))
            }
            Op::Slice { axis, start, len, step } => {
                let dim = g.ty(g.operands(v)[0]).shape[*axis].clone();
                self.slice(refs[0], *axis, &dim, start, len, *step)
            }
            Op::Concat { axis: a } => Ok(self.out.node("Concat", &refs, vec![axis(a)])),
            Op::Gather { axis: a } => Ok(self.out.node("Gather", &refs, vec![axis(a)])),
            Op::GatherElements { axis: a } => Ok(self.out.node("GatherElements", &refs, vec![axis(a)])),
            Op::GatherNd { batch_dims } => {
                // It takes no other integers.
                let wide = g.ty(g.operands(v)[1]).dtype == DType::I64;
                let at = if wide { x[1].clone() } else { self.out.cast(refs[1], DType::I64) };
                Ok(self.out.node("GatherND", &[refs[0], &at], vec![int("batch_dims", *batch_dims as i64)]))
            }
            Op::ScatterElements { axis: a, combine } => {
                let how = reduction(*combine).into_iter().chain([axis(a)]).collect();
                Ok(self.out.node("ScatterElements", &refs, how))
            }
            Op::ScatterNd { combine } => {
                let wide = g.ty(g.operands(v)[1]).dtype == DType::I64;
                let at = if wide { x[1].clone() } else { self.out.cast(refs[1], DType::I64) };
                Ok(self.out.node("ScatterND", &[refs[0], &at, refs[2]], reduction(*combine).into_iter().collect()))
            }
            Op::TopK { axis: a, k, smallest } => {
                let k = self.sizes.dim(g, &mut self.out, k)?;
                let how = vec![axis(a), int("largest", (!smallest).into())];
                Ok(self.out.second("TopK", &[refs[0], &k], how))
            }
            op => Err(format!("'{}' has no form", op.name())),
        }
    }

    pub(super) fn reduce(&mut self, op: &str, x: &str, axes: &[i64], keep: bool) -> String {
        let axes = self.out.ints(axes);
        self.out.node(op, &[x, &axes], vec![int("keepdims", keep.into())])
    }

    /// Of x, gamma and beta, over the last axis.
    pub(super) fn layer_norm(&mut self, x: &[&str], eps: f32) -> String {
        self.out.node("LayerNormalization", x, vec![int("axis", -1), float("epsilon", eps)])
    }

    /// Spelled out, in f32 at least: `RMSNormalization` is of a later opset.
    fn rms_norm(&mut self, x: &str, gamma: &str, eps: f32, ty: &TensorType) -> String {
        let wide = if ty.dtype == DType::F64 { DType::F64 } else { DType::F32 };
        let half = ty.dtype == DType::F16;
        let x = if half { self.out.cast(x, wide) } else { x.to_string() };
        let squares = self.out.node("Mul", &[&x, &x], vec![]);
        let mean = self.reduce("ReduceMean", &squares, &[ty.rank() as i64 - 1], true);
        let eps = self.out.scalar(wide, eps.into());
        let mean = self.out.node("Add", &[&mean, &eps], vec![]);
        let root = self.out.node("Sqrt", &[&mean], vec![]);
        let y = self.out.node("Div", &[&x, &root], vec![]);
        let gamma = if half { self.out.cast(gamma, wide) } else { gamma.to_string() };
        let y = self.out.node("Mul", &[&y, &gamma], vec![]);
        if half { self.out.cast(&y, DType::F16) } else { y }
    }

    /// The last two of `rank` dims swapped.
    pub(super) fn transposed(&mut self, x: &str, rank: usize) -> String {
        let mut perm: Vec<usize> = (0..rank).collect();
        perm.swap(rank - 1, rank - 2);
        self.out.transpose(x, &perm)
    }

    fn iota(&mut self, len: &Dim, start: &Dim, step: &Dim) -> Written {
        let mut scalar = |d: &Dim| self.sizes.scalar(self.g, &mut self.out, d);
        let (zero, one) = (scalar(&0.into())?, scalar(&1.into())?);
        let n = scalar(len)?;
        let (start, step) = (
            (start.as_const() != Some(0)).then(|| scalar(start)).transpose()?,
            (step.as_const() != Some(1)).then(|| scalar(step)).transpose()?,
        );
        let mut y = self.out.node("Range", &[&zero, &n, &one], vec![]);
        if let Some(step) = step {
            y = self.out.node("Mul", &[&y, &step], vec![]);
        }
        if let Some(start) = start {
            y = self.out.node("Add", &[&y, &start], vec![]);
        }
        Ok(y)
    }

    /// `dtype` is that of the result in the file, `from` the operand's.
    pub(super) fn unary(&mut self, u: UnaryOp, x: &str, dtype: DType, from: DType) -> String {
        let name = match u {
            UnaryOp::Neg => "Neg",
            UnaryOp::Abs => "Abs",
            UnaryOp::Sign => "Sign",
            UnaryOp::Recip => "Reciprocal",
            UnaryOp::Sqrt => "Sqrt",
            UnaryOp::Exp => "Exp",
            UnaryOp::Log => "Log",
            UnaryOp::Erf => "Erf",
            UnaryOp::Tanh => "Tanh",
            UnaryOp::Sigmoid => "Sigmoid",
            UnaryOp::Sin => "Sin",
            UnaryOp::Cos => "Cos",
            UnaryOp::Gelu => return self.gelu(x, dtype),
            UnaryOp::GeluTanh => return self.gelu_tanh(x, dtype),
            UnaryOp::Relu => "Relu",
            UnaryOp::Floor => "Floor",
            UnaryOp::Ceil => "Ceil",
            UnaryOp::Round => "Round",
            UnaryOp::Not if from == DType::Bool => "Not",
            UnaryOp::Not => "BitwiseNot",
            UnaryOp::IsNan => "IsNaN",
            UnaryOp::IsInf => "IsInf",
        };
        self.out.node(name, &[x], vec![])
    }

    /// As PyTorch's exporter writes it: runtimes look for this form.
    fn gelu(&mut self, x: &str, dtype: DType) -> String {
        let [root, one, half] = [std::f64::consts::SQRT_2, 1.0, 0.5].map(|c| self.out.scalar(dtype, c));
        let y = self.out.node("Div", &[x, &root], vec![]);
        let y = self.out.node("Erf", &[&y], vec![]);
        let y = self.out.node("Add", &[&y, &one], vec![]);
        let y = self.out.node("Mul", &[x, &y], vec![]);
        self.out.node("Mul", &[&y, &half], vec![])
    }

    /// As PyTorch's exporter writes it.
    fn gelu_tanh(&mut self, x: &str, dtype: DType) -> String {
        let root = (2.0 / std::f64::consts::PI).sqrt();
        let [half, three, cubic, root, one] = [0.5, 3.0, 0.044_715, root, 1.0].map(|c| self.out.scalar(dtype, c));
        let h = self.out.node("Mul", &[x, &half], vec![]);
        let y = self.out.node("Pow", &[x, &three], vec![]);
        let y = self.out.node("Mul", &[&y, &cubic], vec![]);
        let y = self.out.node("Add", &[x, &y], vec![]);
        let y = self.out.node("Mul", &[&y, &root], vec![]);
        let y = self.out.node("Tanh", &[&y], vec![]);
        let y = self.out.node("Add", &[&y, &one], vec![]);
        self.out.node("Mul", &[&h, &y], vec![])
    }

    fn binary(&mut self, b: BinaryOp, v: ValueId, x: &str, y: &str) -> String {
        let dtype = self.ty(v).dtype;
        let float = dtype.is_float();
        let name = match b {
            BinaryOp::Add => "Add",
            BinaryOp::Sub => "Sub",
            BinaryOp::Mul => "Mul",
            BinaryOp::Div if float => "Div",
            BinaryOp::Div | BinaryOp::Rem | BinaryOp::Mod if !float => return self.integer_division(b, v, x, y),
            BinaryOp::Mod => return self.float_mod(x, y, dtype),
            BinaryOp::Div => "Div",
            BinaryOp::Rem => return self.out.node("Mod", &[x, y], vec![int("fmod", 1)]),
            BinaryOp::Shl | BinaryOp::Shr => return self.shift(b == BinaryOp::Shr, dtype, x, y),
            BinaryOp::Pow => "Pow",
            BinaryOp::Min => "Min",
            BinaryOp::Max => "Max",
            BinaryOp::And if dtype == DType::Bool => "And",
            BinaryOp::Or if dtype == DType::Bool => "Or",
            BinaryOp::Xor if dtype == DType::Bool => "Xor",
            BinaryOp::And => "BitwiseAnd",
            BinaryOp::Or => "BitwiseOr",
            BinaryOp::Xor => "BitwiseXor",
        };
        self.out.node(name, &[x, y], vec![])
    }

    /// `BitShift` takes unsigned integers only, and says nothing of shifts by more bits than there are.
    fn shift(&mut self, right: bool, dtype: DType, x: &str, y: &str) -> String {
        let unsigned = match dtype {
            DType::I8 => DType::U8,
            DType::I16 => DType::U16,
            DType::I32 => DType::U32,
            DType::I64 => DType::U64,
            d => d,
        };
        let signed = unsigned != dtype;
        let bits = self.out.scalar(unsigned, 8.0 * dtype.size() as f64);
        let (zero, none) = (self.out.scalar(dtype, 0.0), self.out.scalar(unsigned, 0.0));
        let negative = (signed && right).then(|| self.out.node("Less", &[x, &zero], vec![]));
        // Of a negative number its complement is shifted: the bits that come in are ones then.
        let turn = |w: &mut Self, v: &str| match &negative {
            Some(n) => {
                let turned = w.out.node("BitwiseNot", &[v], vec![]);
                w.out.node("Where", &[n, &turned, v], vec![])
            }
            None => v.to_string(),
        };
        let x = turn(self, x);
        let cast = |w: &mut Self, v: &str, to: DType| if signed { w.out.cast(v, to) } else { v.to_string() };
        let (x, y) = (cast(self, &x, unsigned), cast(self, y, unsigned));
        let inside = self.out.node("Less", &[&y, &bits], vec![]);
        let by = self.out.node("Where", &[&inside, &y, &none], vec![]);
        let direction = string("direction", if right { "RIGHT" } else { "LEFT" });
        let z = self.out.node("BitShift", &[&x, &by], vec![direction]);
        let z = self.out.node("Where", &[&inside, &z, &none], vec![]);
        let z = cast(self, &z, dtype);
        turn(self, &z)
    }

    /// Of integers, by 0 it gives 0, where ONNX says nothing and a runtime may end the process.
    fn integer_division(&mut self, b: BinaryOp, v: ValueId, x: &str, y: &str) -> String {
        let (op, fmod) = match b {
            BinaryOp::Div => ("Div", vec![]),
            BinaryOp::Rem => ("Mod", vec![int("fmod", 1)]),
            _ => ("Mod", vec![int("fmod", 0)]),
        };
        let never = self.g.as_const(self.g.operands(v)[1]).is_some_and(|t| t.iter().all(|s| s != Scalar::Int(0)));
        if never {
            return self.out.node(op, &[x, y], fmod);
        }
        let dtype = self.ty(v).dtype;
        let (zero, one) = (self.out.scalar(dtype, 0.0), self.out.scalar(dtype, 1.0));
        let none = self.out.node("Equal", &[y, &zero], vec![]);
        let by = self.out.node("Where", &[&none, &one, y], vec![]);
        let z = self.out.node(op, &[x, &by], fmod);
        self.out.node("Where", &[&none, &zero, &z], vec![])
    }

    /// With the divisor's sign: `Mod` of floats has the dividend's.
    fn float_mod(&mut self, x: &str, y: &str, dtype: DType) -> String {
        let zero = self.out.scalar(dtype, 0.0);
        let r = self.out.node("Mod", &[x, y], vec![int("fmod", 1)]);
        let below = self.out.node("Less", &[&r, &zero], vec![]);
        let wanted = self.out.node("Less", &[y, &zero], vec![]);
        let differ = self.out.node("Xor", &[&below, &wanted], vec![]);
        let none = self.out.node("Equal", &[&r, &zero], vec![]);
        let some = self.out.node("Not", &[&none], vec![]);
        let differ = self.out.node("And", &[&differ, &some], vec![]);
        let moved = self.out.node("Add", &[&r, y], vec![]);
        self.out.node("Where", &[&differ, &moved, &r], vec![])
    }

    fn compare(&mut self, c: CmpOp, x: &str, y: &str, from: DType) -> String {
        let name = match c {
            CmpOp::Eq | CmpOp::Ne => "Equal",
            CmpOp::Lt => "Less",
            CmpOp::Le => "LessOrEqual",
            CmpOp::Gt => "Greater",
            CmpOp::Ge => "GreaterOrEqual",
        };
        // Those that order take numbers only.
        let numbers = from == DType::Bool && name != "Equal";
        let y = if numbers {
            let (x, y) = (self.out.cast(x, DType::I32), self.out.cast(y, DType::I32));
            self.out.node(name, &[&x, &y], vec![])
        } else {
            self.out.node(name, &[x, y], vec![])
        };
        if c == CmpOp::Ne { self.out.node("Not", &[&y], vec![]) } else { y }
    }

    /// To another shape: written into the node as far as ONNX can, with 0 for "as it was" and -1 for "the rest".
    pub(super) fn reshape(&mut self, x: &str, from: &[Dim], to: &[Dim]) -> Written {
        let positive = to.iter().all(|d| d.proven_ge(&1.into(), &self.g.symbols));
        let mut rest = 0;
        let known: Vec<i64> = to
            .iter()
            .enumerate()
            .map(|(i, d)| match fixed(self.g, d) {
                Some(c) => c,
                None if from.get(i) == Some(d) => 0,
                None => {
                    rest += 1;
                    -1
                }
            })
            .collect();
        if positive && rest <= 1 {
            let to = self.out.ints(&known);
            return Ok(self.out.node("Reshape", &[x, &to], vec![]));
        }
        let to = self.shape(to)?;
        Ok(self.out.node("Reshape", &[x, &to], vec![int("allowzero", 1)]))
    }

    /// `dim` is the axis's in the operand.
    fn slice(&mut self, x: &str, axis: usize, dim: &Dim, start: &Dim, len: &Dim, step: i64) -> Written {
        let too_large = || "its bounds are too large".to_string();
        let symbols = &self.g.symbols;
        let (start, end) = if len.as_const() == Some(0) {
            (Dim::constant(0), Dim::constant(0))
        } else {
            let span = len.sub(&1.into()).and_then(|n| n.mul(&step.into()));
            let end = span.and_then(|s| start.add(&s)).and_then(|last| last.add(&step.signum().into()));
            let end = end.ok_or_else(too_large)?;
            // Numbers below 0 count from behind.
            let end = match end.bounds(symbols) {
                _ if step > 0 => end,
                (0.., _) => end,
                (_, ..=-1) => Dim::constant(i64::MIN),
                _ => end.sub(dim).ok_or_else(too_large)?,
            };
            (start.clone(), end)
        };
        let step = if len.as_const() == Some(0) { 1 } else { step };
        let mut one = |d: &Dim| self.sizes.dim(self.g, &mut self.out, d);
        let (start, end) = (one(&start)?, one(&end)?);
        let axes = self.out.ints(&[axis as i64]);
        if step == 1 {
            return Ok(self.out.node("Slice", &[x, &start, &end, &axes], vec![]));
        }
        let steps = self.out.ints(&[step]);
        Ok(self.out.node("Slice", &[x, &start, &end, &axes, &steps], vec![]))
    }
}
