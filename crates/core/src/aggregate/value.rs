//! What an aggregate comes to.

use std::fmt::{self, Write};

/// The value of an aggregate; its `Display` is JSON.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// No value contributed.
    Null,
    /// A number of records.
    Count(u64),
    /// An exact number of `units · 10^−scale`.
    Decimal {
        /// The number in units of 10^−scale.
        units: i128,
        /// Decimal places.
        scale: u32,
    },
    /// A quotient, or an estimate.
    Float(f64),
    /// Text.
    Text(String),
    /// A number, `true` or `false`, as it was written.
    Written(String),
    /// Several values, in order.
    List(Vec<Self>),
    /// Values, each with a number of records.
    Counted(Vec<(Self, u64)>),
}

impl Value {
    /// A value in the form that summaries keep.
    pub(crate) fn as_is(form: &[u8]) -> Self {
        match form.split_first() {
            Some((b'"', text)) => Self::Text(String::from_utf8_lossy(text).into_owned()),
            _ => Self::Written(String::from_utf8_lossy(form).into_owned()),
        }
    }

    /// About how many bytes it takes in a result.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Null | Self::Count(_) | Self::Decimal { .. } | Self::Float(_) => 24,
            Self::Text(text) | Self::Written(text) => 24 + text.len(),
            Self::List(values) => 24 + values.iter().map(Self::bytes).sum::<usize>(),
            Self::Counted(values) => 24 + values.iter().map(|(value, _)| 48 + value.bytes()).sum::<usize>(),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Count(count) => write!(f, "{count}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Text(text) => write_text(f, text),
            Self::Written(number) => f.write_str(number),
            Self::Counted(values) => {
                f.write_str("[")?;
                for (at, (value, count)) in values.iter().enumerate() {
                    let comma = if at == 0 { "" } else { "," };
                    write!(f, r#"{comma}{{"value":{value},"count":{count}}}"#)?;
                }
                f.write_str("]")
            }
            Self::List(values) => {
                f.write_str("[")?;
                for (at, value) in values.iter().enumerate() {
                    let comma = if at == 0 { "" } else { "," };
                    write!(f, "{comma}{value}")?;
                }
                f.write_str("]")
            }
            Self::Decimal { units, scale } => write_decimal(f, *units, *scale),
        }
    }
}

fn write_text(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for character in text.chars() {
        match character {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            control if control < ' ' => write!(f, "\\u{:04x}", u32::from(control))?,
            other => f.write_char(other)?,
        }
    }
    f.write_str("\"")
}

fn write_decimal(f: &mut fmt::Formatter<'_>, units: i128, scale: u32) -> fmt::Result {
    let one = 10u128.pow(scale.min(38));
    let (whole, mut fraction) = (units.unsigned_abs() / one, units.unsigned_abs() % one);
    let sign = if units < 0 { "-" } else { "" };
    if fraction == 0 {
        return write!(f, "{sign}{whole}");
    }
    let mut places = scale as usize;
    while fraction % 10 == 0 {
        fraction /= 10;
        places -= 1;
    }
    write!(f, "{sign}{whole}.{fraction:0places$}")
}
