//! `window-worker`: see the library's documentation.

use std::process::ExitCode;

use tidegate_allocator::Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    tidegate_worker::program::main()
}
