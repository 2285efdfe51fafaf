//! Dead letters go back: a year of departures of which a third came too late, corrected to what SQL says of all of them, in every kind
//! of window that is kept for it, with every process killed on the way; twice, by a filter, and after the job was mended.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufRead, BufReader},
};

use flate2::read::GzDecoder;
use rdkafka::{Message, Offset, producer::BaseRecord, producer::Producer};
use serde_json::Value;
use tidegate_proto::v1;
use tidegate_tests::clients::{self, Isolation};

use crate::{broker::plain, dev::root, job, services::Services};

const SHARDS: i32 = 4;
const HOUR: i64 = 3_600_000;
const JUNE_2013: i64 = 1_370_044_800_000;
const YEAR_2020: i64 = 1_577_836_800_000;
const YEAR_2100: i64 = 4_102_444_800_000;

/// What a job does with the flights.
struct Kind {
    operator: &'static str,
    key: &'static str,
    /// How far the watermark goes beyond the last record.
    span: i64,
    /// What SQL says of all flights.
    expected: &'static str,
    /// A group key that has less than half of them.
    one_key: &'static str,
    /// What becomes of a dead letter that comes back when the watermark has passed it.
    late: &'static str,
}

const TUMBLING: Kind = Kind {
    operator: "window: { tumbling: { size: 1h } }",
    key: "/carrier",
    span: HOUR,
    expected: "expected-tumbling-1h-carrier.csv.gz",
    one_key: "AA",
    late: "applied",
};
const HOPPING: Kind = Kind {
    operator: "window: { hopping: { size: 6h, step: 1h } }",
    key: "/origin",
    span: 6 * HOUR,
    expected: "expected-hopping-6h-1h-origin.csv.gz",
    one_key: "EWR",
    ..TUMBLING
};
const SESSIONS: Kind = Kind {
    operator: "window: { session: { gap: 2h } }",
    key: "/dest",
    span: 2 * HOUR,
    expected: "expected-session-2h-dest.csv.gz",
    one_key: "IAH",
    ..TUMBLING
};
/// Nothing is kept of what these have put out.
const SLIDING: Kind = Kind { operator: "window: { sliding: { size: 2h } }", late: "expired", ..TUMBLING };
const REORDER: Kind = Kind { operator: "reorder: {}", late: "expired", ..TUMBLING };

impl Kind {
    fn job(&self, name: &str, event_time: &str, delay: &str) -> String {
        let text = job(name, event_time, delay)
            .replace("key: { field: /carrier }", &format!("key: {{ field: {} }}", self.key))
            .replace(TUMBLING.operator, self.operator);
        let (before, rest) = text.split_once("aggregates:").unwrap();
        let (aggregates, behind) = rest.split_once("sink:").unwrap();
        let aggregates = if self.operator == REORDER.operator {
            String::new()
        } else {
            format!("aggregates:{aggregates}")
        };
        format!("{before}{aggregates}sink:{behind}")
    }
}

fn job(name: &str, event_time: &str, delay: &str) -> String {
    format!(
        "name: {name}
source:
  topic: {name}-in
  key: {{ field: /carrier }}
  event_time: [{{ field: {event_time} }}]
watermark: {{ delay: {delay}, idle_timeout: 2s, on_quiet: finish }}
window: {{ tumbling: {{ size: 1h }} }}
aggregates:
  - {{ name: count, fn: count }}
  - {{ name: sum_delay, fn: sum, field: /delay }}
  - {{ name: min_delay, fn: min, field: /delay }}
  - {{ name: max_delay, fn: max, field: /delay }}
sink: {{ topic: {name}-out }}
dead_letter: {{ topic: {name}-dead, replay: {{ ttl: 3650d }} }}
state: {{ shards: {SHARDS} }}
"
    )
}

fn flights() -> impl Iterator<Item = String> {
    let file = File::open(root().join("tests/data/flights/flights.ndjson.gz")).unwrap();
    BufReader::new(GzDecoder::new(file)).lines().map(Result::unwrap)
}

/// Sends the flights that `wanted` takes, line n to partition n mod 8; how many there are.
fn send(bootstrap: &str, topic: &str, wanted: impl Fn(usize, &str) -> bool) -> u64 {
    let producer = plain(bootstrap);
    let mut sent = 0;
    for (line, flight) in flights().enumerate().filter(|(line, flight)| wanted(*line, flight)) {
        let partition = i32::try_from(line % 8).unwrap();
        loop {
            let record = BaseRecord::<(), _>::to(topic).partition(partition).payload(&flight);
            if producer.send(record).is_ok() {
                break;
            }
            producer.poll(std::time::Duration::from_millis(20));
        }
        sent += 1;
    }
    producer.flush(clients::PATIENCE).unwrap();
    sent
}

fn values(bootstrap: &str, topic: &str) -> Vec<Value> {
    let read = |partition| {
        clients::read_to_end(bootstrap, topic, partition, Offset::Beginning, Isolation::ReadCommitted)
            .unwrap()
    };
    let records = (0..SHARDS).flat_map(read);
    records.map(|record| serde_json::from_slice(record.payload().unwrap_or_default()).unwrap()).collect()
}

/// The result of the highest revision of each key and window, as lines of the expected CSV, but of sessions that have become others; and
/// how many results of replays there are. Of one revision there must be one result.
fn last_results(bootstrap: &str, topic: &str, header: &[String]) -> (BTreeSet<String>, usize) {
    let mut last: BTreeMap<(String, i64, i64), (u64, String)> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut replayed = 0;
    for result in values(bootstrap, topic) {
        let [start, end] = ["window_start", "window_end"].map(|bound| result[bound].as_i64().unwrap());
        let place = (result["key"].as_str().unwrap().to_owned(), start, end);
        let revision = result["revision"].as_u64().unwrap();
        assert!(seen.insert((place.clone(), revision)), "twice: {result}");
        replayed += usize::from(result["pane"] == "replay");
        let fields: Vec<String> = header
            .iter()
            .map(|name| result[name].as_str().map_or_else(|| result[name].to_string(), str::to_owned))
            .collect();
        let retracted = result["pane"] == "retracted";
        let newer = (revision, if retracted { String::new() } else { fields.join(",") });
        let known = last.entry(place).or_default();
        if newer.0 >= known.0 {
            *known = newer;
        }
    }
    (last.into_values().map(|(_, line)| line).filter(|line| !line.is_empty()).collect(), replayed)
}

fn expected(kind: &Kind) -> (Vec<String>, BTreeSet<String>) {
    let path = root().join("tests/data/flights").join(kind.expected);
    let mut lines = BufReader::new(GzDecoder::new(File::open(path).unwrap())).lines().map(Result::unwrap);
    let header = lines.next().unwrap().split(',').map(str::to_owned).collect();
    (header, lines.collect())
}

fn dead_letters(bootstrap: &str, topic: &str) -> BTreeMap<String, u64> {
    let mut reasons = BTreeMap::new();
    for partition in 0..SHARDS {
        let letters =
            clients::read_to_end(bootstrap, topic, partition, Offset::Beginning, Isolation::ReadCommitted);
        for letter in letters.unwrap() {
            use rdkafka::message::Headers;
            let headers = letter.headers().unwrap();
            let reason = headers.iter().filter(|header| header.key == "tidegate-reason").last().unwrap();
            *reasons.entry(String::from_utf8_lossy(reason.value.unwrap()).into_owned()).or_default() += 1;
        }
    }
    reasons
}

impl Services {
    /// Runs `tidegate replay` to its end; what it says.
    pub fn replay(&self, job: &str, arguments: &[&str]) -> String {
        let output = self.tidegate(&[&["replay", job], arguments].concat());
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        said
    }

    /// What `tidegate why` says of the replays of a record of partition 0.
    fn fate(&self, offset: usize) -> Value {
        let offset = offset.to_string();
        let topics = self.topics();
        let arguments = [
            &["why", "--json", "--partition", "0", "--offset", &offset],
            &topics.each_ref().map(String::as_str)[..],
        ];
        let output = self.tidegate(&arguments.concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        answer["record"]["replay"].clone()
    }

    /// Waits until every shard's watermark has reached a time; the watermark.
    fn until_everywhere(&mut self, time: i64) -> i64 {
        self.until("the watermark to pass, everywhere", |status| {
            let watermark = status.announcement.as_ref()?.watermark_ms?;
            let stats = status.workers.iter().filter_map(|worker| worker.stats.as_ref());
            let mut shards = stats.flat_map(|stats| &stats.shards).peekable();
            shards.peek()?;
            (watermark >= time && shards.all(|shard| shard.watermark_ms == Some(watermark)))
                .then_some(watermark)
        })
    }

    fn replay_status(
        &mut self,
        number: u64,
        what: &str,
        wanted: impl Fn(&v1::ReplayStatus) -> bool,
    ) -> v1::ReplayTally {
        self.until(what, |status| {
            let replay = status.replays.iter().find(|replay| replay.number == number)?;
            wanted(replay).then(|| replay.tally.unwrap_or_default())
        })
    }
}

fn is_done(replay: &v1::ReplayStatus) -> bool {
    replay.state == "done"
}

#[test]
fn tumbling_with_every_process_killed_during_a_replay_on_the_embedded_broker() {
    corrected_to_what_sql_says(&TUMBLING, tidegate_tests::dev_kafka().bootstrap());
}

#[test]
fn tumbling_with_every_process_killed_during_a_replay_on_apache_kafka() {
    let Some(broker) = tidegate_tests::apache_kafka() else { return };
    corrected_to_what_sql_says(&TUMBLING, broker.bootstrap());
}

#[test]
fn hopping_with_every_process_killed_during_a_replay_on_the_embedded_broker() {
    corrected_to_what_sql_says(&HOPPING, tidegate_tests::dev_kafka().bootstrap());
}

#[test]
fn hopping_with_every_process_killed_during_a_replay_on_apache_kafka() {
    let Some(broker) = tidegate_tests::apache_kafka() else { return };
    corrected_to_what_sql_says(&HOPPING, broker.bootstrap());
}

#[test]
fn sessions_with_every_process_killed_during_a_replay_on_the_embedded_broker() {
    corrected_to_what_sql_says(&SESSIONS, tidegate_tests::dev_kafka().bootstrap());
}

#[test]
fn sessions_with_every_process_killed_during_a_replay_on_apache_kafka() {
    let Some(broker) = tidegate_tests::apache_kafka() else { return };
    corrected_to_what_sql_says(&SESSIONS, broker.bootstrap());
}

fn corrected_to_what_sql_says(kind: &Kind, bootstrap: &str) {
    let (name, topic) = job::new_source(bootstrap, "replayed", 8);
    let first = send(bootstrap, &topic, |line, _| line % 3 != 0);
    let mut services = Services::new(bootstrap, &kind.job(&name, "/departed", "1h"));
    for service in ["watermark-coordinator", "ingest", "window-worker-0", "window-worker-1"] {
        services.start(service);
    }
    // A third comes when the year is over.
    services.until_covered(first, kind.span);
    let records = first + send(bootstrap, &topic, |line, _| line % 3 == 0);
    assert_eq!(records, 336_776);
    services.until_covered(records, kind.span);
    let (results, dead) = (format!("{name}-out"), format!("{name}-dead"));
    let letters = dead_letters(bootstrap, &dead);
    let (late, timeless) = (letters["late"], letters["no_event_time"]);
    assert!(late > 100_000, "{letters:?}");
    // In some of their windows these count already.
    let late = late + letters.get("late_partial").copied().unwrap_or_default();
    let (header, expected) = expected(kind);
    assert_ne!(last_results(bootstrap, &results, &header).0, expected, "much is missing");

    // A part, by a filter: first counted, then done.
    let filter = ["--reason", "late", "--key", kind.one_key];
    let said = services.replay(&name, &[&filter[..], &["--dry-run"]].concat());
    assert!(said.contains("dry run:") && !said.contains(" 0 would be replayed"), "{said}");
    let said = services.replay(&name, &[&filter[..], &["--wait"]].concat());
    assert!(said.contains("done"), "{said}");
    let part = services.replay_status(2, "the part", is_done);
    assert!(part.applied > 0 && part.expired == 0 && part.known == 0 && part.failed == 0, "{part:?}");
    assert!(part.left_out > part.applied, "{part:?}");
    let verified = services.verify(YEAR_2100);
    assert!(verified.contains(&format!("replayed={}", part.applied)), "{verified}");

    // All of it, while each process is killed.
    services.replay(&name, &[]);
    for victim in ["ingest", "window-worker-0", "watermark-coordinator", "window-worker-1", "ingest"] {
        services.until("a replay", |status| {
            let replay = status.replays.iter().find(|replay| replay.number == 3)?;
            (replay.state != "waiting").then_some(())
        });
        services.kill(victim);
        services.start(victim);
    }
    let whole = services.replay_status(3, "the whole", is_done);
    assert_eq!(whole.selected, late, "{whole:?}");
    assert_eq!((whole.failed, whole.expired), (timeless, 0), "{whole:?}");
    assert_eq!(whole.applied + whole.known, late, "{whole:?}");
    assert!(whole.known >= part.applied, "{whole:?}");
    let (corrected, replayed) = last_results(bootstrap, &results, &header);
    assert_eq!(corrected, expected);
    assert!(replayed > 0);
    let verified = services.verify(YEAR_2100);
    assert!(verified.contains(&format!("replayed={late}")), "{verified}");
    assert_eq!(dead_letters(bootstrap, &dead), letters, "none comes back");

    // Once more: everything is known, nothing comes out.
    let said = services.replay(&name, &["--wait"]);
    assert!(said.contains(&format!("applied 0, expired 0, known {late}, failed {timeless}")), "{said}");
    assert_eq!(last_results(bootstrap, &results, &header), (expected, replayed));
}

#[test]
fn a_job_that_was_mended_takes_what_it_could_not_read() {
    takes_what_it_could_not_read(&TUMBLING);
}

#[test]
fn a_job_of_sessions_that_was_mended_takes_what_it_could_not_read() {
    takes_what_it_could_not_read(&SESSIONS);
}

#[test]
fn a_job_of_sliding_windows_that_was_mended_takes_what_the_watermark_has_not_passed() {
    takes_what_it_could_not_read(&SLIDING);
}

#[test]
fn a_job_that_reorders_and_was_mended_takes_what_the_watermark_has_not_passed() {
    takes_what_it_could_not_read(&REORDER);
}

fn takes_what_it_could_not_read(kind: &Kind) {
    let bootstrap = tidegate_tests::dev_kafka().bootstrap();
    let name = clients::unique("mended");
    let departed = |_, flight: &str| !flight.contains("\"departed\":null");
    let topic = format!("{name}-in");
    clients::create_topic_named(bootstrap, &topic, 8, &[]).unwrap();
    let records = send(bootstrap, &topic, |line, flight| line < 20_000 && departed(line, flight));
    let all = ["watermark-coordinator", "ingest", "window-worker"];
    let mut services = Services::new(bootstrap, &kind.job(&name, "/departd", "400d"));
    services.start_all();
    services.until("all in the dead letters", |status| {
        let shards =
            status.workers.iter().filter_map(|worker| worker.stats.as_ref()).flat_map(|stats| &stats.shards);
        (shards.map(|shard| shard.dead_lettered).sum::<u64>() == records).then_some(())
    });
    assert_eq!(
        dead_letters(bootstrap, &format!("{name}-dead")),
        BTreeMap::from([("no_event_time".to_owned(), records)])
    );
    // Asked for before the job was mended it fails, and may be asked for again.
    let said = services.replay(&name, &["--wait"]);
    assert!(said.contains(&format!("failed {records}")), "{said}");
    let failed = services.fate(0);
    assert_eq!((&failed["outcome"], &failed["numbers"]), (&"failed".into(), &vec![1].into()), "{failed}");
    for service in all {
        services.stop(service);
    }
    services.set_job(&kind.job(&name, "/departed", "400d"));
    services.start_all();
    let said = services.replay(&name, &["--wait", "--reason", "no_event_time"]);
    assert!(said.contains(&format!("applied {records}, expired 0, known 0, failed 0")), "{said}");
    let applied = services.fate(0);
    assert_eq!(
        (&applied["outcome"], &applied["numbers"]),
        (&"applied".into(), &vec![1, 2].into()),
        "{applied}"
    );

    // The watermark passes them all, and one more comes.
    let producer = plain(bootstrap);
    let send = |departed: i64| {
        let flight = format!(
            "{{\"carrier\":\"AA\",\"origin\":\"EWR\",\"dest\":\"IAH\",\"departed\":{departed},\"delay\":1}}"
        );
        producer
            .send(BaseRecord::<(), _>::to(&topic).partition(0).payload(&flight))
            .map_err(|(e, _)| e)
            .unwrap();
        producer.flush(clients::PATIENCE).unwrap();
    };
    send(YEAR_2020);
    // The source has ended: the watermark stays.
    let watermark = services.until_everywhere(YEAR_2020);
    send(JUNE_2013);
    services.until("the late one", |status| {
        let shards =
            status.workers.iter().filter_map(|worker| worker.stats.as_ref()).flat_map(|stats| &stats.shards);
        (shards.map(|shard| shard.dead_lettered).sum::<u64>() == records + 1).then_some(())
    });
    let said = services.replay(&name, &["--wait", "--reason", "late"]);
    assert!(said.contains(&format!("{} 1, ", kind.late)), "{said}");
    let in_partition_0 = flights()
        .enumerate()
        .filter(|(line, flight)| line % 8 == 0 && *line < 20_000 && departed(*line, flight));
    let late = services.fate(in_partition_0.count() + 1);
    assert_eq!((&late["outcome"], &late["numbers"]), (&kind.late.into(), &vec![3].into()), "{late}");
    let verified = services.verify(watermark);
    let replayed = records + u64::from(kind.late == "applied");
    assert!(verified.contains(&format!("replayed={replayed}")), "{verified}");
    assert!(!verified.contains("windows=0"), "{verified}");
}

#[test]
fn a_replay_is_refused_where_nothing_is_kept_for_it_and_for_another_job() {
    let bootstrap = tidegate_tests::dev_kafka().bootstrap();
    let name = clients::unique("keeps-nothing");
    clients::create_topic_named(bootstrap, &format!("{name}-in"), 1, &[]).unwrap();
    let keeps_nothing = job(&name, "/departed", "1h").replace(", replay: { ttl: 3650d }", "");
    let mut services = Services::new(bootstrap, &keeps_nothing);
    services.start("watermark-coordinator");
    services.until("a coordinator", |_| Some(()));
    let refused = |job: &str| {
        let output = services.tidegate(&["replay", job]);
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(refused(&name).contains("give it `dead_letter.replay`"));
    assert!(refused("other").contains(&format!("leads job `{name}`, not `other`")));
}

#[test]
fn an_automatic_replay_corrects_late_results_by_itself() {
    let bootstrap = tidegate_tests::dev_kafka().bootstrap();
    let (name, topic) = job::new_source(bootstrap, "automatic", 1);
    let automatic = job(&name, "/departed", "1h").replace("ttl: 3650d", "ttl: 3650d, mode: auto, every: 1s");
    let mut services = Services::new(bootstrap, &automatic);
    services.start_all();
    let producer = plain(bootstrap);
    let send = |hours: &[i64]| {
        for hour in hours {
            let flight = format!("{{\"carrier\":\"AA\",\"departed\":{},\"delay\":{hour}}}", hour * HOUR);
            producer
                .send(BaseRecord::<(), _>::to(&topic).partition(0).payload(&flight))
                .map_err(|(e, _)| e)
                .unwrap();
        }
        producer.flush(clients::PATIENCE).unwrap();
    };
    send(&[10, 11, 20]);
    services.until_covered(3, HOUR);
    send(&[10]);
    services.until("an automatic replay", |status| {
        let replay = status.replays.iter().find(|replay| replay.state == "done")?;
        (replay.automatic && replay.tally?.applied == 1).then_some(())
    });
    let counts = || {
        let mut last = BTreeMap::new();
        for result in values(bootstrap, &format!("{name}-out")) {
            last.insert(result["window_start"].as_i64().unwrap() / HOUR, result["count"].as_u64().unwrap());
        }
        last
    };
    assert_eq!(counts()[&10], 2);
    send(&[11]);
    services.until("the next", |status| {
        let mut replays = status.replays.iter().filter(|replay| replay.state == "done");
        replays.nth(1)?.tally.filter(|tally| tally.applied == 1 && tally.known == 0).map(|_| ())
    });
    assert_eq!((counts()[&10], counts()[&11]), (2, 2));
}
