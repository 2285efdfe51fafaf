//! What `extract` costs: CPU-seconds per million 150-byte clicks records, three fields of six. Linux only.
//!
//! `cargo run --release -p tidegate-extract --example extract_rate`; the target is 0.25.

use std::error::Error;
use std::hint::black_box;

use tidegate_core::record::{RecordView, Timestamp};
use tidegate_core::time::EventTime;
use tidegate_extract::Extractor;
use tidegate_job::JobFile;

const RECORDS: u64 = 10_000;
const ROUNDS: u64 = 200;

const JOB: &str = "
name: clicks
source:
  topic: clicks
  format: json
  key: { field: /user }
  event_time: [{ header: event-time }, { field: /ts, unit: ms }, record_timestamp]
watermark: { strategy: bounded_out_of_orderness, delay: 2s }
window: { tumbling: { size: 10s } }
aggregates:
  - { name: clicks, fn: count }
  - { name: spend, fn: sum, field: /amount, scale: 2 }
sink: { topic: clicks-per-user }
dead_letter: { topic: clicks-dead }
";

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

fn main() -> Result<(), Box<dyn Error>> {
    let job = JobFile::parse(JOB, "clicks.yaml")?;
    let mut extractor = Extractor::new(&job);
    let records: Vec<_> = (0..RECORDS).map(click).collect();
    let bytes: usize = records.iter().map(|record| record.0.len()).sum();

    let mut sum = 0_i64;
    let start = cpu_seconds()?;
    for _ in 0..ROUNDS {
        for record in &records {
            let extracted = extractor.extract(record).map_err(|reject| reject.detail)?;
            let amount = extracted.columns.iter().flatten().sum::<i64>();
            sum = sum.wrapping_add(extracted.time.millis()).wrapping_add(amount);
            black_box(extracted.key);
        }
    }
    let seconds = cpu_seconds()? - start;
    black_box(sum);

    let millions = (RECORDS * ROUNDS) as f64 / 1e6;
    println!(
        "extract: bytes_per_record={} cpu_s_per_million={:.3}",
        bytes / records.len(),
        seconds / millions
    );
    Ok(())
}

fn click(number: u64) -> Click {
    let user = number.wrapping_mul(7919) % 10_000;
    let (whole, cents) = (number % 500, number % 100);
    let session = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let text = format!(
        r#"{{"user":"u{user}","ts":{},"amount":{whole}.{cents:02},"page":"/catalog/item/{}","session":"{session:032x}","agent":"Mozilla/5.0"}}"#,
        1_700_000_000_000 + number,
        number % 977,
    );
    Click(text.into_bytes())
}

/// CPU time of this thread so far.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = schedstat.split(' ').next().ok_or("an empty schedstat")?.parse::<f64>()?;
    Ok(nanos / 1e9)
}
