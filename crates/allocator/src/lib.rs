//! The allocator of the programs: mimalloc, which serves the C code in them too, and when it gives memory back to the system.
//!
//! ```text
//! #[global_allocator]
//! static ALLOCATOR: Allocator = Allocator;
//! ```

use std::{
    env,
    ffi::{c_int, c_long},
    sync::Once,
};

pub use mimalloc::MiMalloc as Allocator;

/// `mi_option_purge_delay` of mimalloc 3.3: its binding has no name for it. A test asks whether it still is.
const PURGE_DELAY: c_int = 15;

#[allow(
    unsafe_code,
    reason = "mimalloc has no safe binding of its options; both are plain numbers, and any is allowed"
)]
mod options {
    use super::{c_int, c_long};

    unsafe extern "C" {
        pub(super) safe fn mi_option_set(option: c_int, value: c_long);
        #[cfg(test)]
        pub(super) safe fn mi_option_get(option: c_int) -> c_long;
    }
}

/// How long pages stay free before they go back to the system, in ms, where memory is short. A worker with more state than memory
/// lets go of a shard's rows all at once, and of chunks and blocks as fast: with mimalloc's second it has 350 MiB more
/// (docs/benchmarks.md).
const SOON: c_long = 10;

/// Has free pages go back to the system soon from now on. It costs CPU: for who has more state than memory. `MIMALLOC_PURGE_DELAY` in
/// the environment wins.
pub fn give_back_soon() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
            options::mi_option_set(PURGE_DELAY, SOON);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[global_allocator]
    static ALLOCATOR: Allocator = Allocator;

    #[test]
    fn what_is_set_is_what_mimalloc_has_a_second_for() {
        assert_eq!(options::mi_option_get(PURGE_DELAY), 1_000);
        give_back_soon();
        assert_eq!(options::mi_option_get(PURGE_DELAY), SOON);
    }
}
