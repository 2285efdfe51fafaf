//! The job file: YAML in, checked values out.
//!
//! ```text
//!  text ──node──► located tree ──decode──► file::JobFile ──check──► Job ──fingerprint──► canonical text, u64
//!                                          (typed, serde)
//! ```
//!
//! Nothing in a job file is ignored: an unknown key is refused with its line and the nearest known one, and what
//! is not built yet is refused as "not supported yet". Every [`Problem`] says where, what is wrong and what to do.
//! All keys are explained in `docs/job.md`.

mod check;
mod condition;
mod decode;
mod file;
mod fingerprint;
mod job;
mod names;
mod node;
mod quantity;
mod report;
mod schema;
#[cfg(test)]
mod tests;
mod zones;

pub use file::JobFile;
pub use fingerprint::{Difference, continues};
pub use job::{
    DeadLetter, Format, Job, KeySource, OnDataLoss, Registry, SchemaFile, SchemaSource, Sink, Source,
    StartFrom, State, TimeSource, TimeUnit, UnknownSchema,
};
pub use quantity::{duration, duration_text};
pub use report::{Problem, Report};
pub use schema::json_schema;
pub use zones::zone;
