//! Tests on small models built from the protobuf types.

mod contrib;
mod dims;
mod errors;
mod functions;
mod ops;
mod qlinear;
mod small;

use bertc_ir::eval::{eval, solve_dims};
use bertc_ir::{Diag, Op, Tensor};
use prost::Message;

use super::proto::attribute_proto::AttributeType as A;
use super::proto::tensor_shape_proto::{Dimension, dimension};
use super::proto::*;
use super::{ImportOptions, Imported, import_bytes};

/// ONNX numbers of element types.
const F32: i32 = 1;
const I32: i32 = 6;
const I64: i32 = 7;
const BOOL: i32 = 9;

/// A model under construction.
#[derive(Clone)]
struct M(ModelProto);

impl M {
    fn new(opset: i64) -> M {
        let set = |d: &str, v| OperatorSetIdProto { domain: Some(d.to_string()), version: Some(v) };
        M(ModelProto {
            opset_import: vec![set("", opset), set("com.microsoft", 1)],
            producer_name: Some("test".to_string()),
            graph: Some(GraphProto::default()),
            ..Default::default()
        })
    }

    fn graph(&mut self) -> &mut GraphProto {
        self.0.graph.as_mut().expect("a graph")
    }

    /// An input; dims are numbers or names, separated by spaces, `?` for unknown ones.
    fn input(mut self, name: &str, elem: i32, dims: &str) -> M {
        let v = info(name, elem, dims);
        self.graph().input.push(v);
        self
    }

    fn node(mut self, op: &str, ins: &str, outs: &str, attrs: Vec<AttributeProto>) -> M {
        let (domain, op) = op.rsplit_once('.').unwrap_or(("", op));
        let list = |s: &str| s.split_whitespace().map(|n| if n == "_" { "" } else { n }.to_string()).collect();
        self.graph().node.push(NodeProto {
            op_type: Some(op.to_string()),
            domain: Some(domain.to_string()),
            input: list(ins),
            output: list(outs),
            attribute: attrs,
            ..Default::default()
        });
        self
    }

    fn i64s(mut self, name: &str, dims: &[i64], v: &[i64]) -> M {
        self.graph().initializer.push(TensorProto {
            name: Some(name.to_string()),
            dims: dims.to_vec(),
            data_type: Some(I64),
            int64_data: v.to_vec(),
            ..Default::default()
        });
        self
    }

    fn f32s(mut self, name: &str, dims: &[i64], v: &[f32]) -> M {
        self.graph().initializer.push(TensorProto {
            name: Some(name.to_string()),
            dims: dims.to_vec(),
            data_type: Some(F32),
            float_data: v.to_vec(),
            ..Default::default()
        });
        self
    }

    /// A constant of bytes.
    fn bytes(mut self, name: &str, elem: i32, dims: &[i64], v: &[i16]) -> M {
        self.graph().initializer.push(TensorProto {
            name: Some(name.to_string()),
            dims: dims.to_vec(),
            data_type: Some(elem),
            int32_data: v.iter().map(|&v| v.into()).collect(),
            ..Default::default()
        });
        self
    }

    fn output(mut self, name: &str) -> M {
        self.graph().output.push(ValueInfoProto { name: Some(name.to_string()), ..Default::default() });
        self
    }

    fn import_with(&self, opts: &ImportOptions) -> Result<Imported, Vec<Diag>> {
        import_bytes(self.0.encode_to_vec().into(), None, opts)
    }

    fn import(&self) -> Imported {
        self.import_with(&ImportOptions::default()).unwrap_or_else(|d| panic!("{}", d[0]))
    }

    fn errors(&self) -> Vec<String> {
        match self.import_with(&ImportOptions::default()) {
            Ok(_) => panic!("the model imports"),
            Err(d) => d.iter().map(ToString::to_string).collect(),
        }
    }

    /// The first output for these inputs.
    fn run(&self, inputs: &[Tensor]) -> Tensor {
        let g = self.import().graph;
        let dims = solve_dims(&g, inputs).expect("dims");
        eval(&g, &dims, inputs).unwrap_or_else(|d| panic!("{d}")).remove(0)
    }
}

fn info(name: &str, elem: i32, dims: &str) -> ValueInfoProto {
    let dim = |d: &str| Dimension {
        value: match d {
            "?" => None,
            d => Some(d.parse().map_or_else(|_| dimension::Value::DimParam(d.into()), dimension::Value::DimValue)),
        },
        ..Default::default()
    };
    let shape = TensorShapeProto { dim: dims.split_whitespace().map(dim).collect() };
    let t = type_proto::Tensor { elem_type: Some(elem), shape: Some(shape) };
    ValueInfoProto {
        name: Some(name.to_string()),
        r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(t)), ..Default::default() }),
        ..Default::default()
    }
}

fn attr(name: &str, ty: A) -> AttributeProto {
    AttributeProto { name: Some(name.to_string()), r#type: Some(ty.into()), ..Default::default() }
}

fn int(name: &str, v: i64) -> AttributeProto {
    AttributeProto { i: Some(v), ..attr(name, A::Int) }
}

fn float(name: &str, v: f32) -> AttributeProto {
    AttributeProto { f: Some(v), ..attr(name, A::Float) }
}

fn ints(name: &str, v: &[i64]) -> AttributeProto {
    AttributeProto { ints: v.to_vec(), ..attr(name, A::Ints) }
}

/// One node on f32 inputs `a`, `b`, … of the given shapes, counting up from 1 in steps of 0.5.
fn one_node(opset: i64, op: &str, shapes: &[&[usize]], attrs: Vec<AttributeProto>) -> Tensor {
    let names: Vec<String> = (0..shapes.len()).map(|i| char::from(b'a' + i as u8).to_string()).collect();
    let mut m = M::new(opset).node(op, &names.join(" "), "y", attrs).output("y");
    let mut inputs = Vec::new();
    for (n, s) in names.iter().zip(shapes) {
        let dims: Vec<String> = s.iter().map(ToString::to_string).collect();
        m = m.input(n, F32, &dims.join(" "));
        let v: Vec<f32> = (0..s.iter().product()).map(|i: usize| 1.0 + 0.5 * i as f32).collect();
        inputs.push(Tensor::from_f32(s.to_vec(), &v));
    }
    m.run(&inputs)
}

fn close(t: &Tensor, shape: &[usize], want: &[f64]) {
    assert_eq!(t.shape(), shape);
    for (x, w) in t.to_f64_vec().iter().zip(want) {
        assert!((x - w).abs() <= 1e-5 * (1.0 + w.abs()), "{:?} is not {want:?}", t.to_f64_vec());
    }
}

/// Names of the ops in a graph other than inputs and constants.
fn op_names(m: &Imported) -> Vec<&'static str> {
    let g = &m.graph;
    let ops = g.topo().into_iter().map(|v| g.op(v));
    ops.filter(|o| !matches!(o, Op::Input { .. } | Op::Constant(_))).map(Op::name).collect()
}

#[test]
fn typed_and_raw_tensors_agree() {
    let typed = |t: i32, f: fn(&mut TensorProto)| {
        let mut p = TensorProto { dims: vec![2], data_type: Some(t), ..Default::default() };
        f(&mut p);
        super::tensor::constant(&p, &mut super::load::External::new(None)).map(|v| v.as_const().unwrap().to_f64_vec())
    };
    assert_eq!(typed(F32, |p| p.float_data = vec![1.0, -2.5]).unwrap(), [1.0, -2.5]);
    assert_eq!(typed(10, |p| p.int32_data = vec![0x3c00, 0xc100]).unwrap(), [1.0, -2.5]);
    assert_eq!(typed(16, |p| p.int32_data = vec![0x3f80, 0xc020]).unwrap(), [1.0, -2.5]);
    assert_eq!(typed(11, |p| p.double_data = vec![1.0, -2.5]).unwrap(), [1.0, -2.5]);
    assert_eq!(typed(3, |p| p.int32_data = vec![1, -2]).unwrap(), [1.0, -2.0]);
    assert_eq!(typed(2, |p| p.int32_data = vec![1, 254]).unwrap(), [1.0, 254.0]);
    assert_eq!(typed(12, |p| p.uint64_data = vec![1, 4_000_000_000]).unwrap(), [1.0, 4e9]);
    assert_eq!(typed(BOOL, |p| p.raw_data = Some(vec![0, 7].into())).unwrap(), [0.0, 1.0]);
    assert!(typed(I64, |p| p.raw_data = Some(vec![0; 15].into())).unwrap_err().contains("need 16 bytes"));
    assert!(typed(I64, |p| p.dims = vec![-1]).unwrap_err().contains("negative"));
    assert!(typed(I64, |p| p.dims = vec![i64::MAX, 4]).unwrap_err().contains("overflows"));
    assert!(typed(I64, |p| p.dims = vec![1 << 40]).unwrap_err().contains("the file has 0"));
    assert!(typed(8, |_| ()).unwrap_err().contains("string"));
}
