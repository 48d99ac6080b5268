//! A picture as one page that needs nothing else: no network, no other file.
//!
//! The page's data is JSON in a script element of its own, with every character escaped that could end it, and the
//! page's script puts what it reads there into text nodes only. So nothing in a model can become markup or code.

use serde_json::{Value, json};

use super::layout::{Item, Layout, Pin, layout};
use super::{Kind, Picture};

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// As many layers are closed at first as soon as there are this many.
const CLOSED_FROM: usize = 3;
/// A node's height, with two lines of text.
const HEIGHT: f64 = 38.0;
/// Width of a character in a node's first line, at the page's font size, and in its second line.
const CHAR: (f64, f64) = (7.0, 6.05);
/// Widest and narrowest node.
const WIDTHS: (f64, f64) = (64.0, 250.0);

/// The page.
pub fn render(p: &Picture) -> String {
    let parts = [
        ("@TITLE@", escape(&p.title)),
        ("@STYLE@", STYLE.to_string()),
        ("@DATA@", script_safe(&data(p))),
        ("@SCRIPT@", SCRIPT.to_string()),
    ];
    // One pass over the template: what a part brings is never searched for the next.
    let mut out = String::new();
    let mut rest = PAGE;
    for (mark, text) in parts {
        let (before, after) = rest.split_once(mark).unwrap_or((rest, ""));
        out += before;
        out += &text;
        rest = after;
    }
    out + rest
}

/// What the script draws.
fn data(p: &Picture) -> Value {
    let layers = p.groups.iter().filter(|g| g.layer).count();
    let nodes: Vec<Value> = p
        .nodes
        .iter()
        .map(|n| {
            json!({
                "name": n.name, "title": n.title, "kind": n.kind.name(), "type": n.ty, "shape": n.shape, "ir": n.ir,
                "source": n.source.as_ref().map(|s| [&s.0, &s.1]), "multiplyAdds": n.multiply_adds,
                "parameters": n.parameters, "group": n.group, "constant": n.constant, "operands": n.operands,
            })
        })
        .collect();
    let groups: Vec<Value> = p
        .groups
        .iter()
        .enumerate()
        .map(|(i, g)| {
            let layouts = [false, true].map(|constants| group_layout(p, i, constants));
            json!({
                "title": g.title, "layer": g.layer, "parameters": g.parameters,
                "sameAs": g.same_as, "open": !g.layer || layers < CLOSED_FROM,
                "ops": g.nodes.iter().filter(|&&n| !p.nodes[n].constant && p.nodes[n].kind != Kind::Port).count(),
                "layouts": layouts,
            })
        })
        .collect();
    let facts: Vec<Value> = p.facts.iter().map(|(k, v)| json!([k, v])).collect();
    let kinds: Vec<&str> = Kind::ALL.iter().map(|k| k.1).collect();
    json!({"title": p.title, "facts": facts, "kinds": kinds, "nodes": nodes, "groups": groups})
}

/// One group's places. Edges from earlier groups enter through points on its upper border, those to later ones leave
/// through its lower one.
fn group_layout(p: &Picture, group: usize, constants: bool) -> Value {
    let g = Boundary::new(p, group, constants);
    let l = layout(&g.items, &g.edges);
    g.json(&l)
}

/// A group's nodes with its entries before and its exits behind them.
struct Boundary {
    /// The node of each item; for entries and exits the one outside or inside that they stand for.
    node: Vec<usize>,
    items: Vec<Item>,
    edges: Vec<(usize, usize)>,
}

impl Boundary {
    fn new(p: &Picture, group: usize, constants: bool) -> Boundary {
        let inside = |n: usize| p.nodes[n].group == group;
        let edges: Vec<_> = p.edges(constants).into_iter().filter(|e| inside(e.0) || inside(e.1)).collect();
        let pinned = |pin| Item { width: 8.0, height: 0.0, pin };
        let mut b = Boundary { node: Vec::new(), items: Vec::new(), edges: Vec::new() };
        let mut entries: Vec<usize> = edges.iter().filter(|e| !inside(e.0)).map(|e| e.0).collect();
        entries.sort_unstable();
        entries.dedup();
        entries.iter().for_each(|&n| b.push(n, pinned(Pin::Top)));
        for &n in p.groups[group].nodes.iter().filter(|&&n| constants || !p.nodes[n].constant) {
            let node = &p.nodes[n];
            let text = (node.title.chars().count() as f64 * CHAR.0).max(node.shape.chars().count() as f64 * CHAR.1);
            let width = (text + 22.0).clamp(WIDTHS.0, WIDTHS.1).round();
            b.push(n, Item { width, height: HEIGHT, pin: Pin::Free });
        }
        let first_exit = b.node.len();
        let mut exits: Vec<usize> = edges.iter().filter(|e| !inside(e.1)).map(|e| e.0).collect();
        exits.sort_unstable();
        exits.dedup();
        exits.iter().for_each(|&n| b.push(n, pinned(Pin::Bottom)));
        let place = |n: usize| b.node[..first_exit].iter().position(|&x| x == n);
        let mut list: Vec<(usize, usize)> = Vec::new();
        for &(from, to) in edges.iter().filter(|e| inside(e.1)) {
            list.extend(place(from).zip(place(to)));
        }
        list.extend(exits.iter().enumerate().filter_map(|(i, &n)| Some((place(n)?, first_exit + i))));
        b.edges = list;
        b
    }

    fn push(&mut self, node: usize, item: Item) {
        self.node.push(node);
        self.items.push(item);
    }

    fn json(&self, l: &Layout) -> Value {
        let of = |pin: Pin| -> Vec<Value> {
            let items = self.items.iter().enumerate().filter(|(_, item)| item.pin == pin);
            let place = |i: usize, item: &Item| match pin {
                Pin::Free => json!([self.node[i], l.at[i].0, l.at[i].1, item.width, item.height]),
                _ => json!([self.node[i], l.at[i].0 + item.width / 2.0]),
            };
            items.map(|(i, item)| place(i, item)).collect()
        };
        let edges: Vec<Value> = l
            .routes
            .iter()
            .map(|r| {
                let end = if self.items[r.to].pin == Pin::Bottom { json!(null) } else { json!(self.node[r.to]) };
                let points: Vec<f64> = r.points.iter().flat_map(|p| [p.0, p.1]).collect();
                json!([self.node[r.from], end, points])
            })
            .collect();
        json!({
            "width": l.width, "height": l.height, "nodes": of(Pin::Free), "entries": of(Pin::Top),
            "exits": of(Pin::Bottom), "edges": edges,
        })
    }
}

/// Text for an element's contents.
pub(crate) fn escape(s: &str) -> String {
    s.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

/// JSON that can't end the script element it is in, nor open a comment in it.
fn script_safe(v: &Value) -> String {
    let mut out = String::new();
    for c in v.to_string().chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out += &format!("\\u{:04x}", c as u32),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::layout::tests::check;
    use crate::picture::tests::model;

    /// The page's data, read as a browser does: up to the first end tag.
    fn read(page: &str) -> Value {
        let start = "<script type=\"application/json\" id=\"data\">";
        let from = page.find(start).expect("there is data") + start.len();
        let to = from + page[from..].find("</script").expect("the data end");
        serde_json::from_str(&page[from..to]).unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn nothing_of_a_model_becomes_markup() {
        for name in ["</script><script>alert(1)</script>", "<!--<script>", "\"'&<>\u{2028}", "@DATA@ @SCRIPT@"] {
            let p = Picture::new(&model(1, name), name, "imported");
            let page = render(&p);
            let harmless = render(&Picture::new(&model(1, "x"), "x", "imported"));
            for tag in ["<script", "</script", "<!--", "<title", "<style"] {
                assert_eq!(page.matches(tag).count(), harmless.matches(tag).count(), "{name}: {tag}");
            }
            let data = read(&page);
            assert_eq!(data["title"], name);
            assert_eq!(data["nodes"][0]["shape"], name);
        }
    }

    #[test]
    fn the_page_needs_nothing_else() {
        let page = render(&Picture::new(&model(3, "x"), "m", "imported"));
        for part in ["http:", "https:", "src=", "@import", "url(", "fetch(", "innerHTML", "eval("] {
            let svg = page.matches("http://www.w3.org/2000/svg").count();
            let found = page.matches(part).count() - if part == "http:" { svg } else { 0 };
            assert_eq!(found, 0, "{part}");
        }
    }

    #[test]
    fn many_layers_are_closed_and_few_open() {
        for (layers, open) in [(2, true), (3, false)] {
            let data = read(&render(&Picture::new(&model(layers, "x"), "m", "imported")));
            let groups = data["groups"].as_array().unwrap();
            assert!(groups.iter().all(|g| g["open"] == (g["layer"] == false || open)));
        }
    }

    #[test]
    fn groups_keep_the_invariants_of_layouts_and_join() {
        let p = Picture::new(&model(4, "x"), "m", "imported");
        for constants in [false, true] {
            let sides: Vec<_> = (0..p.groups.len()).map(|i| Boundary::new(&p, i, constants)).collect();
            for b in &sides {
                check(&b.items, &b.edges, &layout(&b.items, &b.edges));
            }
            // Each edge between groups leaves one and enters the other.
            for (from, to) in p.edges(constants).into_iter().filter(|e| p.nodes[e.0].group != p.nodes[e.1].group) {
                let has = |group: usize, pin: Pin| {
                    let b = &sides[group];
                    b.items.iter().zip(&b.node).any(|(i, n)| i.pin == pin && *n == from)
                };
                assert!(has(p.nodes[from].group, Pin::Bottom) && has(p.nodes[to].group, Pin::Top));
            }
        }
    }
}
