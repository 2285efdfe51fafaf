//! Servers of the tests that speak TLS to clients without certificates.

use std::sync::Arc;

use anyhow::Result;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::Pem;

/// A server that shows the certificate in these files.
pub(crate) fn config(pem: &Pem) -> Result<Arc<ServerConfig>> {
    let chain = CertificateDer::pem_file_iter(&pem.cert)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(&pem.key)?;
    Ok(Arc::new(ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?))
}
