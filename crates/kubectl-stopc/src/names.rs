//! Completion of the names of containers, where arguments are defined. How names are looked up is
//! set by `completion`, which knows the whole command line.

use std::ffi::OsStr;
use std::sync::OnceLock;

use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};

/// Finds the names that begin with a text.
pub type Lookup = fn(&str) -> Vec<CompletionCandidate>;

static LOOKUP: OnceLock<Lookup> = OnceLock::new();

/// Sets how names are looked up. Only the first call counts.
pub fn look_up_with(lookup: Lookup) {
    LOOKUP.get_or_init(|| lookup);
}

/// Completes the name of a container.
pub(crate) fn completer() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let lookup = LOOKUP.get();
        lookup.map_or_else(Vec::new, |lookup| lookup(&typed.to_string_lossy()))
    })
}
