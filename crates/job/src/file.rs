//! The job file as it is written: every key and its type.
//!
//! Quantities stay text here; `check` turns them into values. What is not built yet is known to the decoder, so that
//! it can be refused by name, but not part of the schema.

use crate::job::Job;
use crate::report::Report;
use crate::{check, decode, node};
use schemars::JsonSchema;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;

/// Words of the file that are known, refused by `check`, left out of the schema, and never offered.
pub(crate) const NOT_SUPPORTED_YET: [&str; 1] = ["wasm"];

/// A tidegate job: which topic is read, how event time and watermark follow from it, what is computed, where it goes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(
    title = "tidegate job",
    extend("oneOf" = [{ "required": ["window", "aggregates"] }, { "required": ["reorder"] }])
)]
pub struct JobFile {
    /// Name of the job; consumer group, transactional ids and internal topics are named after it.
    pub(crate) name: String,
    pub(crate) source: SourceSection,
    pub(crate) watermark: WatermarkSection,
    /// Over which windows the aggregates are computed.
    pub(crate) window: Option<WindowChoice>,
    /// In place of `window` and `aggregates`: the records themselves, in order of event time.
    pub(crate) reorder: Option<ReorderSection>,
    /// Provisional results of windows that are open. Not with `sliding` and `reorder`. Default: none.
    pub(crate) early: Option<EarlySection>,
    /// How long after its end a window still takes late records. Default `0ms`.
    pub(crate) allowed_lateness: Option<DurationText>,
    /// What is computed for each window and key, in the order of the result's fields.
    #[schemars(length(min = 1))]
    pub(crate) aggregates: Option<Vec<AggregateEntry>>,
    pub(crate) sink: SinkSection,
    pub(crate) dead_letter: DeadLetterSection,
    pub(crate) state: Option<StateSection>,
}

/// Provisional results of windows that are open.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EarlySection {
    /// How often, where something has changed.
    pub(crate) every: DurationText,
}

/// Where the records come from.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SourceSection {
    /// Topic to read.
    pub(crate) topic: String,
    /// Number of partitions, used only when the topic has to be created.
    #[schemars(range(min = 1, max = 10_000))]
    pub(crate) partitions: Option<u32>,
    /// Where a new job begins. Default `earliest`.
    pub(crate) start_from: Option<StartFromWord>,
    /// What becomes of records that were deleted before they were read. Default `stop`.
    pub(crate) on_data_loss: Option<OnDataLossWord>,
    /// Format of the payload. Default `json`.
    pub(crate) format: Option<Format>,
    pub(crate) key: KeyChoice,
    /// Where the event time is, tried in order. Default: the header `event-time`, then the record timestamp.
    #[schemars(length(min = 1))]
    pub(crate) event_time: Option<Vec<TimeEntry>>,
}

/// Where a new job begins.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StartFromWord {
    /// With the oldest record that the topic holds.
    Earliest,
    /// With the records that arrive from now on.
    Latest,
}

/// What becomes of records that were deleted before they were read.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnDataLossWord {
    /// Reading ends with an error.
    Stop,
    /// Reading goes on at the oldest record that is left; what is missing is counted.
    Skip,
}

/// Format of the payload.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Format {
    /// One JSON object per record.
    Json,
    /// Bytes without fields: the key is the record's key, the event time a header or the record's timestamp.
    Raw,
    /// One Avro record per record.
    Avro(AvroSection),
    /// One protobuf message per record.
    Protobuf(ProtobufSection),
}

/// Exactly one of `schema` and `registry`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AvroSection {
    /// File with the schema (`.avsc`) that all records are written with, without framing.
    pub(crate) schema: Option<FileName>,
    /// Schema registry, as in `http://registry:8081`: each record names its schema, in Confluent's framing.
    pub(crate) registry: Option<HttpUrl>,
    /// File with the authorities (PEM) that the certificate of a registry at `https://` may come from. Default: those of the system.
    pub(crate) ca_file: Option<FileName>,
    /// User for the registry (basic authentication).
    pub(crate) user: Option<String>,
    /// File with the user's password.
    pub(crate) password_file: Option<FileName>,
    /// What happens to a record whose schema the registry does not know. Default `wait`.
    pub(crate) unknown_schema: Option<UnknownSchemaWord>,
}

/// Exactly one of `schema` and `registry`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProtobufSection {
    /// File with the schema (`.proto`), for records without framing.
    pub(crate) schema: Option<FileName>,
    /// Folder in which the imports of `schema` are found. Default: the folder of `schema`.
    pub(crate) include: Option<FileName>,
    /// Full name of the message in `schema`, as in `shop.v1.Click`; needed where there are several.
    pub(crate) message: Option<String>,
    /// Schema registry, as in `http://registry:8081`: each record names schema and message, in Confluent's framing.
    pub(crate) registry: Option<HttpUrl>,
    /// File with the authorities (PEM) that the certificate of a registry at `https://` may come from. Default: those of the system.
    pub(crate) ca_file: Option<FileName>,
    /// User for the registry (basic authentication).
    pub(crate) user: Option<String>,
    /// File with the user's password.
    pub(crate) password_file: Option<FileName>,
    /// What happens to a record whose schema the registry does not know. Default `wait`.
    pub(crate) unknown_schema: Option<UnknownSchemaWord>,
}

/// What happens to a record whose schema the registry does not know.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum UnknownSchemaWord {
    /// Reading waits and asks again.
    Wait,
    /// It is a dead letter.
    DeadLetter,
}

/// A file; where it is relative, as seen from the folder of the job file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline, extend("minLength" = 1))]
pub(crate) struct FileName(pub(crate) String);

/// A URL that begins with `http://` or `https://`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline, extend("pattern" = "^https?://[^@/]+(/[^@]*)?$"))]
pub(crate) struct HttpUrl(pub(crate) String);

/// What the records are grouped by.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KeyChoice {
    /// A field of the payload, as a JSON pointer.
    Field(Pointer),
    /// The key of the record.
    RecordKey,
}

/// A JSON pointer (RFC 6901) into the payload, as in `/user/id`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline, extend("pattern" = "^/([^~]|~[01])*$"))]
pub(crate) struct Pointer(pub(crate) String);

/// A place where the event time may be: `record_timestamp`, a header or a field.
#[derive(Debug)]
pub(crate) enum TimeEntry {
    RecordTimestamp,
    Named(TimePlace),
}

/// Exactly one of `header` and `field`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TimePlace {
    pub(crate) header: Option<String>,
    pub(crate) field: Option<Pointer>,
    pub(crate) unit: Option<UnitWord>,
}

/// How the time is written. Default `ms`.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum UnitWord {
    /// A number: epoch seconds.
    S,
    /// A number: epoch milliseconds.
    Ms,
    /// A number: epoch microseconds.
    Us,
    /// A number: epoch nanoseconds.
    Ns,
    /// Text such as `2013-01-01T05:00:00Z`.
    Rfc3339,
}

/// How the watermark follows the records.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WatermarkSection {
    /// Default `bounded_out_of_orderness`.
    pub(crate) strategy: Option<Strategy>,
    /// Bound on the disorder; required by `bounded_out_of_orderness`. With `sliding_min`: taken off the smallest event time,
    /// default `0ms`.
    pub(crate) delay: Option<DurationText>,
    /// How far behind the largest event time a record counts; required by `sliding_min`, only there.
    pub(crate) span: Option<DurationText>,
    /// The share of records that may be late, only with `adaptive`. Default `0.1%`.
    pub(crate) late_share: Option<ShareText>,
    /// The delay is at least this, only with `adaptive`. Default `0ms`.
    pub(crate) min_delay: Option<DurationText>,
    /// The delay is at most this; required by `adaptive`, only there.
    pub(crate) max_delay: Option<DurationText>,
    /// A partition without records and without lag for this long stops holding the watermark back. Default `30s`.
    pub(crate) idle_timeout: Option<DurationText>,
    /// What the watermark does when every partition is idle. Default `hold`.
    pub(crate) on_quiet: Option<OnQuietWord>,
    /// Records further ahead of the clock than this do not move the watermark. Default `10m`.
    pub(crate) max_future_skew: Option<DurationText>,
    /// What becomes of records further ahead than `max_future_skew`. Default `dead_letter`.
    pub(crate) on_future: Option<OnFutureWord>,
    /// So many consecutive records older than the strategy tolerates re-anchor its largest event time. Default 3.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) reanchor_after: Option<u32>,
    /// A partition further ahead of the watermark than this is paused. Default: no bound.
    pub(crate) max_drift: Option<DurationText>,
}

/// How the watermark of a partition follows its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Strategy {
    /// The largest event time seen − `delay`.
    BoundedOutOfOrderness,
    /// The largest event time seen.
    Ascending,
    /// The smallest event time seen within `span` of the largest − `delay`.
    SlidingMin,
    /// The largest event time seen − a delay that keeps the share of late records at `late_share`.
    Adaptive,
}

/// What becomes of a record that is further ahead of the clock than `max_future_skew`.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnFutureWord {
    /// It is a dead letter, reason `future`.
    DeadLetter,
    /// It counts as of its arrival, and does not move the watermark.
    Clamp,
    /// It counts like any other: no bound, the clock has no say.
    Accept,
}

/// What the watermark does when every partition is idle.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnQuietWord {
    /// It stays.
    Hold,
    /// It moves on by elapsed time.
    Advance,
    /// It moves past the end of every window that a record seen so far can be in: for bounded input.
    Finish,
}

/// The windows.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WindowChoice {
    /// Fixed size, one after the other.
    Tumbling(TumblingSection),
    /// Fixed size, a new one every `step`, overlapping.
    Hopping(HoppingSection),
    /// One for each record, that ends with it.
    Sliding(SlidingSection),
    /// As long as records come that are less than a gap apart.
    Session(SessionSection),
}

/// The records themselves, of each key in order of event time; ties by partition, then offset.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReorderSection {}

/// Windows `[k·size + offset, (k+1)·size + offset)`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TumblingSection {
    /// Length of a window.
    pub(crate) size: DurationText,
    /// Shift of the grid from the Unix epoch, less than `size`. Default `0ms`.
    pub(crate) offset: Option<DurationText>,
    /// IANA name of the time zone whose local days and hours are meant. Default: UTC.
    pub(crate) timezone: Option<String>,
}

/// Windows `[k·step + offset, k·step + offset + size)`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HoppingSection {
    /// Length of a window.
    pub(crate) size: DurationText,
    /// Distance between the starts of two windows, at most `size`.
    pub(crate) step: DurationText,
    /// Shift of the grid from the Unix epoch, less than `step`. Default `0ms`.
    pub(crate) offset: Option<DurationText>,
    /// IANA name of the time zone whose local days and hours are meant. Default: UTC.
    pub(crate) timezone: Option<String>,
}

/// For each record the window `(t − size, t]` of its key, t being its event time.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SlidingSection {
    /// Length of a window.
    pub(crate) size: DurationText,
}

/// Sessions: records of a key less than `gap` apart are in one.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SessionSection {
    /// A session ends this long after its last record.
    pub(crate) gap: DurationText,
    /// Sessions are cut at the multiples of this since the Unix epoch, so that none is longer; at least `gap`. Default: never.
    pub(crate) cut: Option<DurationText>,
}

/// One aggregate of each window.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AggregateEntry {
    /// Field of the result.
    #[schemars(regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$"), length(max = 64))]
    pub(crate) name: String,
    /// What is computed.
    #[serde(rename = "fn")]
    pub(crate) function: Function,
    /// The field of the payload it is computed of; required by all but `count`.
    pub(crate) field: Option<Pointer>,
    /// Decimal places kept of `field`. Default 6; of `first`, `last`, `distinct`, `top_k` and `collect` none: they take the value as
    /// it is.
    #[schemars(range(max = 18))]
    pub(crate) scale: Option<u32>,
    /// Which quantile, from 0 to 1, or a list of them; only with `quantile`, and required there.
    pub(crate) q: Option<RanksText>,
    /// How far off a quantile may be, as a share of the value, from `0.1%` to `20%`; only with `quantile`. Default `1%`.
    pub(crate) accuracy: Option<ShareText>,
    /// Which records it is computed of, as in `/status >= 500 and not /type == "test"`. Default: all.
    #[serde(rename = "where")]
    #[schemars(length(min = 1))]
    pub(crate) only: Option<String>,
    /// How many values, only with `top_k`. Default 10.
    #[schemars(range(min = 1, max = 100))]
    pub(crate) k: Option<u32>,
    /// How many values at most, only with `collect`. Default 100.
    #[schemars(range(min = 1, max = 500))]
    pub(crate) limit: Option<u32>,
}

/// One quantile, or several.
#[derive(Debug)]
pub(crate) enum RanksText {
    One(String),
    Several(Vec<String>),
}

/// What is computed.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Function {
    /// Number of records; with `field`, of those whose field is there and not null.
    Count,
    /// Exact sum.
    Sum,
    /// Smallest value.
    Min,
    /// Largest value.
    Max,
    /// Sum divided by number of values.
    Avg,
    /// Sample variance.
    Variance,
    /// Square root of the sample variance.
    Stddev,
    /// The value of the earliest record that has one.
    First,
    /// The value of the latest record that has one.
    Last,
    /// Quantiles within a relative error.
    Quantile,
    /// Number of different values.
    Distinct,
    /// The most frequent values.
    TopK,
    /// The values of the earliest records that have one.
    Collect,
    /// Not supported yet.
    #[schemars(skip)]
    Wasm,
}

/// Where the results go.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SinkSection {
    /// Topic of the results.
    pub(crate) topic: String,
}

/// Where the records go that are in no result.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeadLetterSection {
    /// Topic of the dead letters.
    pub(crate) topic: String,
    pub(crate) replay: Option<ReplaySection>,
}

/// What a later replay of dead letters may rely on.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReplaySection {
    /// How long a dead letter may be replayed. Default `2h`.
    pub(crate) ttl: Option<DurationText>,
    /// Who starts a replay. Default `manual`.
    pub(crate) mode: Option<ReplayMode>,
    /// How often the job replays by itself what has come since; only with `mode: auto`, default `5m`.
    pub(crate) every: Option<DurationText>,
}

/// Who starts a replay.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReplayMode {
    /// A person, by `tidegate replay`.
    Manual,
    /// The job too: records that came too late, every so often.
    Auto,
}

/// The state of the windows.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StateSection {
    /// Number of shards, fixed for the life of the job. Default 16.
    #[schemars(range(min = 1, max = 4096))]
    pub(crate) shards: Option<u32>,
    /// Memory for the window state of one worker. Default `512MiB`.
    pub(crate) memory: Option<SizeText>,
    /// A shard commits at least this often while it has changes. Default `100ms`.
    pub(crate) commit_interval: Option<DurationText>,
}

/// A duration: a whole number and a unit, as in `250ms`, `5s`, `1m`, `24h`, `2d`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline, extend("pattern" = "^[0-9]+(ms|s|m|h|d)$"))]
pub(crate) struct DurationText(pub(crate) String);

/// A share: a number with at most four decimal places and `%`, as in `0.1%`, `5%`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline, extend("pattern" = "^[0-9]+([.][0-9]{1,4})?%$"))]
pub(crate) struct ShareText(pub(crate) String);

/// A size: a whole number and a unit, as in `64MiB`, `2GiB`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline, extend("pattern" = "^[0-9]+(B|KiB|MiB|GiB|TiB)$"))]
pub(crate) struct SizeText(pub(crate) String);

impl JobFile {
    /// Reads the job out of `text`; `file_name` is only for the errors.
    ///
    /// # Errors
    /// Everything that is wrong, as far as it can be told at once; never empty.
    pub fn parse(text: &str, file_name: &str) -> Result<Job, Report> {
        let mut problems = Vec::new();
        let root = node::parse(text).map_err(|problem| Report::new(file_name, vec![problem]))?;
        let job =
            decode::decode(&root, &mut problems).and_then(|file| check::check(&file, &root, &mut problems));
        match job {
            Some(job) if problems.is_empty() => Ok(job),
            _ => Err(Report::new(file_name, problems)),
        }
    }
}

impl<'de> Deserialize<'de> for TimeEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entry;
        impl<'de> Visitor<'de> for Entry {
            type Value = TimeEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`record_timestamp`, `{ header: … }` or `{ field: … }`")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<TimeEntry, E> {
                match word {
                    "record_timestamp" => Ok(TimeEntry::RecordTimestamp),
                    _ => {
                        Err(E::unknown_variant(word, &["record_timestamp", "{ header: … }", "{ field: … }"]))
                    }
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TimeEntry, A::Error> {
                TimePlace::deserialize(MapAccessDeserializer::new(map)).map(TimeEntry::Named)
            }
        }
        deserializer.deserialize_any(Entry)
    }
}

impl<'de> Deserialize<'de> for RanksText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ranks;
        impl<'de> Visitor<'de> for Ranks {
            type Value = RanksText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number from 0 to 1, or a list of them")
            }

            fn visit_str<E: Error>(self, number: &str) -> Result<RanksText, E> {
                Ok(RanksText::One(number.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<RanksText, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(list)).map(RanksText::Several)
            }
        }
        deserializer.deserialize_any(Ranks)
    }
}
