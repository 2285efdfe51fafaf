//! An identity provider in the test's own process: a token endpoint over HTTPS, for the grant client_credentials, and the keys by
//! which brokers verify what it gives.

#![allow(clippy::unwrap_used, reason = "a test that cannot make its tokens has failed")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Pem, https};

/// An identity provider; it goes on until the process ends.
#[derive(Clone, Debug)]
pub struct IdentityProvider {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    folder: Arc<TempDir>,
}

#[derive(Debug)]
struct State {
    client: (String, String),
    issuer: String,
    lifetime: Duration,
    /// Connections are closed without an answer.
    down: bool,
    /// What is answered in place of tokens.
    answer: Option<(u16, String)>,
    requests: Vec<String>,
    given: usize,
}

impl IdentityProvider {
    /// Who has given a token that brokers take.
    pub const ISSUER: &str = "https://login.example";
    /// For whom it is.
    pub const AUDIENCE: &str = "kafka";

    /// One on a free port that gives tokens, each good for a minute, to a client with this id and secret.
    pub fn start(pem: &Pem, id: &str, secret: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        // 4, then both coordinates.
        let point = key.public_key().as_ref();
        let keys = json!({"keys": [{
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "test",
            "x": BASE64_URL_SAFE_NO_PAD.encode(&point[1..33]), "y": BASE64_URL_SAFE_NO_PAD.encode(&point[33..65]),
        }]});
        std::fs::write(folder.path().join("keys.json"), keys.to_string())?;

        let (config, key) = (https::config(pem)?, Arc::new(key));
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let state = State {
            client: (id.to_owned(), secret.to_owned()),
            issuer: Self::ISSUER.to_owned(),
            lifetime: Duration::from_secs(60),
            down: false,
            answer: None,
            requests: Vec::new(),
            given: 0,
        };
        let state = Arc::new(Mutex::new(state));
        let provider =
            Self { address: listener.local_addr()?, state: Arc::clone(&state), folder: Arc::new(folder) };
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, key, state) = (Arc::clone(&config), Arc::clone(&key), Arc::clone(&state));
                // A client that goes away in between is none of the test's affair.
                thread::spawn(move || serve(stream, config, &key, &state));
            }
        });
        Ok(provider)
    }

    /// The token endpoint.
    pub fn endpoint(&self) -> String {
        format!("https://{}/token", self.address)
    }

    /// A file with the public keys.
    pub fn keys_url(&self) -> String {
        format!("file://{}", self.folder.path().join("keys.json").display())
    }

    /// For how long the tokens are good that are given from now on.
    pub fn set_lifetime(&self, lifetime: Duration) {
        self.state().lifetime = lifetime;
    }

    /// Who has given the tokens from now on, as they say.
    pub fn set_issuer(&self, issuer: &str) {
        self.state().issuer = issuer.to_owned();
    }

    /// From now on it closes connections without an answer, or not.
    pub fn set_down(&self, down: bool) {
        self.state().down = down;
    }

    /// From now on it answers this, whoever asks; with `None`, tokens again.
    pub fn answer(&self, answer: Option<(u16, &str)>) {
        self.state().answer = answer.map(|(status, body)| (status, body.to_owned()));
    }

    /// The bodies of the requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.state().requests.clone()
    }

    /// How many tokens it has given.
    pub fn given(&self) -> usize {
        self.state().given
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    key: &EcdsaKeyPair,
    state: &Mutex<State>,
) -> Result<()> {
    if lock(state).down {
        return Ok(());
    }
    let mut stream = BufReader::new(StreamOwned::new(ServerConnection::new(config)?, stream));
    let (mut authorization, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            if line.trim_end().is_empty() {
                break;
            }
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => authorization = Some(value.to_owned()),
            "content-length" => length = value.parse()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let (status, answer) = answer(authorization.as_deref(), String::from_utf8(body)?, key, &mut lock(state))?;
    write!(
        stream.get_mut(),
        "HTTP/1.1 {status} Something\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}",
        answer.len()
    )?;
    Ok(())
}

fn answer(
    authorization: Option<&str>,
    body: String,
    key: &EcdsaKeyPair,
    state: &mut State,
) -> Result<(u16, String)> {
    let asks = body.contains("grant_type=client_credentials");
    state.requests.push(body);
    if let Some((status, body)) = &state.answer {
        return Ok((*status, body.clone()));
    }
    let (id, secret) = &state.client;
    let right = format!("Basic {}", BASE64_STANDARD.encode(format!("{id}:{secret}")));
    if authorization != Some(&right) {
        return Ok((401, json!({"error": "invalid_client"}).to_string()));
    }
    if !asks {
        return Ok((400, json!({"error": "unsupported_grant_type"}).to_string()));
    }
    state.given += 1;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let until = now + state.lifetime.as_secs();
    let claims = json!({
        "iss": state.issuer, "aud": IdentityProvider::AUDIENCE, "sub": id, "iat": now, "exp": until,
    });
    let token = sign(key, &claims)?;
    Ok((200, json!({"access_token": token, "token_type": "Bearer"}).to_string()))
}

fn sign(key: &EcdsaKeyPair, claims: &Value) -> Result<String> {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(&json!({"alg": "ES256", "typ": "JWT", "kid": "test"})), part(claims));
    let signature = key.sign(&SystemRandom::new(), text.as_bytes()).ok().context("sign a token")?;
    Ok(format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
}
