//! What an aggregate comes to.

use std::fmt;

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
    /// Several values, in order.
    List(Vec<Self>),
}

impl Value {
    /// About how many bytes it takes in a result.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Null | Self::Count(_) | Self::Decimal { .. } | Self::Float(_) => 24,
            Self::List(values) => 24 + values.iter().map(Self::bytes).sum::<usize>(),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Count(count) => write!(f, "{count}"),
            Self::Float(value) => write!(f, "{value}"),
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
