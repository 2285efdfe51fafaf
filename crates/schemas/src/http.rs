//! One question to a server over HTTP/1.1, without TLS: a connection each, since schemas are asked for once.

use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Request,
    client::conn::http1,
    header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How large an answer may be.
const MOST_BYTES: usize = 8 << 20;

/// Where a server is, and as whom it is asked.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// Host and port.
    authority: String,
    /// What all paths begin with.
    prefix: String,
    authorization: Option<HeaderValue>,
}

/// What a server said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

impl Server {
    /// `url` begins with `http://`, as the job file requires.
    pub(crate) fn new(url: &str, user: Option<(&str, &str)>) -> Self {
        let rest = url.strip_prefix("http://").unwrap_or(url);
        let (authority, prefix) = match rest.split_once('/') {
            Some((authority, path)) => (authority, format!("/{}", path.trim_end_matches('/'))),
            None => (rest, String::new()),
        };
        let authorization = user.and_then(|(name, password)| {
            let both = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}"));
            let mut value = HeaderValue::try_from(format!("Basic {both}")).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let authority = if has_port { authority.to_owned() } else { format!("{authority}:80") };
        Self { authority, prefix, authorization }
    }

    /// Asks for `path`; the error says why there is no answer.
    pub(crate) async fn get(&self, path: &str) -> Result<Answer, String> {
        match tokio::time::timeout(PATIENCE, self.ask(path)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        }
    }

    async fn ask(&self, path: &str) -> Result<Answer, String> {
        let stream = TcpStream::connect(&self.authority).await.map_err(|error| error.to_string())?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let mut request = Request::get(format!("{}{path}", self.prefix))
            .header(HOST, &self.authority)
            .header(ACCEPT, "application/vnd.schemaregistry.v1+json, application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
        let exchange = async move {
            let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), MOST_BYTES);
            let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
            Ok(Answer { status, body })
        };
        // The connection is driven until the exchange, and with it the sender, is over.
        let (answer, _) = tokio::join!(exchange, connection);
        answer
    }
}
