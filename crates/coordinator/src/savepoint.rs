//! A savepoint: the whole state of a job as files, to begin another job with.
//!
//! ```text
//! savepoint.json      who the job was, and of each shard: its file, the sum of its bytes, where it stood; written last
//! shard-00000.blocks  the chunks of the blocks that its log would begin with, each behind its length (4 bytes, big-endian)
//! ```
//! It is taken from the committed changelogs, of a job that has stopped, and never changes them.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tidegate_core::{
    aggregate::Layout,
    block::{Assembler, Block, BlockError, JobId},
    shard::{
        CanonicalState, RestoreError, ShardState,
        savepoint::{Unaligned, resharded},
    },
    time::{Offset, Partition},
};
use tidegate_job::Job;
use tidegate_kafka::{ChangelogReader, Entry, KafkaConfig};
use xxhash_rust::xxh3::xxh3_64;

use crate::control::Control;
use crate::error::Error as CoordinatorError;
use crate::job_record::JobRecord;
use crate::topics::PATIENCE;

const MANIFEST: &str = "savepoint.json";
/// Rises when a reader of an older version would misunderstand the files.
const VERSION: u32 = 1;
/// A chunk fits every topic's default `max.message.bytes`.
pub(crate) const CHUNK_BYTES: usize = 900 << 10;
/// About how many bytes of entries a block holds.
const BLOCK_BYTES: usize = 8 << 20;
/// A job that runs commits its positions at least this often.
const HEARTBEAT: Duration = Duration::from_secs(6);

/// Why there is no savepoint, or why it cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster, or what it holds of the job.
    #[error(transparent)]
    Coordinator(#[from] Box<CoordinatorError>),
    /// The job has never run there.
    #[error("topic `{topic}` has no job record: a job of this name has not run on this cluster")]
    NoJob {
        /// The control topic.
        topic: String,
    },
    /// Somebody commits.
    #[error(
        "job `{job}` is running: shard {shard} has committed meanwhile; stop its ingests, a few seconds later its workers, and take \
         the savepoint then (or pass --running for a copy of what is committed now: the job goes on, and what it puts out from here on, a \
         job that begins with the copy puts out too)"
    )]
    Running {
        /// The job's name.
        job: String,
        /// A shard that committed.
        shard: u32,
    },
    /// A changelog does not read.
    #[error("topic `{topic}` partition {shard} at offset {offset}: {source}")]
    Changelog {
        /// The changelog topic.
        topic: String,
        /// The shard.
        shard: u32,
        /// Where.
        offset: Offset,
        /// Why.
        source: RestoreError,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is something where the savepoint is to be.
    #[error("{}: is there already, and not empty; give a folder that is not there yet", .0.display())]
    Occupied(PathBuf),
    /// A file is not what was written.
    #[error("{}: damaged: {reason}; copy the savepoint anew from where it was taken", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The shards are not at the same place, and the new job has another number of them.
    #[error(
        "the savepoint has {saved} shards, the job `state.shards: {wanted}`, and its shards cannot be cut anew: {source}; start the job \
         that it was taken from again, let it catch up, stop its ingests, some seconds later its workers, and take another"
    )]
    Unaligned {
        /// S of the savepoint.
        saved: u32,
        /// S of the job.
        wanted: u32,
        /// Where they differ.
        source: Unaligned,
    },
}

type Result<T, E = Error> = std::result::Result<T, E>;

impl From<CoordinatorError> for Error {
    fn from(error: CoordinatorError) -> Self {
        Self::Coordinator(Box::new(error))
    }
}

impl From<tidegate_kafka::Error> for Error {
    fn from(error: tidegate_kafka::Error) -> Self {
        CoordinatorError::from(error).into()
    }
}

/// The state of a job.
#[derive(Debug)]
pub struct Savepoint {
    record: JobRecord,
    shards: Vec<CanonicalState>,
    layout: Arc<Layout>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    version: u32,
    record: Box<RawValue>,
    shards: Vec<ShardFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShardFile {
    file: String,
    bytes: u64,
    xxh3: String,
    watermark_ms: Option<i64>,
    /// The smallest offset of each source partition that is not in it.
    positions: Vec<u64>,
}

impl Savepoint {
    /// Reads what `job` has committed; of a job that `is_running` a copy, else it has to stand still. Blocks.
    ///
    /// # Errors
    /// [`Error`]
    pub fn take(kafka: &KafkaConfig, job: &Job, is_running: bool) -> Result<Self> {
        let control = job.control_topic();
        let record = Control::read(kafka, &control, PATIENCE)?.job.ok_or(Error::NoJob { topic: control })?;
        let record = record.continued_by(job)?.unwrap_or(record);
        let layout = Arc::new(Layout::grown(&job.core, &record.generations));
        let topic = job.changelog_topic();
        let reader = ChangelogReader::open(kafka, &topic)?;
        let mut shards = Vec::new();
        let mut ends = Vec::new();
        for shard in 0..record.shards {
            let mut state = ShardState::empty_with(&job.core, Arc::clone(&layout));
            ends.push(fold_log(&reader, &topic, shard, &mut state)?);
            if state.job() != Some(record.job) {
                let source = RestoreError::OtherJob;
                return Err(Error::Changelog { topic, shard, offset: Offset(0), source });
            }
            // Another job has dead letters of its own: those of this one are none that it may ask for.
            shards.push(CanonicalState { answered: BTreeMap::new(), ..state.canonical() });
        }
        if !is_running {
            std::thread::sleep(HEARTBEAT);
            for (end, shard) in ends.iter().zip(0..) {
                if reader.ends(Partition(shard))?.high_watermark != *end {
                    return Err(Error::Running { job: job.name.clone(), shard });
                }
            }
        }
        Ok(Self { record, shards, layout })
    }

    /// Why a job with another number of shards could not begin with it; `None` where one could.
    #[must_use]
    pub fn unaligned(&self) -> Option<Unaligned> {
        resharded(&self.shards, 1).err()
    }

    /// Number of shards.
    #[must_use]
    pub const fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Writes it to `folder`, which is made. Gives the bytes written.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Occupied`]
    pub fn write(&self, folder: &Path) -> Result<u64> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::File { path, source }
        };
        fs::create_dir_all(folder).map_err(failed(folder))?;
        if fs::read_dir(folder).map_err(failed(folder))?.next().is_some() {
            return Err(Error::Occupied(folder.to_owned()));
        }
        let mut files = Vec::new();
        for (at, state) in self.shards.iter().enumerate() {
            let name = format!("shard-{at:05}.blocks");
            let mut bytes = Vec::new();
            for chunk in state.blocks(self.record.job, &self.layout, BLOCK_BYTES).iter().flat_map(chunks) {
                bytes.extend_from_slice(&u32::try_from(chunk.len()).unwrap_or(u32::MAX).to_be_bytes());
                bytes.extend_from_slice(&chunk);
            }
            write_file(&folder.join(&name), &bytes)?;
            files.push(ShardFile {
                file: name,
                bytes: bytes.len() as u64,
                xxh3: format!("{:016x}", xxh3_64(&bytes)),
                watermark_ms: state.watermark.map(|watermark| watermark.0),
                positions: state.inputs.iter().map(|input| input.next.0).collect(),
            });
        }
        let written = files.iter().map(|file| file.bytes).sum();
        let json = |error: serde_json::Error| failed(&folder.join(MANIFEST))(error.into());
        let record = String::from_utf8(self.record.encode().map_err(json)?).unwrap_or_default();
        let manifest = Manifest {
            version: VERSION,
            record: RawValue::from_string(record).map_err(json)?,
            shards: files,
        };
        write_file(&folder.join(MANIFEST), &serde_json::to_vec_pretty(&manifest).map_err(json)?)?;
        Ok(written)
    }

    /// Reads the savepoint in `folder`, for `job` to begin with. Blocks.
    ///
    /// # Errors
    /// [`Error`]: a file is missing or damaged, or the job may not begin with it.
    pub fn read(folder: &Path, job: &Job) -> Result<Self> {
        let path = folder.join(MANIFEST);
        let damaged = |path: &Path, reason: String| Error::Damaged { path: path.to_owned(), reason };
        let text = read_file(&path)?;
        let manifest: Manifest =
            serde_json::from_slice(&text).map_err(|error| damaged(&path, error.to_string()))?;
        if manifest.version != VERSION {
            let reason = format!("its version is {}, this program knows version {VERSION}", manifest.version);
            return Err(damaged(&path, reason));
        }
        let saved =
            JobRecord::decode(manifest.record.get().as_bytes()).map_err(|reason| damaged(&path, reason))?;
        if saved.shards as usize != manifest.shards.len() {
            return Err(damaged(&path, "it does not name a file for each shard".to_owned()));
        }
        let record = saved.begun_anew_by(job)?;
        let layout = Arc::new(Layout::grown(&job.core, &record.generations));
        let mut shards = Vec::new();
        for shard in &manifest.shards {
            let path = folder.join(&shard.file);
            let bytes = read_file(&path)?;
            if format!("{:016x}", xxh3_64(&bytes)) != shard.xxh3 {
                return Err(damaged(&path, "the sum of its bytes does not fit".to_owned()));
            }
            let mut state = ShardState::empty_with(&job.core, Arc::clone(&layout));
            fold_file(&bytes, &mut state).map_err(|error| damaged(&path, error.to_string()))?;
            if state.job() != Some(saved.job) {
                return Err(damaged(&path, RestoreError::OtherJob.to_string()));
            }
            shards.push(state.canonical());
        }
        if saved.shards != job.core.shards {
            shards = resharded(&shards, job.core.shards).map_err(|source| Error::Unaligned {
                saved: saved.shards,
                wanted: job.core.shards,
                source,
            })?;
        }
        Ok(Self { record, shards, layout })
    }

    /// The record of the job that begins with it.
    pub(crate) const fn record(&self) -> &JobRecord {
        &self.record
    }

    /// Of each shard the chunks that its log begins with.
    pub(crate) fn beginnings(&self, job: JobId) -> impl Iterator<Item = (Partition, Vec<Vec<u8>>)> {
        (0..).map(Partition).zip(&self.shards).map(move |(shard, state)| {
            (shard, state.blocks(job, &self.layout, BLOCK_BYTES).iter().flat_map(chunks).collect())
        })
    }
}

fn chunks(block: &Block) -> Vec<Vec<u8>> {
    block.chunks(CHUNK_BYTES)
}

/// Folds a shard's log; gives its end.
fn fold_log(reader: &ChangelogReader, topic: &str, shard: u32, state: &mut ShardState) -> Result<Offset> {
    let mut assembler = Assembler::default();
    let on_entry = |entry: Entry<'_>| -> Result<()> {
        let failed =
            |source| Error::Changelog { topic: topic.to_owned(), shard, offset: entry.offset, source };
        let block = assembler.push(entry.value.unwrap_or_default()).map_err(|error| failed(error.into()))?;
        block.map_or(Ok(()), |block| state.fold(&block).map_err(failed))
    };
    Ok(reader.read(Partition(shard), None, PATIENCE, on_entry)?.end)
}

fn fold_file(mut bytes: &[u8], state: &mut ShardState) -> Result<(), RestoreError> {
    let cut_off = RestoreError::Block(BlockError::Body("a chunk is cut off"));
    let mut assembler = Assembler::default();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(|| cut_off.clone())?;
        let (chunk, rest) =
            rest.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or_else(|| cut_off.clone())?;
        bytes = rest;
        if let Some(block) = assembler.push(chunk)? {
            state.fold(&block)?;
        }
    }
    Ok(())
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|source| Error::File { path: path.to_owned(), source })
}

/// On disk when it returns.
fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = File::create(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|source| Error::File { path: path.to_owned(), source })
}
