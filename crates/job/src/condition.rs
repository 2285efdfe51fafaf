//! Which records an aggregate takes: comparisons of fields.
//!
//! ```text
//! condition  := both ("or" both)*
//! both       := single ("and" single)*
//! single     := "not" single | "(" condition ")" | "exists" POINTER | POINTER ("==" | "!=" | "<" | "<=" | ">" | ">=") LITERAL
//! LITERAL    := number | "text" as in JSON, without escapes but \" and \\ | true | false
//! ```

use crate::names;
use crate::report::Flaw;
use tidegate_core::job::{Comparison, Condition, Literal};

const MAX_DEPTH: usize = 32;
const EXAMPLE: &str = "write it as in `/status >= 500 and not /type == \"test\"`";

/// Reads a condition.
pub(crate) fn parse(text: &str) -> Result<Condition, Flaw> {
    let mut reader = Reader { rest: text, depth: 0 };
    let condition = reader.condition()?;
    match reader.peek() {
        "" => Ok(condition),
        word => Err(flaw(format!("does not go on with `{}`", word.escape_debug()))),
    }
}

fn flaw(what: String) -> Flaw {
    Flaw::new(what, EXAMPLE)
}

struct Reader<'a> {
    rest: &'a str,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn condition(&mut self) -> Result<Condition, Flaw> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Flaw::new(format!("is nested deeper than {MAX_DEPTH} levels"), "make it flatter"));
        }
        let any = self.list("or", Self::both, Condition::Any)?;
        self.depth -= 1;
        Ok(any)
    }

    fn both(&mut self) -> Result<Condition, Flaw> {
        self.list("and", Self::single, Condition::All)
    }

    fn list(
        &mut self,
        between: &str,
        mut item: impl FnMut(&mut Self) -> Result<Condition, Flaw>,
        of: impl FnOnce(Vec<Condition>) -> Condition,
    ) -> Result<Condition, Flaw> {
        let first = item(self)?;
        if self.peek() != between {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.peek() == between {
            self.next();
            items.push(item(self)?);
        }
        Ok(of(items))
    }

    fn single(&mut self) -> Result<Condition, Flaw> {
        match self.next() {
            "not" => {
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    return Err(Flaw::new(
                        format!("is nested deeper than {MAX_DEPTH} levels"),
                        "make it flatter",
                    ));
                }
                let negated = self.single()?;
                self.depth -= 1;
                Ok(Condition::Not(Box::new(negated)))
            }
            "(" => {
                let inner = self.condition()?;
                match self.next() {
                    ")" => Ok(inner),
                    word => Err(flaw(format!("expected `)`, found {}", shown(word)))),
                }
            }
            "exists" => Ok(Condition::Exists(pointer(self.next())?)),
            word => {
                let pointer = pointer(word)?;
                let comparison = match self.next() {
                    "==" => Comparison::Equal,
                    "!=" => Comparison::NotEqual,
                    "<" => Comparison::Less,
                    "<=" => Comparison::AtMost,
                    ">" => Comparison::Greater,
                    ">=" => Comparison::AtLeast,
                    word => {
                        let known = "==, !=, <, <=, > or >=";
                        return Err(flaw(format!(
                            "expected {known} behind `{pointer}`, found {}",
                            shown(word)
                        )));
                    }
                };
                let literal = literal(self.next())?;
                if matches!(literal, Literal::Boolean(_))
                    && !matches!(comparison, Comparison::Equal | Comparison::NotEqual)
                {
                    return Err(flaw(format!("`{pointer}` is compared with true or false by `<` or `>`")));
                }
                Ok(Condition::Compare { pointer, comparison, literal })
            }
        }
    }

    /// The next word, which stays; empty at the end.
    fn peek(&mut self) -> &'a str {
        self.rest = self.rest.trim_start();
        let end = match self.rest.as_bytes() {
            [b'"', ..] => end_of_text(self.rest),
            [b'=' | b'!' | b'<' | b'>', b'=', ..] => 2,
            [b'=' | b'!' | b'<' | b'>' | b'(' | b')', ..] => 1,
            _ => self
                .rest
                .find(|c: char| c.is_whitespace() || "=!<>()\"".contains(c))
                .unwrap_or(self.rest.len()),
        };
        self.rest.get(..end).unwrap_or(self.rest)
    }

    fn next(&mut self) -> &'a str {
        let word = self.peek();
        self.rest = self.rest.get(word.len()..).unwrap_or_default();
        word
    }
}

/// Where the text that begins with a quote ends.
fn end_of_text(text: &str) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn shown(word: &str) -> String {
    if word.is_empty() { "the end".to_owned() } else { format!("`{}`", word.escape_debug()) }
}

fn pointer(word: &str) -> Result<String, Flaw> {
    if !word.starts_with('/') {
        return Err(flaw(format!("expected a field as in `/status`, found {}", shown(word))));
    }
    names::pointer(word).map(|()| word.to_owned())
}

fn literal(word: &str) -> Result<Literal, Flaw> {
    if let Some(inner) = word.strip_prefix('"') {
        let inner = inner.strip_suffix('"').ok_or_else(|| flaw(format!("{} has no end", shown(word))))?;
        let mut text = String::new();
        let mut characters = inner.chars();
        while let Some(character) = characters.next() {
            text.push(match character {
                '\\' => match characters.next() {
                    Some(escaped @ ('"' | '\\')) => escaped,
                    _ => {
                        return Err(flaw(format!(
                            "{} escapes something else than `\"` and `\\`",
                            shown(word)
                        )));
                    }
                },
                other => other,
            });
        }
        return Ok(Literal::Text(text));
    }
    match word {
        "true" => return Ok(Literal::Boolean(true)),
        "false" => return Ok(Literal::Boolean(false)),
        _ => {}
    }
    let (whole, places) = word.split_once('.').unwrap_or((word, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_number = digits(whole.strip_prefix('-').unwrap_or(whole))
        && !whole.is_empty()
        && digits(places)
        && word.ends_with(|last: char| last.is_ascii_digit());
    let units = format!("{whole}{places}").parse().ok().filter(|_| is_number);
    match (units, u32::try_from(places.len())) {
        (Some(units), Ok(scale)) => Ok(Literal::Number { units, scale }),
        _ => Err(flaw(format!(
            "expected a number of at most 18 digits, \"text\", true or false, found {}",
            shown(word)
        ))),
    }
}
