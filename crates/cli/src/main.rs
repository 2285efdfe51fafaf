//! `tidegate`: see the library's documentation.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidegate_cli::main()
}
