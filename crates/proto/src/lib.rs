//! The wire, and the only place where bytes become domain values.
//!
//! [`v1`] is what `proto/tidegate/v1` generates. [`frame`] turns frames into rows and back, column by column; [`convert`] does the
//! rest. What does not read is a [`WireError`], answered with `INVALID_ARGUMENT`.

pub mod convert;
pub mod frame;
pub mod replay;

use thiserror::Error;

/// Generated from `proto/tidegate/v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::restriction, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("tidegate.v1");
}

/// The descriptors of all files, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// A message larger than this is refused: a frame is cut at 256 KiB, but one record may carry a payload of many MB.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// A message that cannot mean anything.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum WireError {
    /// A field that has to be there is not.
    #[error("the field `{0}` is missing")]
    Missing(&'static str),
    /// A column's length does not fit its rows, or a value is out of its range.
    #[error("the field `{0}` does not fit the others")]
    Inconsistent(&'static str),
}

impl From<WireError> for tonic::Status {
    fn from(error: WireError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

/// Refuses a peer that runs another job, or another version of the job, naming both values.
///
/// # Errors
/// `FAILED_PRECONDITION` when `theirs` is not `ours`.
pub fn same_fingerprint(ours: u64, theirs: u64) -> Result<(), tonic::Status> {
    if ours == theirs {
        return Ok(());
    }
    Err(tonic::Status::failed_precondition(format!(
        "the job's fingerprint is {ours:016x} here and {theirs:016x} there: all services of a job must run the same job file, that of the coordinator counts; restart the service that has another"
    )))
}

/// Refuses a peer of another job record, naming both.
///
/// # Errors
/// `FAILED_PRECONDITION` when `theirs` is not `ours`.
pub fn same_job(ours: [u8; 16], theirs: &[u8]) -> Result<(), tonic::Status> {
    if ours == theirs {
        return Ok(());
    }
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Err(tonic::Status::failed_precondition(format!(
        "the job's uuid is {} here and {} there: the job record was written anew; restart the older service",
        hex(&ours),
        hex(theirs)
    )))
}
