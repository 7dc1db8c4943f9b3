//! A flag that threads wait on instead of sleeping: set once to stop them, or nudged to look at once.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Shared by a thread that waits and those who wake it.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    nudged: bool,
}

impl Stop {
    /// Waits for this long, or until nudged or stopped. Whether to stop.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(state, time, |state| !state.stopped && !state.nudged);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.nudged = false;
        state.stopped
    }

    /// Ends the present wait.
    pub(crate) fn wake(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).nudged = true;
        self.changed.notify_all();
    }

    /// Ends the present wait and all later ones.
    pub(crate) fn stop(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stopped = true;
        self.changed.notify_all();
    }
}
