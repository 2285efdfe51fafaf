//! `tidegate query KEY`: the open windows of a key, with their values as they are now.

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Map, Value, json};
use tidegate_runtime::tls;

use crate::inspect::{inspect, shard_of};
use crate::moment::moment;
use crate::status::StatusClient;

/// Shows the open windows of a group key with their present values.
#[derive(Args, Debug)]
pub(crate) struct QueryArgs {
    /// The group key
    key: String,
    /// Addresses of the coordinators, separated by commas
    #[arg(long, value_name = "ADDRESSES", default_value = "127.0.0.1:7400", value_delimiter = ',')]
    coordinator: Vec<String>,
    #[command(flatten)]
    tls: tls::Flags,
    /// Print a JSON object a window, as in the result topic
    #[arg(long)]
    json: bool,
}

/// Runs `tidegate query`; false when the key has no records in any window.
///
/// # Errors
/// When no coordinator leads, or the key's shard cannot be asked.
pub(crate) async fn run(args: QueryArgs) -> Result<bool> {
    let status = StatusClient::new(&args.coordinator, &args.tls)?
        .get()
        .await
        .context("the job does not run here, or --coordinator is wrong")?;
    let key = args.key.as_bytes();
    let shard = shard_of(&status, key)?;
    let answer = match inspect(&status, &args.tls, shard, Some(key), None).await? {
        Ok(answer) => answer,
        Err(why) => bail!("{why}"),
    };
    if !answer.committed {
        eprintln!("the commits of shard {shard} stall: these values are not committed");
    }
    for window in &answer.windows {
        let values = window.values.iter().map(|text| serde_json::from_str(text).unwrap_or(Value::Null));
        let values: Map<String, Value> = answer.aggregates.iter().cloned().zip(values).collect();
        let state = if window.closed { "closed" } else { "open" };
        if args.json {
            let mut line = Map::new();
            line.insert("key".to_owned(), json!(args.key));
            line.insert("window_start".to_owned(), json!(window.start_ms));
            line.insert("window_end".to_owned(), json!(window.end_ms));
            line.insert("state".to_owned(), json!(state));
            line.insert("records".to_owned(), json!(window.records));
            line.extend(values);
            println!("{}", Value::Object(line));
        } else {
            let values: Vec<_> = values.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let (start, end) = (moment(window.start_ms), moment(window.end_ms));
            println!("{start} to {end}  {state}  {}", values.join(" "));
        }
    }
    let shown = answer.windows.len() as u64;
    if answer.windows_total > shown {
        eprintln!("… and {} more windows", answer.windows_total - shown);
    }
    if answer.windows_total == 0 {
        eprintln!("shard {shard} of worker `{}` holds no record of key `{}`", answer.worker, args.key);
    }
    Ok(answer.windows_total > 0)
}
