//! Certificates for tests: an authority, and what it signs, as PEM files.

#![allow(clippy::unwrap_used, reason = "a test that cannot make its certificates has failed")]

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};

/// An authority.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// The files of a process: `--tls-cert`, `--tls-key`, `--tls-ca`.
#[derive(Clone, Debug)]
pub struct Pem {
    /// Its certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Its authority's certificate.
    pub ca: PathBuf,
}

impl Authority {
    /// One that nobody knows yet.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    /// Writes the files of a process at `address` into a folder, over those that are there.
    pub fn issue(&self, folder: &Path, address: IpAddr) -> Pem {
        self.issue_until(folder, address, 2100)
    }

    /// The same with a certificate that ends in `year`.
    pub fn issue_until(&self, folder: &Path, address: IpAddr, year: i32) -> Pem {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "test");
        params.subject_alt_names = vec![SanType::IpAddress(address)];
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        fs::create_dir_all(folder).unwrap();
        let files =
            Pem { cert: folder.join("tls.crt"), key: folder.join("tls.key"), ca: folder.join("ca.crt") };
        fs::write(&files.key, key.serialize_pem()).unwrap();
        fs::write(&files.cert, cert.pem()).unwrap();
        fs::write(&files.ca, self.issuer.pem()).unwrap();
        files
    }
}

impl Pem {
    /// The flags that name them.
    pub fn arguments(&self) -> [String; 6] {
        let text = |path: &Path| path.display().to_string();
        [
            "--tls-cert".to_owned(),
            text(&self.cert),
            "--tls-key".to_owned(),
            text(&self.key),
            "--tls-ca".to_owned(),
            text(&self.ca),
        ]
    }
}
