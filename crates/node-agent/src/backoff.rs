//! Pauses between tries, each twice as long as the one before.

use std::time::Duration;

/// The pauses.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

// === impl Backoff ===

impl Backoff {
    /// Pauses from `first` to `longest`.
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            next: first,
        }
    }

    /// The next pause.
    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        pause
    }

    /// The next pause, which stays the next one.
    pub(crate) fn peek(&self) -> Duration {
        self.next
    }

    /// Whether pauses do not grow any more.
    pub(crate) fn is_longest(&self) -> bool {
        self.next == self.longest
    }

    /// Begins anew with the first pause.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}
