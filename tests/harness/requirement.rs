//! What a test needs of the machine beyond this workspace.
//!
//! A test whose requirement is missing is skipped with a line on standard error that no test runner swallows; where `CI`
//! is set it fails instead.

use std::fmt;
use std::io::{self, Write};
use std::process::{Command, Stdio};

/// A program that cannot be fetched by the build itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// A Java runtime, 17 or newer.
    Java,
    /// `mvn`.
    Maven,
    /// `prometheus` and `promtool`.
    Prometheus,
    /// `prometheus-pushgateway`.
    Pushgateway,
    /// `tshark`, and the right to capture on loopback.
    Tshark,
}

impl Requirement {
    /// Whether the machine has it.
    pub fn is_met(self) -> bool {
        match self {
            Self::Java => output("java", "-version").is_some_and(|text| java_major(&text) >= Some(17)),
            Self::Maven => output("mvn", "-version").is_some(),
            Self::Prometheus => {
                ["prometheus", "promtool"].iter().all(|program| output(program, "--version").is_some())
            }
            Self::Pushgateway => output("prometheus-pushgateway", "--version").is_some(),
            Self::Tshark => output("tshark", "-D").is_some_and(|text| text.contains("(Loopback)")),
        }
    }

    /// Whether the machine has all of them. If not, says once that `what` is skipped.
    ///
    /// # Panics
    ///
    /// When one is missing and `CI` is set.
    pub fn all_met(requirements: &[Self], what: &str) -> bool {
        let Some(missing) = requirements.iter().find(|requirement| !requirement.is_met()) else {
            return true;
        };
        let line = format!("SKIPPED (no {missing}): {what}. Install {} to run it.", missing.remedy());
        assert!(std::env::var_os("CI").is_none(), "{line} Where CI is set this is a failure.");
        // Not `eprintln!`: the test runner would keep it to itself, as the test passes.
        let _ = writeln!(io::stderr(), "\n{line}\n");
        false
    }

    fn remedy(self) -> &'static str {
        match self {
            Self::Java => "a Java runtime, 17 or newer,",
            Self::Maven => "Maven (`mvn`)",
            Self::Prometheus => "Prometheus (`prometheus` and `promtool`)",
            Self::Pushgateway => "the Pushgateway (`prometheus-pushgateway`)",
            Self::Tshark => "`tshark`, and be root,",
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Java => "Java",
            Self::Maven => "Maven",
            Self::Prometheus => "Prometheus",
            Self::Pushgateway => "Pushgateway",
            Self::Tshark => "tshark that may capture",
        })
    }
}

/// Everything the program says, if it can be run at all.
fn output(program: &str, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).stdin(Stdio::null()).output().ok()?;
    let said = [output.stdout, output.stderr].concat();
    output.status.success().then(|| String::from_utf8_lossy(&said).into_owned())
}

/// `openjdk version "17.0.15" 2025-04-15` → 17; the old `"1.8.0_312"` → 1.
fn java_major(text: &str) -> Option<u32> {
    let (_, version) = text.split_once("version \"")?;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::java_major;

    #[test]
    fn the_java_version_is_read_out_of_what_it_says() {
        assert_eq!(java_major("openjdk version \"17.0.15\" 2025-04-15"), Some(17));
        assert_eq!(java_major("java version \"1.8.0_312\""), Some(1));
        assert_eq!(java_major("openjdk version \"25-ea\""), Some(25));
        assert_eq!(java_major("no java here"), None);
    }
}
