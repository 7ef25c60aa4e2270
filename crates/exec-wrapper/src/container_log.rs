//! Lines for the container's log.

use std::io::Write;

use exec_wrapper::protocol::LINE_PREFIX;

/// Writes one line to stderr.
pub(crate) fn print(line: impl std::fmt::Display) {
    write(&self::line(line));
}

/// A line of ours.
pub(crate) fn line(line: impl std::fmt::Display) -> String {
    format!("{LINE_PREFIX}{line}")
}

/// Writes a line of ours to stderr. The wrapper goes on if the log cannot be written.
pub(crate) fn write(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
