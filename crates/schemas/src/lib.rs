//! The schemas of a job's payloads: from files beside the job file, and from a registry over HTTP.
//!
//! [`open`] gives the extractor of a job, and the [`Registry`] to ask where the schemas are in one: whoever reads records
//! asks the extractor what it [wants](Extractor::wants), the registry for that, and lets the extractor
//! [learn](Extractor::learn) it. What is asked twice is the caller's affair; nothing is kept here.

mod error;
mod file;
mod http;
mod registry;

use std::path::Path;

use tidegate_extract::Extractor;
use tidegate_job::{Format, Job, SchemaSource};

pub use error::Error;
pub use registry::Registry;

/// The extractor of `job`, and the registry of its schemas. Files are found from the folder of `job_file`.
///
/// # Errors
/// When a file cannot be read, or a schema in one is none, or has no field that the job names.
pub fn open(job: &Job, job_file: &Path) -> Result<(Extractor, Option<Registry>), Error> {
    let folder = job_file.parent().unwrap_or(Path::new("."));
    match &job.source.format {
        Format::Avro(SchemaSource::File(file)) | Format::Protobuf(SchemaSource::File(file)) => {
            let schema = file::read(&job.source.format, file, folder)?;
            let path = folder.join(&file.path);
            let extractor = Extractor::with_schema(job, &schema)
                .map_err(|reason| Error::Schema { path: path.display().to_string(), reason })?;
            Ok((extractor, None))
        }
        format => {
            let registry = match format.registry() {
                Some(registry) => Some(Registry::new(registry, format, folder)?),
                None => None,
            };
            let extractor = Extractor::new(job)
                .map_err(|reason| Error::Schema { path: job_file.display().to_string(), reason })?;
            Ok((extractor, registry))
        }
    }
}
