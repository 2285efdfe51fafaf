//! One question to a server over HTTP/1.1, perhaps with TLS: a connection each, since schemas are asked for once.

use std::{fmt, io, path::Path, sync::Arc, time::Duration};

use base64::Engine;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Request,
    client::conn::http1,
    header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::error::Error;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How large an answer may be.
const MOST_BYTES: usize = 8 << 20;

/// Where a server is, and as whom it is asked.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// Host and port.
    authority: String,
    tls: Option<Tls>,
    /// What all paths begin with.
    prefix: String,
    authorization: Option<HeaderValue>,
}

/// How a server has to show who it is.
#[derive(Clone)]
struct Tls {
    connector: TlsConnector,
    /// As its certificate has to say.
    name: ServerName<'static>,
}

/// What a server said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

impl Server {
    /// `url` begins with `http://` or `https://`, as the job file requires.
    pub(crate) fn new(url: &str, user: Option<(&str, &str)>, ca: Option<&Path>) -> Result<Self, Error> {
        let (secure, rest) = match url.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, url.strip_prefix("http://").unwrap_or(url)),
        };
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
        let port = if secure { 443 } else { 80 };
        let authority = if has_port { authority.to_owned() } else { format!("{authority}:{port}") };
        let tls = if secure { Some(Tls::to(&authority, ca)?) } else { None };
        Ok(Self { authority, tls, prefix, authorization })
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
        match &self.tls {
            None => self.exchange(stream, path).await,
            Some(Tls { connector, name }) => {
                let secured = connector.connect(name.clone(), stream).await;
                self.exchange(secured.map_err(|error| error.to_string())?, path).await
            }
        }
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        path: &str,
    ) -> Result<Answer, String> {
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

impl Tls {
    /// A server at `authority`, whose certificate comes from an authority in the file `ca`, or from one that the system knows.
    fn to(authority: &str, ca: Option<&Path>) -> Result<Self, Error> {
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Error::Authorities(format!("`{host}` is no name that a certificate can have")))?;
        let mut roots = RootCertStore::empty();
        let known = match ca {
            Some(path) => read(path)?,
            None => rustls_native_certs::load_native_certs().certs,
        };
        let (taken, _) = roots.add_parsable_certificates(known);
        if taken == 0 {
            let place = ca.map_or_else(|| "the system".to_owned(), |path| path.display().to_string());
            return Err(Error::Authorities(format!(
                "{place} has no certificate of an authority that the registry's could come from; name a file with one (`ca_file`)"
            )));
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Authorities(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.name).finish()
    }
}

fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let unreadable = |cause| Error::File { path: path.display().to_string(), cause };
    let text = std::fs::read(path).map_err(unreadable)?;
    CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| unreadable(io::Error::other(error)))
}
