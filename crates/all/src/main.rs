//! The program of the image: `ingest`, `watermark-coordinator`, `window-worker` and `tidegate` in one, so that what they share
//! is there once. It is the one by whose name it is called, through a link; by any other name it is `tidegate`
//! (docs/decisions/0031).

use std::{env, path::Path, process::ExitCode};

use tidegate_allocator::Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    let called = env::args_os().next().unwrap_or_default();
    match Path::new(&called).file_name().and_then(|name| name.to_str()) {
        Some("ingest") => tidegate_ingest::program::main(),
        Some("watermark-coordinator") => tidegate_coordinator::program::main(),
        Some("window-worker") => tidegate_worker::program::main(),
        _ => tidegate_cli::main(),
    }
}
