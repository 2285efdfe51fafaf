//! A paced stream of records with a clock that misbehaves a little, produced to a broker that comes and goes.
//!
//! One request in flight keeps the order of a partition. A record whose answer is lost may be in the topic twice: as two
//! records, of which tidegate must lose none either.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, BaseRecord, Producer, PurgeConfig},
};
use tidegate_tests::clients::client_config;

const USERS: u32 = 400;
/// Below the delay of the job, so that such records are never late.
const DISORDER_MS: i64 = 1_500;
/// Every so many records one is some seconds late: a correction.
const BEHIND_EVERY: u64 = 150;
/// Every so many records one is half a minute late: a dead letter.
const LATE_EVERY: u64 = 400;
/// Every so many records one comes from a clock that is ahead: a dead letter.
const AHEAD_EVERY: u64 = 5_000;
/// How far that clock is ahead: further than any run is long, so that the oracle can tell afterwards.
const AHEAD_MS: i64 = 86_400_000;

/// Without a delivery for so long a client is given up: longer than any fault lasts.
const STANDS_STILL: Duration = Duration::from_secs(30);

/// The running load.
pub struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<u64>>,
}

impl Load {
    /// Starts producing `rate` records a second.
    pub fn start(
        bootstrap: &str,
        topic: &'static str,
        partitions: u32,
        rate: u64,
        seed: u64,
    ) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let mut outlet = Outlet::open(bootstrap, topic)?;
        let thread = std::thread::spawn(move || {
            let mut chance = SmallRng::seed_from_u64(seed);
            let started = Instant::now();
            let mut made = 0;
            while !stopped.load(Ordering::Relaxed) {
                let target = u64::try_from(started.elapsed().as_millis())? * rate / 1_000;
                while made < target {
                    made += 1;
                    let user = chance.random_range(0..USERS);
                    let value = record(made, user, &mut chance)?;
                    outlet.send(user % partitions, &value)?;
                }
                outlet.tend()?;
            }
            outlet.close()?;
            Ok(made)
        });
        Ok(Self { stop, thread })
    }

    /// Ends it; gives the number of records produced.
    pub fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(made) => made,
            Err(_) => bail!("the load has panicked"),
        }
    }
}

fn record(made: u64, user: u32, chance: &mut SmallRng) -> Result<String> {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    let time = if made.is_multiple_of(AHEAD_EVERY) {
        now + AHEAD_MS
    } else if made.is_multiple_of(LATE_EVERY) {
        now - chance.random_range(30_000..40_000)
    } else if made.is_multiple_of(BEHIND_EVERY) {
        now - chance.random_range(4_000..7_000)
    } else {
        now - chance.random_range(0..DISORDER_MS)
    };
    let (units, cents) = (chance.random_range(0..100), chance.random_range(0..100));
    Ok(format!("{{\"user\":\"user-{user}\",\"ts\":{time},\"amount\":{units}.{cents:02},\"number\":{made}}}"))
}

/// A producer that is replaced when it stands still.
///
/// librdkafka 2.12.1 was seen to, once: after the only broker had been stopped and started, the client had no thread for it any more, and
/// waited for ever. Why is not known.
struct Outlet {
    bootstrap: String,
    topic: &'static str,
    producer: BaseProducer,
    waiting: i32,
    moved: Instant,
}

impl Outlet {
    fn open(bootstrap: &str, topic: &'static str) -> Result<Self> {
        let producer = producer(bootstrap)?;
        Ok(Self { bootstrap: bootstrap.to_owned(), topic, producer, waiting: 0, moved: Instant::now() })
    }

    fn send(&mut self, partition: u32, value: &str) -> Result<()> {
        loop {
            let record: BaseRecord<'_, (), str> =
                BaseRecord::to(self.topic).partition(i32::try_from(partition)?).payload(value);
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => self.tend()?,
                Err((error, _)) => return Err(error.into()),
            }
        }
    }

    /// Lets it work; what a client that stands still holds is given up, since the batch is computed of what the topic holds.
    fn tend(&mut self) -> Result<()> {
        self.producer.poll(Duration::from_millis(5));
        let waiting = self.producer.in_flight_count();
        if waiting == 0 || waiting < self.waiting {
            self.moved = Instant::now();
        }
        self.waiting = waiting;
        if self.moved.elapsed() > STANDS_STILL {
            println!("         the client of the load stands still with {waiting} records: it is replaced");
            self.producer.purge(PurgeConfig::default().queue().inflight());
            *self = Self::open(&self.bootstrap, self.topic)?;
        }
        Ok(())
    }

    fn close(&self) -> Result<()> {
        self.producer.flush(Duration::from_secs(60)).with_context(|| {
            format!("{} records of the load are undelivered", self.producer.in_flight_count())
        })
    }
}

fn producer(bootstrap: &str) -> Result<BaseProducer> {
    Ok(client_config(bootstrap)
        .set("acks", "all")
        .set("max.in.flight.requests.per.connection", "1")
        .set("socket.timeout.ms", "10000")
        .set("linger.ms", "5")
        .set("message.timeout.ms", "0")
        .set("queue.buffering.max.messages", "1000000")
        .create()?)
}
