//! What the coordinator says of a running job.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, bail};
use tidegate_proto::v1::{self, coordinator_client::CoordinatorClient};
use tidegate_runtime::{grpc::Peer, tls};
use tonic::{Code, Response, Status, transport::Channel};

use crate::moment::moment;

/// How often, and how soon again, all coordinators are asked while none leads.
const ATTEMPTS: u32 = 60;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(500);

/// A client of the status of whichever coordinator leads.
#[derive(Clone, Debug)]
pub(crate) struct StatusClient {
    coordinators: Vec<(String, CoordinatorClient<Channel>)>,
}

impl StatusClient {
    /// A client for coordinators at `addresses`, by TLS where `tls` says so; connects when first asked.
    ///
    /// # Errors
    /// When an address is none, or the certificates cannot be used.
    pub(crate) fn new<A: ToString>(addresses: &[A], tls: &tls::Flags) -> Result<Self> {
        let tls = tls.load()?;
        let client = |address: &A| {
            let address = address.to_string();
            let peer = Peer::new(&address, tls.clone())
                .with_context(|| format!("`{address}` is no address of a coordinator"))?
                .with_timeout(Duration::from_secs(5));
            Ok((address, CoordinatorClient::new(peer.connect_lazy())))
        };
        Ok(Self { coordinators: addresses.iter().map(client).collect::<Result<_>>()? })
    }

    /// Asks whichever leads, again while none does: at a change of coordinators that is a matter of seconds.
    ///
    /// # Errors
    /// When the one that leads refuses, or none does for half a minute: what each said.
    pub(crate) async fn ask<T>(
        &mut self,
        mut call: impl AsyncFnMut(&mut CoordinatorClient<Channel>) -> Result<Response<T>, Status>,
    ) -> Result<T> {
        let mut refusals = Vec::new();
        for _ in 0..ATTEMPTS {
            refusals.clear();
            for (address, client) in &mut self.coordinators {
                match call(client).await {
                    Ok(answer) => return Ok(answer.into_inner()),
                    Err(status) => match status.code() {
                        Code::FailedPrecondition
                        | Code::NotFound
                        | Code::InvalidArgument
                        | Code::ResourceExhausted => bail!("{}", status.message()),
                        Code::Unimplemented => {
                            bail!(
                                "the coordinator at {address} is of an older tidegate, which knows no replays"
                            )
                        }
                        _ => refusals.push(format!("{address}: {}", status.message())),
                    },
                }
            }
            tokio::time::sleep(BETWEEN_ATTEMPTS).await;
        }
        bail!("no coordinator that leads answers: {}", refusals.join("; "))
    }

    /// The job's status now.
    ///
    /// # Errors
    /// When no coordinator leads: what each said.
    pub(crate) async fn get(&mut self) -> Result<v1::JobStatus> {
        let mut refusals = Vec::new();
        for (address, client) in &mut self.coordinators {
            match client.status(v1::StatusRequest {}).await {
                Ok(status) => return Ok(status.into_inner()),
                Err(status) => refusals.push(format!("{address}: {}", status.message())),
            }
        }
        bail!("no coordinator that leads answers: {}", refusals.join("; "))
    }
}

/// The global watermark, ms.
#[must_use]
pub(crate) fn watermark(status: &v1::JobStatus) -> Option<i64> {
    status.announcement.as_ref().and_then(|announcement| announcement.watermark_ms)
}

/// Totals over all workers.
#[must_use]
pub(crate) fn totals(status: &v1::JobStatus) -> v1::WorkerStats {
    let mut sum = v1::WorkerStats::default();
    for stats in status.workers.iter().filter_map(|worker| worker.stats.as_ref()) {
        sum.applied += stats.applied;
        sum.results_final += stats.results_final;
        sum.results_late += stats.results_late;
        sum.windows_closed += stats.windows_closed;
        sum.commits += stats.commits;
        sum.open_rows += stats.open_rows;
        for (reason, count) in &stats.dead_letters {
            *sum.dead_letters.entry(reason.clone()).or_default() += count;
        }
        sum.shards.extend(stats.shards.iter().cloned());
    }
    sum
}

/// Records of each partition that the shards have committed as applied, and as dead letters.
fn covered(status: &v1::JobStatus) -> BTreeMap<u32, (u64, u64)> {
    let mut covered: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    let stats = status.workers.iter().filter_map(|worker| worker.stats.as_ref());
    for count in stats.flat_map(|stats| &stats.partitions) {
        let (applied, dead_lettered) = covered.entry(count.partition).or_default();
        *applied += count.applied;
        *dead_lettered += count.dead_lettered;
    }
    covered
}

/// How far the strategy is behind; marked while it has not seen enough.
fn delay(partition: &v1::PartitionStatus) -> String {
    let observed = partition.observed.as_ref();
    let mark = if observed.is_some_and(|observed| observed.learning) { "…" } else { "" };
    let delay = observed.and_then(|observed| observed.delay_ms).and_then(|delay| i64::try_from(delay).ok());
    delay.map(|delay| format!("{}{mark}", short(delay))).unwrap_or_default()
}

/// The clock minus event times, median and 99th percentile; what is ahead is negative.
fn skew(partition: &v1::PartitionStatus) -> String {
    let skew = partition.observed.as_ref().and_then(|observed| observed.skew.as_ref());
    skew.map(|skew| format!("{}/{}", short(skew.p50_ms), short(skew.p99_ms))).unwrap_or_default()
}

/// A span in a few characters.
fn short(millis: i64) -> String {
    let (sign, length) = (if millis < 0 { "-" } else { "" }, millis.unsigned_abs());
    let units = [
        (86_400_000 * 3, 86_400_000, "d"),
        (3_600_000 * 3, 3_600_000, "h"),
        (180_000, 60_000, "m"),
        (3_000, 1_000, "s"),
    ];
    let unit = units.iter().find(|(from, ..)| length >= *from);
    unit.map_or_else(|| format!("{sign}{length}ms"), |(_, by, unit)| format!("{sign}{}{unit}", length / by))
}

/// Whose clock the timestamps of a partition's records are of.
fn timestamps(count: Option<&v1::TimestampCount>) -> &'static str {
    match count.map(|count| (count.create_time > 0, count.log_append_time > 0, count.none > 0)) {
        Some((true, false, false)) => "CreateTime",
        Some((false, true, false)) => "LogAppendTime",
        Some((false, false, true)) => "none",
        None | Some((false, false, false)) => "-",
        Some(_) => "mixed",
    }
}

/// `tidegate status`: the job as text.
#[must_use]
pub(crate) fn render(status: &v1::JobStatus) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    let stamp = |ms: Option<i64>| ms.map_or_else(|| "undefined".to_owned(), |ms| ms.to_string());
    let _ =
        writeln!(out, "job {}  term {}  watermark {}", status.name, status.term, stamp(watermark(status)));
    let _ = writeln!(
        out,
        "\n{:>9}  {:9} {:>14} {:>9} {:>13} {:>12} {:>10} {:>12} {:>10}  {:13}",
        "partition",
        "state",
        "watermark",
        "delay",
        "skew p50/p99",
        "position",
        "lag",
        "applied",
        "dead",
        "timestamps"
    );
    let covered = covered(status);
    for p in &status.partitions {
        let (applied, dead) = covered.get(&p.partition).copied().unwrap_or_default();
        let note = if p.holds { "  ◄ holds the watermark" } else { "" };
        let _ = writeln!(
            out,
            "{:>9}  {:9} {:>14} {:>9} {:>13} {:>12} {:>10} {applied:>12} {dead:>10}  {:13}{note}",
            p.partition,
            p.state,
            stamp(p.watermark_ms),
            delay(p),
            skew(p),
            p.position,
            p.lag,
            timestamps(p.timestamps.as_ref())
        );
    }
    if status.offsets_skipped > 0 {
        let skipped = status.offsets_skipped;
        let _ = writeln!(out, "\n{skipped} offsets were deleted before they were read, and passed over");
    }
    let _ = writeln!(out, "\n{:12} {:9} {:22} shards", "worker", "state", "address");
    for worker in &status.workers {
        let shards: Vec<String> =
            status.owners.iter().filter(|o| o.worker == worker.name).map(|o| o.shard.to_string()).collect();
        let _ =
            writeln!(out, "{:12} {:9} {:22} {}", worker.name, worker.state, worker.address, shards.join(" "));
    }
    if !status.replays.is_empty() {
        let _ = writeln!(out, "\nreplays of dead letters");
        for replay in &status.replays {
            let _ = writeln!(out, "{}", replay_line(replay));
        }
    }
    out
}

/// A replay in a line.
#[must_use]
pub(crate) fn replay_line(replay: &v1::ReplayStatus) -> String {
    let tally = replay.tally.unwrap_or_default();
    let filter = replay.filter.clone().unwrap_or_default();
    let mut line = format!("{:>9}  {:9}", replay.number, replay.state);
    if replay.state == "running" {
        line += &format!(" {} of {} offsets,", replay.read, replay.offsets);
    }
    let counts = [
        ("applied", tally.applied),
        ("expired", tally.expired),
        ("known", tally.known),
        ("failed", tally.failed),
        ("left out", tally.left_out),
        ("deleted", tally.deleted),
    ];
    let counts = if replay.dry_run {
        format!(
            " dry run: {} would be replayed, {} fail, {} left out",
            tally.selected, tally.failed, tally.left_out
        )
    } else {
        let told: Vec<_> = counts.iter().map(|(word, count)| format!("{word} {count}")).collect();
        format!(" {}", told.join(", "))
    };
    line += &counts;
    if replay.automatic {
        line += "; automatic";
    }
    if !filter.reasons.is_empty() {
        line += &format!("; {}", filter.reasons.join(" "));
    }
    let bounds = [("since", filter.since_ms), ("until", filter.until_ms)];
    for (word, ms) in bounds.into_iter().filter_map(|(word, ms)| Some((word, ms?))) {
        line += &format!("; {word} {}", moment(ms));
    }
    if let Some(key) = filter.key {
        line += &format!("; key {}", String::from_utf8_lossy(&key));
    }
    line
}
