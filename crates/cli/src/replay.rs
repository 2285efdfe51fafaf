//! `tidegate replay JOB`: dead letters go back to the windows that they missed.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use tidegate_core::dead_letter::Reason;
use tidegate_proto::v1;
use tidegate_runtime::tls;

use crate::{
    moment,
    status::{StatusClient, replay_line},
};

/// How often a replay that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Replays dead letters.
#[derive(Args, Debug)]
pub(crate) struct ReplayArgs {
    /// Name of the job
    job: String,
    /// Addresses of the coordinators, separated by commas
    #[arg(long, value_name = "ADDRESSES", default_value = "127.0.0.1:7400", value_delimiter = ',')]
    coordinator: Vec<String>,
    #[command(flatten)]
    tls: tls::Flags,
    /// Only dead letters with these reasons, separated by commas [default: all]
    #[arg(long, value_name = "REASONS", value_delimiter = ',', value_parser = reason)]
    reason: Vec<Reason>,
    /// Only those at this event time or later, as the job reads it now: ms, or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = moment::parse, allow_negative_numbers = true)]
    since: Option<i64>,
    /// Only those before this event time
    #[arg(long, value_name = "TIME", value_parser = moment::parse, allow_negative_numbers = true)]
    until: Option<i64>,
    /// Only those of this group key, as the job reads it now
    #[arg(long)]
    key: Option<String>,
    /// Only count what would be replayed
    #[arg(long)]
    dry_run: bool,
    /// Wait until it has ended, and say what became of the dead letters
    #[arg(long)]
    wait: bool,
    /// Take back the replay of this number
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["reason", "since", "until", "key", "dry_run"])]
    cancel: Option<u64>,
}

fn reason(text: &str) -> Result<Reason, String> {
    Reason::from_name(text).ok_or_else(|| {
        let names: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        format!("there is no reason `{text}`; the reasons are {}", names.join(", "))
    })
}

/// Runs `tidegate replay`; false when the replay that was waited for was cancelled.
///
/// # Errors
/// When no coordinator leads, or the one that does refuses.
pub(crate) async fn run(args: ReplayArgs) -> Result<bool> {
    let mut coordinators = StatusClient::new(&args.coordinator, &args.tls)?;
    let number = match args.cancel {
        Some(number) => {
            let request = v1::CancelReplayRequest { job: args.job.clone(), number };
            coordinators.ask(async |client| client.cancel_replay(request.clone()).await).await?.number
        }
        None => {
            let request = request(&args);
            coordinators.ask(async |client| client.replay(request.clone()).await).await?.number
        }
    };
    let what = if args.dry_run { " (dry run)" } else { "" };
    match args.cancel {
        Some(_) => println!("replay {number} of job {} is cancelled, or had ended", args.job),
        None => println!("replay {number} of job {}{what}", args.job),
    }
    // A dry run is asked for its counts.
    if !args.wait && !args.dry_run {
        return Ok(true);
    }
    loop {
        let status = coordinators.ask(async |client| client.status(v1::StatusRequest {}).await).await?;
        let Some(replay) = status.replays.iter().find(|replay| replay.number == number) else {
            bail!("replay {number} has ended, and its record has been forgotten");
        };
        if replay.ended_ms.is_some() {
            println!("{}", replay_line(replay));
            return Ok(replay.state == "done");
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn request(args: &ReplayArgs) -> v1::ReplayRequest {
    v1::ReplayRequest {
        job: args.job.clone(),
        token: rand::random(),
        filter: Some(v1::ReplayFilter {
            reasons: args.reason.iter().map(|reason| reason.as_str().to_owned()).collect(),
            since_ms: args.since,
            until_ms: args.until,
            key: args.key.as_ref().map(|key| key.as_bytes().to_vec().into()),
        }),
        dry_run: args.dry_run,
    }
}
