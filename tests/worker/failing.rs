//! Workers that vanish, come back as zombies, or cannot write.

use anyhow::{Context, Result, ensure};
use tidegate_proto::v1::worker_directive::Message as Directive;
use tidegate_proto::v1::worker_report::Message as Report;
use tidegate_proto::v1::{Assign, AssignmentId};
use tonic::{Code, Status};

use crate::ingest::Ingest;
use crate::rig::{JOB, Rig};

pub async fn another_job_or_job_file_is_refused(mut rig: Rig) -> Result<()> {
    let (worker, coordinator) = rig.worker("w").await?;
    let address = &coordinator.hello.address;
    let ours = rig.job.fingerprint();
    for (job, fingerprint, named) in
        [(JOB, ours + 1, format!("{:016x}", ours + 1)), (*b"another job's id", ours, "616e6f74".to_owned())]
    {
        let error = Ingest::connect(address, job, fingerprint).await.err().context("it was taken")?;
        let status = error.downcast::<Status>()?;
        ensure!(status.code() == Code::FailedPrecondition && status.message().contains(&named), "{status:?}");
    }
    worker.stop().await
}

pub async fn a_worker_that_vanishes_is_succeeded_without_loss_or_double(mut rig: Rig) -> Result<()> {
    let mut offset = 0;
    for round in 0..4u64 {
        let (worker, mut coordinator) = rig.worker("w").await?;
        coordinator.announce(1, 1, 1_000).await?;
        coordinator.assign(1, round + 1).await?;
        let mut ingest = rig.ingest(&coordinator).await?;
        let want = ingest.want(1).await?;
        ensure!(want.next >= offset, "what was acknowledged is durable: {want:?}");
        // Record `o` has event time `o`: what was committed without an acknowledgement is not sent again.
        let mut session = ingest.open(1, want.next).await?;
        for at in want.next..want.next + 20 {
            let time = i64::try_from(at)?;
            ingest.feed(&mut session, time, &[(time, "a", 1)]).await?;
        }
        offset = want.next + 10;
        while ingest.durable.get(&(1, 0)).is_none_or(|durable| *durable < offset) {
            ingest.durable(1, offset).await?;
        }
        worker.vanish();
    }
    let (worker, mut coordinator) = rig.worker("w").await?;
    coordinator.announce(1, 1, 1_000).await?;
    coordinator.assign(1, 9).await?;
    let mut ingest = rig.ingest(&coordinator).await?;
    let next = ingest.want(1).await?.next;
    let mut session = ingest.open(1, next).await?;
    let end = next.next_multiple_of(10);
    for at in next..end {
        let time = i64::try_from(at)?;
        ingest.feed(&mut session, time, &[(time, "a", 1)]).await?;
    }
    ingest.feed(&mut session, i64::try_from(end)?, &[(i64::try_from(end)?, "z", 1)]).await?;
    ingest.durable(1, end + 1).await?;
    let results = rig.results(1).await?;
    let expected: Vec<_> = (0..end / 10)
        .map(|window| {
            format!(
                r#"{{"key":"a","window_start":{},"window_end":{},"pane":"final","revision":0,"count":10,"sum":10}}"#,
                10 * window,
                10 * window + 10
            )
        })
        .collect();
    ensure!(results == expected, "{results:#?}");
    worker.stop().await
}

pub async fn a_zombie_is_fenced_and_drops_the_shard(mut rig: Rig) -> Result<()> {
    let (zombie, mut of_zombie) = rig.worker("zombie").await?;
    of_zombie.announce(1, 1, 100).await?;
    of_zombie.assign(1, 1).await?;
    let mut to_zombie = rig.ingest(&of_zombie).await?;
    to_zombie.want(1).await?;
    let mut session = to_zombie.open(1, 0).await?;
    to_zombie.feed(&mut session, 1, &[(1, "a", 1)]).await?;
    to_zombie.durable(1, 1).await?;

    let (owner, mut of_owner) = rig.worker("owner").await?;
    of_owner.announce(1, 1, 100).await?;
    of_owner.assign(1, 2).await?;
    let mut to_owner = rig.ingest(&of_owner).await?;
    ensure!(to_owner.want(1).await?.next == 1);

    to_zombie.feed(&mut session, 12, &[(2, "zombie", 1)]).await?;
    let fenced = |report| match report {
        Report::Fenced(left) => Some((left.shard, left.assignment)),
        _ => None,
    };
    let assignment = AssignmentId { term: 1, number: 1 };
    ensure!(of_zombie.until(fenced).await? == (1, Some(assignment)));
    to_zombie.durable(1, 1).await.context("the credit of dropped frames returns")?;

    let mut session = to_owner.open(1, 1).await?;
    to_owner.feed(&mut session, 12, &[(2, "a", 1)]).await?;
    to_owner.durable(1, 2).await?;
    let results = rig.results(1).await?;
    ensure!(results.len() == 1 && results[0].contains(r#""count":2"#), "{results:?}");

    // Told again by a coordinator that is behind, it finds the newer owner in the log.
    of_zombie.say(Directive::Assign(Assign { shard: 1, assignment: Some(assignment) })).await?;
    ensure!(of_zombie.until(fenced).await? == (1, Some(assignment)), "it stands down");
    zombie.stop().await?;
    owner.stop().await
}

pub async fn a_shard_that_is_given_anew_starts_over_from_its_log(mut rig: Rig) -> Result<()> {
    let (worker, mut coordinator) = rig.worker("w").await?;
    coordinator.assign(0, 1).await?;
    let mut ingest = rig.ingest(&coordinator).await?;
    ensure!(ingest.want(0).await?.next == 0);
    let mut session = ingest.open(0, 0).await?;
    ingest.feed(&mut session, 1, &[(1, "a", 1)]).await?;
    ingest.durable(0, 1).await?;
    let ready = coordinator.assign(0, 2).await?;
    ensure!(ready.applied == 1);
    let want = ingest.want(0).await?;
    let number = want.assignment.map(|assignment| assignment.number);
    ensure!((want.next, number) == (1, Some(2)), "{want:?}");
    ingest.feed(&mut session, 1, &[(1, "a", 1)]).await?;
    ingest.durable(0, 2).await?;
    worker.stop().await
}

pub async fn a_shard_whose_output_is_refused_stands_still_and_loses_nothing(mut rig: Rig) -> Result<()> {
    let (worker, mut coordinator) = rig.worker("w").await?;
    coordinator.announce(1, 1, 100).await?;
    coordinator.assign(1, 1).await?;
    let mut ingest = rig.ingest(&coordinator).await?;
    ingest.want(1).await?;
    let mut session = ingest.open(1, 0).await?;
    ingest.feed(&mut session, 1, &[(1, "a", 1)]).await?;
    ingest.durable(1, 1).await?;

    rig.admin.delete(&rig.job.sink.topic).await?;
    ingest.feed(&mut session, 12, &[(11, "b", 1)]).await?;
    let want = ingest.want(1).await.context("it reads its log again")?;
    ensure!(want.next == 1, "{want:?}");
    rig.create_sink().await?;
    loop {
        let mut session = ingest.open(1, 1).await?;
        ingest.feed(&mut session, 12, &[(11, "b", 1)]).await?;
        tokio::select! {
            durable = ingest.durable(1, 2) => {
                durable?;
                break;
            }
            report = coordinator.until(|report| matches!(report, Report::Ready(_)).then_some(())) => report?,
        }
    }
    ensure!(rig.results(1).await?.len() == 1);
    worker.stop().await
}
