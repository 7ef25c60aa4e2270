//! A wall clock that tests set. Each test has a thread of its own for everything it runs, and so a
//! clock of its own.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

thread_local! {
    static AHEAD: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// The time that everything in this test goes by.
pub(crate) fn now() -> SystemTime {
    SystemTime::now() + AHEAD.get()
}

/// Moves the clock on.
pub(crate) fn advance(by: Duration) {
    AHEAD.set(AHEAD.get() + by);
}
