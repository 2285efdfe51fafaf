//! The needed fields of a payload in JSON, found in one pass.
//!
//! Every found value is kept as the range of its text: numbers stay exact, the last of duplicate keys wins, and nothing is
//! copied. Each byte of the payload is checked against the JSON grammar, needed or not, so a truncated document is never
//! half read. Grammar only: an unneeded `1e999` or `"\ud800"` is fine.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::pointers::{Node, Pointers};
use crate::text;
use crate::value::{Found, Held};
use crate::wire::Place;

/// Finds all needed fields of `document`, which must be one JSON object.
pub(crate) fn find(pointers: &Pointers, document: &str, found: &mut Found) -> Result<(), serde_json::Error> {
    found.begin(pointers.len());
    let mut json = serde_json::Deserializer::from_str(document);
    json.deserialize_map(Walk { node: pointers.root(), document, found })?;
    json.end()
}

/// The place below `node` that an object's key, given as it is written, leads to; `unescaped` is room for one with escapes.
#[inline]
fn child<'a>(node: &'a Node, key: &str, unescaped: &mut String) -> Option<&'a Node> {
    let plain = node.children.iter().find(|child| child.quoted == key);
    match plain {
        None if key.as_bytes().contains(&b'\\') => node.child(text::content(key, unescaped)?),
        plain => plain.map(|child| &child.node),
    }
}

/// Takes down what `value` holds for `node` and, its text being known as valid, for those below.
#[inline]
fn take<E: serde::de::Error>(node: &Node, value: &str, document: &str, found: &mut Found) -> Result<(), E> {
    let slot = node.slot();
    if node.slots.len() > 1 || slot.is_none() {
        // A duplicate key replaces all that the first one held.
        found.forget(node.slots.clone());
    }
    if let Some(slot) = slot {
        found.set(slot, Held::Json(Place::of(value, document)));
    }
    if !node.children.is_empty() {
        let mut json = serde_json::Deserializer::from_str(value);
        let walk = Walk { node, document, found };
        match value.as_bytes().first() {
            Some(b'{') => json.deserialize_map(walk).map_err(E::custom)?,
            Some(b'[') => json.deserialize_seq(walk).map_err(E::custom)?,
            _ => {}
        }
    }
    Ok(())
}

/// A walk over one object or array along one node.
struct Walk<'a> {
    node: &'a Node,
    document: &'a str,
    found: &'a mut Found,
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    #[inline]
    fn visit_map<M: MapAccess<'de>>(self, mut entries: M) -> Result<(), M::Error> {
        while let Some(key) = entries.next_key::<&RawValue>()? {
            match child(self.node, key.get(), &mut self.found.name) {
                Some(node) => {
                    take(node, entries.next_value::<&RawValue>()?.get(), self.document, self.found)?
                }
                None => drop(entries.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut elements: S) -> Result<(), S::Error> {
        let mut index = 0_usize;
        loop {
            match self.node.children.iter().find(|child| child.index == Some(index)) {
                Some(child) => match next::<&RawValue, S>(&mut elements)? {
                    Some(value) => take(&child.node, value.get(), self.document, self.found)?,
                    None => return Ok(()),
                },
                None if next::<IgnoredAny, S>(&mut elements)?.is_none() => return Ok(()),
                None => {}
            }
            index = index.saturating_add(1);
        }
    }
}

fn next<'de, T: Deserialize<'de>, S: SeqAccess<'de>>(elements: &mut S) -> Result<Option<T>, S::Error> {
    elements.next_element()
}
