//! A picture as a file for Graphviz: a cluster for each layer.

use super::{Kind, Picture};

/// The text for `dot`.
pub fn render(p: &Picture) -> String {
    let mut text = format!(
        "digraph {} {{\n  rankdir = TB;\n  compound = true;\n  label = {};\n",
        quote(&p.title),
        quote(&p.facts.first().map_or_else(|| p.title.clone(), |f| format!("{}: {}", p.title, f.1)))
    );
    text += "  node [shape = box, style = \"rounded,filled\", fontname = \"Helvetica\", fontsize = 10];\n";
    text += "  edge [color = \"#7a7f87\", arrowsize = 0.6];\n";
    for (i, g) in p.groups.iter().enumerate() {
        let indent = if g.layer { "    " } else { "  " };
        if g.layer {
            let same = g.same_as.map_or_else(String::new, |s| format!(", same as {}", p.groups[s].title));
            text += &format!("  subgraph cluster_{i} {{\n    label = {};\n", quote(&format!("{}{same}", g.title)));
            text += "    color = \"#9aa0a8\";\n    style = \"rounded\";\n";
        }
        for &n in g.nodes.iter().filter(|&&n| !p.nodes[n].constant) {
            let node = &p.nodes[n];
            let mut lines = vec![node.title.clone(), node.shape.clone()];
            if node.parameters > 0 {
                lines.push(format!("{} parameters", super::grouped(node.parameters)));
            }
            let tooltip = node.source.as_ref().map_or_else(|| node.ty.clone(), |s| format!("{} ({})", s.0, s.1));
            text += &format!(
                "{indent}n{n} [label = {}, fillcolor = \"{}\", tooltip = {}];\n",
                quote(&lines.join("\n")),
                colour(node.kind),
                quote(&tooltip)
            );
        }
        if g.layer {
            text += "  }\n";
        }
    }
    for (a, b) in p.edges(false) {
        text += &format!("  n{a} -> n{b};\n");
    }
    text + "}\n"
}

/// A quoted string of the DOT language. A backslash in it starts one of Graphviz's own escapes, so it is doubled.
fn quote(s: &str) -> String {
    let mut out = String::from("\"");
    for c in s.chars() {
        match c {
            '"' => out += "\\\"",
            '\\' => out += "\\\\",
            '\n' => out += "\\n",
            // Graphviz reads HTML entities in labels.
            '&' => out += "&amp;",
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out + "\""
}

fn colour(kind: Kind) -> &'static str {
    match kind {
        Kind::Port => "#e8eaed",
        Kind::Product => "#cfe0ff",
        Kind::Attention => "#ffd9b8",
        Kind::Norm => "#d3f0d8",
        Kind::Reduction => "#f6d3ea",
        Kind::Elementwise => "#fff3c4",
        Kind::Movement => "#e4dcf7",
        Kind::Constant => "#f1f1f1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::tests::model;

    /// Reads the language far enough to tell whether a text is one graph of known statements; the names of its nodes and
    /// its edges.
    fn parse(text: &str) -> (Vec<String>, Vec<(String, String)>) {
        // Strings first: what is left has no quotes, so braces and arrows in it are syntax.
        let mut bare = String::new();
        let (mut inside, mut escaped) = (false, false);
        for c in text.chars() {
            match (inside, c) {
                _ if escaped => escaped = false,
                (true, '\\') => escaped = true,
                (true, '"') => inside = false,
                (true, '\n') => panic!("a line ends in a string: {text}"),
                (true, _) => {}
                (false, '"') => {
                    inside = true;
                    bare.push('S');
                }
                (false, c) => bare.push(c),
            }
        }
        assert!(!inside && bare.starts_with("digraph S {") && bare.ends_with("}\n"), "{bare}");
        let (mut nodes, mut edges, mut depth) = (Vec::new(), Vec::new(), 0);
        for line in bare.lines().map(str::trim) {
            depth += line.matches('{').count();
            depth -= line.matches('}').count();
            if let Some((a, b)) = line.strip_suffix(';').and_then(|l| l.split_once(" -> ")) {
                edges.push((a.to_string(), b.to_string()));
            } else if let Some((name, rest)) = line.split_once(" [label = S") {
                assert!(rest.ends_with("];"), "{line}");
                nodes.push(name.to_string());
            } else {
                let known = line.ends_with('{') || line == "}" || line.ends_with(';');
                assert!(known, "{line}");
            }
        }
        assert_eq!(depth, 0);
        (nodes, edges)
    }

    #[test]
    fn the_text_is_a_graph_of_the_shown_nodes() {
        for name in ["x", "a\"]; } \\", "line\nbreak\u{1}", "<b>&lt;", "ünï"] {
            let p = Picture::new(&model(3, name), name, "imported");
            let text = render(&p);
            let (nodes, edges) = parse(&text);
            assert_eq!(nodes.len(), p.nodes.iter().filter(|n| !n.constant).count());
            assert_eq!(edges.len(), p.edges(false).len());
            assert!(edges.iter().all(|(a, b)| nodes.contains(a) && nodes.contains(b)));
            assert_eq!(text.matches("subgraph cluster_").count(), 3);
            assert!(text.contains("same as layer 0"));
        }
    }

    #[test]
    fn strings_are_escaped() {
        assert_eq!(quote("a\"b\\c\nd&e\u{7}"), "\"a\\\"b\\\\c\\nd&amp;e \"");
    }
}
