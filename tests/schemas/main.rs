//! Schemas from files and from a registry over HTTP, as the services and the command line get them.

#![allow(clippy::disallowed_methods, reason = "tests run a runtime of their own")]

use std::fs;
use std::path::Path;

use tidegate_core::record::{RecordView, Timestamp};
use tidegate_core::time::EventTime;
use tidegate_extract::{Language, SchemaId, SchemaText};
use tidegate_job::{Job, JobFile};
use tidegate_schemas::{Error, Registry, open};
use tidegate_tests::{Authority, SchemaRegistry};

fn job(format: &str) -> Job {
    let text = format!(
        "name: j
source: {{ topic: t, format: {format}, key: {{ field: /user }}, event_time: [{{ field: /ts }}] }}
watermark: {{ delay: 1s }}
window: {{ tumbling: {{ size: 1s }} }}
aggregates: [{{ name: n, fn: count }}]
sink: {{ topic: o }}
dead_letter: {{ topic: d }}
"
    );
    JobFile::parse(&text, "job.yaml").unwrap_or_else(|report| panic!("{report}"))
}

struct Bytes<'a>(&'a [u8]);

impl RecordView for Bytes<'_> {
    fn key(&self) -> Option<&[u8]> {
        None
    }
    fn value(&self) -> Option<&[u8]> {
        Some(self.0)
    }
    fn timestamp(&self) -> Timestamp {
        Timestamp::NotAvailable
    }
    fn header(&self, _name: &str) -> Option<&[u8]> {
        None
    }
}

fn ask(registry: &Registry, id: u32) -> Result<SchemaText, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(registry.schema(SchemaId(id)))
}

fn registry(format: &str, folder: &Path) -> Registry {
    open(&job(format), &folder.join("job.yaml")).unwrap().1.unwrap()
}

const CLICK: &str = r#"{"type":"record","name":"Click","fields":[
    {"name":"user","type":"string"},{"name":"ts","type":{"type":"long","logicalType":"timestamp-millis"}}]}"#;

#[test]
fn a_schema_in_a_file_is_found_beside_the_job_file() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("schemas")).unwrap();
    fs::write(folder.path().join("schemas/click.avsc"), CLICK).unwrap();
    let job = job("{ avro: { schema: schemas/click.avsc } }");
    let (mut extractor, registry) = open(&job, &folder.path().join("job.yaml")).unwrap();
    assert!(registry.is_none());
    let record = Bytes(&[2, b'a', 0xd0, 0x0f]);
    assert_eq!(extractor.wants(&record), None);
    let extracted = extractor.extract(&record).unwrap();
    assert_eq!((extracted.key, extracted.time), (&b"a"[..], EventTime(1000)));
}

#[test]
fn a_protobuf_file_may_import_others() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("protos/shop")).unwrap();
    let click = r#"syntax = "proto3"; import "shop/time.proto"; message Click { string user = 1; shop.Time ts = 2; }"#;
    fs::write(folder.path().join("protos/click.proto"), click).unwrap();
    let time = r#"syntax = "proto3"; package shop; message Time { int64 ms = 1; }"#;
    fs::write(folder.path().join("protos/shop/time.proto"), time).unwrap();
    let format = "{ protobuf: { schema: protos/click.proto } }";
    let text = job(format);
    let error = open(&text, &folder.path().join("job.yaml"));
    assert!(error.is_ok(), "{:?}", error.err());
    fs::remove_file(folder.path().join("protos/shop/time.proto")).unwrap();
    let error = open(&text, &folder.path().join("job.yaml")).unwrap_err().to_string();
    assert!(error.contains("shop/time.proto") && error.contains("imports are looked for in"), "{error}");
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let opened =
        |format: &str| open(&job(format), &folder.path().join("job.yaml")).map(drop).unwrap_err().to_string();
    let said = opened("{ avro: { schema: none.avsc } }");
    assert!(said.contains("cannot read") && said.contains("none.avsc"), "{said}");
    fs::write(folder.path().join("a.avsc"), "{").unwrap();
    let said = opened("{ avro: { schema: a.avsc } }");
    assert!(said.contains("a.avsc: not JSON"), "{said}");
    fs::write(folder.path().join("a.avsc"), CLICK.replace("user", "client")).unwrap();
    let said = opened("{ avro: { schema: a.avsc } }");
    assert!(said.ends_with("a.avsc: it has no field /user"), "{said}");
    let said = opened("{ avro: { registry: \"http://r\", user: me, password_file: secret } }");
    assert!(said.contains("cannot read") && said.contains("secret"), "{said}");
}

#[test]
fn a_registry_gives_a_schema_with_all_that_it_refers_to_in_order() {
    let server = SchemaRegistry::start().unwrap();
    server.put(7, "AVRO", "root", &[("b", "sub/b", 2), ("a", "a", 1)]);
    server.put_subject("sub%2Fb", 2, "AVRO", "text of b", &[("a", "a", 1)]);
    server.put_subject("a", 1, "AVRO", "text of a", &[]);
    let registry = registry(&format!("{{ avro: {{ registry: \"{}/\" }} }}", server.url()), Path::new("."));
    let schema = ask(&registry, 7).unwrap();
    let texts: Vec<_> = schema.references.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    assert_eq!((schema.language, schema.text.as_str()), (Language::Avro, "root"));
    assert_eq!(texts, [("a", "text of a"), ("b", "text of b")]);
}

#[test]
fn schemas_that_refer_to_each_other_come_to_an_end() {
    let server = SchemaRegistry::start().unwrap();
    server.put(1, "PROTOBUF", "root", &[("a", "a", 1)]);
    server.put_subject("a", 1, "PROTOBUF", "a", &[("b", "b", 1)]);
    server.put_subject("b", 1, "PROTOBUF", "b", &[("a", "a", 1)]);
    let registry = registry(&format!("{{ protobuf: {{ registry: \"{}\" }} }}", server.url()), Path::new("."));
    assert_eq!(ask(&registry, 1).unwrap().references.len(), 2);
}

#[test]
fn what_a_registry_does_not_give_is_told_apart() {
    let server = SchemaRegistry::start().unwrap();
    let registry = registry(&format!("{{ avro: {{ registry: \"{}\" }} }}", server.url()), Path::new("."));
    let error = ask(&registry, 5).unwrap_err();
    assert!(matches!(error, Error::Unknown { id: SchemaId(5), .. }) && error.is_retriable(), "{error}");
    server.put(6, "JSON", "{}", &[]);
    let error = ask(&registry, 6).unwrap_err();
    assert_eq!(error.to_string(), "it is a schema of JSON, not of AVRO");
    assert!(!error.is_retriable());
    server.put(7, "AVRO", "root", &[("gone", "gone", 1)]);
    let error = ask(&registry, 7).unwrap_err();
    assert!(error.to_string().contains("`gone`, which it refers to, is not there"), "{error}");
    server.answer("/schemas/ids/8", serde_json::json!([]));
    let error = ask(&registry, 8).unwrap_err();
    assert!(error.to_string().contains("its answer is not a registry's") && error.is_retriable(), "{error}");
    server.set_down(true);
    let error = ask(&registry, 6).unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }) && error.is_retriable(), "{error}");
    let none = SchemaRegistry::start().unwrap().url().replace("127.0.0.1", "127.0.0.2");
    let registry = self::registry(&format!("{{ avro: {{ registry: \"{none}\" }} }}"), Path::new("."));
    let said = ask(&registry, 1).unwrap_err().to_string();
    assert!(said.contains("refused") && said.contains(&none), "{said}");
}

#[test]
fn a_registry_at_https_shows_a_certificate_of_an_authority_that_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let here = std::net::IpAddr::from([127, 0, 0, 1]);
    let authority = Authority::new("registries");
    let server = SchemaRegistry::start_secured(&authority.issue(folder.path(), here)).unwrap();
    server.put(1, "AVRO", CLICK, &[]);
    let asked = |more: &str| {
        let format = format!("{{ avro: {{ registry: \"{}\"{more} }} }}", server.url());
        open(&job(&format), &folder.path().join("job.yaml")).map(|(_, registry)| registry.unwrap())
    };
    assert_eq!(ask(&asked(", ca_file: ca.crt").unwrap(), 1).unwrap().text, CLICK);

    let other = folder.path().join("other");
    Authority::new("others").issue(&other, here);
    let error = ask(&asked(", ca_file: other/ca.crt").unwrap(), 1).unwrap_err();
    assert!(error.is_retriable() && error.to_string().contains("certificate"), "{error}");
    let elsewhere = other.join("elsewhere");
    let server = SchemaRegistry::start_secured(&authority.issue(&elsewhere, [127, 0, 0, 2].into())).unwrap();
    let format = format!("{{ avro: {{ registry: \"{}\", ca_file: ca.crt }} }}", server.url());
    let error = ask(&registry(&format, folder.path()), 1).unwrap_err();
    assert!(error.to_string().contains("not valid for name"), "{error}");

    fs::write(folder.path().join("none.pem"), "nothing").unwrap();
    let error = asked(", ca_file: none.pem").unwrap_err().to_string();
    assert!(error.contains("none.pem has no certificate of an authority"), "{error}");
    let error = asked(", ca_file: gone.pem").unwrap_err().to_string();
    assert!(error.contains("cannot read") && error.contains("gone.pem"), "{error}");
}

#[test]
fn a_registry_is_asked_as_its_user() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("secret"), "open sesame\n").unwrap();
    let server = SchemaRegistry::start().unwrap();
    server.put(1, "AVRO", CLICK, &[]);
    server.require("Basic YWxpOm9wZW4gc2VzYW1l");
    let format =
        format!("{{ avro: {{ registry: \"{}\", user: ali, password_file: secret }} }}", server.url());
    assert!(ask(&registry(&format, folder.path()), 1).is_ok());
    let anonymous = registry(&format!("{{ avro: {{ registry: \"{}\" }} }}", server.url()), folder.path());
    let error = ask(&anonymous, 1).unwrap_err();
    assert!(error.to_string().contains("it refuses user and password (status 401)"), "{error}");
}
