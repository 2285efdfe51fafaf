//! A located tree into typed values, through serde.
//!
//! Unknown keys are collected, all of them, and left out; the first other error ends the decoding. Each error carries
//! the place and the path of the innermost node it is about. Nothing is coerced and a key without a value is refused:
//! "empty" never means "the default".

use crate::node::{Entry, Node, Value};
use crate::report::{Position, Problem, listed, suggestion};
use serde::de::{self, DeserializeSeed, Deserializer, Expected, IntoDeserializer, Unexpected, Visitor};
use std::cell::RefCell;
use std::fmt;

/// Reads `T` out of `root`, adding what is wrong to `problems`; `None` when there is no whole `T`.
pub(crate) fn decode<T: de::DeserializeOwned>(root: &Node, problems: &mut Vec<Problem>) -> Option<T> {
    let unknown = RefCell::new(Vec::new());
    let decoded = T::deserialize(Decoder { node: root, path: String::new(), unknown: &unknown });
    problems.append(&mut unknown.into_inner());
    match decoded {
        Ok(value) => Some(value),
        // A key that is misspelt is missing too: say it once.
        Err(fault) if fault.missing && !problems.is_empty() => None,
        Err(fault) => {
            let (at, path) = fault.place.unwrap_or((root.at, String::new()));
            problems.push(Problem::new(at, &path, fault.what, fault.fix));
            None
        }
    }
}

/// An error on its way out to the node it is about.
#[derive(Debug)]
struct Fault {
    place: Option<(Position, String)>,
    what: String,
    fix: String,
    missing: bool,
}

impl Fault {
    fn new(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { place: None, what: what.into(), fix: fix.into(), missing: false }
    }

    fn at(self, at: Position, path: String) -> Self {
        Self { place: Some((at, path)), ..self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.fix)
    }
}

impl std::error::Error for Fault {}

fn unknown_key(entry: &Entry) -> String {
    format!("unknown key `{}` at line {}", entry.key.escape_debug(), entry.at.line)
}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string(), SEE)
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match unexpected {
            Unexpected::Seq => "a list".to_owned(),
            other => other.to_string(),
        };
        Self::new(format!("expected {expected}, found {found}"), SEE)
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("unknown key `{}`", field.escape_debug()), suggestion(field, expected))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("unknown value `{}`", variant.escape_debug()), suggestion(variant, expected))
    }

    fn missing_field(field: &'static str) -> Self {
        let what = format!("key `{field}` is missing");
        Self { missing: true, ..Self::new(what, format!("add `{field}: …`, see docs/job.md")) }
    }
}

const SEE: &str = "see docs/job.md";

type Unknown = RefCell<Vec<Problem>>;

#[derive(Clone)]
struct Decoder<'a> {
    node: &'a Node,
    path: String,
    unknown: &'a Unknown,
}

impl<'a> Decoder<'a> {
    fn child(&self, key: &str, node: &'a Node) -> Self {
        let separator = if self.path.is_empty() { "" } else { "." };
        let path = format!("{}{separator}{}", self.path, key.escape_debug());
        Self { node, path, unknown: self.unknown }
    }

    /// Gives an error that has no place yet the place of this node.
    fn placed(&self, fault: Fault) -> Fault {
        if fault.place.is_some() { fault } else { fault.at(self.node.at, self.path.clone()) }
    }

    fn expected(&self, what: &str) -> Fault {
        self.placed(match self.node.value {
            Value::Empty => Fault::new("has no value", format!("give {what}, or remove the key")),
            _ => Fault::new(format!("expected {what}, found {}", self.node.kind()), SEE),
        })
    }

    fn map<V: Visitor<'a>>(self, entries: &'a [Entry], visitor: V) -> Result<V::Value, Fault> {
        let access = Entries { owner: self.clone(), rest: entries.iter(), known: None, current: None };
        visitor.visit_map(access).map_err(|fault| self.placed(fault))
    }

    fn list<V: Visitor<'a>>(self, items: &'a [Node], visitor: V) -> Result<V::Value, Fault> {
        let access = Items { owner: self.clone(), rest: items.iter().enumerate() };
        visitor.visit_seq(access).map_err(|fault| self.placed(fault))
    }
}

impl<'a> Deserializer<'a> for Decoder<'a> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Text(text) => visitor.visit_borrowed_str(text).map_err(|fault| self.placed(fault)),
            Value::List(items) => self.list(items, visitor),
            Value::Map(entries) => self.map(entries, visitor),
            Value::Empty => Err(self.expected("a value")),
        }
    }

    fn deserialize_u32<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        let number = match &self.node.value {
            Value::Text(text) => text.parse::<u32>().ok(),
            _ => None,
        };
        let number = number.ok_or_else(|| self.expected("a whole number"))?;
        visitor.visit_u32(number).map_err(|fault| self.placed(fault))
    }

    fn deserialize_string<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Text(text) => visitor.visit_borrowed_str(text).map_err(|fault| self.placed(fault)),
            _ => Err(self.expected("text")),
        }
    }

    fn deserialize_str<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_string(visitor)
    }

    fn deserialize_option<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_seq<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::List(items) => self.list(items, visitor),
            _ => Err(self.expected("a list")),
        }
    }

    fn deserialize_struct<V: Visitor<'a>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let Value::Map(entries) = &self.node.value else {
            return Err(self.expected(&format!("a mapping with the keys {}", listed(fields))));
        };
        for entry in entries.iter().filter(|entry| !fields.contains(&entry.key.as_str())) {
            let path = self.child(&entry.key, &entry.node).path;
            let fix = suggestion(&entry.key, fields);
            self.unknown.borrow_mut().push(Problem::new(entry.at, &path, unknown_key(entry), fix));
        }
        let access =
            Entries { owner: self.clone(), rest: entries.iter(), known: Some(fields), current: None };
        visitor.visit_map(access).map_err(|fault| self.placed(fault))
    }

    fn deserialize_enum<V: Visitor<'a>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let choice = match &self.node.value {
            Value::Text(word) if variants.contains(&word.as_str()) => {
                Choice { word, owner: self.clone(), content: None }
            }
            Value::Text(word) => return Err(self.placed(de::Error::unknown_variant(word, variants))),
            Value::Map(entries) => match entries.as_slice() {
                [entry] if variants.contains(&entry.key.as_str()) => {
                    let content = Some(self.child(&entry.key, &entry.node));
                    Choice { word: &entry.key, owner: self.clone(), content }
                }
                [entry] => {
                    let path = self.child(&entry.key, &entry.node).path;
                    return Err(
                        Fault::new(unknown_key(entry), suggestion(&entry.key, variants)).at(entry.at, path)
                    );
                }
                entries => {
                    let what =
                        format!("expected exactly one of {}, found {} keys", listed(variants), entries.len());
                    return Err(self.placed(Fault::new(what, SEE)));
                }
            },
            _ => return Err(self.expected(&format!("one of {}", listed(variants)))),
        };
        visitor.visit_enum(choice).map_err(|fault| self.placed(fault))
    }

    fn deserialize_newtype_struct<V: Visitor<'a>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        <V: Visitor<'a>>
        bool i8 i16 i32 i64 i128 u8 u16 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct map
        identifier
    }
}

struct Items<'a> {
    owner: Decoder<'a>,
    rest: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
}

impl<'a> de::SeqAccess<'a> for Items<'a> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'a>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some((index, node)) = self.rest.next() else {
            return Ok(None);
        };
        let path = format!("{}[{index}]", self.owner.path);
        seed.deserialize(Decoder { node, path, unknown: self.owner.unknown }).map(Some)
    }
}

struct Entries<'a> {
    owner: Decoder<'a>,
    rest: std::slice::Iter<'a, Entry>,
    /// Keys to hand on; `None`: all.
    known: Option<&'static [&'static str]>,
    current: Option<&'a Entry>,
}

impl<'a> de::MapAccess<'a> for Entries<'a> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'a>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let known = self.known;
        self.current = self.rest.find(|entry| known.is_none_or(|known| known.contains(&entry.key.as_str())));
        let Some(entry) = self.current else {
            return Ok(None);
        };
        let key = seed.deserialize(entry.key.as_str().into_deserializer());
        key.map(Some).map_err(|fault: Fault| {
            // The only thing that can be wrong with a key.
            let path = self.owner.child(&entry.key, &entry.node).path;
            Fault { what: unknown_key(entry), ..fault }.at(entry.at, path)
        })
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let entry = self.current.ok_or_else(|| self.owner.expected("a value"))?;
        seed.deserialize(self.owner.child(&entry.key, &entry.node))
    }
}

/// One word out of several, with or without content.
struct Choice<'a> {
    word: &'a str,
    owner: Decoder<'a>,
    content: Option<Decoder<'a>>,
}

impl<'a> de::EnumAccess<'a> for Choice<'a> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'a>>(self, seed: V) -> Result<(V::Value, Self), Fault> {
        let variant = seed
            .deserialize(self.word.into_deserializer())
            .map_err(|fault: Fault| self.owner.placed(fault))?;
        Ok((variant, self))
    }
}

impl<'a> de::VariantAccess<'a> for Choice<'a> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        match self.content {
            None => Ok(()),
            Some(content) => {
                let fix = format!("write `{}` alone", self.word);
                Err(content.placed(Fault::new(format!("`{}` takes no value", self.word), fix)))
            }
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'a>>(self, seed: T) -> Result<T::Value, Fault> {
        match self.content {
            Some(content) => seed.deserialize(content),
            None => {
                let fix = format!("write `{}: …`, see docs/job.md", self.word);
                Err(self.owner.placed(Fault::new(format!("`{}` needs a value", self.word), fix)))
            }
        }
    }

    fn tuple_variant<V: Visitor<'a>>(self, _len: usize, visitor: V) -> Result<V::Value, Fault> {
        Err(self.owner.placed(de::Error::invalid_type(Unexpected::TupleVariant, &visitor)))
    }

    fn struct_variant<V: Visitor<'a>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.content {
            Some(content) => content.deserialize_struct("", fields, visitor),
            None => Err(self.owner.expected(&format!("a mapping with the keys {}", listed(fields)))),
        }
    }
}
