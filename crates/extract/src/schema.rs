//! Schemas as their file or registry gives them, and the framing by which a record names its own.

use std::fmt;

use crate::avro;
use crate::pointers::Pointers;
use crate::protobuf;
use crate::value::{Fields, Found};
use crate::wire::Cursor;

/// The number of a schema in its registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SchemaId(pub u32);

impl fmt::Display for SchemaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// In which language a schema is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// JSON, of Avro.
    Avro,
    /// A `.proto` file.
    Protobuf,
}

/// A schema as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaText {
    /// Its language.
    pub language: Language,
    /// The text.
    pub text: String,
    /// What it refers to, by the names that it uses, each behind those that it refers to itself.
    pub references: Vec<(String, String)>,
}

/// A schema ready to read payloads for one job.
#[derive(Debug)]
pub(crate) enum Reader {
    Avro(avro::Reader),
    Protobuf(protobuf::Reader),
}

impl SchemaText {
    /// A schema that refers to no other.
    #[must_use]
    pub fn new(language: Language, text: impl Into<String>) -> Self {
        Self { language, text: text.into(), references: Vec::new() }
    }
}

impl Reader {
    /// For payloads without framing; `message`: which one of a protobuf file they are.
    pub(crate) fn of_one(
        schema: &SchemaText,
        message: Option<&str>,
        pointers: &Pointers,
    ) -> Result<Self, String> {
        match schema.language {
            Language::Avro => avro::Reader::new(schema, pointers).map(Self::Avro),
            Language::Protobuf => protobuf::Reader::of_one(schema, message, pointers).map(Self::Protobuf),
        }
    }

    /// For payloads that name their schema.
    pub(crate) fn of_framed(schema: &SchemaText, pointers: &Pointers) -> Result<Self, String> {
        match schema.language {
            Language::Avro => avro::Reader::new(schema, pointers).map(Self::Avro),
            Language::Protobuf => protobuf::Reader::of_all(schema, pointers).map(Self::Protobuf),
        }
    }

    /// The pointers that lead to nothing in this schema.
    pub(crate) fn unknown<'a>(&self, pointers: &'a Pointers) -> Vec<&'a str> {
        let known = match self {
            Self::Avro(reader) => reader.known(),
            Self::Protobuf(reader) => reader.known(),
        };
        pointers.iter().zip(known).filter(|(_, known)| !**known).map(|(pointer, _)| pointer).collect()
    }

    /// Finds the needed fields of a payload whose content begins at `at`; the error says what is wrong with it.
    pub(crate) fn find<'a>(
        &'a self,
        payload: &'a [u8],
        at: usize,
        framed: bool,
        found: &'a mut Found,
    ) -> Result<Fields<'a>, String> {
        let cursor = Cursor::new(payload, at);
        let symbols = match self {
            Self::Avro(reader) => reader.find(cursor, found),
            Self::Protobuf(reader) => reader.find(cursor, framed, found),
        }?;
        Ok(Fields { payload, document: "", symbols, found })
    }
}

/// Where the content of a framed payload begins, and the schema it names: a zero byte, four bytes of number.
pub(crate) fn framed(payload: &[u8]) -> Result<(SchemaId, usize), String> {
    match payload {
        [0, a, b, c, d, ..] => Ok((SchemaId(u32::from_be_bytes([*a, *b, *c, *d])), 5)),
        [0, ..] => Err("it ends within the id of its schema".to_owned()),
        [] => Err("it is empty".to_owned()),
        [..] => Err("it does not begin with the zero byte of a registry's framing".to_owned()),
    }
}
