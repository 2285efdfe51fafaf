//! Numbers as people read them.

use tidegate_core::time::{EventTime, Span};

const UNITS: [(i64, &str); 5] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];

/// A length of time in its largest unit, with one decimal place where it is not whole: `1.5 h`.
pub(crate) fn span(span: Span) -> String {
    let millis = span.millis();
    let size = millis.unsigned_abs();
    let fits = |unit: &&(i64, &str)| size >= unit.0.unsigned_abs();
    let (unit, name) = UNITS.iter().find(fits).unwrap_or(&(1, "ms"));
    let tenths = i128::from(size) * 10 / i128::from(*unit);
    let sign = if millis < 0 { "-" } else { "" };
    match (tenths / 10, tenths % 10) {
        (whole, 0) => format!("{sign}{whole} {name}"),
        (whole, tenth) => format!("{sign}{whole}.{tenth} {name}"),
    }
}

/// A share in percent, with as many places as it needs to be told from nothing.
pub(crate) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let text = if percent == 0.0 {
        "0".to_owned()
    } else if percent < 0.001 {
        return "< 0.001 %".to_owned();
    } else if percent < 0.1 {
        format!("{percent:.3}")
    } else if percent < 10.0 {
        format!("{percent:.2}")
    } else {
        format!("{percent:.1}")
    };
    let shown = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{shown} %")
}

/// A time as RFC 3339, to the second.
pub(crate) fn time(time: EventTime) -> String {
    match jiff::Timestamp::from_millisecond(time.millis()) {
        Ok(stamp) => stamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        Err(_) => format!("{} ms", time.millis()),
    }
}

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// The next larger duration that people use.
pub(crate) fn nice(span: Span) -> Span {
    const SECOND: i64 = 1000;
    let steps = [1, 2, 5, 10, 20, 50, 100, 200, 500]
        .into_iter()
        .chain([1, 2, 3, 5, 10, 15, 20, 30].map(|seconds| seconds * SECOND))
        .chain([1, 2, 3, 5, 10, 15, 20, 30].map(|minutes| minutes * MINUTE))
        .chain([1, 2, 3, 4, 6, 8, 12, 16, 20].map(|hours| hours * HOUR))
        .chain([1, 2, 3, 5, 7, 10, 14, 21, 30, 60, 90, 180, 365].map(|days| days * DAY));
    let millis = span.millis();
    let found = steps.into_iter().find(|step| *step >= millis);
    Span(found.unwrap_or_else(|| millis.saturating_add(DAY - 1).div_euclid(DAY).saturating_mul(DAY)))
}

#[cfg(test)]
mod tests {
    use tidegate_job::duration_text;

    use super::*;

    #[test]
    fn durations_are_rounded_up_to_what_people_write() {
        for (millis, text) in [
            (0, "1ms"),
            (1, "1ms"),
            (3, "5ms"),
            (501, "1s"),
            (45_000, "1m"),
            (3_600_001, "2h"),
            (86_400_001, "2d"),
            (400 * DAY, "400d"),
            (400 * DAY + 1, "401d"),
        ] {
            assert_eq!(duration_text(nice(Span(millis))), text, "{millis}");
        }
    }

    #[test]
    fn a_span_is_told_in_its_largest_unit() {
        for (millis, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_500, "1.5 s"),
            (-90_000, "-1.5 m"),
            (7_200_000, "2 h"),
            (400 * 86_400_000, "400 d"),
        ] {
            assert_eq!(span(Span(millis)), text);
        }
    }

    #[test]
    fn a_small_share_is_not_nothing() {
        for (share, text) in [
            (0.0, "0 %"),
            (0.000_000_1, "< 0.001 %"),
            (0.000_5, "0.05 %"),
            (0.012_3, "1.23 %"),
            (1.0, "100 %"),
        ] {
            assert_eq!(percent(share), text);
        }
    }
}
