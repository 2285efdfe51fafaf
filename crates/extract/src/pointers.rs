//! The fields that a job needs of a payload, found in one pass over its JSON.
//!
//! The job's JSON pointers (RFC 6901) become a tree; the payload is walked along it. Every found value is kept as the
//! range of its text: numbers stay exact, the last of duplicate keys wins, and nothing is copied. Each byte of the
//! payload is checked against the JSON grammar, needed or not, so a truncated document is never half read. Grammar only:
//! an unneeded `1e999` or `"\ud800"` is fine.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::text;

/// The needed pointers, compiled.
#[derive(Debug)]
pub(super) struct Pointers {
    /// In the order of their tokens, so that all pointers below a common prefix are neighbours.
    paths: Vec<Path>,
    root: Node,
}

/// Index of a pointer in its [`Pointers`] and of its value in a [`Found`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(usize);

/// Where the values of a document's needed fields are; kept from record to record.
#[derive(Debug, Default)]
pub(super) struct Found {
    values: Vec<Option<Place>>,
    key: String,
}

/// A range of the document's text.
#[derive(Clone, Copy, Debug)]
struct Place {
    start: usize,
    length: usize,
}

#[derive(Debug)]
struct Path {
    tokens: Vec<String>,
    pointer: String,
}

#[derive(Debug)]
struct Node {
    /// The pointers that lead to this node or below it.
    slots: Range<usize>,
    /// Whether the first of them ends here.
    needed: bool,
    children: Vec<Child>,
}

#[derive(Debug)]
struct Child {
    name: String,
    /// The name as most producers write it, quotes included.
    quoted: String,
    /// The name as a position in an array.
    index: Option<usize>,
    node: Node,
}

impl Pointers {
    /// `pointers` begin with `/`, as the job file requires.
    pub(super) fn new<'a>(pointers: impl Iterator<Item = &'a str>) -> Self {
        let mut paths: Vec<_> =
            pointers.map(|pointer| Path { tokens: tokens(pointer), pointer: pointer.to_owned() }).collect();
        paths.sort_by(|a, b| a.tokens.cmp(&b.tokens));
        paths.dedup_by(|a, b| a.tokens == b.tokens);
        let root = Node::new(&paths, 0, 0);
        Self { paths, root }
    }

    /// The slot of a pointer that was given to [`Pointers::new`].
    pub(super) fn slot(&self, pointer: &str) -> Slot {
        let tokens = tokens(pointer);
        Slot(self.paths.partition_point(|path| path.tokens < tokens))
    }

    pub(super) fn pointer(&self, slot: Slot) -> &str {
        self.paths.get(slot.0).map_or("", |path| &path.pointer)
    }

    /// Finds all needed fields of `document`, which must be one JSON object.
    pub(super) fn find(&self, document: &str, found: &mut Found) -> Result<(), serde_json::Error> {
        found.values.clear();
        found.values.resize(self.paths.len(), None);
        let mut json = serde_json::Deserializer::from_str(document);
        json.deserialize_map(Walk { node: &self.root, document, found })?;
        json.end()
    }
}

impl Found {
    /// The JSON text of a field of `document`, the one searched last; `None` if it has no such field.
    pub(super) fn text<'a>(&self, slot: Slot, document: &'a str) -> Option<&'a str> {
        let place = self.values.get(slot.0).copied().flatten()?;
        document.get(place.start..)?.get(..place.length)
    }

    fn set(&mut self, slot: usize, place: Place) {
        if let Some(value) = self.values.get_mut(slot) {
            *value = Some(place);
        }
    }
}

impl Place {
    /// `part` is a slice of `document`.
    fn of(part: &str, document: &str) -> Self {
        Self { start: part.as_ptr().addr().wrapping_sub(document.as_ptr().addr()), length: part.len() }
    }
}

impl Node {
    /// The node that `paths`, sorted and equal in their first `depth` tokens, share; its first slot is `first`.
    fn new(paths: &[Path], depth: usize, first: usize) -> Self {
        let mut slot = first;
        let mut children = Vec::new();
        for group in paths.chunk_by(|a, b| a.tokens.get(depth) == b.tokens.get(depth)) {
            if let Some(name) = group.first().and_then(|path| path.tokens.get(depth)) {
                children.push(Child {
                    name: name.clone(),
                    quoted: serde_json::Value::from(name.as_str()).to_string(),
                    index: array_index(name),
                    node: Self::new(group, depth.saturating_add(1), slot),
                });
            }
            slot = slot.saturating_add(group.len());
        }
        let needed = paths.first().is_some_and(|path| path.tokens.len() == depth);
        Self { slots: first..slot, needed, children }
    }

    /// The child of an object's key, given as it is written; `unescaped` is room for one with escapes.
    #[inline]
    fn child(&self, key: &str, unescaped: &mut String) -> Option<&Node> {
        let plain = self.children.iter().find(|child| child.quoted == key);
        let child = match plain {
            None if key.as_bytes().contains(&b'\\') => {
                let key = text::content(key, unescaped)?;
                self.children.iter().find(|child| child.name == key)
            }
            plain => plain,
        };
        child.map(|child| &child.node)
    }

    /// Takes down what `value` holds for this node and, its text being known as valid, for those below.
    #[inline]
    fn take<E: serde::de::Error>(&self, value: &str, document: &str, found: &mut Found) -> Result<(), E> {
        if self.slots.len() > 1 || !self.needed {
            // A duplicate key replaces all that the first one held.
            if let Some(values) = found.values.get_mut(self.slots.clone()) {
                values.fill(None);
            }
        }
        if self.needed {
            found.set(self.slots.start, Place::of(value, document));
        }
        if !self.children.is_empty() {
            let mut json = serde_json::Deserializer::from_str(value);
            let walk = Walk { node: self, document, found };
            match value.as_bytes().first() {
                Some(b'{') => json.deserialize_map(walk).map_err(E::custom)?,
                Some(b'[') => json.deserialize_seq(walk).map_err(E::custom)?,
                _ => {}
            }
        }
        Ok(())
    }
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
            match self.node.child(key.get(), &mut self.found.key) {
                Some(node) => {
                    node.take(entries.next_value::<&RawValue>()?.get(), self.document, self.found)?
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
                    Some(value) => child.node.take(value.get(), self.document, self.found)?,
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

/// The reference tokens of a pointer, unescaped.
fn tokens(pointer: &str) -> Vec<String> {
    pointer.split('/').skip(1).map(|token| token.replace("~1", "/").replace("~0", "~")).collect()
}

/// RFC 6901: digits without leading zeros.
fn array_index(token: &str) -> Option<usize> {
    let canonical = token == "0" || !token.starts_with(['0', '+']);
    if canonical { token.parse().ok() } else { None }
}
