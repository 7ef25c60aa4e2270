/*!
The entrypoint of provider and consumer containers.

`hold` sleeps in the provider, `run` becomes the image's command once the node
agent has moved the container onto its kept filesystem, `hook` does the same for
exec hooks and probes. One thread, no image code before the last `execve`, and
nothing of the image is trusted: it is read only to find a home directory and a
program.

Exit codes are those of a shell and of container runtimes: 125 the wrapper
failed, 126 the command cannot be executed, 127 it was not found, 128+N ended by
signal N while waiting.
*/

#![forbid(unsafe_code)]

mod agent;
mod command;
mod hold;
mod passwd;
mod root;
mod signals;

use std::ffi::OsString;
use std::process::ExitCode;

use exec_wrapper::protocol::Verb;

use crate::command::Command;

const USAGE: &str = "usage: exec-wrapper hold | run [--default-home] -- COMMAND... | hook -- COMMAND...";

/// Why the wrapper ends without having become the command: an exit code and one line for the container's log.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
}

fn main() -> ExitCode {
    // A descriptor that a runtime leaked must not reach the command; our own close on exec anyway.
    close_fds::set_fds_cloexec(3, &[]);
    let mut arguments = std::env::args_os().skip(1);
    let verb = arguments.next();
    let outcome = match verb.as_deref().and_then(|verb| verb.to_str()) {
        Some("hold") => hold::hold(),
        Some("run") => become_command(Verb::Run, arguments.collect()),
        Some("hook") => become_command(Verb::Hook, arguments.collect()),
        _ => Err(Failure::wrapper(USAGE)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("exec-wrapper: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

fn become_command(verb: Verb, arguments: Vec<OsString>) -> Result<(), Failure> {
    let command = Command::parse(arguments).ok_or_else(|| Failure::wrapper(USAGE))?;
    // The path of the working directory, from before the root moves: afterwards it names the directory in the new root.
    let directory = rustix::process::getcwd(Vec::new())
        .map_err(|error| Failure::wrapper(format!("the working directory cannot be read: {error}")))?;
    // A hook of a running container must not need the agent (it may be restarting). `run` starts before the move,
    // always.
    if verb == Verb::Run || !root::is_kept() {
        let signals = signals::Ending::catch()?;
        agent::ask(verb, &signals)?;
        signals.check()?;
        if !root::is_kept() {
            return Err(Failure::wrapper(
                "the node agent reported the filesystem as in place, but this container is not on it",
            ));
        }
    }
    Err(command.execute(&directory))
}

// === impl Failure ===

impl Failure {
    /// The wrapper itself failed.
    pub(crate) fn wrapper(message: impl Into<String>) -> Self {
        Self {
            code: 125,
            message: message.into(),
        }
    }

    /// The command is there and cannot be executed.
    pub(crate) fn not_executable(message: String) -> Self {
        Self { code: 126, message }
    }

    /// The command is not there.
    pub(crate) fn not_found(message: String) -> Self {
        Self { code: 127, message }
    }

    /// Whether a signal ended the wait.
    pub(crate) fn by_signal(&self) -> bool {
        self.code > 128
    }

    /// A signal asked us to end.
    pub(crate) fn signal(number: i32) -> Self {
        Self {
            code: u8::try_from(128 + number).unwrap_or(255),
            message: format!("ended by signal {number} while waiting"),
        }
    }
}
