//! A schema registry that holds what a test puts into it, over HTTP in the test's own process.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Result;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::{Pem, https};

/// A registry; it goes on until the process ends.
#[derive(Clone, Debug)]
pub struct SchemaRegistry {
    scheme: &'static str,
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    answers: BTreeMap<String, Value>,
    /// What a request has to be authorized with.
    authorization: Option<String>,
    /// Connections are closed without an answer.
    down: bool,
    requests: Vec<String>,
}

impl SchemaRegistry {
    /// Starts an empty registry on a free port.
    pub fn start() -> Result<Self> {
        Self::start_with(None)
    }

    /// The same over TLS.
    pub fn start_secured(pem: &Pem) -> Result<Self> {
        Self::start_with(Some(https::config(pem)?))
    }

    fn start_with(tls: Option<Arc<ServerConfig>>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let registry = Self { scheme, address: listener.local_addr()?, state: Arc::default() };
        let state = Arc::clone(&registry.state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away in between is none of the test's affair.
                let _ = match &tls {
                    None => serve(stream, &state),
                    Some(config) => ServerConnection::new(Arc::clone(config))
                        .map_err(anyhow::Error::from)
                        .and_then(|connection| serve(StreamOwned::new(connection, stream), &state)),
                };
            }
        });
        Ok(registry)
    }

    /// Where it is, as a job file has it.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Puts a schema under an id; `references` are name, subject and version.
    pub fn put(&self, id: u32, kind: &str, text: &str, references: &[(&str, &str, u32)]) {
        self.answer(&format!("/schemas/ids/{id}"), entry(kind, text, references));
    }

    /// Puts a schema under a subject, for others to refer to.
    pub fn put_subject(
        &self,
        subject: &str,
        version: u32,
        kind: &str,
        text: &str,
        references: &[(&str, &str, u32)],
    ) {
        self.answer(&format!("/subjects/{subject}/versions/{version}"), entry(kind, text, references));
    }

    /// Gives an answer to a path.
    pub fn answer(&self, path: &str, answer: Value) {
        self.with(|state| state.answers.insert(path.to_owned(), answer));
    }

    /// From now on it closes connections without an answer, or not.
    pub fn set_down(&self, down: bool) {
        self.with(|state| state.down = down);
    }

    /// From now on it refuses requests without this header.
    pub fn require(&self, authorization: &str) {
        self.with(|state| state.authorization = Some(authorization.to_owned()));
    }

    /// The paths that were asked for, those without an answer too.
    pub fn requests(&self) -> Vec<String> {
        self.with(|state| state.requests.clone())
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn entry(kind: &str, text: &str, references: &[(&str, &str, u32)]) -> Value {
    let references: Vec<_> = references
        .iter()
        .map(|(name, subject, version)| json!({"name": name, "subject": subject, "version": version}))
        .collect();
    // Of Avro, registries say nothing.
    match kind {
        "AVRO" => json!({"schema": text, "references": references}),
        kind => json!({"schemaType": kind, "schema": text, "references": references}),
    }
}

fn serve(stream: impl Read + Write, state: &Mutex<State>) -> Result<()> {
    let mut stream = BufReader::new(stream);
    let mut lines = stream.by_ref().lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut authorization = None;
    for line in lines {
        let line = line?;
        match line.split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                authorization = Some(value.to_owned());
            }
            Some(_) => {}
            None => break,
        }
    }
    let (status, body) = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.requests.push(path.clone());
        if state.down {
            return Ok(());
        }
        if state.authorization.is_some() && state.authorization != authorization {
            (401, json!({"error_code": 401, "message": "Unauthorized"}))
        } else {
            match state.answers.get(&path) {
                Some(answer) => (200, answer.clone()),
                None => (404, json!({"error_code": 40403, "message": "Schema not found"})),
            }
        }
    };
    let body = body.to_string();
    write!(
        stream.get_mut(),
        "HTTP/1.1 {status} Something\r\nContent-Type: application/vnd.schemaregistry.v1+json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    Ok(())
}
