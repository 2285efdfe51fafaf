//! What `extract` costs: CPU-seconds per million clicks records, three fields of six, in each format; and what the libraries take that
//! decode whole records. Linux only.
//!
//! `cargo run --release -p tidegate-extract --example extract_rate`; the target for JSON is 0.25.

use std::error::Error;
use std::hint::black_box;

use prost_reflect::{DescriptorPool, DynamicMessage};
use protox::file::File;
use tidegate_core::record::{RecordView, Timestamp};
use tidegate_core::time::EventTime;
use tidegate_extract::{Extractor, Language, SchemaId, SchemaText};
use tidegate_job::{Job, JobFile};

const RECORDS: u64 = 10_000;
const ROUNDS: u64 = 200;
/// The libraries are slower.
const LIBRARY_ROUNDS: u64 = 20;

const AVRO: &str = r#"{"type":"record","name":"Click","fields":[
    {"name":"user","type":"string"},
    {"name":"ts","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"amount","type":["null","double"]},
    {"name":"page","type":"string"},
    {"name":"session","type":"string"},
    {"name":"agent","type":"string"}]}"#;

const PROTOBUF: &str = r#"syntax = "proto3";
message Click { string user = 1; int64 ts = 2; optional double amount = 3; string page = 4; string session = 5; string agent = 6; }"#;

struct Click(Vec<u8>);

impl RecordView for Click {
    fn key(&self) -> Option<&[u8]> {
        None
    }

    fn value(&self) -> Option<&[u8]> {
        Some(&self.0)
    }

    fn timestamp(&self) -> Timestamp {
        Timestamp::CreateTime(EventTime(0))
    }

    fn header(&self, _name: &str) -> Option<&[u8]> {
        None
    }
}

/// A click before it is written in a format.
struct Fields {
    user: String,
    ts: i64,
    amount: f64,
    page: String,
    session: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    let clicks = || (0..RECORDS).map(fields);
    let json: Vec<_> = clicks().map(|click| Click(json(&click).into_bytes())).collect();
    report("json", &json, Extractor::new(&job("json")?)?)?;

    let avro: Vec<_> = clicks().map(|click| Click(avro(&click))).collect();
    let schema = SchemaText::new(Language::Avro, AVRO);
    report(
        "avro, schema in a file",
        &avro,
        Extractor::with_schema(&job("{ avro: { schema: a } }")?, &schema)?,
    )?;
    let framing: &[u8] = &[0, 0, 0, 0, 7];
    let framed: Vec<_> = avro.iter().map(|click| Click([framing, &click.0].concat())).collect();
    report("avro, framed", &framed, learnt("{ avro: { registry: \"http://r\" } }", &schema)?)?;

    let pool = pool()?;
    let message = pool.get_message_by_name("Click").ok_or("no message")?;
    let protobuf: Vec<_> = clicks().map(|click| Click(protobuf(&click))).collect();
    let schema = SchemaText::new(Language::Protobuf, PROTOBUF);
    let of_file = Extractor::with_schema(&job("{ protobuf: { schema: a } }")?, &schema)?;
    report("protobuf, schema in a file", &protobuf, of_file)?;
    let framing: &[u8] = &[0, 0, 0, 0, 7, 0];
    let framed: Vec<_> = protobuf.iter().map(|click| Click([framing, &click.0].concat())).collect();
    report("protobuf, framed", &framed, learnt("{ protobuf: { registry: \"http://r\" } }", &schema)?)?;

    let schema = apache_avro::Schema::parse_str(AVRO)?;
    let seconds = measure(&avro, LIBRARY_ROUNDS, |click| {
        black_box(apache_avro::from_avro_datum(&schema, &mut click.0.as_slice(), None)?);
        Ok(())
    })?;
    println!("apache-avro, the whole record: cpu_s_per_million={seconds:.3}");
    let seconds = measure(&protobuf, LIBRARY_ROUNDS, |click| {
        black_box(DynamicMessage::decode(message.clone(), click.0.as_slice())?);
        Ok(())
    })?;
    println!("prost-reflect, the whole record: cpu_s_per_million={seconds:.3}");
    Ok(())
}

fn job(format: &str) -> Result<Job, Box<dyn Error>> {
    let text = format!(
        "
name: clicks
source:
  topic: clicks
  format: {format}
  key: {{ field: /user }}
  event_time: [{{ header: event-time }}, {{ field: /ts, unit: ms }}, record_timestamp]
watermark: {{ strategy: bounded_out_of_orderness, delay: 2s }}
window: {{ tumbling: {{ size: 10s }} }}
aggregates:
  - {{ name: clicks, fn: count }}
  - {{ name: spend, fn: sum, field: /amount, scale: 2 }}
sink: {{ topic: clicks-per-user }}
dead_letter: {{ topic: clicks-dead }}
"
    );
    Ok(JobFile::parse(&text, "clicks.yaml")?)
}

fn learnt(format: &str, schema: &SchemaText) -> Result<Extractor, Box<dyn Error>> {
    let mut extractor = Extractor::new(&job(format)?)?;
    extractor.learn(SchemaId(7), Ok(schema));
    Ok(extractor)
}

fn report(what: &str, records: &[Click], mut extractor: Extractor) -> Result<(), Box<dyn Error>> {
    let mut sum = 0_i64;
    let seconds = measure(records, ROUNDS, |record| {
        black_box(extractor.wants(record));
        let extracted = extractor.extract(record).map_err(|reject| reject.detail)?;
        let amount = extracted.columns.iter().flatten().sum::<i64>();
        sum = sum.wrapping_add(extracted.time.millis()).wrapping_add(amount);
        black_box(extracted.key);
        Ok(())
    })?;
    black_box(sum);
    let bytes: usize = records.iter().map(|record| record.0.len()).sum();
    println!("{what}: bytes_per_record={} cpu_s_per_million={seconds:.3}", bytes / records.len());
    Ok(())
}

/// CPU-seconds per million records.
fn measure(
    records: &[Click],
    rounds: u64,
    mut each: impl FnMut(&Click) -> Result<(), Box<dyn Error>>,
) -> Result<f64, Box<dyn Error>> {
    let start = cpu_seconds()?;
    for _ in 0..rounds {
        for record in records {
            each(record)?;
        }
    }
    Ok((cpu_seconds()? - start) / ((RECORDS * rounds) as f64 / 1e6))
}

fn fields(number: u64) -> Fields {
    let session = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Fields {
        user: format!("u{}", number.wrapping_mul(7919) % 10_000),
        ts: 1_700_000_000_000 + number as i64,
        amount: (number % 500) as f64 + (number % 100) as f64 / 100.0,
        page: format!("/catalog/item/{}", number % 977),
        session: format!("{session:032x}"),
    }
}

fn json(Fields { user, ts, amount, page, session }: &Fields) -> String {
    format!(
        r#"{{"user":"{user}","ts":{ts},"amount":{amount:.2},"page":"{page}","session":"{session}","agent":"Mozilla/5.0"}}"#
    )
}

fn varint(bytes: &mut Vec<u8>, mut rest: u64) {
    while rest >= 0x80 {
        bytes.push(u8::try_from(rest & 0x7f).unwrap_or_default() | 0x80);
        rest >>= 7;
    }
    bytes.push(u8::try_from(rest).unwrap_or_default());
}

fn avro(click: &Fields) -> Vec<u8> {
    fn long(bytes: &mut Vec<u8>, value: i64) {
        varint(bytes, (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned());
    }
    fn text(bytes: &mut Vec<u8>, text: &str) {
        long(bytes, text.len() as i64);
        bytes.extend(text.as_bytes());
    }
    let mut bytes = Vec::new();
    text(&mut bytes, &click.user);
    long(&mut bytes, click.ts);
    long(&mut bytes, 1);
    bytes.extend(click.amount.to_le_bytes());
    text(&mut bytes, &click.page);
    text(&mut bytes, &click.session);
    text(&mut bytes, "Mozilla/5.0");
    bytes
}

fn protobuf(click: &Fields) -> Vec<u8> {
    fn text(bytes: &mut Vec<u8>, number: u8, text: &str) {
        bytes.push(number << 3 | 2);
        varint(bytes, text.len() as u64);
        bytes.extend(text.as_bytes());
    }
    let mut bytes = Vec::new();
    text(&mut bytes, 1, &click.user);
    bytes.push(2 << 3);
    varint(&mut bytes, click.ts.cast_unsigned());
    bytes.push(3 << 3 | 1);
    bytes.extend(click.amount.to_le_bytes());
    text(&mut bytes, 4, &click.page);
    text(&mut bytes, 5, &click.session);
    text(&mut bytes, 6, "Mozilla/5.0");
    bytes
}

fn pool() -> Result<DescriptorPool, Box<dyn Error>> {
    let file = File::from_source("click.proto", PROTOBUF)?;
    let mut pool = DescriptorPool::new();
    pool.add_file_descriptor_proto(file.file_descriptor_proto().clone())?;
    Ok(pool)
}

/// CPU time of this thread so far.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = schedstat.split(' ').next().ok_or("an empty schedstat")?.parse::<f64>()?;
    Ok(nanos / 1e9)
}
