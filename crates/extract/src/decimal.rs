//! Exact fixed point: decimal text to an integer in units of 10^−scale, never by way of a float.
//!
//! `12.345` at scale 2 is 1234 (ties go to the even neighbour), `1.7e9` at scale 3 is 1 700 000 000 000. Any number of
//! digits and any exponent is read exactly; only what does not fit 64 bits in the end is refused.

/// What happens to the digits behind the last one kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Round {
    /// Towards −∞: for times.
    Floor,
    /// Towards +∞: with the floor, to compare.
    Ceiling,
    /// To the nearest, ties to even: for amounts.
    HalfEven,
}

/// Why a text is no fixed-point number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotFixed {
    /// Not `-? digits (. digits)? ([eE] [+-]? digits)?`.
    NotANumber,
    /// Not between −2^63 and 2^63 − 1 units.
    OutOfRange,
}

/// The number written in `text`, in units of 10^−`scale`; a negative scale keeps multiples of a power of ten.
///
/// The grammar is JSON's, except that leading zeros are let through (`text` may come from a header).
pub(crate) fn fixed(text: &[u8], scale: i32, round: Round) -> Result<i64, NotFixed> {
    let decimal = Decimal::parse(text).ok_or(NotFixed::NotANumber)?;
    let magnitude = decimal.magnitude(scale, round).ok_or(NotFixed::OutOfRange)?;
    let value = if decimal.negative {
        0_i64.checked_sub_unsigned(magnitude)
    } else {
        0_i64.checked_add_unsigned(magnitude)
    };
    value.ok_or(NotFixed::OutOfRange)
}

/// The number `unscaled` · 10^−`from`, in units of 10^−`to`.
pub(crate) fn rescaled(unscaled: i128, from: i32, to: i32, round: Round) -> Result<i64, NotFixed> {
    let shift = to.saturating_sub(from);
    let power = 10_i128.checked_pow(shift.unsigned_abs());
    let value = match (shift >= 0, power) {
        (true, Some(power)) => unscaled.checked_mul(power).ok_or(NotFixed::OutOfRange)?,
        (true, None) if unscaled == 0 => 0,
        (true, None) => return Err(NotFixed::OutOfRange),
        (false, Some(power)) => {
            let (floor, rest) = (unscaled.div_euclid(power), unscaled.rem_euclid(power));
            let up = match round {
                Round::Floor => false,
                Round::Ceiling => rest > 0,
                Round::HalfEven => rest > power - rest || (rest == power - rest && floor.rem_euclid(2) == 1),
            };
            floor + i128::from(up)
        }
        // 10^39 and more: nothing that 128 bits hold is half of it.
        (false, None) => match round {
            Round::Floor => i128::from(unscaled < 0).wrapping_neg(),
            Round::Ceiling => i128::from(unscaled > 0),
            Round::HalfEven => 0,
        },
    };
    i64::try_from(value).map_err(|_| NotFixed::OutOfRange)
}

/// The parts of a number's text.
struct Decimal<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    exponent: i64,
}

impl<'a> Decimal<'a> {
    fn parse(text: &'a [u8]) -> Option<Self> {
        let (negative, rest) = match text {
            [b'-', rest @ ..] => (true, rest),
            _ => (false, text),
        };
        let (whole, rest) = digits(rest)?;
        let (fraction, rest) = match rest {
            [b'.', rest @ ..] => digits(rest)?,
            _ => (&[][..], rest),
        };
        let exponent = match rest {
            [] => 0,
            [b'e' | b'E', rest @ ..] => exponent(rest)?,
            _ => return None,
        };
        Some(Self { negative, whole, fraction, exponent })
    }

    /// The rounded number of units without its sign; `None` past 64 bits.
    fn magnitude(&self, scale: i32, round: Round) -> Option<u64> {
        // So many leading digits are kept; all behind them only decide the rounding. Negative: zeros stand in between.
        let length = |digits: &[u8]| i64::try_from(digits.len()).unwrap_or(i64::MAX);
        let whole = length(self.whole);
        let kept = whole.saturating_add(self.exponent).saturating_add(i64::from(scale));
        let written = kept.clamp(0, whole.saturating_add(length(self.fraction)));
        let mut digits = self.whole.iter().chain(self.fraction).map(|digit| u64::from(digit & 0x0f));
        let mut leading = digits.by_ref().take(usize::try_from(written).ok()?);
        let mut magnitude = leading.try_fold(0_u64, |sum, digit| sum.checked_mul(10)?.checked_add(digit))?;
        if kept > written && magnitude != 0 {
            magnitude = magnitude.checked_mul(10_u64.checked_pow(u32::try_from(kept - written).ok()?)?)?;
        }
        let first = if kept < 0 { 0 } else { digits.next().unwrap_or(0) };
        let rest = digits.any(|digit| digit != 0);
        let up = match round {
            Round::Floor => self.negative && (first > 0 || rest),
            Round::Ceiling => !self.negative && (first > 0 || rest),
            Round::HalfEven => first > 5 || (first == 5 && (rest || magnitude % 2 == 1)),
        };
        magnitude.checked_add(u64::from(up))
    }
}

/// The leading digits, at least one, and what follows.
fn digits(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    if end == 0 { None } else { text.split_at_checked(end) }
}

fn exponent(text: &[u8]) -> Option<i64> {
    let (negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let (number, []) = digits(text)? else { return None };
    // Saturating is exact enough: no text is long enough to bring such a number back into range.
    let size = number
        .iter()
        .fold(0_i64, |sum, digit| sum.saturating_mul(10).saturating_add(i64::from(digit & 0x0f)));
    Some(if negative { size.saturating_neg() } else { size })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_is_read_exactly_at_its_scale() {
        for (text, scale, expected) in [
            ("0", 0, 0),
            ("-0", 2, 0),
            ("-0.0e5", 2, 0),
            ("12", 0, 12),
            ("12.34", 2, 1234),
            ("12.34", 4, 123_400),
            ("-12.34", 2, -1234),
            ("1e3", 0, 1000),
            ("1E+3", 2, 100_000),
            ("123.456e-1", 2, 1235),
            ("0.1", 18, 100_000_000_000_000_000),
            ("9007199254740993", 0, 9_007_199_254_740_993),
            ("92233720368547758.07", 2, i64::MAX),
            ("-92233720368547758.08", 2, i64::MIN),
            ("0e999999999999999999999", 0, 0),
            ("1e-999999999999999999999", 0, 0),
            ("1000000000000000000000000000000e-30", 0, 1),
            ("0.000000000000000000000000000001e30", 0, 1),
            ("007", 0, 7),
        ] {
            assert_eq!(fixed(text.as_bytes(), scale, Round::HalfEven), Ok(expected), "{text} at {scale}");
        }
    }

    #[test]
    fn ties_go_to_the_even_neighbour() {
        for (text, expected) in [
            ("0.5", 0),
            ("1.5", 2),
            ("2.5", 2),
            ("-0.5", 0),
            ("-1.5", -2),
            ("-2.5", -2),
            ("2.5000000000000000000000000000000001", 3),
            ("2.4999999999999999999999999999999999", 2),
            ("0.05", 0),
            ("0.09", 0),
            ("0.6", 1),
            ("5e-1", 0),
            ("15e-1", 2),
        ] {
            assert_eq!(fixed(text.as_bytes(), 0, Round::HalfEven), Ok(expected), "{text}");
        }
    }

    #[test]
    fn times_are_floored() {
        for (text, scale, expected) in [
            ("1700000000.9999", 3, 1_700_000_000_999),
            ("-0.0001", 3, -1),
            ("-1.5", 0, -2),
            ("1999", -3, 1),
            ("-1", -3, -1),
            ("-1000", -3, -1),
            ("-1001", -6, -1),
            ("999999", -6, 0),
            ("1700000000000000000", -6, 1_700_000_000_000),
        ] {
            assert_eq!(fixed(text.as_bytes(), scale, Round::Floor), Ok(expected), "{text} at {scale}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for text in [
            "9223372036854775808",
            "-9223372036854775809",
            "9223372036854775807.5",
            "1e19",
            "1e999999999999999999999",
        ] {
            assert_eq!(fixed(text.as_bytes(), 0, Round::HalfEven), Err(NotFixed::OutOfRange), "{text}");
        }
        assert_eq!(fixed(b"92233720368547758.08", 2, Round::HalfEven), Err(NotFixed::OutOfRange));
        assert_eq!(fixed(b"18446744073709551615.5", 0, Round::HalfEven), Err(NotFixed::OutOfRange));
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in [
            "", "-", "+1", ".5", "5.", "1e", "1e+", "1e1.5", "0x10", "1 ", " 1", "1_000", "NaN", "Infinity",
            "--1", "1.2.3", "١",
        ] {
            assert_eq!(fixed(text.as_bytes(), 0, Round::HalfEven), Err(NotFixed::NotANumber), "{text}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_integer_arithmetic(mantissa in any::<i64>(), places in 0_usize..25, exponent in -25_i32..25, scale in -9_i32..=18) {
            let digits = format!("{:0>width$}", mantissa.unsigned_abs(), width = places + 1);
            let (whole, fraction) = digits.split_at(digits.len() - places);
            let dot = if fraction.is_empty() { "" } else { "." };
            let sign = if mantissa < 0 { "-" } else { "" };
            let text = format!("{sign}{whole}{dot}{fraction}e{exponent}");

            // mantissa · 10^shift, in 128 bits where it can matter
            let shift = exponent + scale - i32::try_from(places).unwrap();
            let mantissa = i128::from(mantissa);
            let (floor, half_even) = if shift >= 0 {
                let value = 10_i128.checked_pow(shift.unsigned_abs()).and_then(|power| mantissa.checked_mul(power));
                let value = if mantissa == 0 { Some(0) } else { value };
                (value, value)
            } else if let Some(power) = 10_i128.checked_pow(shift.unsigned_abs()) {
                let (floor, rest) = (mantissa.div_euclid(power), mantissa.rem_euclid(power));
                let up = rest > power - rest || (rest == power - rest && floor.rem_euclid(2) == 1);
                (Some(floor), Some(floor + i128::from(up)))
            } else {
                (Some(if mantissa < 0 { -1 } else { 0 }), Some(0))
            };
            let expect = |value: Option<i128>| value.and_then(|v| i64::try_from(v).ok()).ok_or(NotFixed::OutOfRange);
            prop_assert_eq!(fixed(text.as_bytes(), scale, Round::Floor), expect(floor), "{}", text);
            prop_assert_eq!(fixed(text.as_bytes(), scale, Round::HalfEven), expect(half_even), "{}", text);
        }

        #[test]
        fn rescaling_agrees_with_reading_the_text(unscaled in any::<i128>(), shrink in 0_u32..127, from in 0_i32..45, to in -9_i32..=18) {
            let unscaled = unscaled >> shrink;
            for round in [Round::Floor, Round::HalfEven] {
                let text = format!("{unscaled}e-{from}");
                prop_assert_eq!(rescaled(unscaled, from, to, round), fixed(text.as_bytes(), to, round), "{}", text);
            }
        }

        #[test]
        fn never_panics(text in proptest::collection::vec(any::<u8>(), 0..40), scale in -9_i32..=18) {
            let _ = fixed(&text, scale, Round::Floor);
        }
    }
}
