//! A schema registry with Confluent's HTTP interface: schemas by their id, and those that they refer to.

use std::collections::HashSet;
use std::path::Path;

use serde::Deserialize;
use tidegate_extract::{Language, SchemaId, SchemaText};
use tidegate_job::{Format, Registry as Place};

use crate::error::Error;
use crate::http::{Answer, Server};

/// So many schemas may one refer to, with those that these refer to.
const MOST_REFERENCES: usize = 256;

/// A schema registry.
#[derive(Clone, Debug)]
pub struct Registry {
    url: String,
    server: Server,
    language: Language,
}

/// What the registry says of a schema.
#[derive(Debug, Deserialize)]
struct Entry {
    schema: String,
    #[serde(rename = "schemaType", default)]
    kind: Option<String>,
    #[serde(default)]
    references: Vec<Reference>,
}

#[derive(Clone, Debug, Deserialize)]
struct Reference {
    name: String,
    subject: String,
    version: u32,
}

/// Why an answer is none.
enum Failure {
    NotThere,
    Reason(String),
}

impl Registry {
    /// The registry that a job names; the files with its password and authorities are found from `folder`.
    pub(crate) fn new(place: &Place, format: &Format, folder: &Path) -> Result<Self, Error> {
        let password = match &place.user {
            None => None,
            Some((user, file)) => {
                let path = folder.join(file);
                let text = std::fs::read_to_string(&path)
                    .map_err(|cause| Error::File { path: path.display().to_string(), cause })?;
                Some((user.clone(), text.trim_end_matches(['\n', '\r']).to_owned()))
            }
        };
        let user = password.as_ref().map(|(user, password)| (user.as_str(), password.as_str()));
        let language = match format {
            Format::Protobuf(_) => Language::Protobuf,
            _ => Language::Avro,
        };
        let ca = place.ca_file.as_ref().map(|file| folder.join(file));
        let server = Server::new(&place.url, user, ca.as_deref())?;
        Ok(Self { url: place.url.clone(), server, language })
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The schema of that id, with all that it refers to.
    ///
    /// # Errors
    /// When the registry does not know it, does not answer, or has another kind of schema there.
    pub async fn schema(&self, id: SchemaId) -> Result<SchemaText, Error> {
        let entry = self.get(&format!("/schemas/ids/{id}")).await.map_err(|failure| match failure {
            Failure::NotThere => Error::Unknown { registry: self.url.clone(), id },
            Failure::Reason(reason) => self.unavailable(id, reason),
        })?;
        let (wanted, found) = (word(self.language), entry.kind.as_deref().unwrap_or("AVRO"));
        if !found.eq_ignore_ascii_case(wanted) {
            return Err(Error::Language { found: found.to_owned(), wanted });
        }
        let references = self.references(entry.references).await.map_err(|why| self.unavailable(id, why))?;
        Ok(SchemaText { language: self.language, text: entry.schema, references })
    }

    fn unavailable(&self, id: SchemaId, reason: String) -> Error {
        Error::Unavailable { registry: self.url.clone(), id, reason }
    }

    /// All that is referred to, each behind what it refers to itself.
    async fn references(&self, first: Vec<Reference>) -> Result<Vec<(String, String)>, String> {
        let mut names = HashSet::new();
        let mut texts = Vec::new();
        // A name to fetch, or a text whose references have been put before it.
        let mut stack: Vec<Result<Reference, (String, String)>> = first.into_iter().rev().map(Ok).collect();
        while let Some(next) = stack.pop() {
            let reference = match next {
                Err(text) => {
                    texts.push(text);
                    continue;
                }
                Ok(reference) => reference,
            };
            if !names.insert(reference.name.clone()) {
                continue;
            }
            if names.len() > MOST_REFERENCES {
                return Err(format!("it refers to more than {MOST_REFERENCES} others"));
            }
            let path = format!("/subjects/{}/versions/{}", escaped(&reference.subject), reference.version);
            let entry = self.get(&path).await.map_err(|failure| match failure {
                Failure::NotThere => {
                    format!("`{}`, which it refers to, is not there", reference.name)
                }
                Failure::Reason(reason) => reason,
            })?;
            stack.push(Err((reference.name, entry.schema)));
            stack.extend(entry.references.into_iter().rev().map(Ok));
        }
        Ok(texts)
    }

    async fn get(&self, path: &str) -> Result<Entry, Failure> {
        let Answer { status, body } = self.server.get(path).await.map_err(Failure::Reason)?;
        match status {
            200 => serde_json::from_slice(&body)
                .map_err(|error| Failure::Reason(format!("its answer is not a registry's: {error}"))),
            404 => Err(Failure::NotThere),
            401 | 403 => Err(Failure::Reason(format!("it refuses user and password (status {status})"))),
            status => Err(Failure::Reason(format!("it answers with status {status}"))),
        }
    }
}

const fn word(language: Language) -> &'static str {
    match language {
        Language::Avro => "AVRO",
        Language::Protobuf => "PROTOBUF",
    }
}

/// As a part of a path.
fn escaped(text: &str) -> String {
    use std::fmt::Write;
    text.bytes().fold(String::new(), |mut path, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            path.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(path, "%{byte:02X}");
        }
        path
    })
}
