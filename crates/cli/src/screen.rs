//! The live view of `tidegate dev`: what time it is in the stream, who holds it back, what comes out.

use std::{
    collections::VecDeque,
    io::{Stdout, Write},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Result;
use crossterm::{cursor, queue, style::Stylize, terminal};
use tidegate_job::Job;
use tidegate_kafka::{KafkaConfig, Step, tail};
use tidegate_proto::v1;

use crate::{status, topics};

/// Results kept for the screen.
const RESULTS: usize = 8;
/// Glances between two lines where there is no terminal.
const QUIET_GLANCES: u64 = 4;

/// Draws the status of a job.
pub(crate) struct Screen {
    out: Stdout,
    terminal: bool,
    glances: u64,
    name: String,
    records: VecDeque<(i64, u64)>,
    results: Arc<Mutex<VecDeque<String>>>,
}

impl Screen {
    /// A screen that also reads the results as a consumer would.
    ///
    /// # Errors
    /// When the thread that reads results cannot be started.
    pub(crate) fn start(kafka: &KafkaConfig, job: &Job, terminal: bool) -> Result<Self> {
        let results = Arc::new(Mutex::new(VecDeque::new()));
        if terminal {
            let (kafka, topic, kept) = (kafka.clone(), job.sink.topic.clone(), Arc::clone(&results));
            std::thread::Builder::new()
                .name("last-results".to_owned())
                .spawn(move || follow(&kafka, &topic, &kept))?;
        }
        Ok(Self {
            out: std::io::stdout(),
            terminal,
            glances: 0,
            name: job.name.clone(),
            records: VecDeque::new(),
            results,
        })
    }

    /// Draws `status`, or prints a line of it where there is no terminal.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub(crate) fn show(&mut self, status: &v1::JobStatus) -> Result<()> {
        self.glances += 1;
        let now = topics::unix_millis();
        self.records.push_back((now, status.records_read));
        while self.records.len() > 12 {
            self.records.pop_front();
        }
        if self.terminal {
            return self.draw(status, now);
        }
        if self.glances % QUIET_GLANCES == 1 {
            let totals = status::totals(status);
            let dead: u64 = totals.dead_letters.values().sum();
            writeln!(
                self.out,
                "watermark={} read={} applied={} windows={} late={} dead_letters={dead}",
                status::watermark(status).map_or_else(|| "undefined".to_owned(), |ms| ms.to_string()),
                status.records_read,
                totals.applied,
                totals.results_final,
                totals.results_late,
            )?;
            self.out.flush()?;
        }
        Ok(())
    }

    fn draw(&mut self, status: &v1::JobStatus, now: i64) -> Result<()> {
        let lines = self.lines(status, now);
        // A line that is too long ends at the edge instead of pushing the others down.
        queue!(self.out, terminal::DisableLineWrap, cursor::MoveTo(0, 0))?;
        for line in lines {
            queue!(self.out, terminal::Clear(terminal::ClearType::CurrentLine))?;
            writeln!(self.out, "{line}\r")?;
        }
        queue!(self.out, terminal::Clear(terminal::ClearType::FromCursorDown), terminal::EnableLineWrap)?;
        Ok(self.out.flush()?)
    }

    fn lines(&self, status: &v1::JobStatus, now: i64) -> Vec<String> {
        let totals = status::totals(status);
        let watermark = status::watermark(status);
        let mut lines = vec![
            format!("{}  {}   Ctrl-C stops", "tidegate".bold(), self.name.clone().bold()),
            String::new(),
            format!(
                "{}  {}   lag {}",
                "global watermark".bold(),
                clock(watermark).cyan(),
                watermark.map_or_else(|| "-".to_owned(), |ms| seconds(now - ms)).yellow()
            ),
            format!(
                "records {:>10}   {:>8}/s   (key, window) closed {:>8}   open {:>7}",
                status.records_read,
                self.rate(),
                totals.results_final,
                totals.open_rows
            ),
            format!("late corrections {:>5}   dead letters {}", totals.results_late, reasons(&totals)),
            String::new(),
            format!("{}", "partition  state     watermark      behind now     position   lag".bold()),
        ];
        for p in &status.partitions {
            let behind = p.watermark_ms.map_or_else(|| "-".to_owned(), |ms| seconds(now - ms));
            let row = format!(
                "{:>9}  {:8}  {}   {:>10}   {:>10} {:>5}",
                p.partition,
                p.state,
                clock(p.watermark_ms),
                behind,
                p.position,
                p.lag
            );
            lines.push(if p.holds {
                format!("{}  {}", row.yellow(), "◄ holds the watermark".dim())
            } else {
                row
            });
        }
        lines.push(String::new());
        lines.push(format!("{}", "worker        state   shards".bold()));
        for worker in &status.workers {
            let shards = status.owners.iter().filter(|owner| owner.worker == worker.name).count();
            lines.push(format!("{:12}  {:6}  {shards}", worker.name, worker.state));
        }
        lines.push(String::new());
        lines.push(format!("{}", "last results".bold()));
        if let Ok(results) = self.results.lock() {
            lines.extend(results.iter().cloned());
        }
        lines
    }

    fn rate(&self) -> u64 {
        match (self.records.front(), self.records.back()) {
            (Some((from, before)), Some((to, after))) if to > from => {
                after.saturating_sub(*before) * 1_000 / u64::try_from(to - from).unwrap_or(1)
            }
            _ => 0,
        }
    }
}

fn follow(kafka: &KafkaConfig, topic: &str, kept: &Mutex<VecDeque<String>>) {
    loop {
        let ended: Result<(), tidegate_kafka::Error> = tail(
            kafka,
            topic,
            |record| {
                if let (Ok(mut kept), Some(value)) = (kept.lock(), record.value()) {
                    kept.push_back(String::from_utf8_lossy(value).into_owned());
                    if kept.len() > RESULTS {
                        kept.pop_front();
                    }
                }
                Ok(Step::Continue)
            },
            || Ok(Step::Continue),
        );
        // The coordinator makes the topic a moment after the start.
        if let Err(error) = ended {
            tracing::debug!(%error, "no results to follow yet");
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn reasons(totals: &v1::WorkerStats) -> String {
    let mut reasons: Vec<_> = totals.dead_letters.iter().filter(|(_, count)| **count > 0).collect();
    reasons.sort();
    let shown: Vec<String> = reasons.into_iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    if shown.is_empty() { "none".to_owned() } else { shown.join("   ") }
}

fn clock(ms: Option<i64>) -> String {
    let Some(ms) = ms else { return "undefined   ".to_owned() };
    let of_day = ms.rem_euclid(86_400_000);
    format!(
        "{:02}:{:02}:{:02}.{:03}",
        of_day / 3_600_000,
        of_day / 60_000 % 60,
        of_day / 1_000 % 60,
        of_day % 1_000
    )
}

fn seconds(ms: i64) -> String {
    format!("{}.{} s", ms / 1_000, (ms % 1_000).abs() / 100)
}
