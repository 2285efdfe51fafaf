//! Which texts are names: topics, jobs, result fields, JSON pointers, headers.

use crate::job::changelog_topic;
use crate::report::Flaw;

/// Kafka's limit on the name of a topic.
const MAX_TOPIC: usize = 249;
const MAX_FIELD: usize = 64;
const MAX_TEXT: usize = 1024;

/// Fields that results have beside the aggregates, the last two those of sliding windows.
const RESERVED: [&str; 7] =
    ["key", "window_start", "window_end", "pane", "revision", "source_partition", "source_offset"];

/// A topic that Kafka accepts.
pub(crate) fn topic(name: &str) -> Result<(), Flaw> {
    let shown = name.escape_debug();
    if name.is_empty() {
        return Err(Flaw::new("the name of the topic is empty", "give one"));
    }
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
        || matches!(name, "." | "..")
    {
        let what = format!("`{shown}` cannot be the name of a Kafka topic");
        return Err(Flaw::new(what, "use only a-z, A-Z, 0-9, `.`, `_` and `-`"));
    }
    if name.len() > MAX_TOPIC {
        let what = format!("the name of the topic has {} characters", name.len());
        return Err(Flaw::new(what, format!("use at most {MAX_TOPIC}")));
    }
    Ok(())
}

/// A job, after which topics, group and transactional ids are named.
pub(crate) fn job(name: &str) -> Result<(), Flaw> {
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        let what = format!("`{}` cannot be the name of a job", name.escape_debug());
        return Err(Flaw::new(
            what,
            "begin with a letter or digit and use only a-z, A-Z, 0-9, `.`, `_` and `-`",
        ));
    }
    // The longest of the names derived from it.
    let suffix = changelog_topic("").len();
    if name.len() + suffix > MAX_TOPIC {
        let what = format!("the name of the job has {} characters", name.len());
        return Err(Flaw::new(
            what,
            format!("use at most {}, topics are named after it", MAX_TOPIC - suffix),
        ));
    }
    topic(name).map_err(|flaw| Flaw::new(flaw.what.replace("Kafka topic", "job"), flaw.fix))
}

/// A field of the result.
pub(crate) fn result_field(name: &str) -> Result<(), Flaw> {
    if RESERVED.contains(&name) {
        return Err(Flaw::new(format!("results already have a field `{name}`"), "choose another name"));
    }
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !starts || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') || name.len() > MAX_FIELD {
        let what = format!("`{}` cannot be the name of an aggregate", name.escape_debug());
        let fix =
            format!("begin with a letter, use only a-z, A-Z, 0-9 and `_`, at most {MAX_FIELD} characters");
        return Err(Flaw::new(what, fix));
    }
    Ok(())
}

/// A JSON pointer (RFC 6901) to something inside the payload.
pub(crate) fn pointer(text: &str) -> Result<(), Flaw> {
    let shown = text.escape_debug();
    if !text.starts_with('/') {
        let what = format!("`{shown}` is not a JSON pointer");
        return Err(Flaw::new(what, format!("begin with `/`, as in `/{shown}`")));
    }
    if text.split('~').skip(1).any(|rest| !rest.starts_with(['0', '1'])) {
        let what = format!("`{shown}` is not a JSON pointer");
        return Err(Flaw::new(what, "write `~` as `~0` and a `/` within a name as `~1`"));
    }
    length(text)
}

/// A record header.
pub(crate) fn header(name: &str) -> Result<(), Flaw> {
    if name.is_empty() {
        return Err(Flaw::new("the name of the header is empty", "give one, as in `event-time`"));
    }
    length(name)
}

fn length(text: &str) -> Result<(), Flaw> {
    if text.len() <= MAX_TEXT {
        return Ok(());
    }
    Err(Flaw::new(format!("the name has {} bytes", text.len()), format!("use at most {MAX_TEXT}")))
}
