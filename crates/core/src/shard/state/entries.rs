//! A state from the heads and entries of blocks, and as such entries.

use super::{Operator, RestoreError, ShardState};
use crate::{
    aggregate::put_varint,
    block::{Block, BlockError, Change, Scalars},
    entry::{EntryKey, Input, take_u64},
    ordered::Buffered,
    replay::AnsweredBlock,
    runs::Part,
    time::{EventTime, Partition},
};

impl ShardState {
    /// Takes the head of a block as it is: how a state continues from what a local store holds.
    pub fn restore_scalars(&mut self, head: &Block) {
        self.job = self.job.or(head.begins);
        self.incarnation = head.incarnation;
        self.sequence = head.sequence;
        self.assignment = head.assignment;
        let Scalars { watermark, purged, closing, log_bytes, run } = head.scalars.clone();
        (self.watermark, self.closing, self.log_bytes, self.run) = (watermark, closing, log_bytes, run);
        if let Some(purged) = purged {
            self.purge(purged);
        }
        if let Operator::Sessions(sessions) = &mut self.operator {
            sessions.forget_changes();
        }
        self.forget_gone();
    }

    /// Takes one entry of a block or of a local store.
    ///
    /// # Errors
    /// [`RestoreError::Block`] when key or value do not read.
    pub fn restore_entry(&mut self, change: Change<'_>) -> Result<(), RestoreError> {
        let unreadable = RestoreError::Block(BlockError::Body("an entry does not read"));
        match change {
            Change::Upsert(key, value) => {
                let key = EntryKey::decode(key).ok_or(unreadable)?;
                self.upsert(key, value).ok_or(RestoreError::Block(BlockError::Body("a value does not read")))
            }
            Change::Delete(key) => match EntryKey::decode(key).ok_or(unreadable)? {
                EntryKey::Revision(end, key) => {
                    self.revisions.remove(end, key);
                    Ok(())
                }
                EntryKey::Session(start, key) => {
                    if let Operator::Sessions(sessions) = &mut self.operator {
                        sessions.delete(start, key);
                    }
                    Ok(())
                }
                EntryKey::Position(_)
                | EntryKey::Answered(..)
                | EntryKey::Pulled(_)
                | EntryKey::Row(..)
                | EntryKey::Base(..)
                | EntryKey::Index(..)
                | EntryKey::Buffered(..)
                | EntryKey::BufferedBase(..) => {
                    Err(RestoreError::Block(BlockError::Body("a delete of an entry that is never deleted")))
                }
            },
        }
    }

    fn upsert(&mut self, key: EntryKey<'_>, mut value: &[u8]) -> Option<()> {
        let whole = self.keeps_records();
        match key {
            EntryKey::Position(partition) => {
                let input = Input::decode(value)?;
                *self.input_mut(partition) = input;
            }
            EntryKey::Row(slice, key) => {
                let mut row = self.slices.slice_mut(slice).restored_row_mut(&self.layout, key);
                self.layout.decode(value, &mut row)?;
            }
            EntryKey::Base(..) | EntryKey::BufferedBase(..) => return None,
            EntryKey::Buffered(place) => self.buffer.restore(place, Buffered::decode(value, whole)?),
            EntryKey::Session(start, key) => {
                let length = i64::try_from(take_u64(&mut value)?).ok()?;
                let emitted = u32::try_from(take_u64(&mut value)?).ok()?;
                let window = (start, EventTime(start.0.checked_add(length)?));
                let Operator::Sessions(sessions) = &mut self.operator else { return None };
                self.layout.decode(value, &mut sessions.restore(&self.layout, key, window, emitted))?;
            }
            EntryKey::Answered(partition, at) => {
                self.answered.restore(partition, at, AnsweredBlock::decode(value)?);
            }
            EntryKey::Pulled(key) => {
                let Operator::Sessions(sessions) = &mut self.operator else { return None };
                sessions.restore_pulled(key);
            }
            EntryKey::Index(slice, file) => self.runs.insert(Part::from_index(slice, file, value)?),
            EntryKey::Revision(end, key) => {
                let emitted = u32::try_from(take_u64(&mut value)?).ok()?;
                self.revisions.set(end, key, emitted);
            }
        }
        Some(())
    }

    pub(in crate::shard) fn encode_input(partition: usize, input: &Input, block: &mut Block) {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        EntryKey::Position(Partition(u32::try_from(partition).unwrap_or(u32::MAX))).encode(&mut key);
        input.encode(&mut value);
        block.entries.upsert(&key, &value);
    }

    pub(in crate::shard) fn encode_revision(end: EventTime, key: &[u8], emitted: u32, block: &mut Block) {
        let (mut entry, mut value) = (Vec::new(), Vec::new());
        EntryKey::Revision(end, key).encode(&mut entry);
        put_varint(&mut value, u128::from(emitted));
        block.entries.upsert(&entry, &value);
    }

    pub(in crate::shard) fn encode_answered(
        partition: Partition,
        at: u64,
        answered: &AnsweredBlock,
        block: &mut Block,
    ) {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        EntryKey::Answered(partition, at).encode(&mut key);
        answered.encode(&mut value);
        block.entries.upsert(&key, &value);
    }
}
