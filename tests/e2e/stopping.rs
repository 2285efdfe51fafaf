//! How services stop while the broker answers nothing, on Apache Kafka.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use tidegate_tests::ApacheKafka;

use crate::{
    broker::{WINDOW_MS, plain, send, services},
    services::Services,
};

const NAMES: [&str; 3] = ["watermark-coordinator", "ingest", "window-worker"];
const DRAIN: Duration = Duration::from_secs(8);
/// A busy machine may take this long to start a thread or write a log.
const SLACK: Duration = Duration::from_secs(3);

/// Lets the broker halt while records are on their way through the services; gives how many were sent to each partition.
fn halt_under_load(broker: &ApacheKafka, services: &mut Services, topic: &str) -> i64 {
    let halted = AtomicBool::new(false);
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            let producer = plain(broker.bootstrap());
            let mut sent = 0;
            while !halted.load(Ordering::Relaxed) {
                send(&producer, topic, 0, sent..sent + 50);
                sent += 50;
            }
            sent
        });
        let committed = |status: &tidegate_proto::v1::JobStatus| {
            let stats = status.workers.iter().filter_map(|worker| worker.stats.as_ref());
            (stats.map(|stats| stats.applied).sum::<u64>() > 500).then_some(())
        };
        services.until("records on their way", committed);
        broker.freeze().unwrap();
        // What the load sends now arrives when the broker goes on, so that the thread ends only then.
        halted.store(true, Ordering::Relaxed);
        for name in NAMES {
            services.terminate(name);
        }
        let begun = Instant::now();
        for name in NAMES {
            let code = services.ended(name);
            let log = services.log(name);
            // A commit that the halt has met is not given up: its worker leaves without it, and says so.
            let waited = name == "window-worker" && log.contains("tasks did not drain in time");
            assert_eq!(code, Some(i32::from(waited)), "{name}: {log}");
            assert!(begun.elapsed() < DRAIN + SLACK, "{name} took {:?}: {log}", begun.elapsed());
        }
        broker.resume().unwrap();
        load.join().unwrap()
    })
}

#[test]
fn every_service_stops_within_its_drain_while_the_broker_is_halted_and_nothing_is_lost() {
    if !ApacheKafka::can_run("the test of stopping over a broker that is halted") {
        return;
    }
    let broker = ApacheKafka::start().unwrap();
    let (mut services, topic) = services(broker.bootstrap(), "halted", 1);
    let drain = format!("{}s", DRAIN.as_secs());
    NAMES.into_iter().for_each(|name| services.start_with(name, &["--drain", &drain]));
    let halted_at = halt_under_load(&broker, &mut services, &topic);
    services.start_all();
    // The halt may have met no record on its way: then the new reader sees only these.
    let sent = halted_at + 50;
    send(&plain(broker.bootstrap()), &topic, 0, halted_at..sent);
    let watermark = services.until_covered(u64::try_from(sent).unwrap(), WINDOW_MS);
    let said = services.verify(watermark);
    assert!(said.contains(&format!("records={sent}")) && said.contains("mismatches=0"), "{said}");
}

#[test]
fn a_second_signal_ends_every_service_at_once_while_the_broker_is_halted() {
    if !ApacheKafka::can_run("the test of a second signal") {
        return;
    }
    let broker = ApacheKafka::start().unwrap();
    let (mut services, topic) = services(broker.bootstrap(), "twice", 1);
    services.start_all();
    send(&plain(broker.bootstrap()), &topic, 0, 0..500);
    services.until_covered(500, WINDOW_MS);
    broker.freeze().unwrap();
    let asked: Vec<_> = NAMES
        .into_iter()
        .filter(|name| {
            services.terminate(name);
            services.until_logged(name, "shutting down");
            // One that had nothing to do may have ended by then.
            let runs = !services.dead().contains(&(*name).to_owned());
            if runs {
                services.terminate(name);
            }
            runs
        })
        .collect();
    let begun = Instant::now();
    for name in &asked {
        let code = services.ended(name);
        assert!(code == Some(143) || code == Some(0), "{name} {code:?}: {}", services.log(name));
        assert!(begun.elapsed() < SLACK, "{name} took {:?}: {}", begun.elapsed(), services.log(name));
    }
    // Leaving the group takes the broker, so that ingest was still at it.
    assert!(asked.contains(&"ingest") && services.log("ingest").contains("left at once"));
    broker.resume().unwrap();
    services.start_all();
    send(&plain(broker.bootstrap()), &topic, 0, 500..700);
    let watermark = services.until_covered(700, WINDOW_MS);
    assert!(services.verify(watermark).contains("mismatches=0"));
}
