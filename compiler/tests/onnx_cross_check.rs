//! Another ONNX decoder sees the same nodes and weights in the zoo's files as the importer does: whatever the
//! importer reports of an unsupported operator is what the file says.

use std::path::Path;

use protobuf::Message;

#[path = "../src/import/onnx/proto.rs"]
#[allow(dead_code, unreachable_pub)]
mod proto;

#[test]
fn both_decoders_agree() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testsuite/models/zoo");
    let mut files = 0;
    for e in std::fs::read_dir(dir).expect("the zoo is there") {
        let path = e.expect("a folder entry").path();
        if path.extension().is_none_or(|e| e != "onnx") {
            continue;
        }
        let bytes = std::fs::read(&path).expect("a readable file");
        let a = <proto::ModelProto as prost::Message>::decode(bytes.as_slice()).expect("prost decodes");
        let b = onnx_protobuf::ModelProto::parse_from_bytes(&bytes).expect("protobuf decodes");
        let (ga, gb) = (a.graph.as_ref().expect("a graph"), &b.graph);
        assert_eq!(ga.node.len(), gb.node.len());
        for (x, y) in ga.node.iter().zip(&gb.node) {
            assert_eq!(
                (x.name(), x.op_type(), x.domain(), &x.input, &x.output),
                (y.name.as_str(), y.op_type.as_str(), y.domain.as_str(), &y.input, &y.output)
            );
            assert_eq!(x.attribute.len(), y.attribute.len());
            for (p, q) in x.attribute.iter().zip(&y.attribute) {
                assert_eq!((p.name(), p.i(), p.f(), &p.ints), (q.name.as_str(), q.i, q.f, &q.ints));
                assert_eq!(p.s(), q.s.as_slice());
            }
        }
        assert_eq!(ga.initializer.len(), gb.initializer.len());
        for (x, y) in ga.initializer.iter().zip(&gb.initializer) {
            assert_eq!((x.name(), &x.dims, x.data_type()), (y.name.as_str(), &y.dims, y.data_type));
            assert_eq!(x.raw_data(), y.raw_data.as_slice(), "{}", x.name());
            assert_eq!((&x.float_data, &x.int64_data), (&y.float_data, &y.int64_data));
        }
        let names = |v: &[proto::ValueInfoProto]| v.iter().map(|i| i.name().to_string()).collect::<Vec<_>>();
        assert_eq!(names(&ga.input), gb.input.iter().map(|i| i.name.clone()).collect::<Vec<_>>());
        assert_eq!(names(&ga.output), gb.output.iter().map(|i| i.name.clone()).collect::<Vec<_>>());
        files += 1;
    }
    assert!(files >= 16);
}
