//! What a process has used, from `/proc`: for the metrics of this one and the benchmark's account of others.

use std::fs;
use std::io;
use std::path::Path;

use crate::Error;

/// Ticks a second in `/proc/<pid>/stat`: 100 on every Linux, whatever the kernel's own tick is.
const TICKS_PER_SECOND: f64 = 100.0;

/// What version 1 of the control groups says where there is no limit is near `i64::MAX`, rounded down to a page.
const UNLIMITED: u64 = 1 << 62;

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

/// When this process started, in seconds since the Unix epoch, to about a second.
///
/// # Errors
/// [`Error::Process`]
pub fn start_time_self() -> Result<f64, Error> {
    let since_boot = read("self", "stat", "start time", parse_start)?;
    let boot = parsed("/proc/stat", parse_boot);
    let failed = |source| Error::Process { what: "start time", process: "self".to_owned(), source };
    Ok(boot.map_err(failed)? + since_boot)
}

/// Bytes of memory that the control groups of this process allow, the tightest of them; `None` where none sets a limit.
#[must_use]
pub fn memory_limit_self() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    memory_limit(Path::new("/sys/fs/cgroup"), &groups)
}

/// Version 2 first, where one line `0::PATH` names the group; then version 1, where the memory controller has a line of its own.
fn memory_limit(root: &Path, groups: &str) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, group) = (parts.next()?, parts.next()?.trim_start_matches('/'));
        let (mount, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            "memory" => (root.join("memory"), "memory.limit_in_bytes"),
            _ => return None,
        };
        let group = mount.join(group);
        let up = group.ancestors().take_while(|folder| folder.starts_with(&mount));
        up.filter_map(|folder| fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok()).min()
    });
    limits.filter(|limit| *limit < UNLIMITED).min()
}

fn cpu_seconds(process: &str) -> Result<f64, Error> {
    read(process, "stat", "CPU time", parse_cpu_seconds)
}

fn rss_bytes(process: &str) -> Result<u64, Error> {
    read(process, "status", "memory", parse_rss_bytes)
}

fn read<T>(process: &str, file: &str, what: &'static str, parse: fn(&str) -> Option<T>) -> Result<T, Error> {
    parsed(&format!("/proc/{process}/{file}"), parse).map_err(|source| Error::Process {
        what,
        process: process.to_owned(),
        source,
    })
}

fn parsed<T>(path: &str, parse: fn(&str) -> Option<T>) -> io::Result<T> {
    fs::read_to_string(path).and_then(|text| parse(&text).ok_or_else(|| io::ErrorKind::InvalidData.into()))
}

/// Fields 14 and 15; the second field is the program's name in parentheses and may hold anything.
fn parse_cpu_seconds(stat: &str) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some((f64::from(user) + f64::from(system)) / TICKS_PER_SECOND)
}

/// Field 22, in ticks since the machine started.
fn parse_start(stat: &str) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let ticks: f64 = after_name.split_whitespace().nth(19)?.parse().ok()?;
    Some(ticks / TICKS_PER_SECOND)
}

fn parse_boot(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
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
    fn the_start_is_boot_time_and_the_ticks_since() {
        assert_eq!(
            parse_start("42 (a) b) S 1 42 42 0 -1 4194560 9 9 0 0 250 50 0 0 20 0 4 0 9012 9"),
            Some(90.12)
        );
        assert_eq!(parse_start("42 (a) S 1"), None);
        assert_eq!(parse_boot("cpu 1 2\nbtime 1700000000\nprocesses 3\n"), Some(1_700_000_000.0));
        let (start, now) = (start_time_self().unwrap(), std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap());
        assert!(start > 1_000_000_000.0 && start <= now.as_secs_f64() + 1.0, "{start}");
    }

    #[test]
    fn the_tightest_control_group_is_the_memory_limit() {
        let root = tempfile::tempdir().unwrap();
        let limit = |groups: &str| memory_limit(root.path(), groups);
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(limit("0::/pods/a\n"), None);
        write("pods/a/memory.max", "max\n");
        assert_eq!(limit("0::/pods/a\n"), None);
        write("pods/memory.max", "1048576\n");
        assert_eq!(limit("0::/pods/a\n"), Some(1_048_576));
        write("pods/a/memory.max", "65536\n");
        assert_eq!(limit("0::/pods/a\n"), Some(65_536));
        assert_eq!(limit("0::/\n"), None);
        write("memory.max", "4096\n");
        assert_eq!(limit("0::/\n"), Some(4096), "inside a container its own group is the root");

        write("memory/docker/b/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(limit("5:cpu:/docker/b\n4:memory:/docker/b\n"), None);
        write("memory/docker/memory.limit_in_bytes", "777\n");
        assert_eq!(limit("5:cpu:/docker/b\n4:memory:/docker/b\n"), Some(777));
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
