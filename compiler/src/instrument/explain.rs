//! `--explain`: the passes' remarks, grouped so that twelve equal layers are one line.

use std::collections::BTreeSet;

use bertc_passes::{Remark, RemarkKind};

/// The remarks, by pass, then by what was said.
pub fn explain(remarks: &[Remark]) -> String {
    let mut text = String::new();
    let mut passes: Vec<&str> = Vec::new();
    for r in remarks {
        if !passes.contains(&r.pass) {
            passes.push(r.pass);
        }
    }
    for pass in passes {
        text += &format!("{pass}\n");
        let mut of: Vec<&Remark> = remarks.iter().filter(|r| r.pass == pass).collect();
        of.sort_by_key(|r| r.kind);
        let mut said: Vec<(RemarkKind, &str, &str)> = Vec::new();
        for r in &of {
            let key = (r.kind, r.op, r.reason.as_str());
            if !said.contains(&key) {
                said.push(key);
            }
        }
        for (kind, op, reason) in said {
            let same = of.iter().filter(|r| (r.kind, r.op, r.reason.as_str()) == (kind, op, reason));
            let places: Vec<String> = same.map(|r| r.place()).collect();
            let word = match kind {
                RemarkKind::Applied => "applied",
                RemarkKind::Missed => "missed",
                RemarkKind::Note => "note",
            };
            text += &format!("  {word}: {op}, {}: {reason}\n", times(places.len()));
            for (places, n) in folded(&places) {
                let n = if n == 1 { String::new() } else { format!(" ({n})") };
                text += &format!("    {places}{n}\n");
            }
        }
    }
    if text.is_empty() {
        text = "no pass had anything to explain\n".to_string();
    }
    text
}

fn times(n: usize) -> String {
    if n == 1 { "once".to_string() } else { format!("{n} times") }
}

/// Names that differ in their numbers only, as one: `/layer.{0..11}/Add`. With each the number of names.
fn folded(names: &[String]) -> Vec<(String, usize)> {
    let mut groups: Vec<(Vec<&str>, Vec<Vec<&str>>)> = Vec::new();
    for name in names {
        let (words, numbers) = split(name);
        match groups.iter_mut().find(|g| g.0 == words) {
            Some(g) => g.1.push(numbers),
            None => groups.push((words, vec![numbers])),
        }
    }
    groups
        .into_iter()
        .map(|(words, all)| {
            let mut text = words[0].to_string();
            for (i, word) in words[1..].iter().enumerate() {
                text += &span(&all.iter().map(|n| n[i]).collect());
                text += word;
            }
            (text, all.len())
        })
        .collect()
}

/// A name's parts between its numbers, and those.
fn split(name: &str) -> (Vec<&str>, Vec<&str>) {
    let (mut words, mut numbers, mut rest) = (Vec::new(), Vec::new(), name);
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let len = rest[at..].find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len() - at);
        words.push(&rest[..at]);
        numbers.push(&rest[at..at + len]);
        rest = &rest[at + len..];
    }
    words.push(rest);
    (words, numbers)
}

/// Different numbers in braces.
fn span(numbers: &BTreeSet<&str>) -> String {
    if let (Some(only), 1) = (numbers.first(), numbers.len()) {
        return (*only).to_string();
    }
    let mut values: Vec<u64> = numbers.iter().filter_map(|n| n.parse().ok()).collect();
    values.sort_unstable();
    match values[..] {
        [first, .., last] if values.len() == numbers.len() && last - first == values.len() as u64 - 1 => {
            format!("{{{first}..{last}}}")
        }
        _ if values.len() == numbers.len() => {
            let all: Vec<_> = values.iter().map(ToString::to_string).collect();
            format!("{{{}}}", all.join(","))
        }
        _ => format!("{{{}}}", numbers.iter().copied().collect::<Vec<_>>().join(",")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bertc_ir::{Loc, ValueId};

    fn remark(kind: RemarkKind, name: &str, reason: &str) -> Remark {
        let loc = match name {
            "" => Loc::Unknown,
            _ => node(name),
        };
        Remark { pass: "fuse-x", kind, op: "mul", value: ValueId(7), loc, reason: reason.into() }
    }

    fn node(name: &str) -> Loc {
        Loc::node(name, "Mul")
    }

    #[test]
    fn equal_layers_are_one_line() {
        use RemarkKind::{Applied, Missed};
        let mut all = vec![remark(Missed, "", "eps is not a constant")];
        all.extend((0..12).map(|i| remark(Applied, &format!("/layer.{i}/Mul_1"), "fused into 'gelu'")));
        all.extend([3, 9].map(|i| remark(Applied, &format!("Mul_{i}"), "fused into 'gelu'")));
        let expected = "fuse-x
  applied: mul, 14 times: fused into 'gelu'
    /layer.{0..11}/Mul_1 (12)
    Mul_{3,9} (2)
  missed: mul, once: eps is not a constant
    %7
";
        assert_eq!(explain(&all), expected);
        assert!(explain(&[]).contains("no pass"));
    }
}
