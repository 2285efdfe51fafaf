//! The job file as its users meet it: what is accepted, with which values, and what is refused, in which words.

mod fingerprint;
mod formats;
mod refused;
mod schema;

use crate::{
    DeadLetter, Format, Job, JobFile, KeySource, OnDataLoss, Sink, Source, StartFrom, State, TimeSource,
    TimeUnit,
};
use crate::{continues, duration_text, quantity};
use proptest::prelude::*;
use tidegate_core::job::{
    AggregateFn, AggregateSpec, ColumnKind, ColumnSpec, Comparison, Condition, JobSpec, Literal, OnFuture,
    OnQuiet, OperatorSpec, PerMillion, Ranks, SessionSpec, WatermarkSpec, WatermarkStrategy, WindowSpec,
};
use tidegate_core::time::{Shard, Span};

const CLICKS: &str = include_str!("../../../docs/jobs/clicks.yaml");
const TUMBLING: &str = include_str!("../../../docs/jobs/flights-tumbling.yaml");
const HOPPING: &str = include_str!("../../../docs/jobs/flights-hopping.yaml");
const SESSION: &str = include_str!("../../../docs/jobs/flights-session.yaml");
const REORDER: &str = include_str!("../../../docs/jobs/flights-reorder.yaml");

/// The least that is a job; `{}` of each test goes in place of a part of it.
const LEAST: &str = "\
name: least
source:
  topic: in
  key: record_key
watermark:
  delay: 2s
window:
  tumbling: { size: 10s }
aggregates:
  - { name: n, fn: count }
sink: { topic: out }
dead_letter: { topic: dead }
";

fn job(text: &str) -> Job {
    JobFile::parse(text, "job.yaml").unwrap_or_else(|report| panic!("{report}"))
}

/// `LEAST` with the one occurrence of `part` replaced.
fn least_with(part: &str, replacement: &str) -> String {
    assert_eq!(LEAST.matches(part).count(), 1, "{part}");
    LEAST.replace(part, replacement)
}

fn column(pointer: &str, scale: u32) -> ColumnSpec {
    ColumnSpec::number(pointer, scale)
}

#[test]
fn the_clicks_job_has_every_value_of_its_file() {
    let expected = Job {
        name: "clicks".to_owned(),
        source: Source {
            topic: "clicks".to_owned(),
            partitions: Some(4),
            start_from: StartFrom::Earliest,
            on_data_loss: OnDataLoss::Stop,
            format: Format::Json,
            key: KeySource::Field("/user".to_owned()),
            event_time: vec![
                TimeSource::Header { name: "event-time".to_owned(), unit: TimeUnit::Millis },
                TimeSource::Field { pointer: "/ts".to_owned(), unit: TimeUnit::Millis },
                TimeSource::RecordTimestamp,
            ],
        },
        core: JobSpec {
            shards: 16,
            watermark: WatermarkSpec {
                strategy: WatermarkStrategy::Bounded { delay: Span(2_000) },
                idle_timeout: Span(5_000),
                on_quiet: OnQuiet::Hold,
                max_future_skew: Some(Span(60_000)),
                on_future: OnFuture::DeadLetter,
                reanchor_after: Some(3),
            },
            operator: OperatorSpec::Windows(WindowSpec {
                size: Span(10_000),
                step: Span(10_000),
                offset: Span::ZERO,
                zone: None,
            }),
            allowed_lateness: Span(5_000),
            replay_ttl: Span(7_200_000),
            columns: vec![column("/amount", 6)],
            aggregates: vec![
                AggregateSpec::new("clicks", AggregateFn::Count, None),
                AggregateSpec::new("spend", AggregateFn::Sum, Some(0)),
                AggregateSpec::new("largest", AggregateFn::Max, Some(0)),
            ],
        },
        max_drift: Some(Span(300_000)),
        early: None,
        sink: Sink { topic: "clicks-per-user".to_owned() },
        dead_letter: DeadLetter {
            topic: "clicks-dead".to_owned(),
            replay_ttl: Some(Span(7_200_000)),
            replay_every: None,
        },
        state: State { memory: 512 << 20, commit_interval: Span(100) },
    };
    assert_eq!(job(CLICKS), expected);
}

#[test]
fn the_flights_jobs_have_the_windows_of_their_files() {
    let (tumbling, hopping) = (job(TUMBLING), job(HOPPING));
    let hour = 3_600_000;
    assert_eq!(
        tumbling.core.operator,
        OperatorSpec::Windows(WindowSpec {
            size: Span(hour),
            step: Span(hour),
            offset: Span::ZERO,
            zone: None
        })
    );
    assert_eq!(
        hopping.core.operator,
        OperatorSpec::Windows(WindowSpec {
            size: Span(6 * hour),
            step: Span(hour),
            offset: Span::ZERO,
            zone: None
        })
    );
    assert_eq!(tumbling.core.watermark.on_quiet, OnQuiet::Finish);
    assert_eq!(tumbling.core.watermark.strategy, WatermarkStrategy::Bounded { delay: Span(24 * hour) });
    assert_eq!(tumbling.source.key, KeySource::Field("/carrier".to_owned()));
    assert_eq!(hopping.source.key, KeySource::Field("/origin".to_owned()));
}

#[test]
fn a_reordering_job_computes_nothing_and_needs_no_window() {
    let core = job(REORDER).core;
    assert_eq!((core.operator, core.columns, core.aggregates), (OperatorSpec::Reorder, vec![], vec![]));
    assert!(!job(TUMBLING).describe().contains("reorder"));
    assert!(job(REORDER).describe().contains("reorder: yes\n"));
    let none = "reorder: {}\nallowed_lateness: 0ms\n";
    let window = "window:\n  tumbling: { size: 10s }\naggregates:\n  - { name: n, fn: count }\n";
    assert_eq!(job(&least_with(window, none)).core.operator, OperatorSpec::Reorder);
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    let job = job(LEAST);
    assert_eq!(job.source.partitions, None);
    assert_eq!(job.source.start_from, StartFrom::Earliest);
    assert_eq!(job.source.on_data_loss, OnDataLoss::Stop);
    assert_eq!(job.source.key, KeySource::RecordKey);
    let header = TimeSource::Header { name: "event-time".to_owned(), unit: TimeUnit::Millis };
    assert_eq!(job.source.event_time, [header, TimeSource::RecordTimestamp]);
    assert_eq!(
        job.core.watermark,
        WatermarkSpec {
            strategy: WatermarkStrategy::Bounded { delay: Span(2_000) },
            idle_timeout: Span(30_000),
            on_quiet: OnQuiet::Hold,
            max_future_skew: Some(Span(600_000)),
            on_future: OnFuture::DeadLetter,
            reanchor_after: Some(3),
        }
    );
    assert_eq!(job.core.allowed_lateness, Span::ZERO);
    assert_eq!(job.core.shards, 16);
    assert_eq!(job.max_drift, None);
    assert_eq!((job.dead_letter.replay_ttl, job.core.replay_ttl), (None, Span::ZERO));
    assert_eq!(job.state, State { memory: 512 << 20, commit_interval: Span(100) });
}

#[test]
fn an_automatic_replay_has_an_interval() {
    let every = |replay: &str| {
        let section = format!("{{ topic: dead, replay: {replay} }}");
        job(&least_with("{ topic: dead }", &section)).dead_letter
    };
    assert_eq!(every("{ mode: auto }").replay_every, Some(Span(300_000)));
    let given = every("{ mode: auto, every: 30s, ttl: 1h }");
    assert_eq!((given.replay_every, given.replay_ttl), (Some(Span(30_000)), Some(Span(3_600_000))));
    assert_eq!(every("{ mode: manual }").replay_every, None);
}

#[test]
fn ascending_is_a_delay_of_zero() {
    let job = job(&least_with("  delay: 2s", "  strategy: ascending"));
    assert_eq!(job.core.watermark.strategy, WatermarkStrategy::Bounded { delay: Span::ZERO });
}

#[test]
fn each_strategy_has_keys_of_its_own() {
    let strategy = |keys: &str| job(&least_with("  delay: 2s", keys)).core.watermark.strategy;
    assert_eq!(
        strategy("  strategy: sliding_min\n  span: 5s"),
        WatermarkStrategy::SlidingMin { span: Span(5_000), delay: Span::ZERO }
    );
    assert_eq!(
        strategy("  strategy: sliding_min\n  span: 5s\n  delay: 1s"),
        WatermarkStrategy::SlidingMin { span: Span(5_000), delay: Span(1_000) }
    );
    let late = PerMillion(1_000);
    assert_eq!(
        strategy("  strategy: adaptive\n  max_delay: 1m"),
        WatermarkStrategy::Adaptive { late, min_delay: Span::ZERO, max_delay: Span(60_000) }
    );
    assert_eq!(
        strategy("  strategy: adaptive\n  late_share: 0.25%\n  min_delay: 1s\n  max_delay: 1s"),
        WatermarkStrategy::Adaptive {
            late: PerMillion(2_500),
            min_delay: Span(1_000),
            max_delay: Span(1_000)
        }
    );
}

#[test]
fn shares_have_a_percent_sign_and_four_decimal_places() {
    for (text, millionths) in
        [("0.0001%", 1), ("0.1%", 1_000), ("5%", 50_000), ("50.0000%", 500_000), ("00.5%", 5_000)]
    {
        assert_eq!(quantity::parse_share(text), Ok(PerMillion(millionths)), "{text}");
    }
}

#[test]
fn the_future_is_bounded_unless_it_is_accepted() {
    let future = |keys: &str| {
        let watermark = job(&least_with("  delay: 2s", &format!("  delay: 2s\n{keys}"))).core.watermark;
        (watermark.max_future_skew, watermark.on_future)
    };
    assert_eq!(future("  on_future: accept"), (None, OnFuture::DeadLetter));
    assert_eq!(future("  on_future: clamp"), (Some(Span(600_000)), OnFuture::Clamp));
    assert_eq!(future("  max_future_skew: 1m"), (Some(Span(60_000)), OnFuture::DeadLetter));
}

#[test]
fn an_offset_shifts_the_windows() {
    let job = job(&least_with("tumbling: { size: 10s }", "hopping: { size: 1d, step: 6h, offset: 2h }"));
    let hour = 3_600_000;
    assert_eq!(
        job.core.operator,
        OperatorSpec::Windows(WindowSpec {
            size: Span(24 * hour),
            step: Span(6 * hour),
            offset: Span(2 * hour),
            zone: None,
        })
    );
}

#[test]
fn sessions_have_a_gap_and_may_be_cut() {
    let sessions = |section: &str| job(&least_with("tumbling: { size: 10s }", section));
    let hour = Span(3_600_000);
    assert_eq!(
        job(SESSION).core.operator,
        OperatorSpec::Sessions(SessionSpec { gap: Span(7_200_000), cut: None })
    );
    let (whole, cut) = (sessions("session: { gap: 1h }"), sessions("session: { gap: 1h, cut: 24h }"));
    assert_eq!(whole.core.operator, OperatorSpec::Sessions(SessionSpec { gap: hour, cut: None }));
    let day = Span(86_400_000);
    assert_eq!(cut.core.operator, OperatorSpec::Sessions(SessionSpec { gap: hour, cut: Some(day) }));
    let difference = continues(&whole.describe(), &cut.describe()).unwrap_err();
    assert_eq!(difference.key, "window.session.cut_ms", "their state is not the same");
}

#[test]
fn every_unit_of_time_is_known() {
    let entries = "event_time: [{ header: h, unit: s }, { field: /a, unit: us }, { field: /b, unit: ns }, { field: /c, unit: rfc3339 }]";
    let job = job(&least_with("key: record_key", &format!("key: record_key\n  {entries}")));
    let field = |pointer: &str, unit| TimeSource::Field { pointer: pointer.to_owned(), unit };
    assert_eq!(
        job.source.event_time,
        [
            TimeSource::Header { name: "h".to_owned(), unit: TimeUnit::Seconds },
            field("/a", TimeUnit::Micros),
            field("/b", TimeUnit::Nanos),
            field("/c", TimeUnit::Rfc3339),
        ]
    );
}

#[test]
fn a_field_is_one_column_for_each_scale_and_a_count_takes_any() {
    let aggregates = "  - { name: seen, fn: count, field: /b }
  - { name: known, fn: count, field: /a }
  - { name: total, fn: sum, field: /a, scale: 2 }
  - { name: mean, fn: avg, field: /a, scale: 2 }
  - { name: fine, fn: max, field: /a, scale: 9 }";
    let job = job(&least_with("  - { name: n, fn: count }", aggregates));
    assert_eq!(job.core.columns, [column("/a", 2), column("/a", 9), column("/b", 6)]);
    assert_eq!(
        job.core.aggregates,
        [
            AggregateSpec::new("seen", AggregateFn::Count, Some(2)),
            AggregateSpec::new("known", AggregateFn::Count, Some(0)),
            AggregateSpec::new("total", AggregateFn::Sum, Some(0)),
            AggregateSpec::new("mean", AggregateFn::Avg, Some(0)),
            AggregateSpec::new("fine", AggregateFn::Max, Some(1)),
        ]
    );
}

#[test]
fn quantiles_are_one_or_several_within_an_accuracy() {
    let aggregates = "  - { name: p99, fn: quantile, field: /a, q: 0.99 }
  - { name: many, fn: quantile, field: /a, q: [0, 0.5, 1], accuracy: 0.5% }";
    let job = job(&least_with("  - { name: n, fn: count }", aggregates));
    let quantile = |accuracy, ranks| AggregateFn::Quantile { accuracy: PerMillion(accuracy), ranks };
    let several = [0, 500_000, 1_000_000].map(PerMillion).to_vec();
    assert_eq!(
        job.core.aggregates,
        [
            AggregateSpec::new("p99", quantile(10_000, Ranks::One(PerMillion(990_000))), Some(0)),
            AggregateSpec::new("many", quantile(5_000, Ranks::Several(several)), Some(0)),
        ]
    );
    assert!(
        job.describe()
            .contains(r#"aggregates[0]: "p99" quantile 990000 within 10000 of 1000000 of columns[0]"#)
    );
}

#[test]
fn what_is_taken_as_it_is_becomes_a_number_where_a_scale_is_given() {
    let aggregates = "  - { name: first, fn: first, field: /a }
  - { name: last, fn: last, field: /a, scale: 2 }
  - { name: different, fn: distinct, field: /a }
  - { name: most, fn: top_k, field: /a, k: 3 }
  - { name: some, fn: collect, field: /a }
  - { name: known, fn: count, field: /a }";
    let job = job(&least_with("  - { name: n, fn: count }", aggregates));
    assert_eq!(job.core.columns, [ColumnSpec::as_is("/a"), column("/a", 2)]);
    assert_eq!(
        job.core.aggregates,
        [
            AggregateSpec::new("first", AggregateFn::First, Some(0)),
            AggregateSpec::new("last", AggregateFn::Last, Some(1)),
            AggregateSpec::new("different", AggregateFn::Distinct, Some(0)),
            AggregateSpec::new("most", AggregateFn::TopK { k: 3 }, Some(0)),
            AggregateSpec::new("some", AggregateFn::Collect { limit: 100 }, Some(0)),
            AggregateSpec::new("known", AggregateFn::Count, Some(0)),
        ]
    );
    assert!(job.describe().contains("columns[0]: \"/a\" as it is\n"));
}

#[test]
fn a_condition_is_part_of_the_column() {
    let aggregates = "  - { name: a, fn: sum, field: /a }
  - { name: b, fn: sum, field: /a, where: '/s >= -5.50 or not (exists /t~1u and /v==\"x \\\"y\\\"\") and /w != true' }
  - { name: c, fn: count, where: /s < 1 }
  - { name: d, fn: count, where: /s < 1 }";
    let job = job(&least_with("  - { name: n, fn: count }", aggregates));
    let compare = |pointer: &str, comparison, literal| Condition::Compare {
        pointer: pointer.to_owned(),
        comparison,
        literal,
    };
    let b = Condition::Any(vec![
        compare("/s", Comparison::AtLeast, Literal::Number { units: -550, scale: 2 }),
        Condition::All(vec![
            Condition::Not(Box::new(Condition::All(vec![
                Condition::Exists("/t~1u".to_owned()),
                compare("/v", Comparison::Equal, Literal::Text("x \"y\"".to_owned())),
            ]))),
            compare("/w", Comparison::NotEqual, Literal::Boolean(true)),
        ]),
    ]);
    let c = compare("/s", Comparison::Less, Literal::Number { units: 1, scale: 0 });
    let records = ColumnSpec { pointer: String::new(), kind: ColumnKind::Records, only: Some(c) };
    assert_eq!(job.core.columns, [column("/a", 6), ColumnSpec { only: Some(b), ..column("/a", 6) }, records]);
    let columns: Vec<_> = job.core.aggregates.iter().map(|aggregate| aggregate.column).collect();
    assert_eq!(columns, [Some(0), Some(1), Some(2), Some(2)]);
    let described = r#"columns[1]: "/a" scale 6 where ("/s" >= -550 scale 2 or (not (exists "/t~1u" and "/v" == text "x \"y\"") and "/w" != true))"#;
    assert!(job.describe().contains(described), "{}", job.describe());
}

#[test]
fn everything_of_a_job_in_kafka_is_named_after_it() {
    let job = job(LEAST);
    assert_eq!(job.changelog_topic(), "least-changelog");
    assert_eq!(job.control_topic(), "least-control");
    assert_eq!(job.group(), "least");
    assert_eq!(job.transactional_id(Shard(7)), "least-shard-7");
}

#[test]
fn quantities_have_whole_numbers_and_known_units() {
    for (text, millis) in
        [("0ms", 0), ("250ms", 250), ("5s", 5_000), ("1m", 60_000), ("36525d", 3_155_760_000_000)]
    {
        assert_eq!(quantity::parse_duration(text), Ok(Span(millis)), "{text}");
    }
    for (text, bytes) in [("1B", 1), ("4KiB", 4_096), ("512MiB", 536_870_912), ("2GiB", 2_147_483_648)] {
        assert_eq!(quantity::parse_size(text), Ok(bytes), "{text}");
    }
    for text in ["", "s", "5", "1.5s", "-5s", "5 s", " 5s", "5S", "1h30m", "99999999999999999999s", "36526d"]
    {
        assert!(quantity::parse_duration(text).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn a_duration_reads_back_as_it_was_written(millis in 0_i64..=36_525 * 86_400_000) {
        prop_assert_eq!(quantity::parse_duration(&duration_text(Span(millis))), Ok(Span(millis)));
    }

    #[test]
    fn a_duration_keeps_its_unit_where_that_is_the_largest(number in 1_i64..=23, unit in "h|ms|s") {
        let text = format!("{number}{unit}");
        let span = quantity::parse_duration(&text).unwrap();
        prop_assert_eq!(duration_text(span), text);
    }

    #[test]
    fn no_text_makes_it_panic_and_a_refusal_names_a_problem(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        never_panics(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_text_that_looks_like_yaml_makes_it_panic(text in "([a-z]{1,3}|[-:?,&*!|>'\"%@`{}#~0-9]|\\[|\\]| |\n|\t|: |- ){0,120}") {
        never_panics(&text);
    }

    /// Damage to a good file: most of it stays readable, so that decoder and checks are reached too.
    #[test]
    fn no_damage_to_a_good_file_makes_it_panic(at in 0..CLICKS.len(), length in 0_usize..40, with in "[ -~\n]{0,8}") {
        let end = (at + length).min(CLICKS.len());
        never_panics(&format!("{}{with}{}", &CLICKS[..at], &CLICKS[end..]));
    }
}

fn never_panics(text: &str) {
    if let Err(report) = JobFile::parse(text, "job.yaml") {
        assert!(!report.problems.is_empty());
        let lines = 1 + text.matches(['\n', '\r']).count();
        for problem in &report.problems {
            assert!(problem.line >= 1 && problem.line <= lines && problem.column >= 1, "{problem:?}");
            assert!(!problem.what.is_empty() && !problem.fix.is_empty(), "{problem:?}");
        }
    }
}
