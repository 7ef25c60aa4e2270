/*!
`run`: becomes the image's command on the kept filesystem.

The agent changes the root as a whole before it answers `ok`. Nothing afterwards can leave the
container on another root or half-way. A failure ends the process with exit code 125 and a line with
the reason. The allocations after `ok` are small (a line of the mount table, one of /etc/passwd,
copies of arguments and environment). If they fail, the process is killed or aborts, and has
executed nothing.
*/

use std::ffi::OsString;

use exec_wrapper::protocol::Verb;

use crate::connection::Agent;
use crate::signals::Signals;
use crate::termination_message::TerminationMessage;
use crate::{Failure, Options, exec_command, home, kept_root, stdin};

/// Waits for the kept filesystem and executes the command there. Returns only if that failed; the
/// container's termination message then has the reason.
pub(crate) fn run(command: &[OsString], options: &Options) -> Result<(), Failure> {
    let termination_message = TerminationMessage::at(options.termination_log());
    let outcome = become_it(command, options.default_home);
    if let Some(line) = outcome.as_ref().err().and_then(Failure::line) {
        termination_message.write(&line);
    }
    outcome
}

fn become_it(command: &[OsString], default_home: bool) -> Result<(), Failure> {
    let signals =
        Signals::catch().map_err(|error| Failure::wrapper(format_args!("cannot handle signals: {error}")))?;
    let directory = exec_command::WorkingDirectory::here()?;
    let granted = Agent::new(Some(&signals))?.ask(Verb::Run)?;
    drop(granted);
    require_kept_root()?;
    directory.restore()?;
    stdin::renew();
    let home = if default_home { home::missing() } else { None };
    // From the execve on a signal goes to the command; until here it came for us.
    if let Some(number) = signals.received() {
        return Err(Failure::Signal(number));
    }
    Err(exec_command::execute(command, home.as_deref()))
}

/// Nothing of the image's is executed anywhere but on the kept filesystem.
pub(crate) fn require_kept_root() -> Result<(), Failure> {
    match kept_root::is_here() {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::wrapper(
            "the node agent said that the filesystem is in place, but it is not",
        )),
        Err(error) => Err(Failure::wrapper(format_args!(
            "cannot find out whether the filesystem is in place: /proc/self/mountinfo: {error}"
        ))),
    }
}
