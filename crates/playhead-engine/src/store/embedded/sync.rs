//! The locks of the memtable, so that a model checker can put its own in their place and run every interleaving.

#[cfg(not(feature = "model-check"))]
pub(crate) use std::sync::{Mutex, MutexGuard};

#[cfg(feature = "model-check")]
pub(crate) use shuttle::sync::{Mutex, MutexGuard};

/// Lets others run for a moment, while waiting for something that takes microseconds.
#[cfg(not(feature = "model-check"))]
pub(crate) fn pause(already: u32) {
    if already < 64 {
        std::thread::yield_now();
    } else {
        std::thread::park_timeout(std::time::Duration::from_micros(50));
    }
}

/// Lets others run.
#[cfg(feature = "model-check")]
pub(crate) fn pause(_already: u32) {
    shuttle::thread::yield_now();
}
