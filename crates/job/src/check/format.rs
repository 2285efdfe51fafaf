//! How the payload is written, and where its schemas are.

use super::Checker;
use crate::file::{
    AggregateEntry, FileName, Format as Written, HttpUrl, JobFile, KeyChoice, ProtobufSection, TimeEntry,
    UnknownSchemaWord,
};
use crate::job::{Format, Registry, SchemaFile, SchemaSource, UnknownSchema};
use crate::report::Flaw;

/// The keys of a format that has a schema; those that it does not know are `None`.
#[derive(Default)]
struct Section<'a> {
    path: &'static str,
    example: &'static str,
    schema: Option<&'a FileName>,
    include: Option<&'a FileName>,
    message: Option<&'a str>,
    registry: Option<&'a HttpUrl>,
    ca_file: Option<&'a FileName>,
    user: Option<&'a str>,
    password_file: Option<&'a FileName>,
    unknown_schema: Option<UnknownSchemaWord>,
}

impl Checker<'_> {
    pub(super) fn format(&mut self, format: Option<&Written>) -> Option<Format> {
        match format {
            None | Some(Written::Json) => Some(Format::Json),
            Some(Written::Raw) => Some(Format::Raw),
            Some(Written::Avro(section)) => {
                let section = Section {
                    path: "source.format.avro",
                    example: "click.avsc",
                    schema: section.schema.as_ref(),
                    registry: section.registry.as_ref(),
                    ca_file: section.ca_file.as_ref(),
                    user: section.user.as_deref(),
                    password_file: section.password_file.as_ref(),
                    unknown_schema: section.unknown_schema,
                    ..Section::default()
                };
                self.schema_source(&section).map(Format::Avro)
            }
            Some(Written::Protobuf(section)) => {
                self.schema_source(&Section::of_protobuf(section)).map(Format::Protobuf)
            }
        }
    }

    fn schema_source(&mut self, section: &Section<'_>) -> Option<SchemaSource> {
        match (section.schema, section.registry) {
            (Some(schema), None) => self.schema_file(section, schema).map(SchemaSource::File),
            (None, Some(registry)) => self.registry(section, registry).map(SchemaSource::Registry),
            (Some(_), Some(_)) => {
                let fix =
                    "keep `schema` for records without framing, `registry` for those that name their schema";
                self.refuse(section.path, "both `schema` and `registry` are given", fix);
                None
            }
            (None, None) => {
                let fix = format!(
                    "name one of them, as in `schema: {}` or `registry: http://registry:8081`",
                    section.example
                );
                self.refuse(section.path, "neither `schema` nor `registry` is given", fix);
                None
            }
        }
    }

    fn schema_file(&mut self, section: &Section<'_>, schema: &FileName) -> Option<SchemaFile> {
        let only_registry = [
            ("ca_file", section.ca_file.is_some()),
            ("user", section.user.is_some()),
            ("password_file", section.password_file.is_some()),
            ("unknown_schema", section.unknown_schema.is_some()),
        ];
        self.without(section.path, "a schema in a file", &only_registry);
        let path = self.file_name(&format!("{}.schema", section.path), schema)?;
        let include = match section.include {
            Some(include) => Some(self.file_name(&format!("{}.include", section.path), include)?),
            None => None,
        };
        Some(SchemaFile { path, include, message: section.message.map(str::to_owned) })
    }

    fn registry(&mut self, section: &Section<'_>, url: &HttpUrl) -> Option<Registry> {
        let only_file = [("include", section.include.is_some()), ("message", section.message.is_some())];
        self.without(section.path, "a registry", &only_file);
        if !url.0.starts_with("https://") {
            self.without(section.path, "a registry at `http://`", &[("ca_file", section.ca_file.is_some())]);
        }
        let url = self.accept(&format!("{}.registry", section.path), http_url(&url.0));
        let ca_file = match section.ca_file {
            None => Some(None),
            Some(file) => self.file_name(&format!("{}.ca_file", section.path), file).map(Some),
        };
        let user = match (section.user, section.password_file) {
            (None, None) => Some(None),
            (Some(user), Some(file)) => self
                .file_name(&format!("{}.password_file", section.path), file)
                .map(|file| Some((user.to_owned(), file))),
            (Some(_), None) => {
                let fix = "add `password_file`, a file with the password";
                self.refuse(&format!("{}.user", section.path), "there is no password for the user", fix);
                None
            }
            (None, Some(_)) => {
                let fix = "add `user`";
                self.refuse(
                    &format!("{}.password_file", section.path),
                    "there is no user for the password",
                    fix,
                );
                None
            }
        };
        let unknown_schema = match section.unknown_schema {
            None | Some(UnknownSchemaWord::Wait) => UnknownSchema::Wait,
            Some(UnknownSchemaWord::DeadLetter) => UnknownSchema::DeadLetter,
        };
        Some(Registry { url: url?, ca_file: ca_file?, user: user?, unknown_schema })
    }

    /// Refuses keys that mean nothing with `what`.
    fn without(&mut self, path: &str, what: &str, keys: &[(&str, bool)]) {
        for (key, _) in keys.iter().filter(|(_, given)| *given) {
            self.refuse(
                &format!("{path}.{key}"),
                format!("means nothing with {what}"),
                format!("remove `{key}`"),
            );
        }
    }

    fn file_name(&mut self, path: &str, name: &FileName) -> Option<String> {
        if name.0.is_empty() {
            self.refuse(path, "the name of the file is empty", "give one");
            return None;
        }
        Some(name.0.clone())
    }

    /// A payload without fields has none for the key, the event time or an aggregate.
    pub(super) fn raw_has_no_fields(&mut self, file: &JobFile) {
        if !matches!(file.source.format, Some(Written::Raw)) {
            return;
        }
        let what = "the format `raw` has no fields";
        if matches!(file.source.key, KeyChoice::Field(_)) {
            self.refuse("source.key.field", what, "use `key: record_key`");
        }
        for (index, entry) in file.source.event_time.iter().flatten().enumerate() {
            if matches!(entry, TimeEntry::Named(place) if place.field.is_some()) {
                let path = format!("source.event_time[{index}].field");
                self.refuse(&path, what, "use a header or `record_timestamp`");
            }
        }
        let aggregates = file.aggregates.iter().flatten().enumerate();
        for (index, AggregateEntry { field, only, .. }) in aggregates {
            if only.is_some() {
                self.refuse(&format!("aggregates[{index}].where"), what, "remove `where`");
            }
            if field.is_some() {
                let fix = "use `fn: count` without `field`";
                self.refuse(&format!("aggregates[{index}].field"), what, fix);
            }
        }
    }
}

impl<'a> Section<'a> {
    fn of_protobuf(section: &'a ProtobufSection) -> Self {
        Self {
            path: "source.format.protobuf",
            example: "click.proto",
            schema: section.schema.as_ref(),
            include: section.include.as_ref(),
            message: section.message.as_deref(),
            registry: section.registry.as_ref(),
            ca_file: section.ca_file.as_ref(),
            user: section.user.as_deref(),
            password_file: section.password_file.as_ref(),
            unknown_schema: section.unknown_schema,
        }
    }
}

/// Host, port and perhaps a path; the credentials are keys of their own, so that no log shows them.
fn http_url(text: &str) -> Result<String, Flaw> {
    let shown = text.escape_debug();
    let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
        let fix = "begin with `http://` or `https://`";
        return Err(Flaw::new(format!("`{shown}` is no URL of a registry"), fix));
    };
    if rest.contains('@') {
        return Err(Flaw::new("the URL holds a user", "use the keys `user` and `password_file`"));
    }
    let printable = rest.chars().all(|c| c.is_ascii_graphic()) && !rest.contains(['?', '#']);
    if !printable || rest.is_empty() || rest.starts_with('/') {
        let what = format!("`{shown}` is no URL of a registry");
        return Err(Flaw::new(what, "write host and port, as in `http://registry:8081`"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}
