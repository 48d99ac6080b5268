//! `parse`: the file parses; its printed form is checked, and parses to the same graph, kernels or program.

use bertc_ir::text::{no_resources, structurally_equal};

use super::{Outcome, State, kernels, no_options, print, schedule, tensor_ir};
use crate::filetest::{Command, Kind};

pub(super) fn run(s: &mut State<'_>, c: &Command) -> Outcome<String> {
    no_options(c)?;
    match s.test.kind {
        Kind::Tir => {
            let g = tensor_ir(s.test)?;
            let text = print(&g);
            let back = bertc_ir::text::parse(&text, &no_resources).map_err(|e| format!("{e:#?}\n{text}"))?;
            if !structurally_equal(&g, &back) || print(&back) != text {
                return Err(format!("the printed text is another graph\n{text}").into());
            }
            Ok(text)
        }
        Kind::Kir => {
            let all = kernels(s.test)?;
            let text: String = all.iter().map(bertc_ir::kernel::print).collect();
            let back = bertc_ir::kernel::parse(&text).map_err(|e| format!("{e:#?}\n{text}"))?;
            // As text, because a NaN is not equal to itself.
            if format!("{back:?}") != format!("{all:?}") {
                return Err(format!("the printed text is another kernel\n{text}").into());
            }
            Ok(text)
        }
        Kind::Sir => {
            let p = schedule(s.test)?;
            let text = p.print();
            let back = bertc_backends::schedule::parse(&text, &no_resources).map_err(|e| format!("{e:#?}\n{text}"))?;
            // As text, because a NaN is not equal to itself.
            if format!("{back:?}") != format!("{:?}", p.canonical()) {
                return Err(format!("the printed text is another program\n{text}").into());
            }
            Ok(text)
        }
        Kind::Onnx => Err("'parse' is not for models".into()),
    }
}
