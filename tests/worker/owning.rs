//! Shards that are taken, fed, and left.

use anyhow::{Result, ensure};
use tidegate_proto::v1::worker_directive::Message as Directive;
use tidegate_proto::v1::worker_report::Message as Report;
use tidegate_proto::v1::{AssignmentId, Release};

use crate::coordinator::stats_when;
use crate::rig::{Rig, shared_state};

pub async fn a_window_comes_out_when_the_watermark_passes_it(mut rig: Rig) -> Result<()> {
    let (worker, mut coordinator) = rig.worker("w").await?;
    let mut ingest = rig.ingest(&coordinator).await?;
    let ready = coordinator.assign(1, 1).await?;
    ensure!((ready.watermark_ms, ready.applied) == (None, 0));
    let want = ingest.want(1).await?;
    ensure!((want.partition, want.next, want.payloads) == (0, 0, false), "{want:?}");

    let mut session = ingest.open(1, 0).await?;
    ingest.feed(&mut session, 4, &[(1, "b", 5), (2, "a", 7), (3, "b", -1)]).await?;
    ingest.durable(1, 3).await?;
    ensure!(rig.results(1).await? == [""; 0], "the window is open");
    coordinator.announce(1, 1, 100).await?;
    ingest.feed(&mut session, 12, &[(11, "a", 1)]).await?;
    ingest.durable(1, 4).await?;
    // The announcement may come behind the frame, on another stream.
    let stats = stats_when(&mut coordinator, |stats| stats.results_final == 2).await?;
    let results = rig.results(1).await?;
    ensure!(
        results
            == [
                r#"{"key":"a","window_start":0,"window_end":10,"pane":"final","revision":0,"count":1,"sum":7}"#,
                r#"{"key":"b","window_start":0,"window_end":10,"pane":"final","revision":0,"count":2,"sum":4}"#,
            ],
        "{results:?}"
    );
    ensure!(
        (stats.applied, stats.results_final, stats.windows_closed, stats.open_rows) == (4, 2, 1, 1),
        "{stats:?}"
    );
    ensure!(stats.shards[0].watermark_ms == Some(12) && stats.shards[0].applied == 4, "{stats:?}");
    worker.stop().await
}

pub async fn a_worker_is_ready_once_its_shards_have_caught_up(mut rig: Rig) -> Result<()> {
    let (worker, mut coordinator) = rig.worker("w").await?;
    worker.until_unready(None).await;
    coordinator.announce(1, 1, 100).await?;
    coordinator.assign(1, 1).await?;
    worker.until_unready(Some("shards [1] are not caught up")).await;
    let mut ingest = rig.ingest(&coordinator).await?;
    ingest.want(1).await?;
    let mut session = ingest.open(1, 0).await?;
    ingest.feed(&mut session, 120, &[(110, "a", 1)]).await?;
    ingest.durable(1, 1).await?;
    worker.until_unready(None).await;
    worker.stop().await
}

pub async fn a_late_record_is_a_whole_dead_letter(mut rig: Rig) -> Result<()> {
    let (worker, mut coordinator) = rig.worker("w").await?;
    coordinator.announce(1, 1, 100).await?;
    coordinator.assign(0, 1).await?;
    let mut ingest = rig.ingest(&coordinator).await?;
    ingest.want(0).await?;
    let mut session = ingest.open(0, 0).await?;
    session.payloads = true;
    ingest.feed(&mut session, 30, &[(25, "a", 1)]).await?;
    ingest.feed(&mut session, 30, &[(12, "late", 1), (31, "a", 1)]).await?;
    ingest.durable(0, 3).await?;
    let (job, topic) = (&rig.job.name, &rig.job.source.topic);
    let expected = format!(
        "origin=test tidegate-reason=late tidegate-job={job} tidegate-topic={topic} tidegate-partition=0 tidegate-offset=1 \
         tidegate-event-time=12 tidegate-watermark=30 tidegate-window-start=10 tidegate-window-end=20"
    );
    let letters = rig.dead_letters(0).await?;
    ensure!(letters == [(r#"{"user":"late"}"#.to_owned(), expected)], "{letters:?}");
    let stats = stats_when(&mut coordinator, |stats| stats.applied == 2).await?;
    ensure!((stats.applied, stats.dead_letters.get("late")) == (2, Some(&1)), "{stats:?}");
    worker.stop().await
}

pub async fn what_a_shard_cannot_cover_it_asks_for(mut rig: Rig) -> Result<()> {
    let (worker, mut coordinator) = rig.worker("w").await?;
    coordinator.announce(1, 1, 100).await?;
    coordinator.assign(0, 1).await?;
    let mut ingest = rig.ingest(&coordinator).await?;
    ingest.want(0).await?;
    let mut gap = ingest.open(0, 5).await?;
    ingest.feed(&mut gap, 20, &[(25, "a", 1)]).await?;
    let want = ingest.want(0).await?;
    ensure!((want.next, want.payloads) == (0, false), "{want:?}");

    let mut bare = ingest.open(0, 0).await?;
    ingest.feed(&mut bare, 20, &[(25, "a", 1)]).await?;
    ingest.feed(&mut bare, 20, &[(26, "a", 1), (12, "late", 1), (27, "a", 1)]).await?;
    let want = ingest.want(0).await?;
    ensure!((want.next, want.payloads) == (2, true), "{want:?}");

    let mut whole = ingest.open(0, 2).await?;
    whole.payloads = true;
    ingest.feed(&mut whole, 20, &[(12, "late", 1), (27, "a", 1)]).await?;
    ingest.durable(0, 4).await?;
    let stats = stats_when(&mut coordinator, |stats| stats.applied == 3).await?;
    ensure!((stats.applied, stats.dead_letters.get("late")) == (3, Some(&1)), "{stats:?}");
    worker.stop().await
}

pub async fn an_ingest_has_one_stream_the_last(mut rig: Rig) -> Result<()> {
    let (worker, mut coordinator) = rig.worker("w").await?;
    coordinator.announce(1, 1, 100).await?;
    coordinator.assign(0, 1).await?;
    let mut first = rig.ingest(&coordinator).await?;
    first.want(0).await?;
    // The worker has not heard that the first one broke.
    let mut second = rig.ingest(&coordinator).await?;
    first.ended().await?;
    ensure!(second.want(0).await?.next == 0);
    let mut session = second.open(0, 0).await?;
    second.feed(&mut session, 3, &[(1, "a", 1)]).await?;
    second.durable(0, 1).await?;
    worker.stop().await
}

pub async fn a_stopped_worker_leaves_its_shards_committed(mut rig: Rig) -> Result<()> {
    let (worker, mut coordinator) = rig.worker("w").await?;
    coordinator.announce(1, 1, 100).await?;
    coordinator.assign(0, 1).await?;
    coordinator.assign(1, 2).await?;
    let mut ingest = rig.ingest(&coordinator).await?;
    let mut session = ingest.open(1, 0).await?;
    ingest.feed(&mut session, 3, &[(1, "a", 1)]).await?;
    ingest.durable(1, 1).await?;

    let assignment = Some(AssignmentId { term: 1, number: 1 });
    coordinator.say(Directive::Release(Release { shard: 0, assignment })).await?;
    let released = |report| match report {
        Report::Released(left) => Some((left.shard, left.assignment.map_or(0, |id| id.number))),
        _ => None,
    };
    ensure!(coordinator.until(released).await? == (0, 1));

    ingest.feed(&mut session, 12, &[(11, "a", 1)]).await?;
    ingest.durable(1, 2).await?;
    let stop = tokio::spawn(worker.stop());
    coordinator.until(|report| matches!(report, Report::Draining(_)).then_some(())).await?;
    ensure!(coordinator.until(released).await? == (1, 2));
    stop.await??;
    ensure!(rig.results(1).await?.len() == 1);
    Ok(())
}

pub async fn the_local_store_is_where_a_shard_goes_on(mut rig: Rig) -> Result<()> {
    let state = shared_state(&rig);
    for round in 0..3u64 {
        let (worker, mut coordinator) = rig.worker_in("w", &state).await?;
        coordinator.announce(1, 1, 100).await?;
        let ready = coordinator.assign(1, round + 1).await?;
        ensure!(ready.applied == 2 * round, "{ready:?}");
        let mut ingest = rig.ingest(&coordinator).await?;
        ensure!(ingest.want(1).await?.next == 2 * round);
        let mut session = ingest.open(1, 2 * round).await?;
        ingest.feed(&mut session, 5, &[(1, "a", 1)]).await?;
        ingest.durable(1, 2 * round + 1).await?;
        ingest.feed(&mut session, 5, &[(1, "b", 1)]).await?;
        ingest.durable(1, 2 * round + 2).await?;
        if round == 2 {
            ingest.feed(&mut session, 10, &[(11, "c", 1)]).await?;
            ingest.durable(1, 7).await?;
        }
        worker.stop().await?;
    }
    let results = rig.results(1).await?;
    let sums = results.iter().filter(|result| result.ends_with(r#""count":3,"sum":3}"#));
    ensure!(results.len() == 2 && sums.count() == 2, "{results:?}");
    Ok(())
}

pub async fn a_worker_leaves_a_silent_coordinator_for_the_next(mut rig: Rig) -> Result<()> {
    // It takes connections, as the system does for a process that is halted, and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let worker = rig.worker_of(&[silent.local_addr()?, rig.coordinator.address]).await?;
    let (_connection, _) = silent.accept().await?;
    let mut stream = rig.coordinator.stream().await?;
    stream.until(|_| Some(())).await?;
    worker.stop().await
}

pub async fn a_worker_that_no_coordinator_answers_stops_at_once(rig: Rig) -> Result<()> {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let worker = rig.worker_of(&[silent.local_addr()?]).await?;
    let (_connection, _) = silent.accept().await?;
    let asked = std::time::Instant::now();
    worker.stop().await?;
    // Sooner than it gives up waiting for a welcome, and than keep-alive notices that nobody is there.
    ensure!(asked.elapsed() < std::time::Duration::from_millis(2500), "{:?}", asked.elapsed());
    Ok(())
}
