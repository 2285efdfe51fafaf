//! Asks the registry for the schemas that records name, for as long as it takes.
//!
//! A record whose schema is not there is not a dead letter: reading waits. Only where the registry says that there is no
//! such schema, and the job file says so, or where what it has cannot be used, are the records that name it unreadable.

use std::collections::BTreeSet;
use std::time::Duration;

use tidegate_extract::SchemaId;
use tidegate_job::UnknownSchema;
use tidegate_runtime::{backoff::Backoff, task};
use tidegate_schemas::{Error, Registry};
use tokio::sync::mpsc;

use crate::event::Event;

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// A follower of the registry may know a new schema a little later: so often an id is looked for before it counts as unknown.
const LOOKS: u32 = 4;
/// A wait is told of again after so many tries.
const TELL_EVERY: u32 = 10;

/// Who asks the registry.
#[derive(Debug)]
pub(crate) struct SchemaDesk {
    registry: Registry,
    unknown: UnknownSchema,
    events: mpsc::Sender<Event>,
    asked: BTreeSet<SchemaId>,
}

impl SchemaDesk {
    /// Answers go to `events`.
    pub(crate) fn new(registry: Registry, unknown: UnknownSchema, events: mpsc::Sender<Event>) -> Self {
        Self { registry, unknown, events, asked: BTreeSet::new() }
    }

    /// Asks for a schema; the answer is an [`Event::Schema`], once.
    pub(crate) fn ask(&mut self, id: SchemaId) {
        if !self.asked.insert(id) {
            return;
        }
        let (registry, unknown, events) = (self.registry.clone(), self.unknown, self.events.clone());
        task::spawn("schema", async move {
            let answer = ask(&registry, id, unknown).await;
            let _ = events.send(Event::Schema { id, answer }).await;
        });
    }
}

/// Asks the registry for a schema until there is an answer: the schema, or why there will be none.
pub(crate) async fn ask(
    registry: &Registry,
    id: SchemaId,
    unknown: UnknownSchema,
) -> Result<tidegate_extract::SchemaText, String> {
    let mut backoff = Backoff::new(FIRST_DELAY, LONGEST_DELAY);
    let mut tries = 0_u32;
    loop {
        let error = match registry.schema(id).await {
            Ok(schema) => {
                tracing::info!(schema = id.0, registry = registry.url(), "read a schema");
                return Ok(schema);
            }
            Err(error) => error,
        };
        tries = tries.saturating_add(1);
        let gone = matches!(error, Error::Unknown { .. });
        let given_up = gone && unknown == UnknownSchema::DeadLetter && tries >= LOOKS;
        if given_up || !error.is_retriable() {
            tracing::warn!(schema = id.0, %error, "records with this schema go to the dead letters");
            return Err(if gone { "the registry does not know it".to_owned() } else { error.to_string() });
        }
        if tries % TELL_EVERY == 1 {
            tracing::warn!(schema = id.0, %error, tries, "reading waits for a schema");
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}
