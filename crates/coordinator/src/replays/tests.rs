use tidegate_kafka::TopicId;

use super::*;

const A: ReaderId = ReaderId(1);
const B: ReaderId = ReaderId(2);

fn request(token: u64) -> Request {
    Request { token, ..Request::default() }
}

fn topic(id: u128) -> DeadLetterTopic {
    DeadLetterTopic { name: "dead".to_owned(), id: Some(TopicId(id)) }
}

fn dead() -> DeadLetterTopic {
    topic(1)
}

fn range(partition: u32, from: u64, to: u64) -> ReplayRange {
    ReplayRange { partition: Partition(partition), from: Offset(from), to: Offset(to) }
}

fn ends(ends: &[(u64, u64)]) -> Vec<PartitionEnds> {
    let ends = (0..).map(Partition).zip(ends);
    ends.map(|(partition, (log_start, end))| PartitionEnds {
        partition,
        log_start: Offset(*log_start),
        last_stable: Offset(*end),
        high_watermark: Offset(end + 3),
    })
    .collect()
}

/// A machine, and the log that it writes.
struct Job {
    machine: Replays,
    log: BTreeMap<u64, ReplayRecord>,
}

impl Job {
    fn new() -> Self {
        Self { machine: Replays::new(Vec::new(), None, Tick(0)), log: BTreeMap::new() }
    }

    fn write(&mut self, writes: Writes) {
        let numbers: Vec<u64> = writes.iter().map(|(number, _)| *number).collect();
        for (number, record) in writes {
            match record {
                Some(record) => self.log.insert(number, record),
                None => self.log.remove(&number),
            };
        }
        self.machine.written(&numbers);
    }

    fn ask(&mut self, token: u64) -> u64 {
        let (number, writes) = self.machine.request(request(token), &dead(), vec![range(0, 0, 10)], 5);
        self.write(writes);
        number
    }

    fn given(&mut self, readers: &[ReaderId]) -> Option<(ReaderId, u64)> {
        let order = self.machine.next(readers.iter().copied())?;
        Some((order.reader, order.record.number))
    }

    fn done(&mut self, reader: ReaderId, number: u64) {
        let progress = Progress { number, done: true, read: 10, ..Progress::default() };
        let writes = self.machine.progress(reader, progress, 9);
        self.write(writes);
    }

    fn states(&self) -> Vec<(u64, &'static str)> {
        self.machine.views().map(|view| (view.record.number, view.state)).collect()
    }

    /// Another coordinator leads.
    fn takes_over(&mut self) {
        self.machine = Replays::new(self.log.values().cloned().collect(), None, Tick(0));
    }
}

#[test]
fn one_runs_at_a_time_and_the_oldest_first() {
    let mut job = Job::new();
    assert_eq!((job.ask(11), job.ask(12)), (1, 2));
    assert_eq!(job.given(&[]), None, "nobody is there");
    assert_eq!(job.given(&[B, A]), Some((A, 1)));
    assert_eq!(job.given(&[B, A]), None);
    job.done(A, 1);
    assert_eq!(job.given(&[B, A]), Some((A, 2)));
    assert_eq!(job.states(), [(1, "done"), (2, "running")]);
}

#[test]
fn nothing_runs_before_its_record_is_in_the_log() {
    let mut job = Job::new();
    let (number, writes) = job.machine.request(request(1), &dead(), vec![range(0, 0, 10)], 5);
    assert!(!job.machine.is_written(number));
    assert_eq!(job.given(&[A]), None);
    job.write(writes);
    assert!(job.machine.is_written(number));
    assert_eq!(job.given(&[A]), Some((A, 1)));
}

#[test]
fn the_same_request_sent_again_is_one() {
    let mut job = Job::new();
    assert_eq!((job.ask(7), job.ask(7)), (1, 1));
    job.takes_over();
    assert_eq!(job.ask(7), 1);
    assert_eq!(job.states().len(), 1);
}

#[test]
fn another_ingest_does_what_one_that_is_gone_had_to_do() {
    let mut job = Job::new();
    job.ask(1);
    assert_eq!(job.given(&[A, B]), Some((A, 1)));
    job.machine.gone(B);
    assert_eq!(job.given(&[A]), None, "it was not B that did it");
    job.machine.gone(A);
    assert_eq!(job.given(&[B]), Some((B, 1)));
    job.done(A, 1);
    assert_eq!(job.states(), [(1, "running")], "A is not asked any more");
    job.done(B, 1);
    assert_eq!(job.states(), [(1, "done")]);
}

#[test]
fn whoever_leads_next_goes_on_with_what_has_not_ended() {
    let mut job = Job::new();
    job.ask(1);
    job.ask(2);
    job.given(&[A]);
    job.done(A, 1);
    job.given(&[A]);
    job.takes_over();
    assert_eq!(job.states(), [(1, "done"), (2, "waiting")]);
    assert_eq!(job.given(&[B]), Some((B, 2)));
    assert_eq!(job.ask(3), 3, "numbers go on");
}

#[test]
fn one_that_is_cancelled_stops_or_never_starts() {
    let mut job = Job::new();
    job.ask(1);
    job.ask(2);
    job.given(&[A]);
    let tally = ReplayTally { applied: 4, ..ReplayTally::default() };
    let writes = job.machine.progress(A, Progress { number: 1, tally, read: 5, done: false }, 7);
    assert!(writes.is_empty());
    for (number, stops) in [(1, Some(A)), (2, None)] {
        let (writes, who) = job.machine.cancel(number, 8).unwrap();
        assert_eq!(who, stops);
        job.write(writes);
    }
    assert_eq!(job.states(), [(1, "cancelled"), (2, "cancelled")]);
    assert_eq!(job.log[&1].end.unwrap().tally, tally, "what was done stays told");
    job.done(A, 1);
    assert_eq!(job.given(&[A]), None);
    assert_eq!(job.machine.cancel(1, 9), Some((Vec::new(), None)), "it has ended");
    assert_eq!(job.machine.cancel(3, 9), None);
}

#[test]
fn the_last_that_ended_are_kept_and_the_newest_automatic_one() {
    let mut job = Job::new();
    let automatic = Request { token: 1, automatic: true, ..Request::default() };
    let (first, writes) = job.machine.request(automatic, &dead(), vec![range(0, 0, 77)], 5);
    job.write(writes);
    job.given(&[A]);
    job.done(A, first);
    for token in 2..40 {
        let number = job.ask(token);
        job.given(&[A]);
        job.done(A, number);
    }
    let kept: Vec<u64> = job.log.keys().copied().collect();
    assert_eq!(kept.first(), Some(&first));
    assert!(kept.len() <= KEPT + 1, "{kept:?}");
    assert_eq!(kept.last(), Some(&39));
    job.takes_over();
    assert_eq!(job.machine.grown(&dead(), &ends(&[(0, 80)])), [range(0, 77, 80)]);
}

#[test]
fn an_automatic_replay_takes_what_has_come_since_the_last() {
    let mut job = Job::new();
    assert_eq!(job.machine.grown(&dead(), &ends(&[(4, 4), (0, 0)])), [], "there is nothing yet");
    let ranges = job.machine.grown(&dead(), &ends(&[(4, 9), (0, 0)]));
    assert_eq!(ranges, [range(0, 4, 9), range(1, 0, 0)]);
    let automatic = Request { automatic: true, ..request(1) };
    let (number, writes) = job.machine.request(automatic, &dead(), ranges, 5);
    job.write(writes);
    job.given(&[A]);
    job.done(A, number);
    assert_eq!(job.machine.grown(&dead(), &ends(&[(4, 9), (0, 0)])), []);
    let grown = job.machine.grown(&dead(), &ends(&[(4, 9), (0, 2), (0, 1)]));
    assert_eq!(grown, [range(0, 9, 9), range(1, 0, 2), range(2, 0, 1)]);
    assert_eq!(
        job.machine.grown(&dead(), &ends(&[(20, 30)])),
        [range(0, 20, 30)],
        "what was deleted is gone"
    );
}

#[test]
fn the_automatic_mode_looks_every_so_often_and_waits_for_its_last_replay() {
    let mut machine = Replays::new(Vec::new(), Some(Span(100)), Tick(50));
    assert!(!machine.looks(Tick(149)));
    assert!(machine.looks(Tick(150)) && !machine.looks(Tick(151)));
    let automatic = Request { automatic: true, ..request(1) };
    let (number, _) = machine.request(automatic, &dead(), vec![range(0, 0, 1)], 0);
    assert!(!machine.looks(Tick(250)), "the last one still waits");
    machine.cancel(number, 0).unwrap();
    assert!(machine.looks(Tick(350)));
    assert!(!Replays::new(Vec::new(), None, Tick(0)).looks(Tick(1 << 40)), "the job is not automatic");
}

#[test]
fn a_topic_that_was_created_anew_has_a_number_of_its_own_and_keeps_it() {
    let mut job = Job::new();
    let ask = |job: &mut Job, token, id| {
        let automatic = Request { automatic: true, ..request(token) };
        let (number, writes) = job.machine.request(automatic, &topic(id), vec![range(0, 0, 10)], 5);
        job.write(writes);
        job.given(&[A]);
        job.done(A, number);
        job.takes_over();
        job.log[&number].topic
    };
    let numbers = [(1, 7), (2, 7), (3, 8), (4, 7), (5, 9)].map(|(token, id)| ask(&mut job, token, id));
    assert_eq!(numbers, [0, 0, 1, 0, 2]);
    assert_eq!(job.machine.grown(&topic(9), &ends(&[(0, 12)])), [range(0, 10, 12)]);
    assert_eq!(
        job.machine.grown(&topic(8), &ends(&[(0, 12)])),
        [range(0, 0, 12)],
        "it is not the last one's"
    );
}
