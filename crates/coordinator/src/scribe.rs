//! What the leader looks up and writes for replays, one after the other: where the dead-letter topic ends, and the records in the
//! control topic. The owner of the state does not wait for either.

use tidegate_kafka::{Admin, PartitionEnds};
use tokio::sync::mpsc;

use crate::error::{Error, Result};
use crate::event::{Event, Look, ReplayEvent};
use crate::leader::Pen;
use crate::replay_record::DeadLetterTopic;
use crate::replays::Writes;
use crate::topics::blocking;

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Errand {
    /// Look up where the dead-letter topic ends.
    Look(Look),
    /// Write these records.
    Write(Writes),
}

/// Does errands.
pub(crate) struct Scribe {
    pub(crate) pen: Pen,
    pub(crate) admin: Admin,
    pub(crate) dead_letters: String,
    pub(crate) errands: mpsc::Receiver<Errand>,
    pub(crate) events: mpsc::Sender<Event>,
}

impl Scribe {
    /// Works until a record cannot be written: whether it is in the log is then for the next reign to see.
    pub(crate) async fn run(mut self) -> Error {
        while let Some(errand) = self.errands.recv().await {
            let event = match errand {
                Errand::Look(look) => {
                    let found = self.look().await.map_err(|error| error.to_string());
                    ReplayEvent::Looked(look, found)
                }
                Errand::Write(writes) => {
                    let numbers = writes.iter().map(|(number, _)| *number).collect();
                    let mut pen = self.pen;
                    let written = blocking("write", move || {
                        let written = pen.write(&writes);
                        Ok((pen, written))
                    });
                    let written = match written.await {
                        Ok((pen, written)) => {
                            self.pen = pen;
                            written
                        }
                        Err(error) => return error,
                    };
                    if let Err(error) = written {
                        return error;
                    }
                    ReplayEvent::Written(numbers)
                }
            };
            if self.events.send(Event::Replay(event)).await.is_err() {
                break;
            }
        }
        Error::Task("owner")
    }

    async fn look(&self) -> Result<(DeadLetterTopic, Vec<PartitionEnds>)> {
        let name = &self.dead_letters;
        let unknown = || tidegate_kafka::Error::UnknownTopic { topic: name.clone() };
        let found = self.admin.topic(name).await?.ok_or_else(unknown)?;
        let topic = DeadLetterTopic { name: found.name, id: found.id };
        Ok((topic, self.admin.ends(name).await?))
    }
}
