//! A step of a pipeline, and pipelines as text: `canonicalise{max-iterations=3},dce`.

use std::fmt;

use bertc_ir::{Diag, Loc};

use crate::pass::{Pass, PassOption};
use crate::registry::Entry;

/// A pass and what it is asked for.
#[derive(Clone)]
pub struct Step {
    /// The pass.
    pub pass: &'static (dyn Pass + Sync),
    /// The options that were given, by name.
    pub options: Vec<(&'static str, u64)>,
}

impl Step {
    /// The pass called `name`, without options.
    ///
    /// # Errors
    /// There is none in `table`; then its nearest neighbour and all are named.
    pub fn named(name: &str, table: &'static [Entry]) -> Result<Step, Diag> {
        let found = table.iter().find(|e| e.pass.name() == name);
        found.map(|e| Step { pass: e.pass, options: Vec::new() }).ok_or_else(|| {
            let known: Vec<_> = table.iter().map(|e| e.pass.name()).collect();
            unknown("pass", name, &known).note(format!("known passes: {}", known.join(", ")))
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.pass.name())?;
        if self.options.is_empty() {
            return Ok(());
        }
        let options: Vec<_> = self.options.iter().map(|(name, value)| format!("{name}={value}")).collect();
        write!(f, "{{{}}}", options.join(";"))
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A complaint about a name that nothing has, with the one that was perhaps meant.
pub fn unknown(what: &str, name: &str, known: &[&str]) -> Diag {
    let diag = Diag::new(format!("unknown {what} '{name}'"));
    let nearest = known.iter().map(|k| (strsim::damerau_levenshtein(name, k), k)).min();
    match nearest {
        // A third of the letters may be wrong.
        Some((distance, k)) if distance * 3 <= name.len().max(k.len()) => diag.note(format!("did you mean '{k}'?")),
        _ => diag,
    }
}

/// The steps that a text such as `a,b{option=1;other=2},c` names. Blanks are allowed between its parts.
///
/// # Errors
/// Every unknown pass or option and every wrong value, or the place where the form is wrong; locations are spans of
/// `text`.
pub fn parse(text: &str, table: &'static [Entry]) -> Result<Vec<Step>, Vec<Diag>> {
    let mut p = Parser { text, at: 0, table, diags: Vec::new() };
    let mut steps = Vec::new();
    loop {
        match p.step() {
            Ok(step) => steps.extend(step),
            Err(d) => {
                p.diags.push(d);
                return Err(p.diags);
            }
        }
        p.blanks();
        match p.peek() {
            None if p.diags.is_empty() => return Ok(steps),
            None => return Err(p.diags),
            Some(',') => p.at += 1,
            Some(_) => {
                let d = p.expected("',' or the end");
                p.diags.push(d);
                return Err(p.diags);
            }
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    table: &'static [Entry],
    diags: Vec<Diag>,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn blanks(&mut self) {
        self.at = self.text.len() - self.text[self.at..].trim_start().len();
    }

    fn expected(&self, what: &str) -> Diag {
        let end = self.at + self.peek().map_or(0, char::len_utf8);
        let found = self.peek().map_or("the end".to_string(), |c| format!("'{c}'"));
        Diag::new(format!("expected {what}, found {found}")).at(Loc::Text { start: self.at, end })
    }

    /// A name or a number.
    fn word(&mut self, what: &str) -> Result<(&'a str, Loc), Diag> {
        self.blanks();
        let start = self.at;
        let rest = &self.text[start..];
        let len = rest.find(|c: char| !(c.is_alphanumeric() || "-_.+".contains(c))).unwrap_or(rest.len());
        if len == 0 {
            return Err(self.expected(what));
        }
        self.at += len;
        Ok((&rest[..len], Loc::Text { start, end: self.at }))
    }

    fn token(&mut self, c: char) -> bool {
        self.blanks();
        let found = self.peek() == Some(c);
        self.at += if found { c.len_utf8() } else { 0 };
        found
    }

    /// A step; nothing, if it was well-formed and wrong.
    fn step(&mut self) -> Result<Option<Step>, Diag> {
        let (name, loc) = self.word("a pass's name")?;
        let step = Step::named(name, self.table).map_err(|d| self.diags.push(d.at(loc))).ok();
        let mut options = Vec::new();
        if self.token('{') {
            loop {
                let (name, loc) = self.word("an option's name")?;
                if !self.token('=') {
                    return Err(self.expected("'=' and the option's value"));
                }
                let (value, value_loc) = self.word("the option's value")?;
                if let Some(step) = &step {
                    match option(step.pass, (name, loc), (value, value_loc), &options) {
                        Ok(o) => options.push(o),
                        Err(d) => self.diags.push(d),
                    }
                }
                if self.token('}') {
                    break;
                }
                if !self.token(';') {
                    return Err(self.expected("';' or '}'"));
                }
            }
        }
        Ok(step.map(|s| Step { options, ..s }))
    }
}

fn option(
    pass: &dyn Pass,
    (name, loc): (&str, Loc),
    (value, value_loc): (&str, Loc),
    given: &[(&'static str, u64)],
) -> Result<(&'static str, u64), Diag> {
    let known: &[PassOption] = pass.options();
    let names: Vec<_> = known.iter().map(|o| o.name).collect();
    let Some(&found) = names.iter().find(|n| **n == name) else {
        let all = match names[..] {
            [] => format!("'{}' has no options", pass.name()),
            _ => format!("options of '{}': {}", pass.name(), names.join(", ")),
        };
        return Err(unknown(&format!("option of the pass '{}':", pass.name()), name, &names).note(all).at(loc));
    };
    if given.iter().any(|o| o.0 == found) {
        return Err(Diag::new(format!("the option '{found}' is given twice")).at(loc));
    }
    let wrong = |_| Diag::new(format!("the option '{found}' is a number, not '{value}'")).at(value_loc);
    Ok((found, value.parse().map_err(wrong)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::PASSES;

    fn errors(text: &str) -> Vec<(usize, usize, String)> {
        let place = |d: Diag| match d.loc {
            Loc::Text { start, end } => (start, end, d.message),
            _ => panic!("{d} has no place"),
        };
        parse(text, PASSES).unwrap_err().into_iter().map(place).collect()
    }

    #[test]
    fn what_is_parsed_is_printed() {
        for text in ["dce", "dce,cse,dce", "canonicalise{max-iterations=3},fold-constants{max-bytes=0},dce"] {
            let steps: Vec<_> = parse(text, PASSES).unwrap().iter().map(Step::to_string).collect();
            assert_eq!(steps.join(","), text);
        }
        let blanks = " dce ,\ncanonicalise { max-iterations = 3 } ";
        assert_eq!(format!("{:?}", parse(blanks, PASSES).unwrap()), "[dce, canonicalise{max-iterations=3}]");
    }

    #[test]
    fn mistakes_have_places() {
        for (text, start, end, message) in [
            ("", 0, 0, "expected a pass's name, found the end"),
            ("dce,", 4, 4, "expected a pass's name, found the end"),
            ("dce,,cse", 4, 5, "expected a pass's name, found ','"),
            ("dce cse", 4, 5, "expected ',' or the end, found 'c'"),
            ("dce}", 3, 4, "expected ',' or the end, found '}'"),
            ("canonicalise{", 13, 13, "expected an option's name, found the end"),
            ("canonicalise{}", 13, 14, "expected an option's name, found '}'"),
            ("canonicalise{max-iterations}", 27, 28, "expected '=' and the option's value, found '}'"),
            ("canonicalise{max-iterations=1", 29, 29, "expected ';' or '}', found the end"),
            ("canonicalise{max-iterations=-1}", 28, 30, "the option 'max-iterations' is a number, not '-1'"),
            ("canonicalise{max-iterations=1;max-iterations=2}", 30, 44, "the option 'max-iterations' is given twice"),
            ("dce{x=1}", 4, 5, "unknown option of the pass 'dce': 'x'"),
            ("dcé", 0, 4, "unknown pass 'dcé'"),
            ("dce,→", 4, 7, "expected a pass's name, found '→'"),
        ] {
            assert_eq!(errors(text), [(start, end, message.to_string())], "{text}");
        }
    }

    #[test]
    fn several_mistakes_are_told_at_once_with_what_was_meant() {
        let found = parse("fuse-gel,dce,canonicalise{max-iteration=1;max-iterations=x},xyzzy", PASSES).unwrap_err();
        let notes: Vec<_> = found.iter().map(|d| d.notes.first().map_or("", String::as_str)).collect();
        assert_eq!(found.len(), 4, "{found:?}");
        assert_eq!(notes[0], "did you mean 'fuse-gelu'?");
        assert_eq!(notes[1], "did you mean 'max-iterations'?");
        assert_eq!(found[1].notes[1], "options of 'canonicalise': max-iterations");
        assert!(notes[3].starts_with("known passes: canonicalise, cse, dce"), "{}", notes[3]);
    }
}
