//! A record of the source, in each format: what the job needs of it, or a reject that says why, the same each time.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use tidegate_core::{
    record::{RecordView, Timestamp},
    time::EventTime,
};
use tidegate_extract::{Extractor, Language, SchemaText};
use tidegate_job::JobFile;

const JOB: &str = include_str!("job.yaml");
const AVRO: &str = r#"{ "type": "record", "name": "Click", "fields": [
    { "name": "user", "type": ["null", "string", "bytes", "long"] },
    { "name": "ts", "type": { "type": "long", "logicalType": "timestamp-millis" } },
    { "name": "amount", "type": ["null", { "type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 4 }, "double"] },
    { "name": "deep", "type": { "type": "record", "name": "Deep", "fields": [
        { "name": "others", "type": { "type": "map", "values": { "type": "array", "items": "int" } } },
        { "name": "amount", "type": ["null", "float"] } ] } } ] }"#;
const PROTOBUF: &str = r#"syntax = "proto3";
    message Click {
      string user = 1;
      int64 ts = 2;
      double amount = 3;
      message Deep { map<string, int32> others = 1; sint64 amount = 2; Click in = 3; }
      Deep deep = 4;
    }"#;

struct Input<'a> {
    key: Option<&'a [u8]>,
    header: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
}

impl RecordView for Input<'_> {
    fn key(&self) -> Option<&[u8]> {
        self.key
    }

    fn value(&self) -> Option<&[u8]> {
        self.value
    }

    fn timestamp(&self) -> Timestamp {
        Timestamp::CreateTime(EventTime(1_000))
    }

    fn header(&self, _: &str) -> Option<&[u8]> {
        self.header
    }
}

thread_local! {
    static EXTRACTORS: RefCell<[Extractor; 3]> = RefCell::new([
        of("format: json", None),
        of("format: { avro: { schema: click.avsc } }", Some(SchemaText::new(Language::Avro, AVRO))),
        of("format: { protobuf: { schema: click.proto } }", Some(SchemaText::new(Language::Protobuf, PROTOBUF))),
    ]);
}

fn of(format: &str, schema: Option<SchemaText>) -> Extractor {
    let text = JOB.replace("topic: fuzz\n", &format!("topic: fuzz\n  {format}\n"));
    let job = JobFile::parse(&text, "job.yaml").unwrap();
    match schema {
        Some(schema) => Extractor::with_schema(&job, &schema),
        None => Extractor::new(&job),
    }
    .unwrap()
}

/// The first byte says which parts there are and how long the header is.
fn parts(data: &[u8]) -> Option<Input<'_>> {
    let (shape, rest) = data.split_first()?;
    let (header, value) = rest.split_at_checked(usize::from(shape >> 4))?;
    let present = |bit: u8, part| (shape & bit != 0).then_some(part);
    Some(Input { key: present(1, header), header: present(2, header), value: present(4, value) })
}

fuzz_target!(|data: &[u8]| {
    let Some(input) = parts(data) else { return };
    EXTRACTORS.with_borrow_mut(|extractors| {
        for extractor in extractors {
            let mut extract = || {
                let extracted = extractor.extract(&input);
                extracted.map(|record| (record.time, record.key.to_vec(), record.columns.to_vec()))
            };
            let first = extract();
            if let Ok((_, _, columns)) = &first {
                assert_eq!(columns.len(), 2, "one value for each column");
            }
            assert_eq!(first, extract(), "what came before leaves nothing behind");
        }
    });
});
