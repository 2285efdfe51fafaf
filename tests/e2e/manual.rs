//! The manual against the programs.

use std::{collections::BTreeSet, fs, process::Command};

use crate::dev::{program, root};

/// The services as the manual's table of flags has them, and their programs.
const SERVICES: [(&str, &str); 3] =
    [("coordinator", "watermark-coordinator"), ("ingest", "ingest"), ("worker", "window-worker")];
/// What the table leaves to another one, by how it begins.
const ELSEWHERE: &str = "--kafka-";
/// What every program has.
const EVERYWHERE: [&str; 3] = ["--help", "--version", "--print-config"];

#[test]
fn the_manual_has_the_flags_of_each_service_and_no_others() {
    let manual = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let (_, section) = manual.split_once("\n## Flags\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let rows: Vec<Vec<&str>> = section
        .lines()
        .filter(|line| line.starts_with("| `--"))
        .map(|line| line.split(" | ").collect())
        .collect();
    assert!(rows.len() > 20, "{rows:?}");
    for (service, name) in SERVICES {
        let documented: BTreeSet<String> = rows
            .iter()
            .filter(|row| row[2] == "all" || row[2].split(", ").any(|of| of == service))
            .flat_map(|row| flags(row[0]))
            .collect();
        let help = Command::new(program(name)).arg("--help").output().unwrap().stdout;
        let help = String::from_utf8(help).unwrap();
        let options = help.lines().filter(|line| line.trim_start().starts_with('-'));
        let taken: BTreeSet<String> = options.flat_map(flags).collect();
        assert_eq!(taken, documented, "of {name}");
    }
}

/// The flags named in a text.
fn flags(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    let flags = words.filter(|word| word.starts_with("--") && word.len() > 2);
    flags
        .filter(|flag| !flag.starts_with(ELSEWHERE) && !EVERYWHERE.contains(flag))
        .map(str::to_owned)
        .collect()
}
