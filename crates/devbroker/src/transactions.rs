//! The transaction coordinator: producer ids, epochs, and the one transaction each id may have open.
//!
//! Pure: what has to be done to logs and group offsets comes back as [`Ended`]; the caller does it under
//! the same lock, so that the end of a transaction is one step for every reader.
//!
//! ```text
//! Empty ──add──► Ongoing ──end──► Committed / Aborted ──add──► Ongoing …
//!                   └─ init (epoch + 1) or timeout (epoch + 1) ─► Aborted, the older producer is fenced
//! ```

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use kafka_protocol::ResponseError;
use tokio::time::Instant;

/// A topic's partition.
pub(crate) type TopicPartition = (String, i32);

/// Identity of one incarnation of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Producer {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
}

/// A transaction that ended and whose markers are to be written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) producer: Producer,
    pub(crate) commit: bool,
    pub(crate) partitions: BTreeSet<TopicPartition>,
    pub(crate) groups: BTreeSet<String>,
}

#[derive(Debug)]
pub(crate) struct Transactions {
    next_producer_id: i64,
    by_id: HashMap<String, Transaction>,
    max_timeout: Duration,
}

#[derive(Debug)]
struct Transaction {
    producer: Producer,
    /// The epoch before the last bump, if the bump was asked for by its holder: it may ask again.
    previous_epoch: Option<i16>,
    timeout: Duration,
    ongoing: Option<Ongoing>,
    /// How the transaction before ended, if this incarnation had one.
    outcome: Option<Outcome>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Committed,
    Aborted,
}

#[derive(Debug)]
struct Ongoing {
    deadline: Instant,
    partitions: BTreeSet<TopicPartition>,
    groups: BTreeSet<String>,
}

impl Transactions {
    pub(crate) fn new(max_timeout: Duration) -> Self {
        Self { next_producer_id: 1, by_id: HashMap::new(), max_timeout }
    }

    /// A new idempotent producer without transactions.
    pub(crate) fn new_producer(&mut self) -> Producer {
        let id = self.next_producer_id;
        self.next_producer_id += 1;
        Producer { id, epoch: 0 }
    }

    /// InitProducerId: fences whoever held the id before and aborts what it left open. `current` is given
    /// by a producer that goes on after an error (KIP-360).
    pub(crate) fn init(
        &mut self,
        transactional_id: &str,
        timeout: Duration,
        current: Option<Producer>,
    ) -> Result<(Producer, Option<Ended>), ResponseError> {
        if timeout.is_zero() || timeout > self.max_timeout {
            return Err(ResponseError::InvalidTransactionTimeout);
        }
        let Some(transaction) = self.by_id.get_mut(transactional_id) else {
            let producer = self.new_producer();
            let transaction =
                Transaction { producer, previous_epoch: None, timeout, ongoing: None, outcome: None };
            self.by_id.insert(transactional_id.to_owned(), transaction);
            return Ok((producer, None));
        };
        if let Some(current) = current {
            if current.id != transaction.producer.id {
                return Err(ResponseError::ProducerFenced);
            }
            if transaction.previous_epoch == Some(current.epoch) {
                return Ok((transaction.producer, None));
            }
            if current.epoch != transaction.producer.epoch {
                return Err(ResponseError::ProducerFenced);
            }
        }
        transaction.timeout = timeout;
        transaction.previous_epoch = current.map(|current| current.epoch);
        let ended = transaction.bump();
        transaction.outcome = None;
        if transaction.producer.epoch == i16::MAX {
            // Epochs are used up: go on under a new producer id.
            transaction.producer = Producer { id: self.next_producer_id, epoch: 0 };
            transaction.previous_epoch = None;
            self.next_producer_id += 1;
        }
        Ok((transaction.producer, ended))
    }

    /// AddPartitionsToTxn; opens the transaction if none is open.
    pub(crate) fn add_partitions(
        &mut self,
        transactional_id: &str,
        producer: Producer,
        partitions: impl IntoIterator<Item = TopicPartition>,
        now: Instant,
    ) -> Result<(), ResponseError> {
        let ongoing = self.held_by(transactional_id, producer)?.open(now);
        ongoing.partitions.extend(partitions);
        Ok(())
    }

    /// AddOffsetsToTxn; opens the transaction if none is open.
    pub(crate) fn add_group(
        &mut self,
        transactional_id: &str,
        producer: Producer,
        group: &str,
        now: Instant,
    ) -> Result<(), ResponseError> {
        let ongoing = self.held_by(transactional_id, producer)?.open(now);
        ongoing.groups.insert(group.to_owned());
        Ok(())
    }

    /// EndTxn. `None` if it had ended so already: the client asks again after a lost response.
    pub(crate) fn end(
        &mut self,
        transactional_id: &str,
        producer: Producer,
        commit: bool,
    ) -> Result<Option<Ended>, ResponseError> {
        let transaction = self.held_by(transactional_id, producer)?;
        if let Some(ended) = transaction.finish(commit) {
            return Ok(Some(ended));
        }
        match (transaction.outcome, commit) {
            (Some(Outcome::Committed), true) | (Some(Outcome::Aborted), false) => Ok(None),
            _ => Err(ResponseError::InvalidTxnState),
        }
    }

    /// Whether a producer may write to a partition inside its transaction.
    pub(crate) fn check_produce(
        &mut self,
        transactional_id: &str,
        producer: Producer,
        partition: &TopicPartition,
    ) -> Result<(), ResponseError> {
        match &self.held_by(transactional_id, producer)?.ongoing {
            Some(ongoing) if ongoing.partitions.contains(partition) => Ok(()),
            _ => Err(ResponseError::InvalidTxnState),
        }
    }

    /// Whether a producer may commit offsets of a group inside its transaction.
    pub(crate) fn check_offsets(
        &mut self,
        transactional_id: &str,
        producer: Producer,
        group: &str,
    ) -> Result<(), ResponseError> {
        match &self.held_by(transactional_id, producer)?.ongoing {
            Some(ongoing) if ongoing.groups.contains(group) => Ok(()),
            _ => Err(ResponseError::InvalidTxnState),
        }
    }

    /// Aborts the transactions that are older than their timeout and fences their producers.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Ended> {
        let mut ended = Vec::new();
        for (transactional_id, transaction) in &mut self.by_id {
            if transaction.ongoing.as_ref().is_some_and(|ongoing| ongoing.deadline <= now) {
                tracing::info!(transactional_id, "transaction timed out: aborted, producer fenced");
                transaction.previous_epoch = None;
                ended.extend(transaction.bump());
            }
        }
        ended
    }

    fn held_by(
        &mut self,
        transactional_id: &str,
        producer: Producer,
    ) -> Result<&mut Transaction, ResponseError> {
        let transaction = self
            .by_id
            .get_mut(transactional_id)
            .filter(|transaction| transaction.producer.id == producer.id)
            .ok_or(ResponseError::InvalidProducerIdMapping)?;
        if transaction.producer.epoch == producer.epoch {
            Ok(transaction)
        } else {
            Err(ResponseError::ProducerFenced)
        }
    }
}

impl Transaction {
    fn open(&mut self, now: Instant) -> &mut Ongoing {
        self.ongoing.get_or_insert_with(|| Ongoing {
            deadline: now + self.timeout,
            partitions: BTreeSet::new(),
            groups: BTreeSet::new(),
        })
    }

    /// Raises the epoch and aborts what is open; its markers carry the new epoch.
    fn bump(&mut self) -> Option<Ended> {
        self.producer.epoch = self.producer.epoch.saturating_add(1);
        self.finish(false)
    }

    /// `None` if nothing is open.
    fn finish(&mut self, commit: bool) -> Option<Ended> {
        let ongoing = self.ongoing.take()?;
        self.outcome = Some(if commit { Outcome::Committed } else { Outcome::Aborted });
        Some(Ended {
            producer: self.producer,
            commit,
            partitions: ongoing.partitions,
            groups: ongoing.groups,
        })
    }
}

#[cfg(test)]
mod tests;
