//! Lines for the container's log.

use std::io::Write;

/// Writes one line to stderr. A log that cannot be written is no reason to stop.
pub(crate) fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "stoppablecontainer: {line}");
}
