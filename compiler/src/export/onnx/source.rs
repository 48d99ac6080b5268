//! What the model that a graph came from called its constants. The importer doesn't keep those names, and passes make new
//! constants; so they are found again by what is in them, or by the node that reads them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bertc_ir::{Loc, Tensor};
use prost::Message;

use crate::import::onnx::load::{External, map_file};
use crate::import::onnx::proto::ModelProto;
use crate::import::onnx::tensor::constant;

/// The initializers of a model, by name.
#[derive(Debug, Default)]
pub struct Source {
    initializers: Vec<(String, Tensor)>,
    /// Those that a node reads, by the node's name.
    readers: HashMap<String, Vec<usize>>,
    /// Files of initializers beside the model.
    pub files: Vec<PathBuf>,
}

impl Source {
    /// Reads a model file; one that can't be read, as it is no model, has no names.
    pub fn open(path: &Path) -> Source {
        let Some(model) = map_file(path).ok().and_then(|bytes| ModelProto::decode(bytes).ok()) else {
            return Source::default();
        };
        let Some(graph) = model.graph else { return Source::default() };
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut external = External::new(Some(folder));
        let mut source = Source::default();
        let mut at = HashMap::new();
        for t in &graph.initializer {
            let locations = t.external_data.iter().filter(|e| e.key() == "location");
            for file in locations.map(|e| folder.join(e.value())) {
                if !source.files.contains(&file) {
                    source.files.push(file);
                }
            }
            if let Ok(v) = constant(t, &mut external)
                && let Some(found) = v.as_const()
            {
                at.insert(t.name(), source.initializers.len());
                source.initializers.push((t.name().to_string(), found.clone()));
            }
        }
        for n in &graph.node {
            let name = if n.name().is_empty() { n.output.first().map_or("", String::as_str) } else { n.name() };
            let reads: Vec<usize> = n.input.iter().filter_map(|i| at.get(i.as_str()).copied()).collect();
            source.readers.entry(name.to_string()).or_default().extend(reads);
        }
        source
    }

    /// What the model called a constant that is, or was, read at `loc`.
    pub fn name_of(&self, t: &Tensor, loc: &Loc) -> Option<String> {
        let same = |&i: &usize| self.initializers[i].1 == *t;
        let read = match loc {
            Loc::Node { name, .. } => self.readers.get(name).map_or(&[][..], Vec::as_slice),
            _ => &[],
        };
        let found = read.iter().copied().find(same);
        // Elements that all models have many of say nothing.
        let found = found.or_else(|| (0..self.initializers.len()).find(same).filter(|_| t.len() > 1));
        // What was pruned, or became integers: the only one of its shape there, or else of its rank.
        let only = |like: &dyn Fn(&Tensor) -> bool| {
            let mut alike = read.iter().copied().filter(|&i| like(&self.initializers[i].1));
            alike.next().filter(|_| alike.next().is_none() && t.len() > 1)
        };
        let found = found.or_else(|| only(&|o| o.shape() == t.shape()));
        let found = found.or_else(|| only(&|o| o.shape().len() == t.shape().len() && t.dtype() == o.dtype()));
        found.map(|i| self.initializers[i].0.clone())
    }
}
