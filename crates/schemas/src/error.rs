//! Why there is no schema.

use tidegate_extract::SchemaId;

/// Why there is no schema.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file.
    #[error("source.format: cannot read {path}: {cause}")]
    File {
        /// The file.
        path: String,
        /// Why not.
        #[source]
        cause: std::io::Error,
    },
    /// Nobody is known who could vouch for the registry.
    #[error("source.format: no TLS to the schema registry: {0}")]
    Authorities(String),
    /// A schema that cannot be used.
    #[error("source.format: the schema {path}: {reason}")]
    Schema {
        /// The file.
        path: String,
        /// Why not.
        reason: String,
    },
    /// The registry has no schema of that id.
    #[error("the schema registry {registry} does not know the schema {id}")]
    Unknown {
        /// Its URL.
        registry: String,
        /// The id.
        id: SchemaId,
    },
    /// The registry does not answer, or not as a registry does.
    #[error("the schema registry {registry} cannot be asked for the schema {id}: {reason}")]
    Unavailable {
        /// Its URL.
        registry: String,
        /// The id.
        id: SchemaId,
        /// Why not.
        reason: String,
    },
    /// The registry has another kind of schema there.
    #[error("it is a schema of {found}, not of {wanted}")]
    Language {
        /// Its kind.
        found: String,
        /// The kind that the job reads.
        wanted: &'static str,
    },
}

impl Error {
    /// Whether asking again can help.
    #[must_use]
    pub const fn is_retriable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Unknown { .. })
    }
}
