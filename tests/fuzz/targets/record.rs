//! A record's payload: what is taken is valid JSON, with a key.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use tidegate_core::time::EventTime;
use tidegate_ingest::extract::{Extractor, RecordView};
use tidegate_job::JobFile;
use tidegate_kafka::Timestamp;

struct Fuzzed<'a> {
    header: Option<&'a [u8]>,
    value: &'a [u8],
}

impl RecordView for Fuzzed<'_> {
    fn key(&self) -> Option<&[u8]> {
        None
    }

    fn value(&self) -> Option<&[u8]> {
        Some(self.value)
    }

    fn timestamp(&self) -> Timestamp {
        Timestamp::CreateTime(EventTime(0))
    }

    fn header(&self, _name: &str) -> Option<&[u8]> {
        self.header
    }
}

thread_local! {
    static EXTRACTOR: RefCell<Extractor> =
        RefCell::new(Extractor::new(&JobFile::parse(include_str!("job.yaml"), "job.yaml").unwrap()));
}

// What comes before the first zero byte is the header with the event time.
fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let (first, second) = (parts.next().unwrap_or_default(), parts.next());
    let record = Fuzzed { header: second.map(|_| first), value: second.unwrap_or(first) };
    EXTRACTOR.with_borrow_mut(|extractor| {
        if extractor.extract(&record).is_ok() {
            let parsed: serde_json::Value = serde_json::from_slice(record.value).expect("JSON was taken that is none");
            assert!(parsed.get("user").is_some_and(|user| !user.is_null()));
        }
    });
});
