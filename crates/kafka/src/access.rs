//! How a cluster is got into: TLS and SASL, the same flags for all that speaks to Kafka.
//!
//! A password is read from a file or from the environment: on a command line everyone on the machine could read it. Nothing here
//! shows one: neither `Debug`, nor `--print-config`, nor an error.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::config::KafkaConfig;
use crate::error::{Error, Result};

/// Where the password is, where no file is named.
const PASSWORD: &str = "TIDEGATE_KAFKA_SASL_PASSWORD";
/// Where the secret for the token endpoint is, where no file is named.
const CLIENT_SECRET: &str = "TIDEGATE_KAFKA_OAUTH_CLIENT_SECRET";

/// The flags.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, clap::Args)]
pub struct Access {
    /// Properties of librdkafka, `name=value` a line (`sasl.password`, `ssl.certificate.location`, …); flags win over it
    #[arg(long, value_name = "FILE", env = "TIDEGATE_KAFKA_CONFIG")]
    pub kafka_config: Option<PathBuf>,
    /// How to speak to the brokers [default: plaintext, or what --kafka-config says]
    #[arg(long, value_name = "PROTOCOL", value_enum)]
    pub kafka_security_protocol: Option<Protocol>,
    /// Certificates of the authorities that brokers' certificates may come from (PEM) [default: the system's]
    #[arg(long, value_name = "FILE")]
    pub kafka_tls_ca: Option<PathBuf>,
    /// How to show who we are
    #[arg(long, value_name = "MECHANISM", value_enum)]
    pub kafka_sasl_mechanism: Option<Mechanism>,
    /// Who we are
    #[arg(long, value_name = "NAME")]
    pub kafka_sasl_username: Option<String>,
    /// File with the password [default: the environment variable TIDEGATE_KAFKA_SASL_PASSWORD]
    #[arg(long, value_name = "FILE")]
    pub kafka_sasl_password_file: Option<PathBuf>,
    /// Where an identity provider gives tokens, for OAUTHBEARER (the grant is client_credentials)
    #[arg(long, value_name = "URL")]
    pub kafka_oauth_endpoint: Option<String>,
    /// Who we are to the identity provider
    #[arg(long, value_name = "ID")]
    pub kafka_oauth_client_id: Option<String>,
    /// File with the secret that goes with it [default: the environment variable TIDEGATE_KAFKA_OAUTH_CLIENT_SECRET]
    #[arg(long, value_name = "FILE")]
    pub kafka_oauth_client_secret_file: Option<PathBuf>,
    /// What the tokens are to be good for, as the identity provider names it
    #[arg(long, value_name = "SCOPE")]
    pub kafka_oauth_scope: Option<String>,
    /// Certificates of the authorities that the identity provider's certificate may come from (PEM) [default: the system's]
    #[arg(long, value_name = "FILE")]
    pub kafka_oauth_ca: Option<PathBuf>,
}

/// What is not on the command line because others could read it there, from the environment.
#[derive(Default)]
struct Secrets {
    password: Option<String>,
    client_secret: Option<String>,
}

/// How to speak to the brokers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Neither TLS nor SASL.
    Plaintext,
    /// TLS.
    Ssl,
    /// SASL in plain text.
    SaslPlaintext,
    /// SASL over TLS.
    SaslSsl,
}

/// How to show who we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[allow(clippy::upper_case_acronyms, reason = "the names of SASL")]
pub enum Mechanism {
    /// The password as it is: over TLS only.
    #[value(name = "PLAIN")]
    #[serde(rename = "PLAIN")]
    Plain,
    /// A proof that the password is known.
    #[value(name = "SCRAM-SHA-256")]
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// The same with a longer hash.
    #[value(name = "SCRAM-SHA-512")]
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
    /// A token of an identity provider.
    #[value(name = "OAUTHBEARER")]
    #[serde(rename = "OAUTHBEARER")]
    OAuthBearer,
}

impl Protocol {
    const fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }
}

impl Mechanism {
    const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::OAuthBearer => "OAUTHBEARER",
        }
    }
}

impl Access {
    /// The way to the cluster at `brokers`.
    ///
    /// # Errors
    ///
    /// [`Error::Access`]: a file that cannot be read, or flags that do not go together.
    pub fn config(&self, brokers: &str, client_id: impl Into<String>) -> Result<KafkaConfig> {
        let secrets = Secrets {
            password: std::env::var(PASSWORD).ok(),
            client_secret: std::env::var(CLIENT_SECRET).ok(),
        };
        let mut config = KafkaConfig::new(brokers, client_id);
        config.extra = self.properties(secrets)?;
        Ok(config)
    }

    /// The flags again, for a process that is to have the same.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let flags = [
            ("--kafka-config", path(&self.kafka_config)),
            ("--kafka-security-protocol", self.kafka_security_protocol.map(|it| it.name().to_owned())),
            ("--kafka-tls-ca", path(&self.kafka_tls_ca)),
            ("--kafka-sasl-mechanism", self.kafka_sasl_mechanism.map(|it| it.name().to_owned())),
            ("--kafka-sasl-username", self.kafka_sasl_username.clone()),
            ("--kafka-sasl-password-file", path(&self.kafka_sasl_password_file)),
            ("--kafka-oauth-endpoint", self.kafka_oauth_endpoint.clone()),
            ("--kafka-oauth-client-id", self.kafka_oauth_client_id.clone()),
            ("--kafka-oauth-client-secret-file", path(&self.kafka_oauth_client_secret_file)),
            ("--kafka-oauth-scope", self.kafka_oauth_scope.clone()),
            ("--kafka-oauth-ca", path(&self.kafka_oauth_ca)),
        ];
        let given = flags.into_iter().filter_map(|(flag, value)| Some((flag, value?)));
        given.flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
    }

    fn properties(&self, environment: Secrets) -> Result<BTreeMap<String, String>> {
        let mut properties = match &self.kafka_config {
            Some(path) => parse(path, &read("--kafka-config", path)?)?,
            None => BTreeMap::new(),
        };
        let mut set = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                properties.insert(key.to_owned(), value);
            }
        };
        set("security.protocol", self.kafka_security_protocol.map(|it| it.name().to_owned()));
        set("sasl.mechanism", self.kafka_sasl_mechanism.map(|it| it.name().to_owned()));
        set("sasl.username", self.kafka_sasl_username.clone());
        if let Some(path) = &self.kafka_tls_ca {
            // librdkafka would say only later, and less clearly, that it is not there.
            read("--kafka-tls-ca", path)?;
            set("ssl.ca.location", Some(path.display().to_string()));
        }
        let secret = |flag: &str, file: &Option<PathBuf>, environment| match file {
            Some(path) => Ok(Some(read(flag, path)?.trim_end_matches(['\r', '\n']).to_owned())),
            None => Ok::<_, Error>(environment),
        };
        let password = &self.kafka_sasl_password_file;
        set("sasl.password", secret("--kafka-sasl-password-file", password, environment.password)?);
        if let Some(endpoint) = &self.kafka_oauth_endpoint {
            set("sasl.oauthbearer.method", Some("oidc".to_owned()));
            set("sasl.oauthbearer.token.endpoint.url", Some(endpoint.clone()));
        }
        set("sasl.oauthbearer.client.id", self.kafka_oauth_client_id.clone());
        set("sasl.oauthbearer.scope", self.kafka_oauth_scope.clone());
        let client_secret = &self.kafka_oauth_client_secret_file;
        set(
            "sasl.oauthbearer.client.secret",
            secret("--kafka-oauth-client-secret-file", client_secret, environment.client_secret)?,
        );
        if let Some(path) = &self.kafka_oauth_ca {
            // Without it librdkafka would trust nobody, and not say why.
            read("--kafka-oauth-ca", path)?;
            set("https.ca.location", Some(path.display().to_string()));
        }
        consistent(&properties)?;
        Ok(properties)
    }
}

fn consistent(properties: &BTreeMap<String, String>) -> Result<()> {
    let get = |key: &str| properties.get(key).map(String::as_str).filter(|value| !value.is_empty());
    let mechanism = get("sasl.mechanism").or_else(|| get("sasl.mechanisms"));
    if get("sasl.oauthbearer.method") == Some("oidc") && mechanism != Some("OAUTHBEARER") {
        return Err(access("a token endpoint needs `--kafka-sasl-mechanism OAUTHBEARER`"));
    }
    let sasl = get("security.protocol").is_some_and(|it| it.to_ascii_lowercase().starts_with("sasl_"));
    match (sasl, mechanism) {
        (false, None) => Ok(()),
        (false, Some(mechanism)) => Err(access(format!(
            "the mechanism {mechanism} needs `--kafka-security-protocol sasl_ssl` (or sasl_plaintext)"
        ))),
        (true, None) => Err(access(
            "SASL needs a mechanism: `--kafka-sasl-mechanism SCRAM-SHA-512`, or `sasl.mechanism` in `--kafka-config`",
        )),
        (true, Some(mechanism)) if mechanism == "PLAIN" || mechanism.starts_with("SCRAM-") => {
            if get("sasl.username").is_none() {
                return Err(access(format!("{mechanism} needs a user: `--kafka-sasl-username`")));
            }
            if get("sasl.password").is_none() {
                return Err(access(format!(
                    "{mechanism} needs a password: `--kafka-sasl-password-file`, or the environment variable {PASSWORD}"
                )));
            }
            Ok(())
        }
        (true, Some("OAUTHBEARER")) => tokens(get),
        (true, Some(_)) => Ok(()),
    }
}

/// Whether it is said where the tokens come from. Grants other than client_credentials are looked at by librdkafka.
fn tokens<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Result<()> {
    let has = |keys: [&str; 2]| keys.into_iter().any(|key| get(key).is_some());
    if get("sasl.oauthbearer.method") != Some("oidc") {
        let unsigned = get("enable.sasl.oauthbearer.unsecure.jwt") == Some("true");
        return if unsigned {
            Ok(())
        } else {
            Err(access("OAUTHBEARER needs a place to get tokens from: `--kafka-oauth-endpoint`"))
        };
    }
    let by_secret = get("sasl.oauthbearer.grant.type").is_none_or(|grant| grant == "client_credentials")
        && get("sasl.oauthbearer.metadata.authentication.type").is_none_or(|kind| kind == "none");
    if !by_secret {
        return Ok(());
    }
    if get("sasl.oauthbearer.token.endpoint.url").is_none() {
        return Err(access("OAUTHBEARER needs a place to get tokens from: `--kafka-oauth-endpoint`"));
    }
    if !has(["sasl.oauthbearer.client.id", "sasl.oauthbearer.client.credentials.client.id"]) {
        return Err(access("the token endpoint has to know who asks: `--kafka-oauth-client-id`"));
    }
    if !has(["sasl.oauthbearer.client.secret", "sasl.oauthbearer.client.credentials.client.secret"]) {
        return Err(access(format!(
            "the token endpoint wants a secret: `--kafka-oauth-client-secret-file`, or the environment variable {CLIENT_SECRET}"
        )));
    }
    Ok(())
}

/// `name=value` a line; `#` begins a comment. Errors name the line and never what is in it.
fn parse(path: &Path, text: &str) -> Result<BTreeMap<String, String>> {
    let mut properties = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let place = || format!("`--kafka-config` {} line {number}", path.display());
        let Some((key, value)) = line.split_once('=') else {
            return Err(access(format!("{}: write `name=value`", place())));
        };
        let (key, value) = (key.trim(), value.trim());
        if key == "bootstrap.servers" {
            return Err(access(format!("{}: the brokers are named by `--kafka`", place())));
        }
        if properties.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(access(format!("{}: `{key}` is there twice", place())));
        }
    }
    Ok(properties)
}

fn read(flag: &str, path: &Path) -> Result<String> {
    std::fs::read_to_string(path)
        .map_err(|error| access(format!("cannot read {}: {error} (`{flag}`)", path.display())))
}

fn access(reason: impl Display) -> Error {
    Error::Access { reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser, Debug)]
    struct Command {
        #[command(flatten)]
        access: Access,
    }

    const SECRET: &str = "hunter2-and-more";

    fn flags(arguments: &[&str]) -> Access {
        Command::try_parse_from([&["command"], arguments].concat()).unwrap().access
    }

    fn environment(password: &str) -> Secrets {
        Secrets { password: Some(password.to_owned()), client_secret: None }
    }

    fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> String {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    #[test]
    fn flags_win_over_the_file_and_a_file_over_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let config = file(
            &folder,
            "kafka.properties",
            "# who\nsasl.username = someone\n\nsecurity.protocol=sasl_plaintext\nsasl.mechanism=PLAIN\nlinger.ms=7\n",
        );
        let password = file(&folder, "password", &format!("{SECRET}\n"));
        let access = flags(&[
            "--kafka-config",
            &config,
            "--kafka-security-protocol",
            "sasl_ssl",
            "--kafka-sasl-mechanism",
            "SCRAM-SHA-512",
            "--kafka-sasl-password-file",
            &password,
        ]);
        let properties = access.properties(environment("from the environment")).unwrap();
        let get = |key: &str| properties[key].as_str();
        assert_eq!((get("security.protocol"), get("sasl.mechanism")), ("sasl_ssl", "SCRAM-SHA-512"));
        assert_eq!((get("sasl.username"), get("sasl.password"), get("linger.ms")), ("someone", SECRET, "7"));
        let again = flags(&access.arguments().iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(again.properties(Secrets::default()).unwrap(), properties);

        let only = flags(&["--kafka-config", &config]).properties(environment(SECRET)).unwrap();
        assert_eq!(only["sasl.password"], SECRET);
        assert!(
            flags(&[]).properties(Secrets::default()).unwrap().is_empty(),
            "without flags all is plain text"
        );
    }

    #[test]
    fn what_is_missing_or_does_not_go_together_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let broken = file(&folder, "broken", &format!("a=b\n{SECRET}\n"));
        let twice = file(&folder, "twice", "a=b\na=c\n");
        let brokers = file(&folder, "brokers", "bootstrap.servers=here:9092\n");
        let sasl = ["--kafka-security-protocol", "sasl_ssl"];
        let scram = [&sasl[..], &["--kafka-sasl-mechanism", "SCRAM-SHA-256"]].concat();
        let token = [&sasl[..], &["--kafka-sasl-mechanism", "OAUTHBEARER"]].concat();
        let endpoint = [&token[..], &["--kafka-oauth-endpoint", "https://login.example/token"]].concat();
        for (arguments, said) in [
            (vec!["--kafka-config", "/no/such/file"], "/no/such/file"),
            (vec!["--kafka-tls-ca", "/no/such/ca"], "--kafka-tls-ca"),
            (vec!["--kafka-config", &broken], "line 2"),
            (vec!["--kafka-config", &twice], "`a` is there twice"),
            (vec!["--kafka-config", &brokers], "--kafka`"),
            (vec!["--kafka-sasl-mechanism", "PLAIN"], "--kafka-security-protocol"),
            (sasl.to_vec(), "--kafka-sasl-mechanism"),
            (scram.clone(), "--kafka-sasl-username"),
            ([&scram[..], &["--kafka-sasl-username", "someone"]].concat(), PASSWORD),
            ([&scram[..], &endpoint[4..]].concat(), "--kafka-sasl-mechanism OAUTHBEARER"),
            (token, "--kafka-oauth-endpoint"),
            (endpoint.clone(), "--kafka-oauth-client-id"),
            ([&endpoint[..], &["--kafka-oauth-client-id", "tidegate"]].concat(), CLIENT_SECRET),
            ([&endpoint[..], &["--kafka-oauth-ca", "/no/such/ca"]].concat(), "--kafka-oauth-ca"),
        ] {
            let error = flags(&arguments).properties(Secrets::default()).unwrap_err().to_string();
            assert!(error.contains(said) && !error.contains(SECRET), "{error}");
        }
    }

    #[test]
    fn tokens_come_from_an_endpoint_or_unsigned_where_that_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let (ca, secret) = (file(&folder, "ca.crt", "…"), file(&folder, "secret", &format!("{SECRET}\n")));
        let token = ["--kafka-security-protocol=sasl_ssl", "--kafka-sasl-mechanism=OAUTHBEARER"];
        let endpoint = [
            &token[..],
            &["--kafka-oauth-endpoint=https://login.example/token", "--kafka-oauth-client-id=tidegate"],
            &["--kafka-oauth-scope=kafka", "--kafka-oauth-ca", &ca],
        ]
        .concat();
        let access = flags(&[&endpoint[..], &["--kafka-oauth-client-secret-file", &secret]].concat());
        let properties = access.properties(Secrets::default()).unwrap();
        let get = |key: &str| properties[&format!("sasl.oauthbearer.{key}")].as_str();
        assert_eq!((get("method"), get("token.endpoint.url")), ("oidc", "https://login.example/token"));
        assert_eq!((get("client.id"), get("client.secret"), get("scope")), ("tidegate", SECRET, "kafka"));
        assert_eq!(properties["https.ca.location"], ca);
        let again = flags(&access.arguments().iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(again, access);
        let config = format!("{:?}", KafkaConfig { extra: properties, ..KafkaConfig::default() });
        assert!(config.contains("login.example") && !config.contains(SECRET), "{config}");

        let from_environment = Secrets { password: None, client_secret: Some(SECRET.to_owned()) };
        let properties = flags(&endpoint).properties(from_environment).unwrap();
        assert_eq!(properties["sasl.oauthbearer.client.secret"], SECRET);

        let unsigned = file(&folder, "unsigned", "enable.sasl.oauthbearer.unsecure.jwt=true\n");
        let unsigned = flags(&[&token[..], &["--kafka-config", &unsigned]].concat());
        assert!(unsigned.properties(Secrets::default()).is_ok());
        let key = file(
            &folder,
            "key",
            "sasl.oauthbearer.method=oidc\nsasl.oauthbearer.grant.type=urn:ietf:params:oauth:grant-type:jwt-bearer\n",
        );
        let key = flags(&[&token[..], &["--kafka-config", &key]].concat());
        assert!(key.properties(Secrets::default()).is_ok(), "another grant is librdkafka's to judge");
    }

    #[test]
    fn a_password_is_no_flag_and_is_shown_nowhere() {
        assert!(Command::try_parse_from(["command", "--kafka-sasl-password", SECRET]).is_err());
        let folder = tempfile::tempdir().unwrap();
        let password = file(&folder, "password", SECRET);
        let access = flags(&[
            "--kafka-security-protocol=sasl_ssl",
            "--kafka-sasl-mechanism=PLAIN",
            "--kafka-sasl-username=someone",
            "--kafka-sasl-password-file",
            &password,
        ]);
        let config = access.config("here:9092", "test").unwrap();
        assert_eq!(config.extra["sasl.password"], SECRET);
        let shown = format!("{config:?} {access:?} {}", serde_json::to_string(&access).unwrap());
        assert!(!shown.contains(SECRET), "{shown}");
    }
}
