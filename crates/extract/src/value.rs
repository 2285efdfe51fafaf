//! The fields that were found in a payload, whatever its format: kept as numbers and ranges of its bytes, read when asked for.

use std::cmp::Ordering;
use std::fmt::Write;

use crate::decimal::{NotFixed, Round, fixed, rescaled};
use crate::pointers::Slot;
use crate::text;
use crate::wire::Place;

/// Where the values of a payload's needed fields are; kept from record to record.
#[derive(Debug, Default)]
pub(crate) struct Found {
    values: Vec<Option<Held>>,
    /// How many items of each list have been seen; of formats that scatter them.
    pub(crate) counts: Vec<usize>,
    /// Room to unescape a name.
    pub(crate) name: String,
}

/// What a field holds; places are ranges of the payload.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Held {
    /// JSON text.
    Json(Place),
    Null,
    Boolean(bool),
    Integer(i64),
    Unsigned(u64),
    Single(f32),
    Double(f64),
    /// UTF-8, checked.
    Text(Place),
    Bytes(Place),
    /// A universally unique identifier in 16 bytes.
    Uuid(Place),
    /// A two's complement number, highest byte first, in units of 10^−scale.
    Decimal {
        digits: Place,
        scale: u32,
    },
    /// A name in the schema.
    Symbol(usize),
    Epoch {
        number: i64,
        unit: Epoch,
    },
    Instant {
        seconds: i64,
        nanos: i32,
    },
    Array,
    Object,
}

/// The unit of a time as schemas have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Epoch {
    Days,
    Millis,
    Micros,
    Nanos,
}

/// A payload whose needed fields have been found.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    pub(crate) payload: &'a [u8],
    /// The payload as text, of JSON; else empty.
    pub(crate) document: &'a str,
    /// The names that the payload's schema has.
    pub(crate) symbols: &'a [String],
    pub(crate) found: &'a Found,
}

/// What a field holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Json(&'a str),
    Null,
    Boolean(bool),
    Integer(i128),
    Single(f32),
    Double(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    Uuid(&'a [u8]),
    Decimal { digits: &'a [u8], scale: u32 },
    Epoch { number: i64, unit: Epoch },
    Instant { seconds: i64, nanos: i32 },
    Array,
    Object,
}

impl Found {
    /// Forgets the values of the payload before; this one can have so many.
    pub(crate) fn begin(&mut self, slots: usize) {
        self.values.clear();
        self.values.resize(slots, None);
    }

    pub(crate) fn set(&mut self, slot: usize, held: Held) {
        if let Some(value) = self.values.get_mut(slot) {
            *value = Some(held);
        }
    }

    pub(crate) fn get(&self, slot: usize) -> Option<Held> {
        self.values.get(slot).copied().flatten()
    }

    /// What came for these slots does not count.
    pub(crate) fn forget(&mut self, slots: std::ops::Range<usize>) {
        if let Some(values) = self.values.get_mut(slots) {
            values.fill(None);
        }
    }
}

impl<'a> Fields<'a> {
    #[inline]
    pub(crate) fn value(&self, slot: Slot) -> Option<Value<'a>> {
        let bytes = |place: Place| self.payload.get(place.start..).and_then(|rest| rest.get(..place.length));
        Some(match self.found.get(slot.index())? {
            Held::Json(place) => Value::Json(self.document.get(place.start..)?.get(..place.length)?),
            Held::Null => Value::Null,
            Held::Boolean(value) => Value::Boolean(value),
            Held::Integer(number) => Value::Integer(i128::from(number)),
            Held::Unsigned(number) => Value::Integer(i128::from(number)),
            Held::Single(number) => Value::Single(number),
            Held::Double(number) => Value::Double(number),
            Held::Text(place) => Value::Text(std::str::from_utf8(bytes(place)?).ok()?),
            Held::Bytes(place) => Value::Bytes(bytes(place)?),
            Held::Uuid(place) => Value::Uuid(bytes(place)?),
            Held::Decimal { digits, scale } => Value::Decimal { digits: bytes(digits)?, scale },
            Held::Symbol(index) => Value::Text(self.symbols.get(index)?),
            Held::Epoch { number, unit } => Value::Epoch { number, unit },
            Held::Instant { seconds, nanos } => Value::Instant { seconds, nanos },
            Held::Array => Value::Array,
            Held::Object => Value::Object,
        })
    }
}

/// Why a value is no group key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoKey {
    /// It escapes half of a surrogate pair.
    HalfPair,
    /// It is of a type that cannot be one.
    Kind(&'static str),
}

impl<'a> Value<'a> {
    /// The bytes of a group key; `room` is for those that are not in the payload as they are.
    pub(crate) fn key<'b>(self, room: &'b mut String) -> Result<&'b [u8], NoKey>
    where
        'a: 'b,
    {
        room.clear();
        // Writing to a string does not fail.
        let _ = match self {
            Self::Json(json) => {
                return match json.as_bytes().first() {
                    Some(b'"') => text::content(json, room).map(str::as_bytes).ok_or(NoKey::HalfPair),
                    Some(b'n' | b'[' | b'{') => Err(NoKey::Kind(self.kind())),
                    _ => Ok(json.as_bytes()),
                };
            }
            Self::Text(text) => return Ok(text.as_bytes()),
            Self::Bytes(bytes) => return Ok(bytes),
            Self::Boolean(value) => write!(room, "{value}"),
            Self::Integer(number) => write!(room, "{number}"),
            Self::Epoch { number, .. } => write!(room, "{number}"),
            Self::Single(number) => write!(room, "{number}"),
            Self::Double(number) => write!(room, "{number}"),
            Self::Uuid(bytes) => {
                for (index, byte) in bytes.iter().enumerate() {
                    let dash = if matches!(index, 4 | 6 | 8 | 10) { "-" } else { "" };
                    let _ = write!(room, "{dash}{byte:02x}");
                }
                Ok(())
            }
            Self::Decimal { digits, scale } => {
                let Some(unscaled) = twos_complement(digits) else {
                    return Err(NoKey::Kind("a decimal of more than 128 bits"));
                };
                write_decimal(room, unscaled, scale)
            }
            Self::Null | Self::Instant { .. } | Self::Array | Self::Object => {
                return Err(NoKey::Kind(self.kind()));
            }
        };
        Ok(room.as_bytes())
    }

    /// The number in units of 10^−scale; `None`: null. The error says what it is instead.
    #[inline]
    pub(crate) fn number(self, scale: i32, room: &mut String) -> Result<Option<i64>, NotNumber> {
        self.rounded(scale, Round::HalfEven, room)
    }

    /// How the number compares with `units` · 10^−scale, exactly; `None` where it is no number.
    pub(crate) fn compared(self, units: i64, scale: i32, room: &mut String) -> Option<Ordering> {
        let beyond = if self.is_negative() { Ordering::Less } else { Ordering::Greater };
        let mut rounded = |round| match self.rounded(scale, round, room) {
            Ok(number) => number.map(|number| number.cmp(&units)),
            Err(NotNumber::OutOfRange) => Some(beyond),
            Err(NotNumber::Kind(_) | NotNumber::NotANumber | NotNumber::NotFinite) => None,
        };
        Some(match (rounded(Round::Floor)?, rounded(Round::Ceiling)?) {
            (Ordering::Less, _) => Ordering::Less,
            (_, Ordering::Greater) => Ordering::Greater,
            (_, _) => Ordering::Equal,
        })
    }

    fn is_negative(self) -> bool {
        match self {
            Self::Json(json) => json.starts_with('-'),
            Self::Integer(number) => number < 0,
            Self::Single(number) => number < 0.0,
            Self::Double(number) => number < 0.0,
            Self::Decimal { digits, .. } => digits.first().is_some_and(|byte| *byte >= 0x80),
            _ => false,
        }
    }

    pub(crate) fn is_text(self) -> bool {
        match self {
            Self::Json(json) => json.starts_with('"'),
            Self::Text(_) | Self::Uuid(_) => true,
            _ => false,
        }
    }

    pub(crate) fn boolean(self) -> Option<bool> {
        match self {
            Self::Json("true") | Self::Boolean(true) => Some(true),
            Self::Json("false") | Self::Boolean(false) => Some(false),
            _ => None,
        }
    }

    #[inline]
    fn rounded(self, scale: i32, round: Round, room: &mut String) -> Result<Option<i64>, NotNumber> {
        let fits = |result: Result<i64, NotFixed>| match result {
            Ok(value) => Ok(Some(value)),
            Err(NotFixed::OutOfRange) => Err(NotNumber::OutOfRange),
            Err(NotFixed::NotANumber) => Err(NotNumber::NotANumber),
        };
        match self {
            Self::Null => Ok(None),
            Self::Json(json) => match json.as_bytes().first() {
                Some(b'n') => Ok(None),
                Some(b't' | b'f' | b'"' | b'[' | b'{') => Err(NotNumber::Kind(self.kind())),
                _ => fits(fixed(json.as_bytes(), scale, round)),
            },
            Self::Integer(number) => fits(rescaled(number, 0, scale, round)),
            Self::Decimal { digits, scale: from } => {
                let unscaled = twos_complement(digits).ok_or(NotNumber::OutOfRange)?;
                fits(rescaled(unscaled, i32::try_from(from).unwrap_or(i32::MAX), scale, round))
            }
            Self::Single(number) if number.is_finite() => fits(fixed(shortest(number, room), scale, round)),
            Self::Double(number) if number.is_finite() => fits(fixed(shortest(number, room), scale, round)),
            Self::Single(_) | Self::Double(_) => Err(NotNumber::NotFinite),
            Self::Boolean(_)
            | Self::Text(_)
            | Self::Bytes(_)
            | Self::Uuid(_)
            | Self::Epoch { .. }
            | Self::Instant { .. }
            | Self::Array
            | Self::Object => Err(NotNumber::Kind(self.kind())),
        }
    }

    /// Appends the value in the form in which aggregates take it as it is: text as `"` and its characters, a number or boolean as it is
    /// written; false for null.
    pub(crate) fn as_is(self, out: &mut Vec<u8>, room: &mut String) -> Result<bool, NotScalar> {
        let is_text = match self {
            Self::Null => return Ok(false),
            Self::Json(json) => match json.as_bytes().first() {
                Some(b'n') => return Ok(false),
                first => first == Some(&b'"'),
            },
            Self::Single(number) if !number.is_finite() => return Err(NotScalar::NotFinite),
            Self::Double(number) if !number.is_finite() => return Err(NotScalar::NotFinite),
            Self::Bytes(_) => return Err(NotScalar::Kind("bytes")),
            Self::Text(_) | Self::Uuid(_) => true,
            _ => false,
        };
        let bytes = self.key(room).map_err(|why| match why {
            NoKey::HalfPair => NotScalar::HalfPair,
            NoKey::Kind(kind) => NotScalar::Kind(kind),
        })?;
        if is_text {
            out.push(b'"');
        }
        out.extend_from_slice(bytes);
        Ok(true)
    }

    pub(crate) fn is_null(self) -> bool {
        match self {
            Self::Null => true,
            Self::Json(json) => json.starts_with('n'),
            _ => false,
        }
    }

    /// What the value is called in an error.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Json(json) => match json.as_bytes().first() {
                Some(b'n') => "null",
                Some(b't' | b'f') => "a boolean",
                Some(b'"') => "a string",
                Some(b'[') => "an array",
                Some(b'{') => "an object",
                _ => "a number",
            },
            Self::Null => "null",
            Self::Boolean(_) => "a boolean",
            Self::Integer(_) | Self::Single(_) | Self::Double(_) | Self::Decimal { .. } => "a number",
            Self::Text(_) => "a string",
            Self::Bytes(_) | Self::Uuid(_) => "bytes",
            Self::Epoch { .. } | Self::Instant { .. } => "a time",
            Self::Array => "an array",
            Self::Object => "an object",
        }
    }
}

/// Why a value cannot be taken as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotScalar {
    HalfPair,
    NotFinite,
    Kind(&'static str),
}

impl NotScalar {
    pub(crate) fn to_text(self) -> String {
        match self {
            Self::HalfPair => "escapes half of a surrogate pair".to_owned(),
            Self::NotFinite => "is infinite or not a number".to_owned(),
            Self::Kind(kind) => format!("is {kind}, not text, a number or a boolean"),
        }
    }
}

/// Why a value is no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotNumber {
    Kind(&'static str),
    NotANumber,
    OutOfRange,
    NotFinite,
}

/// The shortest decimal text that reads as this float.
pub(crate) fn shortest(number: impl std::fmt::Display, room: &mut String) -> &[u8] {
    room.clear();
    // Writing to a string does not fail.
    let _ = write!(room, "{number}");
    room.as_bytes()
}

/// A two's complement number, highest byte first; `None` past 128 bits.
pub(crate) fn twos_complement(bytes: &[u8]) -> Option<i128> {
    let sign = if bytes.first().is_some_and(|byte| *byte >= 0x80) { 0xff } else { 0 };
    let rest = bytes.iter().skip_while(|byte| **byte == sign);
    let mut number = if sign == 0 { 0_i128 } else { -1 };
    let mut count = 0;
    for byte in rest {
        count += 1;
        number = (number << 8) | i128::from(*byte);
    }
    let kept = (number < 0) == (sign != 0);
    (count <= 16 && kept).then_some(number)
}

/// As decimal text with all its places.
fn write_decimal(room: &mut String, unscaled: i128, scale: u32) -> std::fmt::Result {
    let scale = usize::try_from(scale).unwrap_or(usize::MAX).min(1 << 16);
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale.saturating_add(1));
    let (whole, fraction) = digits.split_at(digits.len().saturating_sub(scale));
    let sign = if unscaled < 0 { "-" } else { "" };
    let dot = if fraction.is_empty() { "" } else { "." };
    write!(room, "{sign}{whole}{dot}{fraction}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twos_complement_is_read_with_any_number_of_bytes() {
        for (bytes, expected) in [
            (&[][..], Some(0)),
            (&[0], Some(0)),
            (&[0x7f], Some(127)),
            (&[0x80], Some(-128)),
            (&[0xff], Some(-1)),
            (&[0x00, 0x80], Some(128)),
            (&[0xff, 0x7f], Some(-129)),
            (&[0x04, 0xd2], Some(1234)),
        ] {
            assert_eq!(twos_complement(bytes), expected, "{bytes:?}");
        }
        let padded = [[0; 20].as_slice(), &[1]].concat();
        assert_eq!(twos_complement(&padded), Some(1));
        let padded = [[0xff; 20].as_slice(), &[0xfe]].concat();
        assert_eq!(twos_complement(&padded), Some(-2));
        assert_eq!(twos_complement(&i128::MIN.to_be_bytes()), Some(i128::MIN));
        assert_eq!(twos_complement(&i128::MAX.to_be_bytes()), Some(i128::MAX));
        assert_eq!(twos_complement(&[[0].as_slice(), &[0xff; 16]].concat()), None);
        assert_eq!(twos_complement(&[1; 17]), None);
    }

    #[test]
    fn a_key_is_written_as_its_text() {
        let uuid = [0x55, 0x0e, 0x84, 0, 0xe2, 0x9b, 0x41, 0xd4, 0xa7, 0x16, 0x44, 0x66, 0x55, 0x44, 0, 0];
        for (value, expected) in [
            (Value::Json(r#""a\u0062""#), "ab"),
            (Value::Json("1.0"), "1.0"),
            (Value::Text("x"), "x"),
            (Value::Boolean(true), "true"),
            (Value::Integer(-7), "-7"),
            (Value::Integer(i128::from(u64::MAX)), "18446744073709551615"),
            (Value::Double(0.1), "0.1"),
            (Value::Single(0.1), "0.1"),
            (Value::Epoch { number: 5, unit: Epoch::Micros }, "5"),
            (Value::Decimal { digits: &[0x04, 0xd2], scale: 2 }, "12.34"),
            (Value::Decimal { digits: &[0xff], scale: 3 }, "-0.001"),
            (Value::Decimal { digits: &[0x05], scale: 0 }, "5"),
            (Value::Uuid(&uuid), "550e8400-e29b-41d4-a716-446655440000"),
        ] {
            assert_eq!(value.key(&mut String::from("left over")), Ok(expected.as_bytes()), "{value:?}");
        }
        for value in [Value::Null, Value::Json("null"), Value::Json("[1]"), Value::Array, Value::Object] {
            assert_eq!(value.key(&mut String::new()), Err(NoKey::Kind(value.kind())), "{value:?}");
        }
    }

    #[test]
    fn a_value_as_it_is_tells_text_from_what_it_looks_like() {
        let (kind, uuid) = (NotScalar::Kind, [0; 16]);
        for (value, expected) in [
            (Value::Json(r#""a\u0062\n""#), Ok("\"ab\n")),
            (Value::Json(r#""1""#), Ok("\"1")),
            (Value::Json("1.0"), Ok("1.0")),
            (Value::Json("true"), Ok("true")),
            (Value::Json("null"), Ok("")),
            (Value::Json(r#""\ud800""#), Err(NotScalar::HalfPair)),
            (Value::Json("{}"), Err(kind("an object"))),
            (Value::Text("x"), Ok("\"x")),
            (Value::Integer(-7), Ok("-7")),
            (Value::Double(0.1), Ok("0.1")),
            (Value::Single(f32::INFINITY), Err(NotScalar::NotFinite)),
            (Value::Decimal { digits: &[0x04, 0xd2], scale: 2 }, Ok("12.34")),
            (Value::Uuid(&uuid), Ok("\"00000000-0000-0000-0000-000000000000")),
            (Value::Bytes(b"x"), Err(kind("bytes"))),
            (Value::Instant { seconds: 0, nanos: 0 }, Err(kind("a time"))),
            (Value::Array, Err(kind("an array"))),
        ] {
            let mut out = Vec::new();
            let got = value.as_is(&mut out, &mut String::from("left over"));
            assert_eq!(got, expected.map(|text| !text.is_empty()), "{value:?}");
            assert_eq!(String::from_utf8(out).unwrap(), expected.unwrap_or_default(), "{value:?}");
        }
    }

    #[test]
    fn a_number_is_exact_at_its_scale() {
        for (value, expected) in [
            (Value::Integer(5), Ok(Some(500))),
            (Value::Double(0.125), Ok(Some(12))),
            (Value::Double(1e300), Err(NotNumber::OutOfRange)),
            (Value::Double(f64::NAN), Err(NotNumber::NotFinite)),
            (Value::Single(0.1), Ok(Some(10))),
            (Value::Decimal { digits: &[0x30, 0x39], scale: 3 }, Ok(Some(1234))),
            (Value::Decimal { digits: &[1; 17], scale: 3 }, Err(NotNumber::OutOfRange)),
            (Value::Null, Ok(None)),
            (Value::Text("5"), Err(NotNumber::Kind("a string"))),
            (Value::Epoch { number: 5, unit: Epoch::Micros }, Err(NotNumber::Kind("a time"))),
        ] {
            assert_eq!(value.number(2, &mut String::new()), expected, "{value:?}");
        }
    }
}
