//! The needed fields of a protobuf message, found in one pass along its descriptor.
//!
//! A message is compiled to the [`Field`]s that the job's pointers lead to; all others are passed over by their wire type.
//! Read as protobuf says: of a field that comes twice the last value counts, and messages merge; of a `oneof` only the last
//! member counts; a field without presence that is not there has its default. Of an unneeded field only the wire format is
//! checked.

mod descriptor;
mod plan;
#[cfg(test)]
mod tests;

use crate::pointers::Pointers;
use crate::schema::SchemaText;
use crate::value::{Found, Held};
use crate::wire::{Broken, Cursor, zigzag};

use plan::{Below, Content, Entry, Field, List, Message, Plan, Scalar, Well, symbol};

/// How deeply a payload may be nested.
const MAX_DEPTH: u32 = 64;

/// A schema, compiled for one job.
#[derive(Debug)]
pub(crate) struct Reader {
    /// The messages of the file, by where they stand in it; nowhere: the only one.
    messages: Vec<(Vec<usize>, Message)>,
    symbols: Vec<String>,
    known: Vec<bool>,
    lists: usize,
}

impl Reader {
    /// For payloads without framing: all are the same message, that of the name, or the only one of the file.
    pub(crate) fn of_one(
        schema: &SchemaText,
        message: Option<&str>,
        pointers: &Pointers,
    ) -> Result<Self, String> {
        let file = descriptor::compile(schema)?;
        let message = match message {
            Some(name) => descriptor::by_name(&file, name)?,
            None => descriptor::only(&file)?,
        };
        let mut plan = Plan::new(pointers.len());
        let message = plan.message(&message, pointers.root());
        Self::with(vec![(Vec::new(), message)], plan)
    }

    /// For payloads that name their message.
    pub(crate) fn of_all(schema: &SchemaText, pointers: &Pointers) -> Result<Self, String> {
        let file = descriptor::compile(schema)?;
        let mut plan = Plan::new(pointers.len());
        let mut messages = Vec::new();
        descriptor::every_message(&file, &mut |place, message| {
            messages.push((place.to_vec(), plan.message(message, pointers.root())));
        });
        Self::with(messages, plan)
    }

    fn with(messages: Vec<(Vec<usize>, Message)>, plan: Plan) -> Result<Self, String> {
        if let Some((one, other)) = plan.clash {
            return Err(format!("`{one}` and `{other}` are the same field; spell it in one way"));
        }
        Ok(Self { messages, symbols: plan.symbols, known: plan.known, lists: plan.lists })
    }

    /// For each slot, whether its pointer leads to something.
    pub(crate) fn known(&self) -> &[bool] {
        &self.known
    }

    /// Finds the needed fields; gives the names that enums have. With `framed` the payload begins with the place of its
    /// message.
    pub(crate) fn find(
        &self,
        mut cursor: Cursor<'_>,
        framed: bool,
        found: &mut Found,
    ) -> Result<&[String], String> {
        found.begin(self.known.len());
        found.counts.clear();
        found.counts.resize(self.lists, 0);
        let place = if framed { place(&mut cursor).map_err(|b| no_place(b.as_str()))? } else { Vec::new() };
        let message = self.messages.iter().find(|(known, _)| *known == place);
        let (_, message) = message.ok_or_else(|| no_place("its schema has none there"))?;
        message.read(&mut cursor, found, None, 0).map_err(no_message)?;
        Ok(&self.symbols)
    }
}

/// Where in its file a message stands: how many steps, then each; a single zero stands for the first message.
fn place(cursor: &mut Cursor<'_>) -> Result<Vec<usize>, Broken> {
    let count = usize::try_from(cursor.zigzag()?).map_err(|_| Broken::NoSuchVariant)?;
    if count > cursor.left() {
        return Err(Broken::EndsEarly);
    }
    if count == 0 {
        return Ok(vec![0]);
    }
    (0..count).map(|_| usize::try_from(cursor.zigzag()?).map_err(|_| Broken::NoSuchVariant)).collect()
}

fn no_place(why: &str) -> String {
    format!("the message that it names: {why}")
}

fn no_message(broken: Broken) -> String {
    format!("not a message of its schema: {}", broken.as_str())
}

/// The wire types.
const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LENGTH: u8 = 2;
const START: u8 = 3;
const END: u8 = 4;
const FIXED32: u8 = 5;

impl Message {
    /// Reads fields to the end of the cursor, or of the group with that number.
    fn read(
        &self,
        cursor: &mut Cursor<'_>,
        found: &mut Found,
        group: Option<u32>,
        depth: u32,
    ) -> Result<(), Broken> {
        let depth = deeper(depth)?;
        for (slot, default) in &self.defaults {
            // A message that comes twice is merged: what the first one said stays.
            if found.get(*slot).is_none() {
                found.set(*slot, *default);
            }
        }
        while !cursor.is_empty() {
            let (number, wire) = key(cursor)?;
            if wire == END {
                return if group == Some(number) { Ok(()) } else { Err(Broken::Group) };
            }
            match self.fields.iter().find(|field| field.number == number) {
                Some(field) => field.read(wire, cursor, found, depth)?,
                None => skip(number, wire, cursor, depth)?,
            }
        }
        if group.is_some() { Err(Broken::EndsEarly) } else { Ok(()) }
    }
}

impl Field {
    fn read(&self, wire: u8, cursor: &mut Cursor<'_>, found: &mut Found, depth: u32) -> Result<(), Broken> {
        for slots in &self.replaces {
            found.forget(slots.clone());
        }
        match &self.below {
            Below::One(content) => content.read(self.number, wire, cursor, found, depth),
            Below::List(list) => list.read(self, wire, cursor, found, depth),
            Below::Map(entries) => {
                if let Some(slot) = self.slot {
                    found.set(slot, Held::Object);
                }
                let mut entry = delimited(wire, cursor)?;
                read_entry(entries, &mut entry, found, depth)
            }
            Below::Nothing => skip(self.number, wire, cursor, depth),
        }
    }
}

impl Content {
    fn read(
        &self,
        number: u32,
        wire: u8,
        cursor: &mut Cursor<'_>,
        found: &mut Found,
        depth: u32,
    ) -> Result<(), Broken> {
        let held = match self {
            Self::Scalar { slot, scalar } => {
                let held = if wire == LENGTH && scalar.wire() != LENGTH {
                    // A packed list where one value is expected: the last one counts.
                    let mut packed = delimited(wire, cursor)?;
                    let mut last = None;
                    while !packed.is_empty() {
                        last = Some(scalar.read(&mut packed)?);
                    }
                    last
                } else if wire == scalar.wire() {
                    Some(scalar.read(cursor)?)
                } else {
                    return Err(Broken::WireType);
                };
                held.map(|held| (*slot, held))
            }
            Self::Message { slot, message, group } => {
                match (group, wire) {
                    (true, START) => message.read(cursor, found, Some(number), depth)?,
                    (false, LENGTH) => message.read(&mut delimited(wire, cursor)?, found, None, depth)?,
                    _ => return Err(Broken::WireType),
                }
                slot.map(|slot| (slot, Held::Object))
            }
            Self::Well { slot, well } => {
                let before = found.get(*slot);
                Some((*slot, well.read(before, &mut delimited(wire, cursor)?, depth)?))
            }
        };
        if let Some((slot, held)) = held {
            found.set(slot, held);
        }
        Ok(())
    }
}

impl List {
    fn read(
        &self,
        field: &Field,
        wire: u8,
        cursor: &mut Cursor<'_>,
        found: &mut Found,
        depth: u32,
    ) -> Result<(), Broken> {
        if let Some(slot) = field.slot {
            found.set(slot, Held::Array);
        }
        match &self.packable {
            Some(scalar) if wire == LENGTH => {
                let mut packed = delimited(wire, cursor)?;
                while !packed.is_empty() {
                    self.item(field.number, scalar.wire(), &mut packed, found, depth)?;
                }
                Ok(())
            }
            _ => self.item(field.number, wire, cursor, found, depth),
        }
    }

    fn item(
        &self,
        number: u32,
        wire: u8,
        cursor: &mut Cursor<'_>,
        found: &mut Found,
        depth: u32,
    ) -> Result<(), Broken> {
        let count = found.counts.get_mut(self.counter);
        let index = count.as_ref().map_or(0, |count| **count);
        if let Some(count) = count {
            *count = count.saturating_add(1);
        }
        match self.items.iter().find(|(wanted, _)| *wanted == index) {
            Some((_, content)) => content.read(number, wire, cursor, found, depth),
            None => skip(number, wire, cursor, depth),
        }
    }
}

/// An entry of a map: a message of a key, field 1, and a value, field 2.
fn read_entry(
    entries: &[Entry],
    cursor: &mut Cursor<'_>,
    found: &mut Found,
    depth: u32,
) -> Result<(), Broken> {
    let depth = deeper(depth)?;
    let Some(first) = entries.first() else {
        return Ok(());
    };
    let mut key_of_entry = first.key.default_key();
    let mut value: Option<(u8, Cursor<'_>)> = None;
    while !cursor.is_empty() {
        let (number, wire) = key(cursor)?;
        match number {
            1 if wire == first.key.wire() => key_of_entry = first.key.read(cursor)?,
            1 => return Err(Broken::WireType),
            2 => {
                value = Some((wire, *cursor));
                skip(number, wire, cursor, depth)?;
            }
            _ => skip(number, wire, cursor, depth)?,
        }
    }
    let name = match key_of_entry {
        Held::Text(place) => std::str::from_utf8(cursor.bytes(place)).unwrap_or("").to_owned(),
        Held::Integer(number) => number.to_string(),
        Held::Unsigned(number) => number.to_string(),
        Held::Boolean(value) => value.to_string(),
        _ => String::new(),
    };
    let Some(entry) = entries.iter().find(|entry| entry.name == name) else { return Ok(()) };
    found.forget(entry.slots.clone());
    match value {
        Some((wire, mut at)) => entry.content.read(2, wire, &mut at, found, depth),
        None => {
            for (slot, default) in &entry.defaults {
                found.set(*slot, *default);
            }
            Ok(())
        }
    }
}

impl Scalar {
    const fn wire(&self) -> u8 {
        match self {
            Self::Double | Self::Fixed64 | Self::Sfixed64 => FIXED64,
            Self::Float | Self::Fixed32 | Self::Sfixed32 => FIXED32,
            Self::Text | Self::Bytes => LENGTH,
            _ => VARINT,
        }
    }

    const fn default_key(&self) -> Held {
        match self {
            Self::Bool => Held::Boolean(false),
            Self::Text => Held::Null,
            _ => Held::Integer(0),
        }
    }

    fn read(&self, cursor: &mut Cursor<'_>) -> Result<Held, Broken> {
        // A 32-bit number is written with as many bits as it has, or sign-extended to 64: its lowest 32 count.
        let low = |number: u64| u32::try_from(number & 0xffff_ffff).unwrap_or_default();
        Ok(match self {
            Self::Double => Held::Double(f64::from_le_bytes(cursor.array()?)),
            Self::Float => Held::Single(f32::from_le_bytes(cursor.array()?)),
            Self::Int64 => Held::Integer(cursor.varint()?.cast_signed()),
            Self::Uint64 => Held::Unsigned(cursor.varint()?),
            Self::Int32 => Held::Integer(i64::from(low(cursor.varint()?).cast_signed())),
            Self::Uint32 => Held::Integer(i64::from(low(cursor.varint()?))),
            Self::Sint64 => Held::Integer(zigzag(cursor.varint()?)),
            Self::Sint32 => Held::Integer(zigzag(u64::from(low(cursor.varint()?)))),
            Self::Fixed64 => Held::Unsigned(u64::from_le_bytes(cursor.array()?)),
            Self::Sfixed64 => Held::Integer(i64::from_le_bytes(cursor.array()?)),
            Self::Fixed32 => Held::Integer(i64::from(u32::from_le_bytes(cursor.array()?))),
            Self::Sfixed32 => Held::Integer(i64::from(i32::from_le_bytes(cursor.array()?))),
            Self::Bool => Held::Boolean(cursor.varint()? != 0),
            Self::Text => {
                let length = cursor.length()?;
                let place = cursor.take(length)?;
                std::str::from_utf8(cursor.bytes(place)).map_err(|_| Broken::NotText)?;
                Held::Text(place)
            }
            Self::Bytes => {
                let length = cursor.length()?;
                Held::Bytes(cursor.take(length)?)
            }
            Self::Enum(numbers) => symbol(numbers, i64::from(low(cursor.varint()?).cast_signed())),
        })
    }
}

impl Well {
    /// A message that stands for one value; `before`: what an earlier occurrence said.
    fn read(&self, before: Option<Held>, cursor: &mut Cursor<'_>, depth: u32) -> Result<Held, Broken> {
        let depth = deeper(depth)?;
        match self {
            Self::Timestamp => {
                let (mut seconds, mut nanos) = match before {
                    Some(Held::Instant { seconds, nanos }) => (seconds, nanos),
                    _ => (0, 0),
                };
                while !cursor.is_empty() {
                    match key(cursor)? {
                        (1, VARINT) => seconds = cursor.varint()?.cast_signed(),
                        (2, VARINT) => {
                            let low = u32::try_from(cursor.varint()? & 0xffff_ffff).unwrap_or_default();
                            nanos = low.cast_signed();
                        }
                        (1 | 2, _) => return Err(Broken::WireType),
                        (number, wire) => skip(number, wire, cursor, depth)?,
                    }
                }
                Ok(Held::Instant { seconds, nanos })
            }
            Self::Wrapper { scalar, default } => {
                let mut held = before.unwrap_or(*default);
                while !cursor.is_empty() {
                    match key(cursor)? {
                        (1, wire) if wire == scalar.wire() => held = scalar.read(cursor)?,
                        (1, _) => return Err(Broken::WireType),
                        (number, wire) => skip(number, wire, cursor, depth)?,
                    }
                }
                Ok(held)
            }
        }
    }
}

/// The number and wire type of the next field.
#[inline]
fn key(cursor: &mut Cursor<'_>) -> Result<(u32, u8), Broken> {
    let key = u32::try_from(cursor.varint()?).map_err(|_| Broken::LongNumber)?;
    let wire = u8::try_from(key & 7).unwrap_or_default();
    if key >> 3 == 0 { Err(Broken::WireType) } else { Ok((key >> 3, wire)) }
}

/// What a field of a given length holds.
fn delimited<'a>(wire: u8, cursor: &mut Cursor<'a>) -> Result<Cursor<'a>, Broken> {
    if wire != LENGTH {
        return Err(Broken::WireType);
    }
    let length = cursor.length()?;
    cursor.inside(length)
}

/// Passes over a field.
fn skip(number: u32, wire: u8, cursor: &mut Cursor<'_>, depth: u32) -> Result<(), Broken> {
    match wire {
        VARINT => cursor.varint().map(drop),
        FIXED64 => cursor.take(8).map(drop),
        FIXED32 => cursor.take(4).map(drop),
        LENGTH => {
            let length = cursor.length()?;
            cursor.take(length).map(drop)
        }
        START => {
            let depth = deeper(depth)?;
            loop {
                match key(cursor)? {
                    (end, END) if end == number => return Ok(()),
                    (_, END) => return Err(Broken::Group),
                    (inner, wire) => skip(inner, wire, cursor, depth)?,
                }
            }
        }
        END => Err(Broken::Group),
        _ => Err(Broken::WireType),
    }
}

const fn deeper(depth: u32) -> Result<u32, Broken> {
    if depth < MAX_DEPTH { Ok(depth + 1) } else { Err(Broken::TooDeep) }
}
