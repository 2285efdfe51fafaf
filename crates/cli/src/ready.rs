//! `tidegate ready`: the health check of a container that has no shell and no curl.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// How long a service may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks `/readyz` at `address` and prints the answer; true where the service is ready.
///
/// # Errors
/// When nothing answers there, or something else does.
pub(crate) async fn run(address: &str) -> Result<bool> {
    let answer = tokio::time::timeout(PATIENCE, ask(address, "/readyz"));
    let answer = answer.await.with_context(|| format!("{address} does not answer"))??;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).unwrap_or_default();
    print!("{body}");
    match status {
        "200" => Ok(true),
        "503" => Ok(false),
        _ => bail!(
            "{address} answers `{}`: is that the --metrics of a service?",
            head.lines().next().unwrap_or("")
        ),
    }
}

/// What `address` answers where it is asked for `path`, head and body. HTTP 1.0: the connection ends with the answer.
pub(crate) async fn ask(address: &str, path: &str) -> Result<String> {
    let connected = TcpStream::connect(address).await;
    let mut stream = connected.with_context(|| format!("cannot connect to {address}"))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
