//! Tokens of the IR text.

use std::fmt;

use crate::diag::{Diag, Loc};

/// What a token is.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Tok<'a> {
    /// An identifier or keyword.
    Ident(&'a str),
    /// `%name`, `%7` or `%"any name"`, without the percent sign.
    Value(String),
    /// `@name` or `@"any name"`, without the at sign.
    Func(String),
    /// An unsigned number as written: decimal, float or `0x` hex.
    Number(&'a str),
    /// A quoted string, unescaped.
    Str(String),
    /// Punctuation.
    Punct(&'static str),
    /// End of the text.
    End,
}

impl fmt::Display for Tok<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tok::Ident(s) | Tok::Number(s) => write!(f, "'{s}'"),
            Tok::Value(s) => write!(f, "'%{s}'"),
            Tok::Func(s) => write!(f, "'@{s}'"),
            Tok::Str(_) => f.write_str("a string"),
            Tok::Punct(p) => write!(f, "'{p}'"),
            Tok::End => f.write_str("the end of the text"),
        }
    }
}

/// A token with its place.
#[derive(Clone, Debug)]
pub(crate) struct Token<'a> {
    /// What it is.
    pub tok: Tok<'a>,
    /// Byte offset of its first character.
    pub start: usize,
    /// Byte offset past its last character.
    pub end: usize,
    /// Whether it is the first one on its line.
    pub first: bool,
}

impl Token<'_> {
    /// Its place.
    pub fn loc(&self) -> Loc {
        Loc::text(self.start, self.end)
    }
}

/// Longest first, so that a prefix does not win.
const PUNCTUATION: [&str; 16] = ["..=", "->", "(", ")", "{", "}", "[", "]", "<", ">", ",", ":", "=", "+", "-", "*"];

pub(crate) fn is_ident_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

fn is_ident_part(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '.'
}

/// Whether `s` is written without quotes.
pub(crate) fn is_ident(s: &str) -> bool {
    s.starts_with(is_ident_start) && s.chars().all(is_ident_part)
}

/// `s` in quotes, with escapes.
pub fn quote(s: &str) -> String {
    let mut out = String::from("\"");
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{{{:x}}}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

struct Lexer<'a> {
    src: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.src[self.at..]
    }

    fn take_while(&mut self, f: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let n = rest.find(|c| !f(c)).unwrap_or(rest.len());
        self.at += n;
        &rest[..n]
    }

    /// A string; the cursor is at its opening quote.
    fn string(&mut self) -> Result<String, String> {
        self.at += 1;
        let mut out = String::new();
        let mut chars = self.rest().char_indices();
        while let Some((i, c)) = chars.next() {
            match c {
                '"' => {
                    self.at += i + 1;
                    return Ok(out);
                }
                '\n' => break,
                '\\' => match chars.next().map(|(_, c)| c) {
                    Some(c @ ('"' | '\\')) => out.push(c),
                    Some('n') => out.push('\n'),
                    Some('t') => out.push('\t'),
                    Some('u') => {
                        let hex: String =
                            chars.by_ref().map(|(_, c)| c).skip(1).take_while(|&c| c != '}').take(8).collect();
                        let c = u32::from_str_radix(&hex, 16).ok().and_then(char::from_u32);
                        out.push(c.ok_or("bad unicode escape: write \\u{hex}")?);
                    }
                    _ => return Err("unknown escape in a string".to_string()),
                },
                c => out.push(c),
            }
        }
        Err("unterminated string".to_string())
    }

    fn number(&mut self) -> &'a str {
        let start = self.at;
        if self.rest().starts_with("0x") {
            self.at += 2;
            self.take_while(|c| c.is_ascii_hexdigit());
            return &self.src[start..self.at];
        }
        self.take_while(|c| c.is_ascii_digit());
        let digit_at = |s: &str, i: usize| s.as_bytes().get(i).is_some_and(u8::is_ascii_digit);
        // `1..=64` is a range, not a float.
        if self.rest().starts_with('.') && digit_at(self.rest(), 1) {
            self.at += 1;
            self.take_while(|c| c.is_ascii_digit());
        }
        let rest = self.rest();
        if rest.starts_with(['e', 'E']) {
            let sign = usize::from(rest[1..].starts_with(['+', '-']));
            if digit_at(rest, 1 + sign) {
                self.at += 1 + sign;
                self.take_while(|c| c.is_ascii_digit());
            }
        }
        &self.src[start..self.at]
    }

    /// What follows a sigil: a quoted string, an identifier or a number.
    fn name(&mut self) -> Result<String, String> {
        self.at += 1;
        if self.rest().starts_with('"') {
            return self.string();
        }
        let s = self.take_while(is_ident_part);
        if s.is_empty() { Err("expected a name".to_string()) } else { Ok(s.to_string()) }
    }

    fn token(&mut self, c: char) -> Result<Tok<'a>, String> {
        Ok(match c {
            '%' => Tok::Value(self.name()?),
            '@' => Tok::Func(self.name()?),
            '"' => Tok::Str(self.string()?),
            c if c.is_ascii_digit() => Tok::Number(self.number()),
            c if is_ident_start(c) => Tok::Ident(self.take_while(is_ident_part)),
            '^' => {
                self.at += 1;
                Tok::Punct("^")
            }
            c => {
                let rest = self.rest();
                let p = PUNCTUATION.into_iter().find(|p| rest.starts_with(p));
                self.at += p.map_or(c.len_utf8(), str::len);
                Tok::Punct(p.ok_or_else(|| format!("unexpected character {c:?}"))?)
            }
        })
    }
}

/// The tokens of `src`, ending in [`Tok::End`]. A bad character is reported and left out.
pub(crate) fn lex(src: &str) -> (Vec<Token<'_>>, Vec<Diag>) {
    let (mut l, mut tokens, mut diags) = (Lexer { src, at: 0 }, Vec::new(), Vec::new());
    let mut first = true;
    while let Some(c) = l.rest().chars().next() {
        if c.is_whitespace() {
            first |= c == '\n';
            l.at += c.len_utf8();
        } else if l.rest().starts_with("//") {
            l.take_while(|c| c != '\n');
        } else {
            let start = l.at;
            match l.token(c) {
                Ok(tok) => {
                    tokens.push(Token { tok, start, end: l.at, first });
                    first = false;
                }
                Err(m) => {
                    l.at = l.at.max(start + c.len_utf8());
                    diags.push(Diag::new(m).at(Loc::Text { start, end: l.at }));
                }
            }
        }
    }
    tokens.push(Token { tok: Tok::End, start: src.len(), end: src.len(), first: true });
    (tokens, diags)
}
