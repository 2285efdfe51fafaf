//! What is needed of a message, compiled from its descriptor and the job's pointers.

use std::ops::Range;
use std::sync::Arc;

use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};

use crate::pointers::Node;
use crate::value::Held;
use crate::wire::Place;

/// The needed fields of a message.
#[derive(Debug, Default)]
pub(super) struct Message {
    pub(super) fields: Vec<Field>,
    /// What fields that are not there have all the same.
    pub(super) defaults: Vec<(usize, Held)>,
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    /// Where the field itself goes, of a list or map.
    pub(super) slot: Option<usize>,
    /// The slots of the other members of its `oneof`, of which only the last that comes counts.
    pub(super) replaces: Vec<Range<usize>>,
    pub(super) below: Below,
}

#[derive(Debug)]
pub(super) enum Below {
    One(Content),
    List(List),
    Map(Vec<Entry>),
    /// Only that it is there counts.
    Nothing,
}

/// One value.
#[derive(Debug)]
pub(super) enum Content {
    Scalar { slot: usize, scalar: Scalar },
    Message { slot: Option<usize>, message: Message, group: bool },
    Well { slot: usize, well: Well },
}

/// The needed items of a list.
#[derive(Debug)]
pub(super) struct List {
    /// Index of the count of items seen.
    pub(super) counter: usize,
    /// The type of its items, where they may be packed.
    pub(super) packable: Option<Scalar>,
    pub(super) items: Vec<(usize, Content)>,
}

/// A needed entry of a map.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) key: Scalar,
    pub(super) content: Content,
    pub(super) slots: Range<usize>,
    /// What it has where its value is not there.
    pub(super) defaults: Vec<(usize, Held)>,
}

/// A message that stands for one value.
#[derive(Debug)]
pub(super) enum Well {
    Timestamp,
    Wrapper { scalar: Scalar, default: Held },
}

/// A type without others in it.
#[derive(Clone, Debug)]
pub(super) enum Scalar {
    Double,
    Float,
    Int64,
    Uint64,
    Int32,
    Uint32,
    Sint64,
    Sint32,
    Fixed64,
    Sfixed64,
    Fixed32,
    Sfixed32,
    Bool,
    Text,
    Bytes,
    /// Its numbers, and where their names are among the symbols.
    Enum(Arc<Vec<(i64, usize)>>),
}

/// Compiles messages, and keeps what they share.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) symbols: Vec<String>,
    pub(super) known: Vec<bool>,
    pub(super) lists: usize,
    /// Two pointers that spell one field differently.
    pub(super) clash: Option<(String, String)>,
}

impl Plan {
    pub(super) fn new(slots: usize) -> Self {
        Self { symbols: Vec::new(), known: vec![false; slots], lists: 0, clash: None }
    }

    /// What `node` and those below it ask of a message.
    pub(super) fn message(&mut self, message: &MessageDescriptor, node: &Node) -> Message {
        let mut compiled = Message::default();
        let needed: Vec<(&str, &Node, FieldDescriptor)> = node
            .children
            .iter()
            .filter_map(|child| Some((child.name.as_str(), &child.node, by_name(message, &child.name)?)))
            .collect();
        for (name, node, field) in &needed {
            let number = field.number();
            if let Some((other, ..)) =
                needed.iter().find(|(other, _, f)| f.number() == number && other != name)
            {
                self.clash = Some(((*name).to_owned(), (*other).to_owned()));
            }
            let oneof = field.containing_oneof().filter(|oneof| !oneof.is_synthetic());
            let others: Vec<_> = oneof
                .iter()
                .flat_map(|oneof| oneof.fields().filter(|other| other.number() != number).collect::<Vec<_>>())
                .collect();
            let replaces = needed
                .iter()
                .filter(|(_, _, other)| others.iter().any(|member| member.number() == other.number()))
                .map(|(_, node, _)| node.slots.clone())
                .collect();
            let unasked =
                others.iter().filter(|member| needed.iter().all(|(_, _, f)| f.number() != member.number()));
            for member in unasked {
                compiled.fields.push(Field {
                    number: member.number(),
                    slot: None,
                    replaces: vec![node.slots.clone()],
                    below: Below::Nothing,
                });
            }
            let (slot, below) = self.field(field, node, &mut compiled.defaults);
            compiled.fields.push(Field { number, slot, replaces, below });
        }
        compiled
    }

    fn field(
        &mut self,
        field: &FieldDescriptor,
        node: &Node,
        defaults: &mut Vec<(usize, Held)>,
    ) -> (Option<usize>, Below) {
        if field.is_list() {
            self.know(node.slot());
            let counter = self.lists;
            self.lists += 1;
            let items = node
                .children
                .iter()
                .filter_map(|child| Some((child.index?, self.content(&field.kind(), false, &child.node)?)))
                .collect();
            let packable = self.scalar(&field.kind()).filter(|s| !matches!(s, Scalar::Text | Scalar::Bytes));
            return (node.slot(), Below::List(List { counter, packable, items }));
        }
        if let (true, Some(entry)) = (field.is_map(), field.kind().as_message()) {
            self.know(node.slot());
            let value = entry.map_entry_value_field().kind();
            let Some(key) = self.scalar(&entry.map_entry_key_field().kind()) else {
                return (node.slot(), Below::Nothing);
            };
            let entries = node.children.iter().filter_map(|child| {
                let content = self.content(&value, false, &child.node)?;
                let defaults = match &content {
                    Content::Scalar { slot, scalar } => vec![(*slot, scalar.default())],
                    Content::Message { message, .. } => message.defaults.clone(),
                    Content::Well { .. } => Vec::new(),
                };
                let (name, slots) = (child.name.clone(), child.node.slots.clone());
                Some(Entry { name, key: key.clone(), content, slots, defaults })
            });
            return (node.slot(), Below::Map(entries.collect()));
        }
        match self.content(&field.kind(), field.is_group(), node) {
            Some(content) => {
                if let (Content::Scalar { slot, scalar }, false) = (&content, field.supports_presence()) {
                    defaults.push((*slot, scalar.default()));
                }
                (None, Below::One(content))
            }
            None => (None, Below::Nothing),
        }
    }

    /// One value; `None` when nothing of it is asked for that it has.
    fn content(&mut self, kind: &Kind, group: bool, node: &Node) -> Option<Content> {
        let slot = node.slot();
        let Some(message) = kind.as_message() else {
            let scalar = self.scalar(kind)?;
            self.know(slot);
            return Some(Content::Scalar { slot: slot?, scalar });
        };
        if let (Some(slot), Some(well)) = (slot, self.well(message)) {
            self.know(Some(slot));
            return Some(Content::Well { slot, well });
        }
        self.know(slot);
        Some(Content::Message { slot, message: self.message(message, node), group })
    }

    fn well(&mut self, message: &MessageDescriptor) -> Option<Well> {
        let name = message.full_name().strip_prefix("google.protobuf.")?;
        if name == "Timestamp" {
            return Some(Well::Timestamp);
        }
        let wrappers = ["Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes"];
        if !name.strip_suffix("Value").is_some_and(|kind| wrappers.contains(&kind)) {
            return None;
        }
        let scalar = self.scalar(&message.get_field(1)?.kind())?;
        let default = scalar.default();
        Some(Well::Wrapper { scalar, default })
    }

    fn know(&mut self, slot: Option<usize>) {
        if let Some(known) = slot.and_then(|slot| self.known.get_mut(slot)) {
            *known = true;
        }
    }

    fn scalar(&mut self, kind: &Kind) -> Option<Scalar> {
        Some(match kind {
            Kind::Double => Scalar::Double,
            Kind::Float => Scalar::Float,
            Kind::Int64 => Scalar::Int64,
            Kind::Uint64 => Scalar::Uint64,
            Kind::Int32 => Scalar::Int32,
            Kind::Uint32 => Scalar::Uint32,
            Kind::Sint64 => Scalar::Sint64,
            Kind::Sint32 => Scalar::Sint32,
            Kind::Fixed64 => Scalar::Fixed64,
            Kind::Sfixed64 => Scalar::Sfixed64,
            Kind::Fixed32 => Scalar::Fixed32,
            Kind::Sfixed32 => Scalar::Sfixed32,
            Kind::Bool => Scalar::Bool,
            Kind::String => Scalar::Text,
            Kind::Bytes => Scalar::Bytes,
            Kind::Enum(descriptor) => self.names(descriptor),
            Kind::Message(_) => return None,
        })
    }

    fn names(&mut self, descriptor: &EnumDescriptor) -> Scalar {
        let mut numbers: Vec<(i64, usize)> = Vec::new();
        for value in descriptor.values() {
            let number = i64::from(value.number());
            // Of two names of one number the first is the one.
            if numbers.iter().all(|(known, _)| *known != number) {
                numbers.push((number, self.symbols.len()));
                self.symbols.push(value.name().to_owned());
            }
        }
        Scalar::Enum(Arc::new(numbers))
    }
}

impl Scalar {
    /// What a field of this type has that is not there.
    fn default(&self) -> Held {
        match self {
            Self::Double => Held::Double(0.0),
            Self::Float => Held::Single(0.0),
            Self::Bool => Held::Boolean(false),
            Self::Text => Held::Text(Place::default()),
            Self::Bytes => Held::Bytes(Place::default()),
            Self::Enum(numbers) => symbol(numbers, 0),
            _ => Held::Integer(0),
        }
    }
}

/// The name of an enum's value, or its number where it has none.
pub(super) fn symbol(numbers: &[(i64, usize)], number: i64) -> Held {
    let known = numbers.iter().find(|(known, _)| *known == number);
    known.map_or(Held::Integer(number), |(_, symbol)| Held::Symbol(*symbol))
}

/// A field by its name in the file or its name in JSON.
fn by_name(message: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    message.get_field_by_name(name).or_else(|| message.get_field_by_json_name(name))
}
