//! The brokers, their clocks, and what they allow.

use tidegate_job::Job;

use super::super::facts::Facts;
use super::super::finding::{Finding, Level};
use super::text_of;

/// A clock that is off by more than this is worth a warning, in ms.
const OFF: i64 = 500;
/// The timeout of the transactions that workers make, in ms.
const TRANSACTION: i64 = 10_000;
/// The coordinators' `--session-timeout` unless they are told otherwise, in ms.
const SESSION: i64 = 6_000;
/// More transactions a second than this are much for a small cluster.
const TRANSACTIONS: i64 = 1_000;

pub(super) fn judge(job: &Job, facts: &Facts, findings: &mut Vec<Finding>) {
    const GROUP: &str = "cluster";
    let brokers = facts.brokers.len();
    findings.push(Finding::ok(
        GROUP,
        "brokers",
        format!(
            "{brokers} {} at {}",
            if brokers == 1 { "broker answers" } else { "brokers answer" },
            facts.address
        ),
    ));
    match &facts.broker {
        Ok(settings) => {
            let number = |key: &str| settings.get(key).and_then(|value| value.parse::<i64>().ok());
            findings.extend(number("transaction.max.timeout.ms").map(|longest| {
                let text = format!("transaction.max.timeout.ms is {}", text_of(longest));
                if longest < TRANSACTION {
                    let fix = "raise it to 10s or more: workers ask for that much";
                    Finding::error(GROUP, "timeouts", text, fix)
                } else {
                    Finding::ok(GROUP, "timeouts", text)
                }
            }));
            findings.extend(number("group.min.session.timeout.ms").filter(|least| *least > SESSION).map(|least| {
                let text = format!("group.min.session.timeout.ms is {}", text_of(least));
                let fix = format!("start the coordinators with `--session-timeout {}`", text_of(least));
                Finding::warning(GROUP, "timeouts", text, fix)
            }));
        }
        Err(why) => findings.push(Finding::warning(
            GROUP,
            "timeouts",
            format!("the brokers' settings cannot be read: {why}"),
            "see that transaction.max.timeout.ms is 10 s at least, or give the right to describe the cluster's configuration",
        )),
    }
    findings.push(clock(job, facts));
    let (shards, interval) = (i64::from(job.core.shards), job.state.commit_interval.millis().max(1));
    let rate = shards.saturating_mul(1_000) / interval;
    let text = format!(
        "{shards} shards that commit every {} make up to {rate} transactions a second",
        text_of(interval)
    );
    findings.push(if rate > TRANSACTIONS {
        Finding::warning(GROUP, "commits", text, "fewer state.shards, or a longer state.commit_interval")
    } else {
        Finding::ok(GROUP, "commits", text)
    });
}

fn clock(job: &Job, facts: &Facts) -> Finding {
    const FIX: &str = "synchronise the clocks (NTP) of brokers and of the machines that run ingest";
    let times = match &facts.clocks {
        Ok(times) => times,
        Err(why) => {
            let text = format!("the brokers' clocks could not be compared with this machine's: {why}");
            return Finding::warning("cluster", "clock", text, FIX);
        }
    };
    let worst =
        times.iter().map(tidegate_kafka::AppendTime::ahead_ms).max_by_key(|ahead| ahead.abs()).unwrap_or(0);
    let within = times.iter().map(|time| time.answered_ms.saturating_sub(time.sent_ms)).max().unwrap_or(0);
    let side = if worst > 0 { "ahead of" } else { "behind" };
    let text = if worst == 0 {
        format!("the brokers' clocks agree with this machine's within {within} ms")
    } else {
        format!("a broker's clock is {} {side} this machine's", text_of(worst.saturating_abs()))
    };
    let skew = job.core.watermark.max_future_skew.map(|skew| skew.millis());
    if skew.is_some_and(|skew| worst.saturating_abs() > skew) {
        return Finding::error(
            "cluster",
            "clock",
            format!("{text}: more than watermark.max_future_skew"),
            FIX,
        );
    }
    if worst.saturating_abs() > OFF {
        Finding::warning("cluster", "clock", text, FIX)
    } else {
        Finding::ok("cluster", "clock", text)
    }
}

/// What was tried.
pub(super) fn attempts(facts: &Facts, findings: &mut Vec<Finding>) {
    const GROUP: &str = "rights, each tried";
    for attempt in &facts.attempts {
        findings.push(match &attempt.outcome {
            Ok(()) => Finding::ok(GROUP, attempt.name, attempt.what.clone()),
            Err(why) => Finding {
                level: Level::Error,
                fix: Some(attempt.fix.clone()),
                ..Finding::ok(GROUP, attempt.name, format!("{}: {why}", attempt.what))
            },
        });
    }
}
