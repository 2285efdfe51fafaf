//! One record of the dead-letter topic: whose it is, whether it is meant, and what the job as it is now makes of it.

use tidegate_core::{
    dead_letter::{Payload, Reason},
    future::{Future, Judgement},
    record::{RecordView, Timestamp},
    replay::Origin,
    replay_request::ReplayFilter,
    time::{EventTime, Offset, Partition, Shard},
};
use tidegate_extract::{Extracted, Extractor};
use tidegate_job::Job;
use tidegate_kafka::Record;

/// What is to be done with a record of the dead-letter topic.
pub(super) enum Verdict<'a> {
    /// It is no dead letter of this job.
    Foreign,
    /// It is not meant.
    LeftOut,
    /// The job cannot read it, or it is not whole.
    Failed,
    /// It goes to a shard.
    Meant(Entry<'a>),
}

/// A dead letter as the job reads it now.
pub(super) struct Entry<'a> {
    pub(super) shard: Shard,
    pub(super) time: EventTime,
    pub(super) extracted: Extracted<'a>,
    pub(super) origin: Origin,
}

/// Judges a record.
pub(super) fn judge<'a>(
    record: &'a impl RecordView,
    job: &Job,
    extractor: &'a mut Extractor,
    future: Future,
    filter: &ReplayFilter,
) -> Verdict<'a> {
    let text = |name| record.header(name).and_then(|value| std::str::from_utf8(value).ok());
    let is_of_another_job = text("tidegate-job").is_some_and(|name| name != job.name);
    if is_of_another_job || text("tidegate-topic") != Some(&job.source.topic) {
        return Verdict::Foreign;
    }
    let number = |name| text(name).and_then(|text| text.parse::<u64>().ok());
    let time = |name| text(name).and_then(|text| text.parse::<i64>().ok()).map(EventTime);
    let partition = number("tidegate-partition").and_then(|number| u32::try_from(number).ok());
    let reason = text("tidegate-reason").and_then(Reason::from_name);
    let (Some(partition), Some(offset), Some(reason)) = (partition, number("tidegate-offset"), reason) else {
        return Verdict::Failed;
    };
    if !filter.takes_reason(reason) {
        return Verdict::LeftOut;
    }
    if record.header("tidegate-payload").is_some() && record.value().is_none() {
        return Verdict::Failed;
    }
    let origin = Origin {
        partition: Partition(partition),
        offset: Offset(offset),
        reason,
        missed: time("tidegate-window-start").zip(time("tidegate-window-end")),
    };
    let Ok(extracted) = extractor.extract(record) else { return Verdict::Failed };
    let time = match future.judge(extracted.time) {
        Judgement::Believed => extracted.time,
        Judgement::Clamped(time) => time,
        Judgement::Rejected { .. } => return Verdict::Failed,
    };
    if !filter.takes(time, extracted.key) {
        return Verdict::LeftOut;
    }
    let shard = Shard::of(extracted.key, job.core.shards);
    Verdict::Meant(Entry { shard, time, extracted, origin })
}

/// The record as it was in the source: what the job has added is behind the last of its own headers.
pub(super) fn payload_of(record: &Record<'_>) -> Payload {
    let timestamp = match record.timestamp() {
        Timestamp::CreateTime(time) | Timestamp::LogAppendTime(time) => Some(time.millis()),
        Timestamp::NotAvailable => None,
    };
    let headers = record.headers().map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)));
    Payload {
        key: record.key().map(<[u8]>::to_vec),
        value: record.value().map(<[u8]>::to_vec),
        headers: without_ours(headers.collect()),
        timestamp,
    }
}

/// `tidegate-reason` is the first that is added: the record may have come from the dead letters of another job.
fn without_ours(mut headers: Vec<(String, Option<Vec<u8>>)>) -> Vec<(String, Option<Vec<u8>>)> {
    if let Some(first) = headers.iter().rposition(|(name, _)| name == "tidegate-reason") {
        headers.truncate(first);
    }
    headers
}

#[cfg(test)]
mod tests {
    use tidegate_core::replay_request::ReplayFilter;
    use tidegate_job::JobFile;

    use super::*;

    const JOB: &str = "\
name: count
source: { topic: clicks, key: { field: /user }, event_time: [{ field: /ts, unit: ms }] }
watermark: { delay: 2s }
window: { tumbling: { size: 10s } }
aggregates: [{ name: n, fn: count }]
sink: { topic: counts }
dead_letter: { topic: dead, replay: { ttl: 1h } }
state: { shards: 4 }
";

    struct Letter {
        value: Option<&'static str>,
        headers: Vec<(&'static str, &'static str)>,
    }

    impl RecordView for Letter {
        fn key(&self) -> Option<&[u8]> {
            None
        }
        fn value(&self) -> Option<&[u8]> {
            self.value.map(str::as_bytes)
        }
        fn timestamp(&self) -> Timestamp {
            Timestamp::CreateTime(EventTime(7))
        }
        fn header(&self, name: &str) -> Option<&[u8]> {
            self.headers.iter().rfind(|(known, _)| *known == name).map(|(_, value)| value.as_bytes())
        }
    }

    fn letter() -> Letter {
        Letter {
            value: Some(r#"{"user":"u1","ts":1000}"#),
            headers: vec![
                ("tidegate-reason", "late"),
                ("tidegate-job", "count"),
                ("tidegate-topic", "clicks"),
                ("tidegate-partition", "3"),
                ("tidegate-offset", "17"),
                ("tidegate-window-start", "0"),
                ("tidegate-window-end", "10000"),
            ],
        }
    }

    fn word(letter: &Letter, filter: &ReplayFilter) -> &'static str {
        let job = JobFile::parse(JOB, "job.yaml").unwrap();
        let mut extractor = Extractor::new(&job).unwrap();
        let future = Future::of(&job.core.watermark, EventTime(5_000));
        match judge(letter, &job, &mut extractor, future, filter) {
            Verdict::Foreign => "foreign",
            Verdict::LeftOut => "left out",
            Verdict::Failed => "failed",
            Verdict::Meant(entry) => {
                assert_eq!((entry.time, entry.extracted.key), (EventTime(1_000), &b"u1"[..]));
                assert_eq!(entry.shard, Shard::of(b"u1", 4));
                let origin = entry.origin;
                assert_eq!((origin.partition, origin.offset), (Partition(3), Offset(17)));
                assert_eq!(origin.missed, Some((EventTime(0), EventTime(10_000))));
                "meant"
            }
        }
    }

    #[test]
    fn a_dead_letter_of_the_job_is_read_by_the_job_as_it_is_now() {
        assert_eq!(word(&letter(), &ReplayFilter::default()), "meant");
        let of_before_jobs_were_named =
            |letter: &mut Letter| letter.headers.retain(|(name, _)| *name != "tidegate-job");
        let mut old = letter();
        of_before_jobs_were_named(&mut old);
        assert_eq!(word(&old, &ReplayFilter::default()), "meant");
    }

    #[test]
    fn what_is_not_of_the_job_is_foreign() {
        for (name, value) in [("tidegate-topic", "orders"), ("tidegate-job", "other")] {
            let mut foreign = letter();
            foreign.headers.push((name, value));
            assert_eq!(word(&foreign, &ReplayFilter::default()), "foreign", "{name}");
        }
        assert_eq!(word(&Letter { headers: Vec::new(), ..letter() }, &ReplayFilter::default()), "foreign");
    }

    #[test]
    fn what_the_filter_does_not_take_is_left_out() {
        let no_key = ReplayFilter { reasons: vec![Reason::NoKey], ..ReplayFilter::default() };
        let later = ReplayFilter { since: Some(EventTime(1_001)), ..ReplayFilter::default() };
        let other = ReplayFilter { key: Some(b"u2".to_vec()), ..ReplayFilter::default() };
        for filter in [no_key, later, other] {
            assert_eq!(word(&letter(), &filter), "left out", "{filter:?}");
        }
        assert_eq!(word(&letter(), &ReplayFilter::late()), "meant");
    }

    #[test]
    fn what_cannot_be_read_fails_and_so_does_what_is_not_whole() {
        let values = [None, Some("{"), Some(r#"{"user":"u1"}"#), Some(r#"{"user":"u1","ts":900000000}"#)];
        for value in values {
            assert_eq!(word(&Letter { value, ..letter() }, &ReplayFilter::default()), "failed", "{value:?}");
        }
        for header in [("tidegate-reason", "unheard of"), ("tidegate-offset", "-1")] {
            let mut wrong = letter();
            wrong.headers.push(header);
            assert_eq!(word(&wrong, &ReplayFilter::default()), "failed", "{header:?}");
        }
    }

    #[test]
    fn a_payload_has_the_headers_of_the_source_and_no_others() {
        let header = |name: &str| (name.to_owned(), None);
        let headers =
            ["a", "tidegate-reason", "b", "tidegate-reason", "tidegate-job", "tidegate-topic"].map(header);
        assert_eq!(without_ours(headers.to_vec()), ["a", "tidegate-reason", "b"].map(header));
    }
}
