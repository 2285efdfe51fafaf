//! Durations, sizes and shares as text with a unit: `250ms`, `5s`, `24h`, `512MiB`, `0.1%`.

use crate::report::Flaw;
use tidegate_core::job::PerMillion;
use tidegate_core::time::Span;

const DURATION: Scale = Scale {
    noun: "duration",
    units: &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)],
    example: "`250ms`, `5s`, `24h`",
    max: 36_525 * 86_400_000,
    max_text: "36525d",
};

const SIZE: Scale = Scale {
    noun: "size",
    units: &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)],
    example: "`64MiB`, `2GiB`",
    max: 1024 << 40,
    max_text: "1024TiB",
};

struct Scale {
    noun: &'static str,
    /// From small to large, each a multiple of the one before.
    units: &'static [(&'static str, i64)],
    example: &'static str,
    max: i64,
    max_text: &'static str,
}

/// A whole number of ms, s, m, h or d, at most a hundred years.
pub(crate) fn parse_duration(text: &str) -> Result<Span, Flaw> {
    DURATION.parse(text).map(Span)
}

/// A duration as a job file writes it, as in `250ms`, `5s`, `24h`.
///
/// # Errors
/// What is wrong, and what to do.
pub fn duration(text: &str) -> Result<Span, String> {
    parse_duration(text).map_err(|flaw| format!("{}; {}", flaw.what, flaw.fix))
}

/// A whole number of B, KiB, MiB, GiB or TiB, in bytes.
pub(crate) fn parse_size(text: &str) -> Result<u64, Flaw> {
    SIZE.parse(text).map(i64::unsigned_abs)
}

/// A share above zero and at most a half, with at most four decimal places of a percent.
pub(crate) fn parse_share(text: &str) -> Result<PerMillion, Flaw> {
    let flaw =
        |what: &str| Flaw::new(format!("`{}` {what}", text.escape_debug()), "write it as in `0.1%`, `5%`");
    let Some(number) = text.strip_suffix('%') else { return Err(flaw("has no `%`")) };
    let (whole, places) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(places) || places.len() > 4 {
        return Err(flaw("is not a share with at most four decimal places"));
    }
    let share = format!("{whole}{places:0<4}").parse().ok().filter(|share| (1..=500_000).contains(share));
    share.map(PerMillion).ok_or_else(|| flaw("is not above 0% and at most 50%"))
}

/// A number from 0 to 1, with at most six decimal places.
pub(crate) fn parse_rank(text: &str) -> Result<PerMillion, Flaw> {
    let (whole, places) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let read = digits(whole) && digits(places) && places.len() <= 6;
    let rank = format!("{whole}{places:0<6}").parse().ok().filter(|rank| read && *rank <= 1_000_000);
    rank.map(PerMillion).ok_or_else(|| {
        let what =
            format!("`{}` is not a number from 0 to 1 with at most six decimal places", text.escape_debug());
        Flaw::new(what, "write it as in `0.99`; the median is `0.5`")
    })
}

/// A span as a job file writes it, with the largest unit that keeps it whole: `90s`, `2h`.
#[must_use]
pub fn duration_text(span: Span) -> String {
    let millis = span.millis();
    let largest = DURATION.units.iter().rev().find(|(_, factor)| millis != 0 && millis % factor == 0);
    let (unit, factor) = largest.unwrap_or(&("ms", 1));
    format!("{}{unit}", millis / factor)
}

impl Scale {
    fn parse(&self, text: &str) -> Result<i64, Flaw> {
        let shown = text.escape_debug();
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let advice = format!("write a whole number and a unit, as in {}", self.example);
        if number.is_empty() || unit.starts_with(|c: char| !c.is_alphabetic()) {
            return Err(Flaw::new(format!("`{shown}` is not a {}", self.noun), advice));
        }
        if unit.is_empty() {
            return Err(Flaw::new(format!("`{shown}` has no unit"), advice));
        }
        let Some((_, factor)) = self.units.iter().find(|(name, _)| *name == unit) else {
            let known: Vec<&str> = self.units.iter().map(|(name, _)| *name).collect();
            let what = format!("`{}` is not a unit of a {}", unit.escape_debug(), self.noun);
            return Err(Flaw::new(what, format!("use one of {}", known.join(", "))));
        };
        let value = number.parse::<i64>().ok().and_then(|number| number.checked_mul(*factor));
        value.filter(|value| *value <= self.max).ok_or_else(|| {
            Flaw::new(
                format!("`{shown}` is too large"),
                format!("the largest {} is `{}`", self.noun, self.max_text),
            )
        })
    }
}
