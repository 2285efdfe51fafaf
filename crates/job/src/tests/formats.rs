//! The formats of the payload: what is accepted, and what is refused in which words.

use super::{LEAST, job, least_with};
use crate::{Format, JobFile, Registry, SchemaFile, SchemaSource, UnknownSchema};

fn with_format(format: &str) -> String {
    least_with("topic: in", &format!("topic: in\n  format: {format}"))
}

fn format(text: &str) -> Format {
    job(&with_format(text)).source.format
}

#[track_caller]
fn refused(text: &str, expected: &[&str]) {
    let report = JobFile::parse(text, "job.yaml").expect_err("accepted");
    assert_eq!(report.to_string().lines().collect::<Vec<_>>(), expected, "in\n{text}");
}

#[test]
fn a_format_is_a_word_or_says_where_its_schemas_are() {
    assert_eq!(job(LEAST).source.format, Format::Json);
    assert_eq!(format("json"), Format::Json);
    assert_eq!(format("raw"), Format::Raw);
    let file = |path: &str, include: Option<&str>, message: Option<&str>| {
        SchemaSource::File(SchemaFile {
            path: path.to_owned(),
            include: include.map(str::to_owned),
            message: message.map(str::to_owned),
        })
    };
    assert_eq!(format("{ avro: { schema: click.avsc } }"), Format::Avro(file("click.avsc", None, None)));
    assert_eq!(
        format("{ protobuf: { schema: shop/click.proto, include: ., message: shop.Click } }"),
        Format::Protobuf(file("shop/click.proto", Some("."), Some("shop.Click")))
    );
    let registry = |url: &str, user: Option<(&str, &str)>, unknown_schema| {
        SchemaSource::Registry(Registry {
            url: url.to_owned(),
            ca_file: None,
            user: user.map(|(name, file)| (name.to_owned(), file.to_owned())),
            unknown_schema,
        })
    };
    assert_eq!(
        format("{ protobuf: { registry: \"http://r:8081/\" } }"),
        Format::Protobuf(registry("http://r:8081", None, UnknownSchema::Wait))
    );
    let full =
        "{ avro: { registry: http://r/schemas, user: me, password_file: pw, unknown_schema: dead_letter } }";
    let expected = registry("http://r/schemas", Some(("me", "pw")), UnknownSchema::DeadLetter);
    assert_eq!(format(full), Format::Avro(expected));
    let Format::Avro(SchemaSource::Registry(secured)) =
        format("{ avro: { registry: \"https://r\", ca_file: ca.pem } }")
    else {
        panic!("a registry")
    };
    assert_eq!((secured.url.as_str(), secured.ca_file.as_deref()), ("https://r", Some("ca.pem")));
}

#[test]
fn a_schema_is_in_one_place() {
    refused(
        &with_format("avro"),
        &["job.yaml:4:11: source.format: `avro` needs a value; write `avro: …`, see docs/job.md"],
    );
    refused(
        &with_format("{ avro: {} }"),
        &[
            "job.yaml:4:13: source.format.avro: neither `schema` nor `registry` is given; name one of them, as in \
           `schema: click.avsc` or `registry: http://registry:8081`",
        ],
    );
    refused(
        &with_format("{ protobuf: { schema: a, registry: \"http://b\" } }"),
        &[
            "job.yaml:4:13: source.format.protobuf: both `schema` and `registry` are given; keep `schema` for records \
           without framing, `registry` for those that name their schema",
        ],
    );
    refused(
        &with_format("{ avro: { shema: a } }"),
        &[
            "job.yaml:4:13: source.format.avro: neither `schema` nor `registry` is given; name one of them, as in \
             `schema: click.avsc` or `registry: http://registry:8081`",
            "job.yaml:4:21: source.format.avro.shema: unknown key `shema` at line 4; did you mean `schema`?",
        ],
    );
}

#[test]
fn a_key_that_means_nothing_is_refused() {
    refused(
        &with_format("{ avro: { schema: a, user: me } }"),
        &["job.yaml:4:38: source.format.avro.user: means nothing with a schema in a file; remove `user`"],
    );
    refused(
        &with_format("{ protobuf: { registry: \"http://r\", message: M } }"),
        &["job.yaml:4:56: source.format.protobuf.message: means nothing with a registry; remove `message`"],
    );
    refused(
        &with_format("{ avro: { schema: a, message: M } }"),
        &["job.yaml:4:32: source.format.avro.message: unknown key `message` at line 4; \
           known here: schema, registry, ca_file, user, password_file, unknown_schema"],
    );
}

#[test]
fn a_registry_has_a_plain_url_and_its_credentials_beside_it() {
    for (url, what) in [
        ("r:8081", "`r:8081` is no URL of a registry; begin with `http://` or `https://`"),
        ("http://me:secret@r", "the URL holds a user; use the keys `user` and `password_file`"),
        ("http://", "`http://` is no URL of a registry; write host and port, as in `http://registry:8081`"),
        (
            "http://r?x",
            "`http://r?x` is no URL of a registry; write host and port, as in `http://registry:8081`",
        ),
    ] {
        let expected = format!("job.yaml:4:31: source.format.avro.registry: {what}");
        refused(&with_format(&format!("{{ avro: {{ registry: \"{url}\" }} }}")), &[&expected]);
    }
    refused(
        &with_format("{ avro: { registry: \"http://r\", ca_file: ca.pem } }"),
        &[
            "job.yaml:4:52: source.format.avro.ca_file: means nothing with a registry at `http://`; remove `ca_file`",
        ],
    );
    refused(
        &with_format("{ avro: { registry: \"http://r\", user: me } }"),
        &[
            "job.yaml:4:49: source.format.avro.user: there is no password for the user; add `password_file`, a file \
           with the password",
        ],
    );
    refused(
        &with_format("{ avro: { registry: \"http://r\", password_file: pw } }"),
        &["job.yaml:4:58: source.format.avro.password_file: there is no user for the password; add `user`"],
    );
}

#[test]
fn raw_bytes_have_no_fields() {
    let text =
        with_format("raw").replace("key: record_key", "key: { field: /k }\n  event_time: [{ field: /t }]");
    refused(
        &text.replace("fn: count", "fn: count, field: /n"),
        &[
            "job.yaml:5:17: source.key.field: the format `raw` has no fields; use `key: record_key`",
            "job.yaml:6:25: source.event_time[0].field: the format `raw` has no fields; use a header or \
             `record_timestamp`",
            "job.yaml:12:34: aggregates[0].field: the format `raw` has no fields; use `fn: count` without `field`",
        ],
    );
}

#[test]
fn the_fingerprint_knows_the_format_and_not_where_its_schema_is() {
    let fingerprint = |text: &str| job(&with_format(text)).fingerprint();
    let avro = fingerprint("{ avro: { schema: a.avsc } }");
    assert_eq!(avro, fingerprint("{ avro: { schema: b.avsc } }"));
    assert_eq!(avro, fingerprint("{ avro: { registry: \"http://r\" } }"));
    assert_ne!(avro, job(LEAST).fingerprint());
    assert_ne!(avro, fingerprint("{ protobuf: { schema: a.proto } }"));
    assert_ne!(avro, fingerprint("raw"));
}
