//! Finds groups that are the same but for the values of their weights.

use std::collections::HashMap;

use super::Node;

/// The groups seen so far, by what they look like.
#[derive(Default)]
pub(super) struct Same(HashMap<String, usize>);

impl Same {
    /// The first group that looks like `group`, if there is one before it.
    pub fn first(&mut self, group: usize, nodes: &[Node], members: &[usize]) -> Option<usize> {
        let look = look(nodes, members);
        match self.0.get(&look) {
            Some(&first) => Some(first),
            None => {
                self.0.insert(look, group);
                None
            }
        }
    }
}

/// Ops, attributes and types of a group's nodes and how they are joined, without names. Operands from outside are
/// numbered as they come, so that groups which use them alike look alike. A constant is its type alone.
fn look(nodes: &[Node], members: &[usize]) -> String {
    let shown = members.iter().copied().filter(|&n| !nodes[n].constant);
    let place: HashMap<usize, usize> = shown.clone().enumerate().map(|(i, n)| (n, i)).collect();
    let mut outside: Vec<usize> = Vec::new();
    let mut text = String::new();
    for n in shown.map(|n| &nodes[n]) {
        text += &format!("{} {} {} (", n.title, attributes(&n.ir), n.ty);
        for &o in &n.operands {
            text += &match place.get(&o) {
                _ if nodes[o].constant => format!("constant {}, ", nodes[o].ty),
                Some(i) => format!("{i}, "),
                None => {
                    let at = outside.iter().position(|&x| x == o).unwrap_or_else(|| {
                        outside.push(o);
                        outside.len() - 1
                    });
                    format!("outside {at}, ")
                }
            };
        }
        text += ")\n";
    }
    text
}

/// The attributes of a line of tensor IR.
fn attributes(line: &str) -> &str {
    match (line.find(" {"), line.rfind('}')) {
        (Some(a), Some(b)) if a < b => &line[a..=b],
        _ => "",
    }
}
