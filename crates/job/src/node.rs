//! YAML text as a tree whose every node knows its place.
//!
//! Promises: no panic and bounded depth for any text; one document; no key twice. Anchors, aliases, merge keys and
//! tags are refused: a job file says everything where it stands.

use crate::report::{Position, Problem};
use granit_parser::{Event, Marker, Parser, ScalarStyle, ScanError, StrInput};

/// Deeper than any job file; bounds recursion.
const MAX_DEPTH: usize = 32;

/// A value and where it stands; a mapping, or a value that is missing, stands where its key does.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) at: Position,
    pub(crate) value: Value,
}

/// What a node holds.
#[derive(Debug)]
pub(crate) enum Value {
    /// Nothing, `~` or `null`.
    Empty,
    /// A scalar as written, quotes and escapes resolved.
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One `key: value`.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) at: Position,
    pub(crate) key: String,
    pub(crate) node: Node,
}

impl Node {
    /// How the node is called in an error.
    pub(crate) fn kind(&self) -> String {
        match &self.value {
            Value::Empty => "nothing".to_owned(),
            Value::Text(text) => format!("`{}`", text.escape_debug()),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
        }
    }

    /// The place of the node at `path`, as in `a.b[1].c`, or of the innermost node above it that exists.
    pub(crate) fn place(&self, path: &str) -> Position {
        let mut node = self;
        for step in path.split(['.', '[']).map(|step| step.trim_end_matches(']')) {
            let next = match &node.value {
                Value::Map(entries) => {
                    entries.iter().find(|entry| entry.key == step).map(|entry| &entry.node)
                }
                Value::List(items) => step.parse::<usize>().ok().and_then(|index| items.get(index)),
                Value::Empty | Value::Text(_) => None,
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node.at
    }
}

/// Reads the one document of `text`.
pub(crate) fn parse(text: &str) -> Result<Node, Problem> {
    let mut builder = Builder { parser: Parser::new_from_str(text) };
    let (event, at) = builder.next()?;
    let node = builder.node(&event, at, None, 0)?;
    if matches!(node.value, Value::Empty) {
        return Err(empty());
    }
    match builder.next()? {
        (Event::StreamEnd, _) => Ok(node),
        (_, at) => Err(Problem::new(at, "", "a second YAML document begins here", "keep one job to a file")),
    }
}

struct Builder<'a> {
    parser: Parser<'a, StrInput<'a>>,
}

impl<'a> Builder<'a> {
    /// The next event that says something about the content.
    fn next(&mut self) -> Result<(Event<'a>, Position), Problem> {
        loop {
            match self.parser.next_event() {
                None => return Ok((Event::StreamEnd, Position::START)),
                Some(Err(error)) => return Err(syntax(&error)),
                Some(Ok((event, span))) => {
                    let structure =
                        matches!(event, Event::SequenceEnd | Event::MappingEnd | Event::StreamEnd);
                    if event.is_node() || structure {
                        return Ok((event, position(span.start)));
                    }
                }
            }
        }
    }

    fn node(
        &mut self,
        event: &Event<'a>,
        at: Position,
        key: Option<Position>,
        depth: usize,
    ) -> Result<Node, Problem> {
        if depth > MAX_DEPTH {
            return Err(Problem::new(
                at,
                "",
                format!("nested deeper than {MAX_DEPTH} levels"),
                "make it flatter",
            ));
        }
        if event.tag().is_some() || event.anchor_id().is_some() || event.is_alias() {
            let what = "YAML anchors, aliases and tags have no meaning in a job file";
            return Err(Problem::new(at, "", what, "write the value itself"));
        }
        let owner = key.unwrap_or(at);
        match event {
            Event::Scalar(text, ScalarStyle::Plain, ..)
                if matches!(&**text, "" | "~" | "null" | "Null" | "NULL") =>
            {
                Ok(Node { at: owner, value: Value::Empty })
            }
            Event::Scalar(text, ..) => Ok(Node { at, value: Value::Text(text.to_string()) }),
            Event::SequenceStart(..) => Ok(Node { at: owner, value: Value::List(self.list(depth)?) }),
            Event::MappingStart(..) => Ok(Node { at: owner, value: Value::Map(self.map(depth)?) }),
            _ => Err(empty()),
        }
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Problem> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, at) => items.push(self.node(&event, at, None, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<Entry>, Problem> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let (event, at) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                return Ok(entries);
            }
            let Value::Text(key) = self.node(&event, at, None, depth + 1)?.value else {
                return Err(Problem::new(at, "", "a key must be a word", "write `key: value`"));
            };
            if let Some(first) = entries.iter().find(|entry| entry.key == key) {
                let what = format!("key `{key}` is here a second time, first at line {}", first.at.line);
                return Err(Problem::new(at, "", what, "keep one of the two"));
            }
            let (event, value_at) = self.next()?;
            let node = self.node(&event, value_at, Some(at), depth + 1)?;
            entries.push(Entry { at, key, node });
        }
    }
}

fn position(marker: Marker) -> Position {
    Position { line: marker.line(), column: marker.col() + 1 }
}

fn empty() -> Problem {
    Problem::new(Position::START, "", "the file holds no job", "start from one of docs/jobs")
}

fn syntax(error: &ScanError) -> Problem {
    let what = format!("this is not YAML: {}", error.info());
    Problem::new(position(*error.marker()), "", what, "mend the line, mind indentation and quotes")
}
