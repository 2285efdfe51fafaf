//! What one partition knows of its idempotent producers: epochs and the last five batches of each.
//!
//! A batch is appended if it continues the producer's sequence, acknowledged with its first offset if it
//! repeats one of the last five, refused otherwise (KIP-98, KIP-360).

use std::collections::{HashMap, VecDeque};

use kafka_protocol::ResponseError;

use crate::batch::Stamp;

/// Clients may have five requests in flight, so as many may come again.
const REMEMBERED: usize = 5;

/// What to do with a batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Check {
    Append,
    /// It is in the log already, from this offset on.
    Duplicate {
        base_offset: i64,
    },
}

#[derive(Debug, Default)]
pub(crate) struct Sequences {
    producers: HashMap<i64, Producer>,
}

#[derive(Debug)]
struct Producer {
    epoch: i16,
    recent: VecDeque<Remembered>,
}

#[derive(Debug)]
struct Remembered {
    first: i32,
    last: i32,
    base_offset: i64,
}

impl Sequences {
    /// Judges a batch of `count` records before it is appended.
    pub(crate) fn check(&self, stamp: Stamp, count: i32) -> Result<Check, ResponseError> {
        let Some(producer) = self.producers.get(&stamp.producer_id) else {
            // Unknown here, perhaps because DeleteRecords took what was known: any sequence may begin.
            return Ok(Check::Append);
        };
        if stamp.epoch < producer.epoch {
            return Err(ResponseError::InvalidProducerEpoch);
        }
        if stamp.epoch > producer.epoch {
            return if stamp.sequence == 0 {
                Ok(Check::Append)
            } else {
                Err(ResponseError::OutOfOrderSequenceNumber)
            };
        }
        let last = advance(stamp.sequence, count - 1);
        let repeated =
            producer.recent.iter().find(|batch| batch.first == stamp.sequence && batch.last == last);
        if let Some(batch) = repeated {
            return Ok(Check::Duplicate { base_offset: batch.base_offset });
        }
        let expected = producer.recent.back().map_or(0, |batch| advance(batch.last, 1));
        if stamp.sequence == expected {
            Ok(Check::Append)
        } else {
            Err(ResponseError::OutOfOrderSequenceNumber)
        }
    }

    /// Notes a batch that was appended.
    pub(crate) fn appended(&mut self, stamp: Stamp, count: i32, base_offset: i64) {
        let producer = self.at_epoch(stamp.producer_id, stamp.epoch);
        if producer.recent.len() == REMEMBERED {
            producer.recent.pop_front();
        }
        producer.recent.push_back(Remembered {
            first: stamp.sequence,
            last: advance(stamp.sequence, count - 1),
            base_offset,
        });
    }

    /// Notes the epoch of a transaction marker, which may fence the producer that wrote before it.
    pub(crate) fn marked(&mut self, producer_id: i64, epoch: i16) {
        self.at_epoch(producer_id, epoch);
    }

    fn at_epoch(&mut self, producer_id: i64, epoch: i16) -> &mut Producer {
        let producer =
            self.producers.entry(producer_id).or_insert(Producer { epoch, recent: VecDeque::new() });
        if producer.epoch != epoch {
            producer.epoch = epoch;
            producer.recent.clear();
        }
        producer
    }
}

/// Sequences wrap from `i32::MAX` to 0.
fn advance(sequence: i32, by: i32) -> i32 {
    sequence.wrapping_add(by) & i32::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(epoch: i16, sequence: i32) -> Stamp {
        Stamp { producer_id: 1, epoch, sequence }
    }

    #[test]
    fn a_sequence_continues_repeats_or_is_refused() {
        let mut sequences = Sequences::default();
        assert_eq!(sequences.check(stamp(0, 0), 10), Ok(Check::Append));
        sequences.appended(stamp(0, 0), 10, 500);
        assert_eq!(sequences.check(stamp(0, 10), 5), Ok(Check::Append));
        assert_eq!(sequences.check(stamp(0, 0), 10), Ok(Check::Duplicate { base_offset: 500 }));
        assert_eq!(sequences.check(stamp(0, 11), 1), Err(ResponseError::OutOfOrderSequenceNumber));
        assert_eq!(sequences.check(stamp(0, 0), 9), Err(ResponseError::OutOfOrderSequenceNumber));
    }

    #[test]
    fn only_the_last_five_batches_are_known_as_duplicates() {
        let mut sequences = Sequences::default();
        for batch in 0..6 {
            sequences.appended(stamp(0, batch), 1, i64::from(batch));
        }
        assert_eq!(sequences.check(stamp(0, 1), 1), Ok(Check::Duplicate { base_offset: 1 }));
        assert_eq!(sequences.check(stamp(0, 0), 1), Err(ResponseError::OutOfOrderSequenceNumber));
    }

    #[test]
    fn a_newer_epoch_starts_at_zero_and_fences_the_older() {
        let mut sequences = Sequences::default();
        sequences.appended(stamp(0, 0), 3, 0);
        sequences.marked(1, 1);
        assert_eq!(sequences.check(stamp(0, 3), 1), Err(ResponseError::InvalidProducerEpoch));
        assert_eq!(sequences.check(stamp(1, 3), 1), Err(ResponseError::OutOfOrderSequenceNumber));
        assert_eq!(sequences.check(stamp(1, 0), 1), Ok(Check::Append));
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let mut sequences = Sequences::default();
        sequences.appended(stamp(0, i32::MAX - 1), 2, 0);
        assert_eq!(sequences.check(stamp(0, 0), 1), Ok(Check::Append));
        sequences.appended(stamp(0, 0), 1, 2);
        assert_eq!(sequences.check(stamp(0, i32::MAX - 1), 2), Ok(Check::Duplicate { base_offset: 0 }));
    }
}
