//! The needed fields of a payload in Avro's binary encoding, found in one pass along the schema it was written with.
//!
//! The schema becomes a list of [`Shape`]s (by which anything is passed over, however it refers to itself) and a tree of
//! [`Take`]s along the job's pointers. Each byte is accounted for to the last: lengths, counts and variants are checked,
//! needed or not; whether an unneeded text is UTF-8 is not.
//!
//! Unions are transparent: `/amount` is found in a `double` and in a `["null", "double"]`.

mod shape;
#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::pointers::{Node, Pointers};
use crate::schema::SchemaText;
use crate::value::{Epoch, Found, Held};
use crate::wire::{Broken, Cursor};

use shape::{Bits, Number, Shape, Shapes};

/// How deeply a payload may be nested.
const MAX_DEPTH: u32 = 64;

/// A schema, compiled for one job.
#[derive(Debug)]
pub(crate) struct Reader {
    shapes: Shapes,
    root: Take,
    known: Vec<bool>,
}

/// How to read a value of which something is needed.
#[derive(Debug)]
struct Take {
    shape: usize,
    /// Where its own value goes.
    slot: Option<usize>,
    /// All that is needed of it.
    slots: Range<usize>,
    inside: Inside,
}

/// What is needed within a value.
#[derive(Debug)]
enum Inside {
    Nothing,
    /// For each field in order.
    Record(Vec<Step>),
    /// By position.
    Array(Vec<(usize, Take)>),
    /// By name.
    Map(Vec<(String, Take)>),
    /// For each variant.
    Union(Vec<Take>),
}

#[derive(Debug)]
enum Step {
    Skip(usize),
    Take(Take),
}

impl Reader {
    pub(crate) fn new(schema: &SchemaText, pointers: &Pointers) -> Result<Self, String> {
        let (shapes, root) = Shapes::parse(schema)?;
        let mut known = vec![false; pointers.len()];
        let root = shapes.plan(root, pointers.root(), &mut known);
        Ok(Self { shapes, root, known })
    }

    /// For each slot, whether its pointer leads to something.
    pub(crate) fn known(&self) -> &[bool] {
        &self.known
    }

    /// Finds the needed fields; gives the names that enums have.
    pub(crate) fn find(&self, mut cursor: Cursor<'_>, found: &mut Found) -> Result<&[String], String> {
        found.begin(self.known.len());
        let read = self.shapes.take(&self.root, &mut cursor, found, 0);
        match read {
            Ok(()) if cursor.is_empty() => Ok(&self.shapes.symbols),
            Ok(()) => Err(no_record(Broken::Left)),
            Err(broken) => Err(no_record(broken)),
        }
    }
}

fn no_record(broken: Broken) -> String {
    format!("not an Avro record of its schema: {}", broken.as_str())
}

impl Shapes {
    /// How to read what `node` and those below it ask of a value of the shape.
    fn plan(&self, shape: usize, node: &Node, known: &mut [bool]) -> Take {
        let slot = node.slot();
        if let Some(known) = slot.and_then(|slot| known.get_mut(slot)) {
            *known = true;
        }
        let inside = match self.get(shape) {
            Shape::Record(fields) => Inside::Record(
                fields
                    .iter()
                    .map(|(name, field)| match node.child(name) {
                        Some(child) => Step::Take(self.plan(*field, child, known)),
                        None => Step::Skip(*field),
                    })
                    .collect(),
            ),
            Shape::Array(item) => Inside::Array(
                node.children
                    .iter()
                    .filter_map(|child| Some((child.index?, self.plan(*item, &child.node, known))))
                    .collect(),
            ),
            Shape::Map(value) => Inside::Map(
                node.children
                    .iter()
                    .map(|child| (child.name.clone(), self.plan(*value, &child.node, known)))
                    .collect(),
            ),
            Shape::Union(variants) => {
                Inside::Union(variants.iter().map(|variant| self.plan(*variant, node, known)).collect())
            }
            _ => Inside::Nothing,
        };
        Take { shape, slot, slots: node.slots.clone(), inside }
    }

    fn take(
        &self,
        take: &Take,
        cursor: &mut Cursor<'_>,
        found: &mut Found,
        depth: u32,
    ) -> Result<(), Broken> {
        let depth = deeper(depth)?;
        let held = match (self.get(take.shape), &take.inside) {
            (Shape::Record(_), Inside::Record(steps)) => {
                for step in steps {
                    match step {
                        Step::Skip(shape) => self.skip(*shape, cursor, depth)?,
                        Step::Take(take) => self.take(take, cursor, found, depth)?,
                    }
                }
                Held::Object
            }
            (Shape::Array(item), Inside::Array(takes)) => {
                let mut index = 0_usize;
                self.blocks(cursor, |cursor| {
                    match takes.iter().find(|(wanted, _)| *wanted == index) {
                        Some((_, take)) => self.take(take, cursor, found, depth)?,
                        None => self.skip(*item, cursor, depth)?,
                    }
                    index = index.saturating_add(1);
                    Ok(())
                })?;
                Held::Array
            }
            (Shape::Map(value), Inside::Map(takes)) => {
                self.blocks(cursor, |cursor| {
                    let length = cursor.length_zigzag()?;
                    let name = cursor.take(length)?;
                    let name = cursor.bytes(name);
                    match takes.iter().find(|(wanted, _)| wanted.as_bytes() == name) {
                        Some((_, take)) => {
                            // Of two entries of one name the last counts.
                            found.forget(take.slots.clone());
                            self.take(take, cursor, found, depth)
                        }
                        None => self.skip(*value, cursor, depth),
                    }
                })?;
                Held::Object
            }
            (Shape::Union(variants), Inside::Union(takes)) => {
                let index = cursor.index(variants.len())?;
                let take = takes.get(index).ok_or(Broken::NoSuchVariant)?;
                return self.take(take, cursor, found, depth);
            }
            (shape, _) => self.scalar(shape, cursor)?,
        };
        if let Some(slot) = take.slot {
            found.set(slot, held);
        }
        Ok(())
    }

    /// A value without others in it.
    fn scalar(&self, shape: &Shape, cursor: &mut Cursor<'_>) -> Result<Held, Broken> {
        Ok(match shape {
            Shape::Null => Held::Null,
            Shape::Boolean => match cursor.byte()? {
                0 => Held::Boolean(false),
                1 => Held::Boolean(true),
                _ => return Err(Broken::NoSuchVariant),
            },
            Shape::Number(number) => held(*number, cursor.zigzag()?),
            Shape::Float => Held::Single(f32::from_le_bytes(cursor.array()?)),
            Shape::Double => Held::Double(f64::from_le_bytes(cursor.array()?)),
            Shape::Text => {
                let length = cursor.length_zigzag()?;
                let place = cursor.take(length)?;
                std::str::from_utf8(cursor.bytes(place)).map_err(|_| Broken::NotText)?;
                Held::Text(place)
            }
            Shape::Bytes(bits) => {
                let length = cursor.length_zigzag()?;
                bits.held(cursor.take(length)?)
            }
            Shape::Fixed(size, bits) => bits.held(cursor.take(*size)?),
            Shape::Enum { first, count } => Held::Symbol(first.saturating_add(cursor.index(*count)?)),
            Shape::Array(_) => Held::Array,
            Shape::Map(_) | Shape::Record(_) | Shape::Union(_) => Held::Object,
        })
    }

    /// Passes over a value.
    fn skip(&self, shape: usize, cursor: &mut Cursor<'_>, depth: u32) -> Result<(), Broken> {
        let depth = deeper(depth)?;
        match self.get(shape) {
            Shape::Record(fields) => {
                for (_, field) in fields {
                    self.skip(*field, cursor, depth)?;
                }
            }
            Shape::Array(item) => self.blocks(cursor, |cursor| self.skip(*item, cursor, depth))?,
            Shape::Map(value) => self.blocks(cursor, |cursor| {
                let length = cursor.length_zigzag()?;
                cursor.take(length)?;
                self.skip(*value, cursor, depth)
            })?,
            Shape::Union(variants) => {
                let index = cursor.index(variants.len())?;
                let variant = variants.get(index).ok_or(Broken::NoSuchVariant)?;
                self.skip(*variant, cursor, depth)?;
            }
            Shape::Text => {
                let length = cursor.length_zigzag()?;
                cursor.take(length)?;
            }
            shape => {
                self.scalar(shape, cursor)?;
            }
        }
        Ok(())
    }

    /// The items of an array or map: blocks, each with its count, the last one empty.
    fn blocks(
        &self,
        cursor: &mut Cursor<'_>,
        mut item: impl FnMut(&mut Cursor<'_>) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        // Items may take no bytes; that many cannot be meant.
        let mut most = cursor.left().saturating_add(4096);
        loop {
            let count = cursor.zigzag()?;
            if count < 0 {
                cursor.zigzag()?;
            }
            let count = usize::try_from(count.unsigned_abs()).map_err(|_| Broken::TooMany)?;
            if count == 0 {
                return Ok(());
            }
            most = most.checked_sub(count).ok_or(Broken::TooMany)?;
            for _ in 0..count {
                item(cursor)?;
            }
        }
    }
}

impl Cursor<'_> {
    /// Avro's lengths are signed.
    #[inline]
    fn length_zigzag(&mut self) -> Result<usize, Broken> {
        usize::try_from(self.zigzag()?).map_err(|_| Broken::EndsEarly)
    }

    /// One of `count` variants.
    fn index(&mut self, count: usize) -> Result<usize, Broken> {
        let index = usize::try_from(self.zigzag()?).map_err(|_| Broken::NoSuchVariant)?;
        if index < count { Ok(index) } else { Err(Broken::NoSuchVariant) }
    }
}

impl Bits {
    const fn held(self, place: crate::wire::Place) -> Held {
        match self {
            Self::Plain => Held::Bytes(place),
            Self::Decimal { scale } => Held::Decimal { digits: place, scale },
            Self::Uuid => Held::Uuid(place),
        }
    }
}

const fn held(number: Number, value: i64) -> Held {
    match number {
        Number::Plain => Held::Integer(value),
        Number::Date => Held::Epoch { number: value, unit: Epoch::Days },
        Number::Millis => Held::Epoch { number: value, unit: Epoch::Millis },
        Number::Micros => Held::Epoch { number: value, unit: Epoch::Micros },
        Number::Nanos => Held::Epoch { number: value, unit: Epoch::Nanos },
    }
}

const fn deeper(depth: u32) -> Result<u32, Broken> {
    if depth < MAX_DEPTH { Ok(depth + 1) } else { Err(Broken::TooDeep) }
}
