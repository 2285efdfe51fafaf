//! Mutual TLS between the services: who we are and whom we believe, from three PEM files that are read again when they change.
//!
//! Both ends show a certificate and verify that of the other, by TLS 1.3; whoever the CA has signed is a peer. Give a job a CA of
//! its own. The server's certificate also has to name the host, or the IP address, at which it is reached.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde::Serialize;

/// What gRPC is called in a handshake.
const ALPN: &[u8] = b"h2";

/// The flags of whatever speaks gRPC.
#[derive(Clone, Debug, Default, Serialize, clap::Args)]
pub struct Flags {
    /// Certificate of this process with its chain (PEM), to speak mutual TLS with its peers [default: plain text]
    #[arg(long, value_name = "FILE", env = "TIDEGATE_TLS_CERT", requires = "tls_key", requires = "tls_ca")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of `--tls-cert` (PEM)
    #[arg(long, value_name = "FILE", env = "TIDEGATE_TLS_KEY", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Certificates of the authorities whose certificates peers may have (PEM)
    #[arg(long, value_name = "FILE", env = "TIDEGATE_TLS_CA", requires = "tls_cert")]
    pub tls_ca: Option<PathBuf>,
}

impl Flags {
    /// Reads the files; `None` where there are no flags.
    ///
    /// # Errors
    /// [`Error`]
    pub fn load(&self) -> Result<Option<Tls>, Error> {
        let (Some(cert), Some(key), Some(ca)) = (&self.tls_cert, &self.tls_key, &self.tls_ca) else {
            return Ok(None);
        };
        Tls::load(Files { cert: cert.clone(), key: key.clone(), ca: ca.clone() }).map(Some)
    }

    /// The flags again, for a process that is to have the same.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let flags =
            [("--tls-cert", &self.tls_cert), ("--tls-key", &self.tls_key), ("--tls-ca", &self.tls_ca)];
        let given = flags.into_iter().filter_map(|(flag, path)| Some((flag, path.as_ref()?)));
        given.flat_map(|(flag, path)| [flag.to_owned(), path.display().to_string()]).collect()
    }
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {}: {source}; give a PEM file (`{flag}`)", .path.display())]
    Unreadable {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} holds no {what}: {reason}; give a PEM file with one (`{flag}`)", .path.display())]
    Content {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// Why it does not.
        reason: String,
    },
    /// Each file reads, but they do not belong together.
    #[error(
        "the certificate {} and the key {} cannot be used together: {reason} (`--tls-cert`, `--tls-key`)",
        .cert.display(), .key.display()
    )]
    Together {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why not.
        reason: String,
    },
}

/// Where certificates come from.
#[derive(Clone, Debug)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
    ca: PathBuf,
}

/// The contents of the files.
#[derive(PartialEq, Eq)]
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    ca: Vec<u8>,
}

/// Certificates in use; clones are the same ones.
#[derive(Clone)]
pub struct Tls {
    files: Arc<Files>,
    current: Arc<Mutex<Loaded>>,
}

struct Loaded {
    contents: Contents,
    /// The last contents that could not be used: said once, not with each connection.
    refused: Option<String>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.files).finish()
    }
}

impl Tls {
    fn load(files: Files) -> Result<Self, Error> {
        let loaded = Loaded::of(&files, files.read()?)?;
        Ok(Self { files: Arc::new(files), current: Arc::new(Mutex::new(loaded)) })
    }

    /// How to take a connection, by the files as they are now.
    #[must_use]
    pub fn server(&self) -> Arc<ServerConfig> {
        self.fresh(|loaded| Arc::clone(&loaded.server))
    }

    /// How to open a connection, by the files as they are now.
    #[must_use]
    pub fn client(&self) -> Arc<ClientConfig> {
        self.fresh(|loaded| Arc::clone(&loaded.client))
    }

    /// Reads the files again. Those that cannot be used, such as a new certificate whose key is not there yet, change nothing.
    fn fresh<T>(&self, take: impl FnOnce(&Loaded) -> T) -> T {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = match self.files.read() {
            Ok(contents) if contents == current.contents => None,
            Ok(contents) => Some(Loaded::of(&self.files, contents)),
            Err(error) => Some(Err(error)),
        };
        match changed {
            None => current.refused = None,
            Some(Ok(loaded)) => {
                tracing::info!(certificate = %self.files.cert.display(), "the certificates have changed: new connections use the new ones");
                *current = loaded;
            }
            Some(Err(error)) => {
                let error = error.to_string();
                if current.refused.as_ref() != Some(&error) {
                    tracing::warn!(
                        error,
                        "the certificates have changed and cannot be used: going on with the former ones"
                    );
                    current.refused = Some(error);
                }
            }
        }
        take(&current)
    }
}

impl Files {
    fn read(&self) -> Result<Contents, Error> {
        let read = |flag, path: &Path| {
            std::fs::read(path).map_err(|source| Error::Unreadable { flag, path: path.to_owned(), source })
        };
        Ok(Contents {
            cert: read("--tls-cert", &self.cert)?,
            key: read("--tls-key", &self.key)?,
            ca: read("--tls-ca", &self.ca)?,
        })
    }
}

impl Loaded {
    fn of(files: &Files, contents: Contents) -> Result<Self, Error> {
        let chain = certificates("--tls-cert", &files.cert, &contents.cert)?;
        let key = PrivateKeyDer::from_pem_slice(&contents.key)
            .map_err(|error| content("--tls-key", &files.key, "private key", pem_reason(&error)))?;
        let mut roots = RootCertStore::empty();
        for authority in certificates("--tls-ca", &files.ca, &contents.ca)? {
            roots
                .add(authority)
                .map_err(|error| content("--tls-ca", &files.ca, "certificate", error.to_string()))?;
        }
        let provider = Arc::new(ring::default_provider());
        let (server, client) = configs(&provider, roots, chain, key).map_err(|error| Error::Together {
            cert: files.cert.clone(),
            key: files.key.clone(),
            reason: error.to_string(),
        })?;
        Ok(Self { contents, refused: None, server: Arc::new(server), client: Arc::new(client) })
    }
}

fn configs(
    provider: &Arc<CryptoProvider>,
    roots: RootCertStore,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<(ServerConfig, ClientConfig), rustls::Error> {
    let roots = Arc::new(roots);
    let unusable = |error: rustls::server::VerifierBuilderError| rustls::Error::General(error.to_string());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider));
    let servers = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider));
    let mut server = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(clients.build().map_err(unusable)?)
        .with_single_cert(chain.clone(), key.clone_key())?;
    server.alpn_protocols = vec![ALPN.to_vec()];
    // Each connection is verified anew: a certificate that has run out opens no further one.
    server.send_tls13_tickets = 0;
    let mut client = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_webpki_verifier(servers.build().map_err(unusable)?)
        .with_client_auth_cert(chain, key)?;
    client.alpn_protocols = vec![ALPN.to_vec()];
    Ok((server, client))
}

fn certificates(flag: &'static str, path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| content(flag, path, "certificate", pem_reason(&error)))?;
    if found.is_empty() {
        return Err(content(flag, path, "certificate", "there is no CERTIFICATE section in it".to_owned()));
    }
    Ok(found)
}

fn content(flag: &'static str, path: &Path, what: &'static str, reason: String) -> Error {
    Error::Content { flag, path: path.to_owned(), what, reason }
}

/// Without the text of the file, which may be a key.
fn pem_reason(error: &pem::Error) -> String {
    match error {
        pem::Error::NoItemsFound => "there is no such section in it".to_owned(),
        pem::Error::MissingSectionEnd { .. } => "a section has no end".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "a section begins wrongly".to_owned(),
        _ => "it is not valid PEM".to_owned(),
    }
}
