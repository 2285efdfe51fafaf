//! A job file: understood, or refused with a report.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_job::JobFile;

fuzz_target!(|text: &str| {
    match JobFile::parse(text, "job.yaml") {
        Ok(job) => assert_eq!(job.fingerprint(), JobFile::parse(text, "job.yaml").unwrap().fingerprint()),
        Err(report) => assert!(!report.to_string().is_empty()),
    }
});
