//! Event times as producers write them: epoch numbers in four units and RFC 3339, floored to milliseconds.

use jiff::fmt::temporal::DateTimeParser;
use tidegate_core::record::Timestamp;
use tidegate_core::time::EventTime;
use tidegate_job::TimeUnit;

use crate::decimal::{NotFixed, Round, fixed, rescaled};
use crate::text::content;
use crate::value::{Epoch, Value, shortest, twos_complement};

/// The event times that can be written as a date: years −9999 to 9999 (the range of jiff's `Timestamp`).
const RANGE: std::ops::RangeInclusive<i64> = -377_705_023_201_000..=253_402_207_200_999;

/// Why a source gives no event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoTime {
    Missing,
    Null,
    WrongType,
    NotANumber,
    NotRfc3339,
    Absurd,
}

impl NoTime {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Null => "null",
            Self::WrongType => "neither a number nor text",
            Self::NotANumber => "not a number",
            Self::NotRfc3339 => "not an RFC 3339 time",
            Self::Absurd => "outside the years -9999 to 9999",
        }
    }
}

/// The time written in `text`: a header's value or the content of a JSON string.
pub(crate) fn of_text(text: &[u8], unit: TimeUnit) -> Result<EventTime, NoTime> {
    match scale(unit) {
        Some(scale) => of_number(text, scale),
        None => of_rfc3339(text),
    }
}

/// The time that a field holds: a number, text, or what its schema says is a time; `room` is for text that is not in the
/// payload as it is.
#[inline]
pub(crate) fn of_value(value: Value<'_>, unit: TimeUnit, room: &mut String) -> Result<EventTime, NoTime> {
    let scale = || scale(unit).ok_or(NoTime::NotRfc3339);
    match value {
        Value::Json(json) => match json.as_bytes().first() {
            Some(b'n') => Err(NoTime::Null),
            Some(b'"') => match content(json, room) {
                Some(content) => of_text(content.as_bytes(), unit),
                None => Err(NoTime::WrongType),
            },
            Some(b'-' | b'0'..=b'9') => of_number(json.as_bytes(), scale()?),
            _ => Err(NoTime::WrongType),
        },
        Value::Null => Err(NoTime::Null),
        Value::Text(text) => of_text(text.as_bytes(), unit),
        Value::Integer(number) => of_units(number, 0, scale()?),
        Value::Decimal { digits, scale: from } => {
            let unscaled = twos_complement(digits).ok_or(NoTime::Absurd)?;
            of_units(unscaled, i32::try_from(from).unwrap_or(i32::MAX), scale()?)
        }
        Value::Single(number) if number.is_finite() => of_number(shortest(number, room), scale()?),
        Value::Double(number) if number.is_finite() => of_number(shortest(number, room), scale()?),
        Value::Epoch { number, unit } => {
            let number = i128::from(number);
            match unit {
                Epoch::Days => of_units(number * 86_400_000, 0, 0),
                Epoch::Millis => of_units(number, 0, 0),
                Epoch::Micros => of_units(number, 0, -3),
                Epoch::Nanos => of_units(number, 0, -6),
            }
        }
        Value::Instant { seconds, nanos } => {
            of_units(i128::from(seconds) * 1_000_000_000 + i128::from(nanos), 0, -6)
        }
        Value::Single(_)
        | Value::Double(_)
        | Value::Boolean(_)
        | Value::Bytes(_)
        | Value::Uuid(_)
        | Value::Array
        | Value::Object => Err(NoTime::WrongType),
    }
}

fn of_units(number: i128, from: i32, to: i32) -> Result<EventTime, NoTime> {
    in_range(rescaled(number, from, to, Round::Floor).map_err(|_| NoTime::Absurd)?)
}

/// The record's own timestamp. Kafka writes "none" as −1 too.
pub(crate) fn of_record(timestamp: Timestamp) -> Result<EventTime, NoTime> {
    match timestamp {
        Timestamp::NotAvailable | Timestamp::CreateTime(EventTime(-1)) => Err(NoTime::Missing),
        Timestamp::CreateTime(time) | Timestamp::LogAppendTime(time) => in_range(time.millis()),
    }
}

/// The unit in powers of ten of a millisecond, where numbers have one.
const fn scale(unit: TimeUnit) -> Option<i32> {
    match unit {
        TimeUnit::Seconds => Some(3),
        TimeUnit::Millis => Some(0),
        TimeUnit::Micros => Some(-3),
        TimeUnit::Nanos => Some(-6),
        TimeUnit::Rfc3339 => None,
    }
}

fn of_number(text: &[u8], scale: i32) -> Result<EventTime, NoTime> {
    let millis = fixed(text, scale, Round::Floor).map_err(|why| match why {
        NotFixed::NotANumber => NoTime::NotANumber,
        NotFixed::OutOfRange => NoTime::Absurd,
    })?;
    in_range(millis)
}

fn of_rfc3339(text: &[u8]) -> Result<EventTime, NoTime> {
    static PARSER: DateTimeParser = DateTimeParser::new();
    let time = PARSER.parse_timestamp(text).map_err(|_| NoTime::NotRfc3339)?;
    // Seconds and nanoseconds have the same sign, so the floor of the sum is the floor of the second part.
    let millis = i64::from(time.subsec_nanosecond().div_euclid(1_000_000));
    in_range(time.as_second().saturating_mul(1000).saturating_add(millis))
}

fn in_range(millis: i64) -> Result<EventTime, NoTime> {
    if RANGE.contains(&millis) { Ok(EventTime(millis)) } else { Err(NoTime::Absurd) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_is_that_of_jiff() {
        use jiff::Timestamp;
        assert_eq!(*RANGE.start(), Timestamp::MIN.as_millisecond());
        assert_eq!(*RANGE.end(), Timestamp::MAX.as_millisecond());
        assert_eq!(of_rfc3339(Timestamp::MAX.to_string().as_bytes()), Ok(EventTime(*RANGE.end())));
        assert_eq!(of_rfc3339(Timestamp::MIN.to_string().as_bytes()), Ok(EventTime(*RANGE.start())));
    }

    #[test]
    fn epoch_numbers_are_floored_to_milliseconds() {
        for (text, unit, millis) in [
            ("1700000000", TimeUnit::Seconds, 1_700_000_000_000),
            ("1700000000.1239", TimeUnit::Seconds, 1_700_000_000_123),
            ("1.7e9", TimeUnit::Seconds, 1_700_000_000_000),
            ("1700000000123", TimeUnit::Millis, 1_700_000_000_123),
            ("-1", TimeUnit::Millis, -1),
            ("-0.5", TimeUnit::Millis, -1),
            ("1700000000123999", TimeUnit::Micros, 1_700_000_000_123),
            ("-1", TimeUnit::Micros, -1),
            ("1700000000123999999", TimeUnit::Nanos, 1_700_000_000_123),
        ] {
            assert_eq!(of_text(text.as_bytes(), unit), Ok(EventTime(millis)), "{text} {unit:?}");
            assert_eq!(json(text, unit), Ok(EventTime(millis)), "{text} {unit:?}");
            assert_eq!(json(&format!("\"{text}\""), unit), Ok(EventTime(millis)), "{text} {unit:?}");
        }
    }

    #[test]
    fn rfc3339_is_floored_to_milliseconds() {
        for (text, millis) in [
            ("2023-11-14T22:13:20Z", 1_700_000_000_000),
            ("2023-11-14T22:13:20.1239Z", 1_700_000_000_123),
            ("2023-11-15T00:13:20+02:00", 1_700_000_000_000),
            ("2023-11-14t22:13:20z", 1_700_000_000_000),
            ("1969-12-31T23:59:59.9999Z", -1),
            ("1969-12-31T23:59:58.9995Z", -1001),
        ] {
            assert_eq!(of_text(text.as_bytes(), TimeUnit::Rfc3339), Ok(EventTime(millis)), "{text}");
            assert_eq!(json(&format!("\"{text}\""), TimeUnit::Rfc3339), Ok(EventTime(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for (text, unit, why) in [
            ("", TimeUnit::Millis, NoTime::NotANumber),
            ("yesterday", TimeUnit::Millis, NoTime::NotANumber),
            ("2023-11-14T22:13:20Z", TimeUnit::Seconds, NoTime::NotANumber),
            (" 1", TimeUnit::Seconds, NoTime::NotANumber),
            ("1700000000000", TimeUnit::Rfc3339, NoTime::NotRfc3339),
            ("2023-11-14T22:13:20", TimeUnit::Rfc3339, NoTime::NotRfc3339),
            ("2023-02-30T00:00:00Z", TimeUnit::Rfc3339, NoTime::NotRfc3339),
            ("1700000000000", TimeUnit::Seconds, NoTime::Absurd),
            ("253402207201000", TimeUnit::Millis, NoTime::Absurd),
            ("-377705023201001", TimeUnit::Millis, NoTime::Absurd),
            ("1e400", TimeUnit::Nanos, NoTime::Absurd),
        ] {
            assert_eq!(of_text(text.as_bytes(), unit), Err(why), "{text} {unit:?}");
        }
        for (value, unit, why) in [
            ("null", TimeUnit::Millis, NoTime::Null),
            ("true", TimeUnit::Millis, NoTime::WrongType),
            ("false", TimeUnit::Millis, NoTime::WrongType),
            ("{}", TimeUnit::Millis, NoTime::WrongType),
            ("[1]", TimeUnit::Millis, NoTime::WrongType),
            ("1700000000000", TimeUnit::Rfc3339, NoTime::NotRfc3339),
            (r#""\ud800""#, TimeUnit::Millis, NoTime::WrongType),
        ] {
            assert_eq!(json(value, unit), Err(why), "{value} {unit:?}");
        }
    }

    #[test]
    fn an_escaped_string_is_unescaped_first() {
        assert_eq!(json(r#""17\u003000""#, TimeUnit::Millis), Ok(EventTime(17000)));
        assert_eq!(json(r#""1970-01-01T00:00:00\u005a""#, TimeUnit::Rfc3339), Ok(EventTime(0)));
    }

    #[test]
    fn a_time_of_a_schema_has_its_own_unit() {
        for (value, millis) in [
            (Value::Epoch { number: 1_700_000_000_123, unit: Epoch::Millis }, 1_700_000_000_123),
            (Value::Epoch { number: -1, unit: Epoch::Micros }, -1),
            (Value::Epoch { number: 1_700_000_000_123_999_999, unit: Epoch::Nanos }, 1_700_000_000_123),
            (Value::Epoch { number: -1, unit: Epoch::Days }, -86_400_000),
            (Value::Instant { seconds: 1_700_000_000, nanos: 123_999_999 }, 1_700_000_000_123),
            (Value::Instant { seconds: -1, nanos: 999_999_999 }, -1),
        ] {
            for unit in [TimeUnit::Seconds, TimeUnit::Rfc3339] {
                assert_eq!(of_value(value, unit, &mut String::new()), Ok(EventTime(millis)), "{value:?}");
            }
        }
    }

    #[test]
    fn a_number_of_any_type_is_read_in_its_unit() {
        for (value, unit, expected) in [
            (Value::Integer(1_700_000_000), TimeUnit::Seconds, Ok(EventTime(1_700_000_000_000))),
            (Value::Integer(-1), TimeUnit::Nanos, Ok(EventTime(-1))),
            (Value::Double(1_700_000_000.5), TimeUnit::Seconds, Ok(EventTime(1_700_000_000_500))),
            (Value::Decimal { digits: &[0x04, 0xd2], scale: 3 }, TimeUnit::Seconds, Ok(EventTime(1234))),
            (Value::Text("1970-01-01T00:00:01Z"), TimeUnit::Rfc3339, Ok(EventTime(1000))),
            (Value::Integer(1), TimeUnit::Rfc3339, Err(NoTime::NotRfc3339)),
            (Value::Double(f64::INFINITY), TimeUnit::Millis, Err(NoTime::WrongType)),
            (Value::Integer(i128::from(u64::MAX)), TimeUnit::Millis, Err(NoTime::Absurd)),
            (Value::Null, TimeUnit::Millis, Err(NoTime::Null)),
            (Value::Boolean(true), TimeUnit::Millis, Err(NoTime::WrongType)),
        ] {
            assert_eq!(of_value(value, unit, &mut String::new()), expected, "{value:?} {unit:?}");
        }
    }

    #[test]
    fn a_record_may_have_no_timestamp() {
        for (timestamp, expected) in [
            (Timestamp::CreateTime(EventTime(5)), Ok(EventTime(5))),
            (Timestamp::LogAppendTime(EventTime(5)), Ok(EventTime(5))),
            (Timestamp::NotAvailable, Err(NoTime::Missing)),
            (Timestamp::CreateTime(EventTime(-1)), Err(NoTime::Missing)),
            (Timestamp::CreateTime(EventTime(i64::MAX)), Err(NoTime::Absurd)),
        ] {
            assert_eq!(of_record(timestamp), expected, "{timestamp:?}");
        }
    }

    fn json(value: &str, unit: TimeUnit) -> Result<EventTime, NoTime> {
        of_value(Value::Json(value), unit, &mut String::new())
    }
}
