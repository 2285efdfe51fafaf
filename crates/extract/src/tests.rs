use proptest::prelude::*;
use serde_json::Value;
use tidegate_core::record::Timestamp;
use tidegate_job::JobFile;

use super::decimal::{Round, fixed};
use super::*;

/// Keyed by `/user`; event time from the header `at`, the field `/ts` or the record; `/amount` at scale 2, `/n` counted.
const CLICKS: &str = "key: { field: /user } | [{ header: at, unit: ms }, { field: /ts, unit: ms }, record_timestamp] | \
                      [{ name: spend, fn: sum, field: /amount, scale: 2 }, { name: named, fn: count, field: /n }]";

#[derive(Clone, Debug, Default)]
struct Owned {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(&'static str, Option<Vec<u8>>)>,
    timestamp: Option<i64>,
}

impl RecordView for Owned {
    fn key(&self) -> Option<&[u8]> {
        self.key.as_deref()
    }

    fn value(&self) -> Option<&[u8]> {
        self.value.as_deref()
    }

    fn timestamp(&self) -> Timestamp {
        self.timestamp.map_or(Timestamp::NotAvailable, |millis| Timestamp::CreateTime(EventTime(millis)))
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().rfind(|(found, _)| *found == name)?.1.as_deref()
    }
}

fn of(value: impl AsRef<[u8]>) -> Owned {
    Owned { value: Some(value.as_ref().to_vec()), ..Owned::default() }
}

/// `text` is `key | event_time | aggregates`.
fn extractor(text: &str) -> Extractor {
    let [key, times, aggregates] = text.split(" | ").collect::<Vec<_>>()[..] else { panic!("{text}") };
    let yaml = format!(
        "name: j\nsource: {{ topic: t, format: json, {key}, event_time: {times} }}\n\
         watermark: {{ strategy: bounded_out_of_orderness, delay: 2s }}\nwindow: {{ tumbling: {{ size: 10s }} }}\n\
         aggregates: {aggregates}\nsink: {{ topic: o }}\ndead_letter: {{ topic: d }}\n"
    );
    match JobFile::parse(&yaml, "j.yaml") {
        Ok(job) => Extractor::new(&job).unwrap(),
        Err(report) => panic!("{report}"),
    }
}

type Row = (i64, String, Vec<Option<i64>>);

fn row(extracted: Extracted<'_>) -> Row {
    (extracted.time.millis(), String::from_utf8_lossy(extracted.key).into_owned(), extracted.columns.to_vec())
}

fn taken(job: &str, record: &Owned) -> Result<Row, Reject> {
    extractor(job).extract(record).map(row)
}

fn refused(job: &str, record: &Owned) -> (Reason, String, Option<i64>) {
    let reject = taken(job, record).expect_err("a reject");
    (reject.reason, reject.detail, reject.event_time.map(EventTime::millis))
}

#[test]
fn a_plain_record_is_taken() {
    let record = of(r#" {"user":"u123","ts":1700000000000,"amount":12.34,"page":"/a/b","n":"x"} "#);
    assert_eq!(taken(CLICKS, &record), Ok((1_700_000_000_000, "u123".into(), vec![Some(1234), Some(1)])));
}

#[test]
fn columns_are_exact_rounded_and_may_be_null() {
    for (value, expected) in [
        (r#""amount":12.345"#, Some(1234)),
        (r#""amount":12.355"#, Some(1236)),
        (r#""amount":-1e1"#, Some(-1000)),
        (r#""amount":90071992547409.93"#, Some(9_007_199_254_740_993)),
        (r#""amount":null"#, None),
        (r#""other":1"#, None),
        (r#""amount":"x","amount":3"#, Some(300)),
        (r#""amount":3,"amount":null"#, None),
        (r#""am\u006funt":3"#, Some(300)),
    ] {
        let record = of(format!(r#"{{"user":"u","ts":1,{value}}}"#));
        assert_eq!(taken(CLICKS, &record), Ok((1, "u".into(), vec![expected, None])), "{value}");
    }
}

#[test]
fn an_aggregate_takes_the_records_for_which_its_condition_holds() {
    let job = |condition: &str| {
        format!(
            "key: record_key | [record_timestamp] | [{{ name: a, fn: sum, field: /a, scale: 0, where: '{condition}' }}, \
             {{ name: n, fn: count, where: '{condition}' }}]"
        )
    };
    for (condition, value, holds) in [
        ("/s >= 500", r#""s":500"#, true),
        ("/s >= 500", r#""s":499.9999999999999999999999999"#, false),
        ("/s > 500", r#""s":500.0000000000000000000000001"#, true),
        ("/s == 0.1", r#""s":0.1"#, true),
        ("/s == 0.1", r#""s":1e-1"#, true),
        ("/s == 0.1", r#""s":0.10000000000000000000000001"#, false),
        ("/s <= -1.5", r#""s":-1.5"#, true),
        ("/s < 5", r#""s":-1e300"#, true),
        ("/s < 5", r#""s":1e300"#, false),
        ("/s != 5", r#""s":6"#, true),
        ("/s != 5", r#""s":"5""#, false),
        ("/s != 5", r#""s":null"#, false),
        ("/s != 5", r#""t":5"#, false),
        ("not /s == 5", r#""t":5"#, true),
        ("exists /s", r#""s":null"#, false),
        ("exists /s", r#""s":{}"#, true),
        (r#"/s == "a\"b""#, r#""s":"a\u0022b""#, true),
        (r#"/s < "b""#, r#""s":"abc""#, true),
        ("/s == true", r#""s":true"#, true),
        ("/s != true", r#""s":false"#, true),
        ("/s == true", r#""s":"true""#, false),
        ("/x/0/y == 1 and (/s == 1 or /s == 2)", r#""x":[{"y":1}],"s":2"#, true),
        ("/x/0/y == 1 and /s == 1 or /s == 2", r#""s":2"#, true),
        ("/x/0/y == 1 and (/s == 1 or /s == 2)", r#""s":2"#, false),
    ] {
        let record = |a: &str| Owned {
            key: Some(b"k".to_vec()),
            timestamp: Some(1),
            ..of(format!(r#"{{"a":{a},{value}}}"#))
        };
        let expected = if holds { vec![Some(7), Some(1)] } else { vec![None, None] };
        let got = taken(&job(condition), &record("7"));
        assert_eq!(got, Ok((1, "k".into(), expected)), "{condition} of {value}");
        let bad = taken(&job(condition), &record(r#""x""#));
        assert_eq!(
            bad.is_err(),
            holds,
            "what a condition leaves out is not looked at: {condition} of {value}"
        );
    }
}

#[test]
fn values_as_they_are_lie_one_after_another() {
    let job = "key: record_key | [record_timestamp] | [{ name: a, fn: first, field: /a }, { name: b, fn: sum, field: /b, scale: 0 }, \
               { name: c, fn: distinct, field: /c }]";
    let keyed = |value: &str| Owned { key: Some(b"k".to_vec()), timestamp: Some(1), ..of(value) };
    let mut extractor = extractor(job);
    let long = "x".repeat(1_023);
    for (value, columns, text) in [
        (r#"{"a":"é\n","b":3,"c":1.50}"#, [Some(4), Some(3), Some(8)], "\"é\n1.50"),
        (r#"{"b":3,"c":true}"#, [None, Some(3), Some(4)], "true"),
        (r#"{"a":null}"#, [None, None, None], ""),
        (format!(r#"{{"a":"{long}"}}"#).as_str(), [Some(1_024), None, None], format!("\"{long}").as_str()),
    ] {
        let record = keyed(value);
        let got = extractor.extract(&record).unwrap();
        assert_eq!((got.columns, got.text), (&columns[..], text.as_bytes()), "{value}");
    }
    let detail = |value: &str| taken(job, &keyed(value)).unwrap_err().detail;
    assert_eq!(detail(r#"{"a":[1]}"#), "/a is an array, not text, a number or a boolean");
    assert_eq!(detail(&format!(r#"{{"a":"x{long}"}}"#)), "/a is longer than 1024 bytes");
}

#[test]
fn a_column_that_is_no_number_is_unreadable() {
    for (value, detail) in [
        (r#""12""#, "/amount is a string, not a number"),
        ("true", "/amount is a boolean, not a number"),
        ("[1]", "/amount is an array, not a number"),
        ("{}", "/amount is an object, not a number"),
        ("1e17", "/amount does not fit 64 bits at scale 2"),
        ("-92233720368547758.09", "/amount does not fit 64 bits at scale 2"),
    ] {
        let record = of(format!(r#"{{"user":"u","ts":1,"amount":{value}}}"#));
        assert_eq!(refused(CLICKS, &record), (Reason::Unreadable, detail.into(), Some(1)), "{value}");
    }
}

#[test]
fn what_is_only_counted_may_be_of_any_type() {
    for (value, expected) in [
        ("null", None),
        ("false", Some(1)),
        ("0", Some(1)),
        ("1e99", Some(1)),
        (r#""""#, Some(1)),
        ("{}", Some(1)),
        ("[]", Some(1)),
    ] {
        let record = of(format!(r#"{{"user":"u","ts":1,"n":{value}}}"#));
        assert_eq!(taken(CLICKS, &record), Ok((1, "u".into(), vec![None, expected])), "{value}");
    }
    let summed_too = "key: { field: /user } | [{ field: /ts }] | [{ name: c, fn: count, field: /n }, { name: s, fn: sum, field: /n }]";
    let record = of(r#"{"user":"u","ts":1,"n":"x"}"#);
    assert_eq!(refused(summed_too, &record).0, Reason::Unreadable);
}

#[test]
fn a_payload_that_is_no_json_object_is_unreadable() {
    for value in [
        &b""[..],
        b" ",
        b"null",
        b"5",
        b"\"x\"",
        b"[]",
        b"{",
        br#"{"user":"u","ts":1"#,
        br#"{"user":"u","ts":1,"rest":[1,{"a":2}"#,
        br#"{"user":"u","ts":1,"rest":"x}"#,
        br#"{"user":"u","ts":1}}"#,
        br#"{"user":"u","ts":1} {}"#,
        br#"{"user":"u","ts":1,}"#,
        br#"{"user":"u" "ts":1}"#,
        br#"{user:"u","ts":1}"#,
        br#"{"user":"u","ts":01}"#,
        br#"{"user":"u","ts":1,"rest":.5}"#,
        br#"{"user":"u","ts":1,"rest":nul}"#,
        br#"{"user":"u","ts":1,"rest":"\x"}"#,
        b"{\"user\":\"u\",\"ts\":1,\"rest\":\"\n\"}",
        b"{\"user\":\"u\",\"ts\":1,\"rest\":\"\xff\"}",
        b"\xef\xbb\xbf{\"user\":\"u\",\"ts\":1}",
    ] {
        let (reason, detail, _) = refused(CLICKS, &of(value));
        assert_eq!(reason, Reason::Unreadable, "{}", value.escape_ascii());
        assert!(!detail.is_empty());
    }
}

#[test]
fn a_deeply_nested_payload_is_walked_without_recursion() {
    let record =
        of(format!(r#"{{"user":"u","ts":1,"rest":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000)));
    assert_eq!(taken(CLICKS, &record), Ok((1, "u".into(), vec![None, None])));
    let record = of(format!(r#"{{"user":"u","ts":1,"rest":{}{}}}"#, "[".repeat(100_000), "]".repeat(99_999)));
    assert_eq!(refused(CLICKS, &record).0, Reason::Unreadable);
}

#[test]
fn the_key_is_the_content_of_a_string_or_the_text_of_a_number_or_boolean() {
    for (value, expected) in [
        (r#""é/\"x\"""#, "é/\"x\""),
        (r#""\u00e9\n\ud83d\ude00""#, "é\n😀"),
        (r#""""#, ""),
        ("1", "1"),
        ("1.0", "1.0"),
        ("-1E+2", "-1E+2"),
        ("12345678901234567890123", "12345678901234567890123"),
        ("true", "true"),
        (r#""a","user":"b""#, "b"),
    ] {
        let record = of(format!(r#"{{"ts":1,"user": {value} }}"#));
        assert_eq!(taken(CLICKS, &record), Ok((1, expected.into(), vec![None, None])), "{value}");
    }
}

#[test]
fn a_record_without_a_key_is_refused() {
    for (fields, detail) in [
        ("", "/user is missing"),
        (r#","user":null"#, "/user is null"),
        (r#","user":{}"#, "/user is an object"),
        (r#","user":["u"]"#, "/user is an array"),
        (r#","user":"u","user":null"#, "/user is null"),
    ] {
        let record = of(format!(r#"{{"ts":1{fields}}}"#));
        assert_eq!(refused(CLICKS, &record), (Reason::NoKey, detail.into(), Some(1)), "{fields}");
    }
    let record = of(r#"{"ts":1,"user":"\ud800"}"#);
    let (reason, detail, time) = refused(CLICKS, &record);
    assert_eq!((reason, time), (Reason::Unreadable, Some(1)));
    assert!(detail.starts_with("/user "), "{detail}");
}

#[test]
fn the_record_key_is_any_bytes_but_null() {
    let job = "key: record_key | [record_timestamp] | [{ name: c, fn: count }]";
    let record = Owned { timestamp: Some(7), ..of("{}") };
    for key in [&b""[..], b"k", b"\xff\x00"] {
        let record = Owned { key: Some(key.to_vec()), ..record.clone() };
        let mut extractor = extractor(job);
        assert_eq!(
            extractor.extract(&record),
            Ok(Extracted { time: EventTime(7), key, columns: &[], text: &[] })
        );
    }
    assert_eq!(refused(job, &record), (Reason::NoKey, "the record's key is null".into(), Some(7)));
}

#[test]
fn the_first_usable_source_gives_the_event_time() {
    let record = |header: Option<&str>, ts: &str, timestamp| Owned {
        headers: header.map(|text| ("at", Some(text.as_bytes().to_vec()))).into_iter().collect(),
        timestamp,
        ..of(format!(r#"{{"user":"u"{ts}}}"#))
    };
    for (header, ts, timestamp, expected) in [
        (Some("5"), r#","ts":6"#, Some(7), 5),
        (None, r#","ts":6"#, Some(7), 6),
        (None, r#","ts":"6""#, Some(7), 6),
        (None, r#","ts":6.9"#, Some(7), 6),
        (Some("soon"), r#","ts":6"#, Some(7), 6),
        (Some("999999999999999999"), r#","ts":6"#, Some(7), 6),
        (None, "", Some(7), 7),
        (None, r#","ts":null"#, Some(7), 7),
        (None, r#","ts":true"#, Some(7), 7),
        (None, r#","ts":{}"#, Some(7), 7),
        (None, r#","ts":1e30"#, Some(7), 7),
    ] {
        let record = record(header, ts, timestamp);
        assert_eq!(taken(CLICKS, &record), Ok((expected, "u".into(), vec![None, None])), "{record:?}");
    }
    let nothing = record(Some("soon"), r#","ts":null"#, None);
    let detail = "header at: not a number; /ts: null; record timestamp: missing";
    assert_eq!(refused(CLICKS, &nothing), (Reason::NoEventTime, detail.into(), None));
}

#[test]
fn the_last_header_of_a_name_counts() {
    let header = |text: &str| ("at", Some(text.as_bytes().to_vec()));
    let both = Owned { headers: vec![header("1"), header("2")], ..of(r#"{"user":"u"}"#) };
    assert_eq!(taken(CLICKS, &both).map(|row| row.0), Ok(2));
    let null = Owned { headers: vec![header("1"), ("at", None)], ..of(r#"{"user":"u"}"#) };
    assert_eq!(refused(CLICKS, &null).0, Reason::NoEventTime);
}

#[test]
fn rfc3339_is_read_from_fields_and_headers() {
    let job = "key: { field: /user } | [{ header: at, unit: rfc3339 }, { field: /ts, unit: rfc3339 }] | [{ name: c, fn: count }]";
    let record = of(r#"{"user":"u","ts":"1970-01-01T00:00:01.5Z"}"#);
    assert_eq!(taken(job, &record).map(|row| row.0), Ok(1500));
    let record = Owned { headers: vec![("at", Some(b"1970-01-01T01:00:00+01:00".to_vec()))], ..record };
    assert_eq!(taken(job, &record).map(|row| row.0), Ok(0));
    assert_eq!(refused(job, &of(r#"{"user":"u","ts":1500}"#)).0, Reason::NoEventTime);
}

#[test]
fn the_gravest_reason_is_given() {
    let timeless = |value: &str| {
        refused(
            "key: { field: /user } | [{ field: /ts }] | [{ name: s, fn: sum, field: /amount }]",
            &of(value),
        )
        .0
    };
    assert_eq!(timeless(r#"{"amount":"x"}"#), Reason::Unreadable);
    assert_eq!(timeless(r#"{"user":"\ud800"}"#), Reason::Unreadable);
    assert_eq!(timeless("{}"), Reason::NoEventTime);
    assert_eq!(timeless(r#"{"ts":1}"#), Reason::NoKey);
}

#[test]
fn a_tombstone_has_the_time_of_its_header_or_of_the_record() {
    let tombstone = Owned { key: Some(b"k".to_vec()), timestamp: Some(7), ..Owned::default() };
    assert_eq!(refused(CLICKS, &tombstone), (Reason::Tombstone, String::new(), Some(7)));
    let tombstone = Owned { headers: vec![("at", Some(b"5".to_vec()))], ..tombstone };
    assert_eq!(refused(CLICKS, &tombstone), (Reason::Tombstone, String::new(), Some(5)));
    assert_eq!(refused(CLICKS, &Owned::default()), (Reason::Tombstone, String::new(), None));
}

#[test]
fn a_payload_that_does_not_read_keeps_a_time_only_from_sources_before_its_fields() {
    let broken = Owned { timestamp: Some(7), ..of("{") };
    assert_eq!(refused(CLICKS, &broken).2, None, "the field might have had one");
    let broken = Owned { headers: vec![("at", Some(b"5".to_vec()))], ..broken };
    assert_eq!(refused(CLICKS, &broken).2, Some(5));
}

#[test]
fn pointers_lead_through_objects_and_arrays() {
    let job = "key: { field: /a~1b/~0c } | [{ field: /when/1/at }] | \
               [{ name: x, fn: sum, field: /when/1, scale: 0 }, { name: y, fn: sum, field: /0/0, scale: 0 }, { name: z, fn: sum, field: /when/01, scale: 0 }]";
    let record = of(r#"{"a/b":{"~c":"k"},"when":[{"at":1},{"at":2}],"0":[3],"a":{"b":4}}"#);
    let (reason, detail, time) = refused(job, &record);
    assert_eq!(
        (reason, detail.as_str(), time),
        (Reason::Unreadable, "/when/1 is an object, not a number", Some(2))
    );

    let job = "key: { field: /a~1b/~0c } | [{ field: /when/1/at }] | \
               [{ name: x, fn: sum, field: /when/0, scale: 0 }, { name: y, fn: sum, field: /0/0, scale: 0 }, { name: z, fn: sum, field: /when/01, scale: 0 }]";
    for (value, expected) in [
        (r#"{"a/b":{"~c":"k"},"when":[9,{"at":2}],"0":[3]}"#, vec![Some(9), Some(3), None]),
        (
            r#"{"a/b":{"~c":"k"},"when":{"0":8,"01":7,"1":{"at":2}},"0":{"0":5}}"#,
            vec![Some(8), Some(5), Some(7)],
        ),
        (r#"{"0":1,"a/b":{"~c":"k"},"when":[9,{"at":2},{}] }"#, vec![Some(9), None, None]),
        (
            r#"{"when":[1,{"at":4}],"a/b":[],"a/b":{"~c":"j","\u007ec":"k"},"when":[null,{"at":2}]}"#,
            vec![None, None, None],
        ),
    ] {
        assert_eq!(taken(job, &of(value)), Ok((2, "k".into(), expected)), "{value}");
    }
    let replaced = of(r#"{"a/b":{"~c":"k"},"when":[1,{"at":4}],"a/b":{},"when":[1,{"at":4}]}"#);
    assert_eq!(refused(job, &replaced).0, Reason::NoKey, "a duplicate replaces what is below the first too");
}

#[test]
fn one_field_may_serve_as_key_time_and_column() {
    let job = "key: { field: /ts } | [{ field: /ts }] | [{ name: s, fn: sum, field: /ts, scale: 1 }, { name: m, fn: max, field: /ts, scale: 0 }]";
    assert_eq!(taken(job, &of(r#"{"ts":12.5}"#)), Ok((12, "12.5".into(), vec![Some(125), Some(12)])));
}

#[test]
fn nothing_of_a_record_is_left_for_the_next() {
    let mut extractor = extractor(CLICKS);
    let full = of(r#"{"user":"\u0075","ts":1,"amount":1,"n":1}"#);
    assert_eq!(extractor.extract(&full).map(row), Ok((1, "u".into(), vec![Some(100), Some(1)])));
    assert_eq!(extractor.extract(&of("{}")).expect_err("empty").reason, Reason::NoEventTime);
    assert_eq!(
        extractor.extract(&of(r#"{"user":"v","ts":2}"#)).map(row),
        Ok((2, "v".into(), vec![None, None]))
    );
}

#[test]
fn a_record_that_is_taken_costs_no_allocation() {
    let mut extractor = extractor(CLICKS);
    let plain =
        of(r#"{"user":"u123","ts":1700000000000,"amount":12.34,"page":"/a/b","session":[1,2],"n":null}"#);
    let escaped =
        of(r#"{"us\u0065r":"\u00fc123","ts":"17000\u0030","amount":1e3,"p\"age":"\"x\"","n":{"a":1}}"#);
    extractor.extract(&escaped).expect("taken; the buffers have their size now");
    let allocated = allocation_counter::measure(|| {
        for record in [&plain, &escaped] {
            extractor.extract(record).expect("taken");
        }
    });
    assert_eq!(allocated.count_total, 0);
}

/// The rules again over `serde_json::Value`, in their order.
fn reference(record: &Owned) -> Result<Row, Reason> {
    let value = record.value.as_ref().ok_or(Reason::Tombstone)?;
    let value: Value = serde_json::from_slice(value).map_err(|_| Reason::Unreadable)?;
    if !value.is_object() {
        return Err(Reason::Unreadable);
    }
    let mut columns = Vec::new();
    for (pointer, scale) in [("/a", 2), ("/b/a", 0), ("/b/0", 1)] {
        columns.push(match value.pointer(pointer) {
            None | Some(Value::Null) => None,
            Some(Value::Number(number)) => Some(
                fixed(number.to_string().as_bytes(), scale, Round::HalfEven)
                    .map_err(|_| Reason::Unreadable)?,
            ),
            Some(_) => return Err(Reason::Unreadable),
        });
    }
    let field = match value.pointer("/t") {
        Some(Value::Number(number)) => Some(number.to_string()),
        Some(Value::String(text)) => Some(text.clone()),
        _ => None,
    };
    let header = record.header("at").map(|text| String::from_utf8_lossy(text).into_owned());
    let floor = |text: String| fixed(text.as_bytes(), 0, Round::Floor).ok();
    let sources = [header.and_then(floor), field.and_then(floor), record.timestamp];
    let possible = -377_705_023_201_000..=253_402_207_200_999;
    let time =
        sources.into_iter().flatten().find(|time| possible.contains(time)).ok_or(Reason::NoEventTime)?;
    let key = match value.pointer("/b/k~1").ok_or(Reason::NoKey)? {
        Value::String(text) => text.clone(),
        scalar @ (Value::Number(_) | Value::Bool(_)) => scalar.to_string(),
        _ => return Err(Reason::NoKey),
    };
    Ok((time, key, columns))
}

const NESTED: &str = "key: { field: /b/k~1 } | [{ header: at, unit: ms }, { field: /t, unit: ms }, record_timestamp] | \
                      [{ name: a, fn: sum, field: /a, scale: 2 }, { name: b, fn: max, field: /b/a, scale: 0 }, { name: c, fn: min, field: /b/0, scale: 1 }]";

/// JSON whose numbers `serde_json::Value` writes as they were: duplicates, spaces and escapes, but nothing a float bends.
fn json() -> impl Strategy<Value = String> {
    let number = prop_oneof![
            (-3000_i64..3000).prop_map(|number| number.to_string()),
            any::<i64>().prop_map(|number| number.to_string()),
            (-1_000_000_i32..1_000_000, 1..7_i32)
                .prop_map(
                    |(mantissa, places)| Value::from(f64::from(mantissa) / 10_f64.powi(places)).to_string()
                ),
        ];
    let string = prop_oneof!["[a-z0-9é]{0,3}", Just("12".to_owned()), Just(r"\u00e9\n".to_owned())];
    let leaf = prop_oneof![
        4 => number,
        2 => string.prop_map(|text| format!("\"{text}\"")),
        1 => Just("null".to_owned()),
        1 => prop_oneof![Just("true".to_owned()), Just("false".to_owned())],
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            object(inner.clone()),
            proptest::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(" ,")))
        ]
    })
}

fn object(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let key = prop_oneof![
        Just("a"),
        Just("b"),
        Just("t"),
        Just("k/"),
        Just("0"),
        Just(r"\u0061"),
        Just(r"k\/"),
        Just("ab"),
        Just("é")
    ];
    proptest::collection::vec((key, value), 0..6).prop_map(|entries| {
        let entries: Vec<_> = entries.iter().map(|(key, value)| format!("\"{key}\": {value}")).collect();
        format!("{{ {}}}", entries.join(","))
    })
}

/// A record that mostly has what [`NESTED`] wants.
fn record() -> impl Strategy<Value = Owned> {
    let likely =
        (object(json()), 0_i64..99, object(json()), -99..99_i32).prop_map(|(start, time, inner, number)| {
            let inner = inner.trim_end_matches('}');
            let comma = |text: &str| if text.trim_end().ends_with('{') { "" } else { "," };
            let start = start.trim_end_matches('}');
            format!(
                r#"{start}{}"t":{time},"a":{number},"b":{inner}{}"a":null,"0":0.5,"k/":"k{number}"}}}}"#,
                comma(start),
                comma(inner)
            )
        });
    let value = prop_oneof![2 => object(json()), 4 => likely, 1 => json()];
    let header = prop_oneof![Just(None), Just(Some("5")), Just(Some("x")), Just(Some("-1.5"))];
    (proptest::option::weighted(0.95, value), header, proptest::option::of(0_i64..9)).prop_map(
        |(value, header, timestamp)| Owned {
            key: None,
            value: value.map(String::into_bytes),
            headers: header.map(|text| ("at", Some(text.as_bytes().to_vec()))).into_iter().collect(),
            timestamp,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn agrees_with_the_rules_over_a_parsed_value(records in proptest::collection::vec(record(), 1..4)) {
        let mut extractor = extractor(NESTED);
        for record in &records {
            let actual = extractor.extract(record).map(row).map_err(|reject| reject.reason);
            prop_assert_eq!(actual, reference(record), "{}", String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()));
        }
    }

    #[test]
    fn every_byte_is_checked(document in object(json()), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let mut document = document.into_bytes();
        let at = at.index(document.len());
        if cut { document.truncate(at) } else { document[at] = byte }
        let valid = std::str::from_utf8(&document).is_ok_and(|text| {
            text.trim_ascii_start().starts_with('{') && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
        });
        let record = Owned { key: Some(Vec::new()), timestamp: Some(0), value: Some(document), ..Owned::default() };
        let result = taken("key: record_key | [record_timestamp] | [{ name: c, fn: count, field: /b/a }]", &record);
        prop_assert_eq!(result.is_ok(), valid, "{:?}", result);
    }

    #[test]
    fn arbitrary_bytes_never_panic(value in proptest::collection::vec(any::<u8>(), 0..200), header in proptest::collection::vec(any::<u8>(), 0..20)) {
        let record = Owned { value: Some(value), headers: vec![("at", Some(header))], ..Owned::default() };
        prop_assert!(taken(NESTED, &record).is_err());
    }
}
