//! From the file as written to the checked job: values, defaults, contradictions, and what is not supported yet.
//!
//! Everything is checked before anything is refused, so that one run names all that is wrong.

mod aggregates;
mod computed;
mod format;
mod source;
mod watermark;

use crate::file::{DurationText, JobFile, Pointer, ReplayMode, SizeText, StateSection};
use crate::job::{DeadLetter, Job, Sink, State, changelog_topic, control_topic};
use crate::names;
use crate::node::Node;
use crate::quantity::{duration_text, parse_duration, parse_size};
use crate::report::{Flaw, Problem};
use std::ops::RangeInclusive;
use tidegate_core::job::JobSpec;
use tidegate_core::time::Span;

const REPLAY_TTL: Span = Span(2 * 3_600_000);
const REPLAY_EVERY: Span = Span(5 * 60_000);
/// Each look that finds something is a record in the control topic.
const REPLAY_EVERY_LEAST: Span = Span(1_000);
const SHARDS: u32 = 16;
const MAX_SHARDS: u32 = 4096;
const MEMORY: u64 = 512 << 20;
const MIN_MEMORY: u64 = 1 << 20;
const COMMIT_INTERVAL: Span = Span(100);
const COMMIT_INTERVALS: RangeInclusive<Span> = Span(10)..=Span(10_000);

/// The checked job; `None` when something was added to `problems`.
pub(crate) fn check(file: &JobFile, root: &Node, problems: &mut Vec<Problem>) -> Option<Job> {
    let mut checker = Checker { root, problems };
    checker.names("name", &file.name, names::job);
    let source = checker.source(&file.source);
    checker.raw_has_no_fields(file);
    let watermark = checker.watermark(&file.watermark);
    let max_drift = checker.optional_above_zero("watermark.max_drift", file.watermark.max_drift.as_ref());
    let computed = checker.computed(file);
    let early = checker.early(file);
    let allowed_lateness = checker.duration("allowed_lateness", file.allowed_lateness.as_ref(), Span::ZERO);
    checker.names("sink.topic", &file.sink.topic, names::topic);
    checker.names("dead_letter.topic", &file.dead_letter.topic, names::topic);
    checker.distinct_topics(file);
    let (replay_ttl, replay_every) = checker.replay(file);
    let absent = StateSection::default();
    let (shards, state) = checker.state(file.state.as_ref().unwrap_or(&absent));

    let (operator, columns, aggregates) = computed?;
    Some(Job {
        name: file.name.clone(),
        source: source?,
        core: JobSpec {
            shards: shards?,
            watermark: watermark?,
            operator,
            allowed_lateness: allowed_lateness?,
            replay_ttl: replay_ttl?.unwrap_or(Span::ZERO),
            columns,
            aggregates,
        },
        max_drift: max_drift?,
        early: early?,
        sink: Sink { topic: file.sink.topic.clone() },
        dead_letter: DeadLetter {
            topic: file.dead_letter.topic.clone(),
            replay_ttl: replay_ttl?,
            replay_every: replay_every?,
        },
        state: state?,
    })
}

struct Checker<'a> {
    root: &'a Node,
    problems: &'a mut Vec<Problem>,
}

impl Checker<'_> {
    fn refuse(&mut self, path: &str, what: impl Into<String>, fix: impl Into<String>) {
        self.problems.push(Problem::new(self.root.place(path), path, what, fix));
    }

    fn unsupported(&mut self, path: &str, what: &str, fix: &str) {
        let line = self.root.place(path).line;
        self.refuse(path, format!("not supported yet: {what} at line {line}"), fix);
    }

    fn accept<T>(&mut self, path: &str, result: Result<T, Flaw>) -> Option<T> {
        result.map_err(|flaw| self.refuse(path, flaw.what, flaw.fix)).ok()
    }

    fn names(&mut self, path: &str, text: &str, check: fn(&str) -> Result<(), Flaw>) -> Option<String> {
        self.accept(path, check(text)).map(|()| text.to_owned())
    }

    fn pointer(&mut self, path: &str, pointer: &Pointer) -> Option<String> {
        self.names(path, &pointer.0, names::pointer)
    }

    fn duration(&mut self, path: &str, text: Option<&DurationText>, default: Span) -> Option<Span> {
        text.map_or(Some(default), |text| self.accept(path, parse_duration(&text.0)))
    }

    fn above_zero(&mut self, path: &str, text: &DurationText) -> Option<Span> {
        let span = self.accept(path, parse_duration(&text.0))?;
        if span == Span::ZERO {
            self.refuse(path, "must be more than zero", "give a longer duration");
            return None;
        }
        Some(span)
    }

    /// `Some(None)`: nothing given.
    fn optional_above_zero(&mut self, path: &str, text: Option<&DurationText>) -> Option<Option<Span>> {
        text.map_or(Some(None), |text| self.above_zero(path, text).map(Some))
    }

    fn number(
        &mut self,
        path: &str,
        number: Option<u32>,
        default: u32,
        range: RangeInclusive<u32>,
    ) -> Option<u32> {
        let number = number.unwrap_or(default);
        if !range.contains(&number) {
            let fix = format!("use a number from {} to {}", range.start(), range.end());
            self.refuse(path, format!("{number} is out of range"), fix);
            return None;
        }
        Some(number)
    }

    /// Kafka takes `.` and `_` for the same in the names of metrics and refuses topics that differ in nothing else.
    fn distinct_topics(&mut self, file: &JobFile) {
        let (changelog, control) = (changelog_topic(&file.name), control_topic(&file.name));
        let taken = [
            ("the changelog of the job", &changelog),
            ("the control topic of the job", &control),
            ("the source", &file.source.topic),
            ("the sink", &file.sink.topic),
            ("the dead-letter topic", &file.dead_letter.topic),
        ];
        for (index, path) in [(2, "source.topic"), (3, "sink.topic"), (4, "dead_letter.topic")] {
            let own = taken.get(index).map(|(_, topic)| topic.replace('.', "_"));
            let clash = taken.iter().take(index).find(|(_, topic)| Some(topic.replace('.', "_")) == own);
            if let Some((owner, topic)) = clash {
                self.refuse(
                    path,
                    format!("collides with {owner}, `{}`", topic.escape_debug()),
                    "use another topic",
                );
            }
        }
    }

    /// TTL, and interval of the automatic mode.
    fn replay(&mut self, file: &JobFile) -> (Option<Option<Span>>, Option<Option<Span>>) {
        let Some(replay) = &file.dead_letter.replay else {
            return (Some(None), Some(None));
        };
        let every = match (replay.mode, &replay.every) {
            (Some(ReplayMode::Auto), None) => Some(Some(REPLAY_EVERY)),
            (Some(ReplayMode::Auto), Some(text)) => {
                let every = self.duration("dead_letter.replay.every", Some(text), REPLAY_EVERY);
                if every.is_some_and(|every| every < REPLAY_EVERY_LEAST) {
                    let least = duration_text(REPLAY_EVERY_LEAST);
                    self.refuse(
                        "dead_letter.replay.every",
                        "is too short",
                        format!("use at least `{least}`"),
                    );
                }
                every.map(Some)
            }
            (None | Some(ReplayMode::Manual), Some(_)) => {
                let fix = "remove `every`, or write `mode: auto`";
                self.refuse("dead_letter.replay.every", "a manual replay has no interval", fix);
                None
            }
            (None | Some(ReplayMode::Manual), None) => Some(None),
        };
        let ttl = match &replay.ttl {
            None => Some(Some(REPLAY_TTL)),
            Some(text) => self.above_zero("dead_letter.replay.ttl", text).map(Some),
        };
        (ttl, every)
    }

    fn state(&mut self, section: &StateSection) -> (Option<u32>, Option<State>) {
        let shards = self.number("state.shards", section.shards, SHARDS, 1..=MAX_SHARDS);
        let memory = self.memory(section.memory.as_ref());
        let commit_interval =
            self.duration("state.commit_interval", section.commit_interval.as_ref(), COMMIT_INTERVAL);
        if commit_interval.is_some_and(|interval| !COMMIT_INTERVALS.contains(&interval)) {
            let (least, most) =
                (duration_text(*COMMIT_INTERVALS.start()), duration_text(*COMMIT_INTERVALS.end()));
            self.refuse("state.commit_interval", "is out of range", format!("use {least} to {most}"));
        }
        let state =
            memory.zip(commit_interval).map(|(memory, commit_interval)| State { memory, commit_interval });
        (shards, state)
    }

    fn memory(&mut self, text: Option<&SizeText>) -> Option<u64> {
        let memory = text.map_or(Some(MEMORY), |text| self.accept("state.memory", parse_size(&text.0)))?;
        if memory < MIN_MEMORY {
            self.refuse("state.memory", "is too small", "use at least `1MiB`");
        }
        Some(memory)
    }
}
