/*!
The entrypoint of provider and consumer containers.

`hold` keeps a provider alive and tells the node agent of it; `run` waits until the agent has moved
this container onto its kept filesystem and then becomes the image's command; `hook` does the same
for exec hooks and probes. `ask` passes a request about the kept files on to the node agent. `pack`
and `unpack` copy files of the container that they are executed in.

One thread, no async, and nothing of an image is read or run before the final execve but the PATH
look-up and, on request, one line of /etc/passwd.
*/

#![forbid(unsafe_code)]

mod ask;
mod connection;
mod container_log;
mod copy;
mod exec_command;
mod hold;
mod home;
mod hook;
mod kept_root;
mod run;
mod signals;
mod stdin;
mod termination_message;

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

/// What went wrong, for the log and as the process's exit code. 126 and 127 mean what they mean in
/// a shell and in `docker run`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The wrapper itself could not do its work.
    Wrapper(String),
    /// The command cannot be executed.
    NotExecutable(String),
    /// There is no such command.
    NotFound(String),
    /// As [`Failure::Wrapper`]; the line is in the log already.
    Reported,
    /// A signal asked to stop.
    Signal(u8),
}

// === impl Failure ===

impl Failure {
    /// The wrapper could not do its work.
    pub(crate) fn wrapper(message: impl std::fmt::Display) -> Self {
        Self::Wrapper(message.to_string())
    }

    /// The line for the log, and for the termination message. `None` if it is there already, and
    /// after a signal: its sender knows why.
    pub(crate) fn line(&self) -> Option<String> {
        match self {
            Self::Wrapper(message) | Self::NotExecutable(message) | Self::NotFound(message) => {
                Some(container_log::line(message))
            }
            Self::Reported | Self::Signal(_) => None,
        }
    }
}

impl From<Failure> for ExitCode {
    fn from(failure: Failure) -> Self {
        Self::from(match failure {
            Failure::Wrapper(_) | Failure::Reported => 125,
            Failure::NotExecutable(_) => 126,
            Failure::NotFound(_) => 127,
            Failure::Signal(number) => 128_u8.saturating_add(number),
        })
    }
}

/// What stands before the command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// HOME is to be looked up.
    pub(crate) default_home: bool,
    /// The pod's `terminationMessagePath`, if it is not the default.
    pub(crate) termination_log: Option<OsString>,
}

const USAGE: &str = "usage: exec-wrapper hold | run [--default-home] [--termination-log PATH] -- COMMAND [ARGUMENT...] | hook -- COMMAND [ARGUMENT...] | ask REQUEST | pack VERSION PATH | unpack VERSION keep|leave PATH [BASE]";

fn main() -> ExitCode {
    // Descriptors that a runtime leaked must not reach the command; ours close on exec anyway.
    close_fds::set_fds_cloexec(3, &[]);
    let mut args = std::env::args_os().skip(1);
    let verb = args.next();
    let outcome = match verb.as_deref().and_then(|verb| verb.to_str()) {
        Some("hold") if args.len() == 0 => hold::hold(),
        Some("run") => match parse(args) {
            Some((options, command)) => run::run(&command, &options),
            None => usage(),
        },
        Some("hook") => match parse(args) {
            Some((options, command)) if options == Options::default() => hook::hook(&command),
            _ => usage(),
        },
        Some("ask") => match (args.next(), args.next()) {
            (Some(request), None) => ask::ask(&request),
            _ => usage(),
        },
        Some("pack") => copy::pack_path(&args.collect::<Vec<_>>()),
        Some("unpack") => copy::unpack_path(&args.collect::<Vec<_>>()),
        _ => usage(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(line) = failure.line() {
                container_log::write(&line);
            }
            failure.into()
        }
    }
}

/// Splits `[--default-home] [--termination-log PATH] -- COMMAND [ARGUMENT...]`.
fn parse(mut args: impl Iterator<Item = OsString>) -> Option<(Options, Vec<OsString>)> {
    let mut options = Options::default();
    loop {
        let next = args.next()?;
        match next.to_str()? {
            "--default-home" if !options.default_home => options.default_home = true,
            "--termination-log" if options.termination_log.is_none() => {
                options.termination_log = Some(args.next()?);
            }
            "--" => break,
            _ => return None,
        }
    }
    let command: Vec<_> = args.collect();
    (!command.is_empty()).then_some((options, command))
}

fn usage() -> Result<(), Failure> {
    Err(Failure::wrapper(USAGE))
}

// === impl Options ===

impl Options {
    /// Where the container's termination message goes.
    pub(crate) fn termination_log(&self) -> &OsStr {
        let given = self.termination_log.as_deref();
        given.unwrap_or_else(|| termination_message::DEFAULT_PATH.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(args: &[&str]) -> Option<(bool, Option<String>, Vec<String>)> {
        let (options, command) = parse(args.iter().map(OsString::from))?;
        Some((
            options.default_home,
            options.termination_log.map(|path| path.into_string().unwrap()),
            command.into_iter().map(|a| a.into_string().unwrap()).collect(),
        ))
    }

    #[test]
    fn the_command_begins_after_two_dashes() {
        assert_eq!(
            split(&["--", "sh", "--"]),
            Some((false, None, vec!["sh".into(), "--".into()]))
        );
        assert_eq!(
            split(&["--default-home", "--", "sh"]),
            Some((true, None, vec!["sh".into()]))
        );
        assert_eq!(
            split(&["--default-home", "--termination-log", "--", "--", "sh"]),
            Some((true, Some("--".into()), vec!["sh".into()]))
        );
        for wrong in [
            &[][..],
            &["--"],
            &["sh"],
            &["--default-home"],
            &["--default-home", "sh"],
            &["--default-home", "--default-home", "--", "sh"],
            &["--termination-log", "--", "sh"],
            &["--x", "--", "sh"],
        ] {
            assert_eq!(split(wrong), None, "{wrong:?}");
        }
    }
}
