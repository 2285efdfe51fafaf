//! What a process has used, from `/proc`: for the metrics of this one and the benchmark's account of others.

use std::fs;
use std::io;

use crate::Error;

/// Ticks a second in `/proc/<pid>/stat`: 100 on every Linux, whatever the kernel's own tick is.
const TICKS_PER_SECOND: f64 = 100.0;

/// User and system CPU seconds this process has used, to 10 ms.
///
/// # Errors
/// [`Error::Process`]
pub fn cpu_seconds_self() -> Result<f64, Error> {
    cpu_seconds("self")
}

/// User and system CPU seconds that process `pid` has used, to 10 ms.
///
/// # Errors
/// [`Error::Process`], for one when it has ended.
pub fn cpu_seconds_of(pid: u32) -> Result<f64, Error> {
    cpu_seconds(&pid.to_string())
}

/// Bytes of memory that this process has in use.
///
/// # Errors
/// [`Error::Process`]
pub fn rss_bytes_self() -> Result<u64, Error> {
    rss_bytes("self")
}

/// Bytes of memory that process `pid` has in use.
///
/// # Errors
/// [`Error::Process`], for one when it has ended.
pub fn rss_bytes_of(pid: u32) -> Result<u64, Error> {
    rss_bytes(&pid.to_string())
}

fn cpu_seconds(process: &str) -> Result<f64, Error> {
    read(process, "stat", "CPU time", parse_cpu_seconds)
}

fn rss_bytes(process: &str) -> Result<u64, Error> {
    read(process, "status", "memory", parse_rss_bytes)
}

fn read<T>(process: &str, file: &str, what: &'static str, parse: fn(&str) -> Option<T>) -> Result<T, Error> {
    let text = fs::read_to_string(format!("/proc/{process}/{file}"));
    let parsed = text.and_then(|text| parse(&text).ok_or_else(|| io::ErrorKind::InvalidData.into()));
    parsed.map_err(|source| Error::Process { what, process: process.to_owned(), source })
}

/// Fields 14 and 15; the second field is the program's name in parentheses and may hold anything.
fn parse_cpu_seconds(stat: &str) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some((f64::from(user) + f64::from(system)) / TICKS_PER_SECOND)
}

fn parse_rss_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_seconds_are_read_whatever_the_program_is_called() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 1000 0 0 0 1234 66 0 0 20 0 5 0 100 1000 200";
        assert_eq!(parse_cpu_seconds(stat), Some(13.0));
        assert_eq!(parse_cpu_seconds("42 (a) S 1"), None);
    }

    #[test]
    fn this_process_uses_cpu_and_memory_and_is_found_by_its_pid() {
        let pid = std::process::id();
        let before = cpu_seconds_self().unwrap();
        let mut sum = 0_u64;
        while cpu_seconds_of(pid).unwrap() < before + 0.05 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(rss_bytes_self().unwrap() > 1 << 20);
        assert!(rss_bytes_of(pid).unwrap() > 1 << 20);
        assert!(cpu_seconds_of(u32::MAX).is_err());
    }
}
