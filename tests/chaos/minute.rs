//! A minute of the chaos program, always the same one: part of `make test`.

#![allow(clippy::disallowed_methods, reason = "this test runs a program")]

use std::{
    io::{self, Write},
    process::{Command, Stdio},
};

use tidegate_tests::ApacheKafka;

fn number(line: &str, name: &str) -> u64 {
    let value = line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {line:?}"))
}

#[test]
fn a_minute_of_chaos_loses_nothing_repeats_nothing_and_changes_nothing() {
    if !ApacheKafka::can_run("a minute of chaos") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_chaos"))
        .args(["--duration", "60s", "--seed", "1", "--folder"])
        .arg(folder.path().join("run"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    if let Some(without) = said.lines().find(|line| line.starts_with("NO FAULTS OF THE NETWORK")) {
        // Not `eprintln!`: the test runner would keep it to itself, as the test passes.
        let _ = writeln!(io::stderr(), "\n{without}\n");
    }
    let line = said.lines().find(|line| line.starts_with("chaos: ")).unwrap_or_default();
    if !output.status.success() || line.is_empty() {
        // What it says is no help without what the services said.
        let kept = folder.keep();
        panic!(
            "{said}\n{}\nlogs are kept in {}",
            String::from_utf8_lossy(&output.stderr),
            kept.join("run").display()
        );
    }
    println!("{said}");
    let _ = writeln!(io::stderr(), "\n{line}\n");
    assert!(number(line, "faults") >= 15, "{line}");
    assert!(number(line, "records") >= 100_000, "{line}");
    assert!(number(line, "windows") >= 1_000, "{line}");
    assert_eq!(["lost", "duplicated", "wrong"].map(|name| number(line, name)), [0; 3]);
}
