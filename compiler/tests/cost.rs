//! Fusion keeps a model's multiply-adds, but for rows that nothing reads and products of weights.

use std::path::Path;

use bertc::import::onnx::{ImportOptions, import};
use bertc_ir::{Dim, Graph, cost};

fn counts(model: &str) -> [(Dim, Graph); 2] {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../testsuite/models/zoo/{model}.onnx"));
    let graph = import(&path, &ImportOptions::default()).unwrap().graph;
    [1, 2].map(|level| {
        let mut g = graph.clone();
        let passes = bertc_passes::pipeline(level);
        bertc_passes::run(&mut g, &passes, &bertc_passes::Options::default(), &mut |_| {}).unwrap();
        (cost::multiply_adds(&g).unwrap(), g)
    })
}

#[test]
fn fusion_keeps_the_count() {
    for model in ["bert-eager", "bert-sdpa", "albert", "bert-opset13", "distilbert-qa", "electra-ner", "bert-mlm"] {
        let [(plain, g), (fused, f)] = counts(model);
        let shown = format!("{model}: {} and {}", plain.display(&g.symbols), fused.display(&f.symbols));
        if ["albert", "electra-ner"].contains(&model) {
            // The projection of the embeddings is merged into the first layer's.
            let at = |n: &Dim| n.eval(&[2, 32]).unwrap();
            assert!(at(&fused) < at(&plain), "{shown}");
        } else {
            assert_eq!(plain, fused, "{shown}");
        }
        assert!(f.topo().iter().any(|&v| f.op(v).name() == "attention"), "{model} is fused");
    }
    let [(n, g), _] = counts("bert-eager");
    let want = "256*batch*sequence^2 + 73728*batch*sequence + 4096*batch";
    assert_eq!(n.display(&g.symbols).to_string(), want);
}

#[test]
fn a_head_on_one_token_needs_less() {
    let [(plain, _), (fused, _)] = counts("roberta-cls");
    let at = |n: &Dim| n.eval(&[2, 32]).unwrap();
    assert!(at(&fused) < at(&plain), "{} and {}", at(&fused), at(&plain));
}
