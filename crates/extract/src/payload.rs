//! A payload in the job's format, read as far as the job needs it.

use std::collections::BTreeMap;

use tidegate_core::record::RecordView;

use crate::json;
use crate::pointers::Pointers;
use crate::schema::{Reader, SchemaId, SchemaText, framed};
use crate::value::{Fields, Found};

/// How the payloads of a job are read.
#[derive(Debug)]
pub(crate) enum Decoder {
    /// One object each.
    Json,
    /// No fields.
    Raw,
    /// All with one schema.
    One(Box<Reader>),
    /// Each with the schema that it names.
    Framed(Schemas),
}

/// The schemas of a registry, as far as they were needed.
#[derive(Debug, Default)]
pub(crate) struct Schemas {
    known: BTreeMap<SchemaId, Result<Reader, String>>,
}

impl Decoder {
    pub(crate) fn framed() -> Self {
        Self::Framed(Schemas::default())
    }

    pub(crate) fn of_one(
        schema: &SchemaText,
        message: Option<&str>,
        pointers: &Pointers,
    ) -> Result<Self, String> {
        let reader = Reader::of_one(schema, message, pointers)?;
        match reader.unknown(pointers).as_slice() {
            [] => Ok(Self::One(Box::new(reader))),
            unknown => Err(format!("it has no field {}", unknown.join(", "))),
        }
    }

    /// The schema that has to be learnt before this record can be read.
    #[inline]
    pub(crate) fn wants(&self, record: &impl RecordView) -> Option<SchemaId> {
        let Self::Framed(schemas) = self else { return None };
        let (id, _) = framed(record.value()?).ok()?;
        (!schemas.known.contains_key(&id)).then_some(id)
    }

    /// Takes a schema, or the reason for which there is none.
    pub(crate) fn learn(&mut self, id: SchemaId, schema: Result<&SchemaText, String>, pointers: &Pointers) {
        if let Self::Framed(schemas) = self {
            let reader = schema.and_then(|schema| Reader::of_framed(schema, pointers));
            schemas.known.insert(id, reader);
        }
    }

    /// The needed fields of a payload; the error says why it has none, without values of it.
    #[inline]
    pub(crate) fn read<'a>(
        &'a self,
        value: &'a [u8],
        pointers: &Pointers,
        found: &'a mut Found,
    ) -> Result<Fields<'a>, String> {
        match self {
            Self::Json => {
                let document = std::str::from_utf8(value).map_err(|error| error.to_string())?;
                if !document.trim_ascii_start().starts_with('{') {
                    return Err("not a JSON object".to_owned());
                }
                json::find(pointers, document, found).map_err(|error| error.to_string())?;
                Ok(Fields { payload: value, document, symbols: &[], found })
            }
            Self::Raw => Ok(Fields { payload: value, document: "", symbols: &[], found }),
            Self::One(reader) => reader.find(value, 0, false, found),
            Self::Framed(schemas) => {
                let (id, at) = framed(value)?;
                match schemas.known.get(&id) {
                    Some(Ok(reader)) => reader.find(value, at, true, found),
                    Some(Err(why)) => Err(format!("schema {id}: {why}")),
                    None => Err(format!("schema {id} was not asked for")),
                }
            }
        }
    }
}
