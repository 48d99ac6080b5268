//! 8-bit integers: as the pairs of operators that ONNX has for them, or spelled out where it has none.

use bertc_ir::{DType, Linear, Op, RowQuant, Tensor, ValueId};

use super::Writer;
use super::dynamic::Dynamic;
use super::out::int;
use super::plan::{How, byte};

impl Writer<'_> {
    /// A product whose operands count as what their integers stand for.
    pub(super) fn integers_as_floats(&mut self, v: ValueId, l: &Linear, how: &How, bias: Option<&str>) -> String {
        let (g, x) = (self.g, self.g.operands(v));
        let a = match how {
            How::Floats { rows, factor } => {
                self.widened.push(self.out.stem().to_string());
                let rows = self.operand(*rows, "constant");
                match factor {
                    Some(f) => {
                        let factor = self.operand(*f, "factor");
                        self.out.node("Mul", &[&rows, &factor], vec![])
                    }
                    None => rows,
                }
            }
            How::Static { scale, zero } => {
                let (a, scale) = (self.operand(x[0], "constant"), self.operand(*scale, "scale"));
                let zero = zero.and_then(|z| byte(g.as_const(z)?, g.ty(x[0]).dtype));
                match zero {
                    Some(z) => {
                        let zero = self.out.small(z);
                        self.out.node("DequantizeLinear", &[&a, &scale, &zero], vec![])
                    }
                    None => self.out.node("DequantizeLinear", &[&a, &scale], vec![]),
                }
            }
            // Those are products of integers only.
            How::Dequantised { .. } | How::Dynamic(_) | How::With(_) => self.operand(x[0], "constant"),
        };
        let (b, scales) = (self.operand(x[1], "weight"), self.operand(x[3], "weight_scale"));
        // A unit for each column.
        let b = self.out.node("DequantizeLinear", &[&b, &scales], vec![int("axis", i64::from(!l.trans_b))]);
        self.product(&a, &b, g.ty(x[0]).rank(), l.trans_b, bias)
    }

    /// The same, exactly: the sums of products of integers, times both scales.
    pub(super) fn integer_product(&mut self, v: ValueId, l: &Linear) -> String {
        let (g, x) = (self.g, self.g.operands(v));
        let a = self.operand(x[0], "constant");
        let mut b = self.operand(x[1], "weight");
        if l.trans_b {
            b = self.transposed(&b, 2);
        }
        let zero = l.zero_at().map(|at| (at, self.zero_point(x[at], g.ty(x[0]).dtype)));
        let sums = match zero {
            None => self.out.node("MatMulInteger", &[&a, &b], vec![]),
            Some((_, Some(zero))) => self.out.node("MatMulInteger", &[&a, &b, &zero], vec![]),
            Some((at, None)) => {
                // Not known to be of 8 bits.
                let zero = self.operand(x[at], "zero");
                let a = self.out.cast(&a, DType::I32);
                let a = self.out.node("Sub", &[&a, &zero], vec![]);
                let b = self.out.cast(&b, DType::I32);
                self.out.node("MatMul", &[&a, &b], vec![])
            }
        };
        let (scale, scales) = (self.operand(x[2], "scale"), self.operand(x[3], "weight_scale"));
        let y = self.out.cast(&sums, DType::F32);
        let y = if g.ty(x[2]).rank() == 0 {
            // Both scales first is the form that ONNX Runtime makes one product of.
            let both = self.out.node("Mul", &[&scale, &scales], vec![]);
            self.out.node("Mul", &[&y, &both], vec![])
        } else {
            let y = self.out.node("Mul", &[&y, &scales], vec![]);
            self.out.node("Mul", &[&y, &scale], vec![])
        };
        let Some(at) = l.offset_at() else { return y };
        let offset = self.operand(x[at], "offset");
        let columns = self.out.cast(&b, DType::F32);
        let columns = self.reduce("ReduceSum", &columns, &[0], false);
        let columns = self.out.node("Mul", &[&columns, &scales], vec![]);
        let more = self.out.node("Mul", &[&columns, &offset], vec![]);
        self.out.node("Add", &[&y, &more], vec![])
    }

    /// An i32 zero point in 8 bits, where it is known to fit.
    fn zero_point(&mut self, v: ValueId, to: DType) -> Option<String> {
        let g = self.g;
        if let Some(t) = g.as_const(v) {
            return byte(t, to).map(|t| self.out.small(t));
        }
        let from = *g.operands(v).first()?;
        let widened = *g.op(v) == Op::Cast(DType::I32) && g.ty(from).dtype == to;
        widened.then(|| self.operand(from, "zero"))
    }

    pub(super) fn quantise(&mut self, v: ValueId, to: DType) -> String {
        let x = self.g.operands(v);
        let (rows, scale) = (self.operand(x[0], "constant"), self.operand(x[1], "scale"));
        if let Some(zero) = self.zero_point(x[2], to) {
            return self.out.node("QuantizeLinear", &[&rows, &scale, &zero], vec![]);
        }
        let zero = self.operand(x[2], "zero");
        let zero = self.out.cast(&zero, DType::F32);
        let y = self.out.node("Div", &[&rows, &scale], vec![]);
        let y = self.out.node("Round", &[&y], vec![]);
        let y = self.out.node("Add", &[&y, &zero], vec![]);
        let (least, most) = if to == DType::I8 { (-128.0, 127.0) } else { (0.0, 255.0) };
        self.clipped(&y, least, most, to)
    }

    /// Writes all three results; returns the scale.
    pub(super) fn dynamic(&mut self, d: &Dynamic) -> String {
        let rows = self.operand(d.rows, "constant");
        let (integers, scale, point) = self.out.dynamic_quantise(&rows);
        self.values.insert(d.integers, integers);
        self.values.insert(d.point, point);
        scale
    }

    fn clipped(&mut self, x: &str, least: f64, most: f64, to: DType) -> String {
        let (least, most) = (self.out.scalar(DType::F32, least), self.out.scalar(DType::F32, most));
        let y = self.out.node("Clip", &[x, &least, &most], vec![]);
        self.out.cast(&y, to)
    }

    pub(super) fn dequantised(
        &mut self,
        integers: ValueId,
        scale: &Tensor,
        zero: Option<&Tensor>,
        axis: Option<usize>,
    ) -> String {
        let x = self.operand(integers, "constant");
        let scale = self.out.small(scale.clone());
        let axis = axis.map(|a| int("axis", a as i64)).into_iter().collect();
        match zero {
            Some(z) => {
                let zero = self.out.small(z.clone());
                self.out.node("DequantizeLinear", &[&x, &scale, &zero], axis)
            }
            None => self.out.node("DequantizeLinear", &[&x, &scale], axis),
        }
    }

    /// x·factor of a row op, and the least and the span of each row.
    fn row_range(&mut self, v: ValueId, q: &RowQuant) -> [String; 3] {
        let x = self.g.operands(v);
        let mut rows = self.operand(x[0], "constant");
        if let Some(at) = q.factor_at() {
            let factor = self.operand(x[at], "factor");
            rows = self.out.node("Mul", &[&rows, &factor], vec![]);
        }
        if !q.offset {
            let magnitudes = self.out.node("Abs", &[&rows], vec![]);
            let span = self.reduce("ReduceMax", &magnitudes, &[-1], true);
            return [rows, self.out.scalar(DType::F32, 0.0), span];
        }
        let low = self.reduce("ReduceMin", &rows, &[-1], true);
        let high = self.reduce("ReduceMax", &rows, &[-1], true);
        let span = self.out.node("Sub", &[&high, &low], vec![]);
        [rows, low, span]
    }

    pub(super) fn row_scale(&mut self, v: ValueId, q: &RowQuant) -> String {
        let [_, _, span] = self.row_range(v, q);
        let unit = self.out.scalar(DType::F32, (1.0f32 / units(q)).into());
        self.out.node("Mul", &[&span, &unit], vec![])
    }

    pub(super) fn row_offset(&mut self, v: ValueId, q: &RowQuant) -> String {
        let [_, low, span] = self.row_range(v, q);
        // Without an offset 0 stands for 0.
        let part = self.out.scalar(DType::F32, if q.offset { (128.0f32 / 255.0).into() } else { 0.0 });
        let more = self.out.node("Mul", &[&span, &part], vec![]);
        self.out.node("Add", &[&more, &low], vec![])
    }

    pub(super) fn quantise_rows(&mut self, v: ValueId, q: &RowQuant) -> String {
        let [rows, low, span] = self.row_range(v, q);
        let (zero, all) = (self.out.scalar(DType::F32, 0.0), self.out.scalar(DType::F32, units(q).into()));
        let inverse = self.out.node("Div", &[&all, &span], vec![]);
        let none = self.out.node("Equal", &[&span, &zero], vec![]);
        let inverse = self.out.node("Where", &[&none, &zero, &inverse], vec![]);
        if !q.offset {
            let y = self.out.node("Mul", &[&rows, &inverse], vec![]);
            let y = self.out.node("Round", &[&y], vec![]);
            return self.clipped(&y, -127.0, 127.0, DType::I8);
        }
        let y = self.out.node("Sub", &[&rows, &low], vec![]);
        let y = self.out.node("Mul", &[&y, &inverse], vec![]);
        let y = self.out.node("Round", &[&y], vec![]);
        let half = self.out.scalar(DType::F32, 128.0);
        let y = self.out.node("Sub", &[&y, &half], vec![]);
        self.clipped(&y, -128.0, 127.0, DType::I8)
    }
}

/// The number of units in a row's range.
fn units(q: &RowQuant) -> f32 {
    if q.offset { 255.0 } else { 127.0 }
}
