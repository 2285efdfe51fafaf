//! Times and spans as people read and write them.

use jiff::Timestamp;

/// A time in ms since the epoch, in UTC: `2013-01-01T05:00:00Z (1357016400000)`.
pub(crate) fn moment(ms: i64) -> String {
    match Timestamp::from_millisecond(ms) {
        Ok(time) => format!("{time} ({ms})"),
        Err(_) => ms.to_string(),
    }
}

/// A watermark: as a moment, or `undefined`.
pub(crate) fn watermark(ms: Option<i64>) -> String {
    ms.map_or_else(|| "undefined".to_owned(), moment)
}

/// A span in ms, in its two largest units: `850 ms`, `12 s`, `3 min 20 s`, `5 h`, `3650 d`.
pub(crate) fn span(ms: u64) -> String {
    const UNITS: [(&str, u64); 5] =
        [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1)];
    let Some(at) = UNITS.iter().position(|(_, size)| ms >= *size) else { return "0 ms".to_owned() };
    let mut left = ms;
    let mut text = String::new();
    for (unit, size) in UNITS.iter().skip(at).take(2) {
        let whole = left / size;
        left %= size;
        // Milliseconds beside seconds, and hours beside hundreds of days, say nothing.
        let is_noise = !text.is_empty() && (*unit == "ms" || (*unit == "h" && ms >= 100 * 86_400_000));
        if whole > 0 && !is_noise {
            let gap = if text.is_empty() { "" } else { " " };
            text.push_str(&format!("{gap}{whole} {unit}"));
        }
    }
    text
}

/// Reads a time: whole milliseconds since the epoch, or RFC 3339.
///
/// # Errors
/// What to write instead.
pub(crate) fn parse(text: &str) -> Result<i64, String> {
    let millis = text.parse::<i64>().ok();
    millis.or_else(|| text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond)).ok_or_else(|| {
        format!(
            "`{text}` is no time: write milliseconds since the Unix epoch, or RFC 3339 such as 2013-01-01T05:00:00Z"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_in_the_units_that_matter() {
        for (ms, text) in [
            (0, "0 ms"),
            (850, "850 ms"),
            (12_345, "12 s"),
            (200_000, "3 min 20 s"),
            (18_000_000, "5 h"),
            (93_600_000, "1 d 2 h"),
            (3650 * 86_400_000 + 7_200_000, "3650 d"),
        ] {
            assert_eq!(span(ms), text);
        }
    }

    #[test]
    fn times_are_read_as_they_are_told() {
        assert_eq!(parse("1357016400000"), Ok(1_357_016_400_000));
        assert_eq!(parse("-5"), Ok(-5));
        assert_eq!(parse("2013-01-01T05:00:00Z"), Ok(1_357_016_400_000));
        assert_eq!(parse("2013-01-01T05:00:00.25+01:00"), Ok(1_357_012_800_250));
        assert_eq!(moment(1_357_016_400_000), "2013-01-01T05:00:00Z (1357016400000)");
        assert_eq!(moment(i64::MAX), i64::MAX.to_string());
        assert!(parse("yesterday").unwrap_err().contains("RFC 3339"));
    }
}
