//! The checked job: what the services are given.

use tidegate_core::job::JobSpec;
use tidegate_core::time::{Shard, Span};

/// A job whose every value has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Name of the job: letters, digits, `.`, `_`, `-`.
    pub name: String,
    /// Where the records come from.
    pub source: Source,
    /// What the state machines compute.
    pub core: JobSpec,
    /// A partition further ahead of the watermark than this is paused; `None`: no bound.
    pub max_drift: Option<Span>,
    /// How often there are results of windows that are open; `None`: never.
    pub early: Option<Span>,
    /// Where the results go.
    pub sink: Sink,
    /// Where the records go that are in no result.
    pub dead_letter: DeadLetter,
    /// The state of a worker.
    pub state: State,
}

/// Where the records come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Topic to read.
    pub topic: String,
    /// Number of partitions, used only when the topic is created; `None`: the broker's default.
    pub partitions: Option<u32>,
    /// Where a new job begins.
    pub start_from: StartFrom,
    /// What becomes of records that were deleted before they were read.
    pub on_data_loss: OnDataLoss,
    /// How the payload is written.
    pub format: Format,
    /// What the records are grouped by.
    pub key: KeySource,
    /// Where the event time is, tried in order; at least one.
    pub event_time: Vec<TimeSource>,
}

/// Where a new job begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartFrom {
    /// With the oldest record that the topic holds.
    Earliest,
    /// With the records that arrive after the start.
    Latest,
}

/// What becomes of records that were deleted before they were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDataLoss {
    /// Reading ends with an error.
    Stop,
    /// Reading goes on at the oldest record that is left; what is missing is counted.
    Skip,
}

/// How the payload is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object.
    Json,
    /// Bytes without fields.
    Raw,
    /// One Avro record.
    Avro(SchemaSource),
    /// One protobuf message.
    Protobuf(SchemaSource),
}

/// Where the schemas of the payloads are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaSource {
    /// One schema for all records.
    File(SchemaFile),
    /// Each record begins with the id of its schema: Confluent's framing.
    Registry(Registry),
}

/// A schema in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaFile {
    /// The file; relative to the folder of the job file.
    pub path: String,
    /// Where imports are found, likewise; `None`: beside the file. Only of protobuf.
    pub include: Option<String>,
    /// The message's full name; `None`: the only one in the file. Only of protobuf.
    pub message: Option<String>,
}

/// A schema registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    /// Begins with `http://` or `https://`.
    pub url: String,
    /// File with the authorities that the registry's certificate may come from, relative to the folder of the job file; `None`: those of
    /// the system.
    pub ca_file: Option<String>,
    /// The user, and the file with its password, relative to the folder of the job file.
    pub user: Option<(String, String)>,
    /// What happens to a record whose schema the registry does not know.
    pub unknown_schema: UnknownSchema,
}

/// What happens to a record whose schema the registry does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownSchema {
    /// Reading waits and asks again.
    Wait,
    /// It is a dead letter.
    DeadLetter,
}

impl Format {
    /// Its name in the job file.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Raw => "raw",
            Self::Avro(_) => "avro",
            Self::Protobuf(_) => "protobuf",
        }
    }

    /// The registry, where the schemas are in one.
    #[must_use]
    pub const fn registry(&self) -> Option<&Registry> {
        match self {
            Self::Avro(SchemaSource::Registry(registry))
            | Self::Protobuf(SchemaSource::Registry(registry)) => Some(registry),
            _ => None,
        }
    }
}

/// What the records are grouped by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// The field of the payload at this JSON pointer.
    Field(String),
    /// The key of the record.
    RecordKey,
}

/// A place where the event time may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimeSource {
    /// A header of the record.
    Header {
        /// Its name.
        name: String,
        /// How the time is written in it.
        unit: TimeUnit,
    },
    /// A field of the payload.
    Field {
        /// JSON pointer.
        pointer: String,
        /// How the time is written in it.
        unit: TimeUnit,
    },
    /// The timestamp of the record itself.
    RecordTimestamp,
}

/// How a time is written: a number, bare or as text, since the Unix epoch, or RFC 3339 text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Epoch seconds.
    Seconds,
    /// Epoch milliseconds.
    Millis,
    /// Epoch microseconds.
    Micros,
    /// Epoch nanoseconds.
    Nanos,
    /// RFC 3339 text.
    Rfc3339,
}

/// Where the results go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sink {
    /// Topic of the results.
    pub topic: String,
}

/// Where the records go that are in no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Topic of the dead letters.
    pub topic: String,
    /// How long a dead letter may be replayed; `None`: the job asks for no replay.
    pub replay_ttl: Option<Span>,
    /// How often the job replays by itself; `None`: only when it is asked to.
    pub replay_every: Option<Span>,
}

/// The state of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Memory for window state, in bytes.
    pub memory: u64,
    /// A shard with changes commits at least this often.
    pub commit_interval: Span,
}

impl Job {
    /// The deltas of the window state, one partition per shard: `<name>-changelog`.
    #[must_use]
    pub fn changelog_topic(&self) -> String {
        changelog_topic(&self.name)
    }

    /// The job record, leader records and requests: `<name>-control`.
    #[must_use]
    pub fn control_topic(&self) -> String {
        control_topic(&self.name)
    }

    /// The consumer group in which the coordinators elect the one that leads: `<name>-coordinator`.
    #[must_use]
    pub fn coordinator_group(&self) -> String {
        format!("{}-coordinator", self.name)
    }

    /// The consumer group of the ingests.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.name
    }

    /// The transactional id under which `shard` commits: `<name>-shard-<shard>`.
    #[must_use]
    pub fn transactional_id(&self, shard: Shard) -> String {
        format!("{}-shard-{shard}", self.name)
    }
}

pub(crate) fn changelog_topic(job: &str) -> String {
    format!("{job}-changelog")
}

pub(crate) fn control_topic(job: &str) -> String {
    format!("{job}-control")
}
