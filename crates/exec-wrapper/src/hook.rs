//! `hook`: an exec hook or probe, which must see the kept filesystem too.

use std::ffi::OsString;

use exec_wrapper::protocol::Verb;

use crate::connection::Agent;
use crate::{Failure, exec_command, kept_root, run, stdin};

/// Executes the command on the kept filesystem, at once if the container is there already. Returns
/// only if that failed.
pub(crate) fn hook(command: &[OsString]) -> Result<(), Failure> {
    // The common case must not depend on the node agent. An unreadable table is settled below.
    if !kept_root::is_here().unwrap_or(false) {
        let directory = exec_command::WorkingDirectory::here()?;
        let granted = Agent::new(None)?.ask(Verb::Hook)?;
        drop(granted);
        run::require_kept_root()?;
        directory.restore()?;
        stdin::renew();
    }
    Err(exec_command::execute(command, None))
}
