//! The records of a source as its job reads them, with the schemas that they name.

use std::path::Path;

use anyhow::Result;
use tidegate_extract::{Extracted, Extractor, Reject};
use tidegate_job::Job;
use tidegate_kafka::Record;
use tidegate_schemas::{Error, Registry};
use tokio::runtime::Handle;

/// Reads records on a thread that may block.
pub(crate) struct Inputs {
    extractor: Extractor,
    registry: Option<Registry>,
    runtime: Handle,
}

impl Inputs {
    /// For the records of `job`; files that it names are found from the folder of `job_file`.
    ///
    /// # Errors
    /// When a schema in a file cannot be used.
    pub(crate) fn open(job: &Job, job_file: &Path) -> Result<Self> {
        let (extractor, registry) = tidegate_schemas::open(job, job_file)?;
        Ok(Self { extractor, registry, runtime: Handle::current() })
    }

    /// What the job takes of a record, or why it does not. A schema that the registry does not know makes it unreadable.
    ///
    /// # Errors
    /// When the registry does not answer.
    pub(crate) fn extract<'a>(
        &'a mut self,
        record: &'a Record<'_>,
    ) -> Result<std::result::Result<Extracted<'a>, Reject>> {
        if let (Some(id), Some(registry)) = (self.extractor.wants(record), &self.registry) {
            match self.runtime.block_on(registry.schema(id)) {
                Ok(schema) => self.extractor.learn(id, Ok(&schema)),
                Err(error @ Error::Unavailable { .. }) => return Err(error.into()),
                Err(Error::Unknown { .. }) => {
                    self.extractor.learn(id, Err("the registry does not know it".to_owned()));
                }
                Err(error) => self.extractor.learn(id, Err(error.to_string())),
            }
        }
        Ok(self.extractor.extract(record))
    }
}
