/*!
The entrypoint of provider and consumer containers.

`hold` keeps a provider alive and tells the node agent of it; `run` waits until
the agent has moved this container onto its kept filesystem and then becomes the
image's command; `hook` does the same for exec hooks and probes.

One thread, no async, and nothing of an image is read or run before the final
execve but the PATH look-up and, on request, one line of /etc/passwd.
*/

#![forbid(unsafe_code)]

mod become_command;
mod connection;
mod hold;
mod home;
mod hook;
mod kept_root;
mod run;
mod say;
mod signals;
mod stdin;

use std::ffi::OsString;
use std::process::ExitCode;

use crate::say::say;

/// What went wrong, as the process's exit code. 126 and 127 mean what they mean in a shell and in `docker run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The wrapper itself could not do its work.
    Wrapper,
    /// The command cannot be executed.
    NotExecutable,
    /// There is no such command.
    NotFound,
    /// A signal asked to stop.
    Signal(u8),
}

impl From<Failure> for ExitCode {
    fn from(failure: Failure) -> Self {
        Self::from(match failure {
            Failure::Wrapper => 125,
            Failure::NotExecutable => 126,
            Failure::NotFound => 127,
            Failure::Signal(number) => 128_u8.saturating_add(number),
        })
    }
}

const USAGE: &str = "usage: exec-wrapper hold | run [--default-home] -- COMMAND [ARGUMENT...] | hook -- COMMAND [ARGUMENT...]";

fn main() -> ExitCode {
    // Descriptors that a runtime leaked must not reach the command; ours close on exec anyway.
    close_fds::set_fds_cloexec(3, &[]);
    let mut args = std::env::args_os().skip(1);
    let verb = args.next();
    let outcome = match verb.as_deref().and_then(|verb| verb.to_str()) {
        Some("hold") if args.len() == 0 => hold::hold(),
        Some("run") => match parse(args) {
            Some((default_home, command)) => run::run(&command, default_home),
            None => usage(),
        },
        Some("hook") => match parse(args) {
            Some((false, command)) => hook::hook(&command),
            _ => usage(),
        },
        _ => usage(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.into(),
    }
}

/// Splits `[--default-home] -- COMMAND [ARGUMENT...]`.
fn parse(mut args: impl Iterator<Item = OsString>) -> Option<(bool, Vec<OsString>)> {
    let mut next = args.next()?;
    let default_home = next == "--default-home";
    if default_home {
        next = args.next()?;
    }
    if next != "--" {
        return None;
    }
    let command: Vec<_> = args.collect();
    (!command.is_empty()).then_some((default_home, command))
}

fn usage() -> Result<(), Failure> {
    say(USAGE);
    Err(Failure::Wrapper)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(args: &[&str]) -> Option<(bool, Vec<String>)> {
        let (home, command) = parse(args.iter().map(OsString::from))?;
        Some((
            home,
            command.into_iter().map(|a| a.into_string().unwrap()).collect(),
        ))
    }

    #[test]
    fn the_command_begins_after_two_dashes() {
        assert_eq!(
            split(&["--", "sh", "--"]),
            Some((false, vec!["sh".into(), "--".into()]))
        );
        assert_eq!(
            split(&["--default-home", "--", "sh"]),
            Some((true, vec!["sh".into()]))
        );
        for wrong in [
            &[][..],
            &["--"],
            &["sh"],
            &["--default-home"],
            &["--default-home", "sh"],
            &["--x", "--", "sh"],
        ] {
            assert_eq!(split(wrong), None, "{wrong:?}");
        }
    }
}
