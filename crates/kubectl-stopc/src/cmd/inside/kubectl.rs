//! The commands of kubectl, as arguments; and their start.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use kube::ResourceExt;
use stoppablecontainer_api::StoppableContainer;

use super::{AttachArgs, ExecArgs, Inside, LogsArgs, PortForwardArgs, ShellArgs};
use crate::failure::Failure;
use crate::session::Session;

/// Starts bash, or sh if there is no bash.
const ANY_SHELL: &str = "command -v bash >/dev/null 2>&1 && exec bash || exec sh";

pub(super) fn exec(args: &ExecArgs, object: &StoppableContainer) -> Vec<String> {
    let mut line = command("exec", object);
    line.extend(container(&args.inside, object));
    line.extend(flags(&[
        ("--stdin", args.stdin),
        ("--tty", args.tty),
        ("--quiet", args.quiet),
    ]));
    line.push("--".to_owned());
    line.extend(args.command.iter().cloned());
    line
}

pub(super) fn shell(args: &ShellArgs, object: &StoppableContainer, terminal: bool) -> Vec<String> {
    let mut line = command("exec", object);
    line.extend(container(&args.inside, object));
    line.extend(flags(&[("--stdin", true), ("--tty", terminal)]));
    line.push("--".to_owned());
    match &args.shell {
        Some(shell) => line.push(shell.clone()),
        None => line.extend(["/bin/sh", "-c", ANY_SHELL].map(str::to_owned)),
    }
    line
}

pub(super) fn attach(args: &AttachArgs, object: &StoppableContainer) -> Vec<String> {
    let mut line = command("attach", object);
    line.extend(container(&args.inside, object));
    line.extend(flags(&[
        ("--stdin", args.stdin),
        ("--tty", args.tty),
        ("--quiet", args.quiet),
    ]));
    line
}

pub(super) fn logs(args: &LogsArgs, object: &StoppableContainer) -> Vec<String> {
    let mut line = command("logs", object);
    if !args.all_containers {
        line.extend(container(&args.inside, object));
    }
    line.extend(flags(&[
        ("--all-containers", args.all_containers),
        ("--follow", args.follow),
        ("--previous", args.previous),
        ("--timestamps", args.timestamps),
        ("--prefix", args.prefix),
    ]));
    let values = [
        ("--since", args.since.clone()),
        ("--since-time", args.since_time.clone()),
        ("--tail", args.tail.map(|lines| lines.to_string())),
        ("--limit-bytes", args.limit_bytes.map(|bytes| bytes.to_string())),
    ];
    let values = values.into_iter();
    line.extend(values.filter_map(|(flag, value)| Some(format!("{flag}={}", value?))));
    line
}

pub(super) fn port_forward(args: &PortForwardArgs, object: &StoppableContainer) -> Vec<String> {
    let mut line = vec!["port-forward".to_owned(), format!("pod/{}", object.name_any())];
    line.extend(args.ports.iter().cloned());
    line.extend(args.address.iter().map(|address| format!("--address={address}")));
    line
}

/// The command about the pod, which has the object's name.
fn command(verb: &str, object: &StoppableContainer) -> Vec<String> {
    vec![verb.to_owned(), object.name_any()]
}

/// The container: injectors may have put theirs before the main one.
fn container(inside: &Inside, object: &StoppableContainer) -> Option<String> {
    let main = &object.spec.template.main().name;
    let name = inside.container.as_ref().unwrap_or(main);
    (!name.is_empty()).then(|| format!("--container={name}"))
}

fn flags(flags: &[(&str, bool)]) -> Vec<String> {
    let set = flags.iter().filter(|(_, set)| *set);
    set.map(|(flag, _)| (*flag).to_owned()).collect()
}

/// Becomes `kubectl ARGS` (the program that `KUBECTL` names, else the one in the PATH), with the
/// cluster and user of this session.
///
/// # Errors
/// If kubectl cannot be started.
pub(super) fn launch(
    session: &mut Session,
    object: &StoppableContainer,
    args: Vec<String>,
) -> Result<(), Failure> {
    session.screen.clear();
    let error = program(session, object).args(args).exec();
    Err(not_started(&error))
}

/// `kubectl` with the cluster and user of this session, and the namespace of the object.
pub(crate) fn program(session: &Session, object: &StoppableContainer) -> Command {
    let namespace = object.namespace().unwrap_or_else(|| session.namespace.clone());
    let mut command = Command::new(name());
    command
        .arg(format!("--namespace={namespace}"))
        .args(&session.kubectl_flags);
    command
}

/// The failure of a kubectl that cannot be started.
pub(crate) fn not_started(error: &std::io::Error) -> Failure {
    Failure::failed(format!(
        "{} cannot be started ({error}); put kubectl into the PATH, or name it in the variable KUBECTL",
        name().to_string_lossy()
    ))
}

fn name() -> OsString {
    std::env::var_os("KUBECTL").unwrap_or_else(|| "kubectl".into())
}

#[cfg(test)]
mod tests {
    use clap::{Parser, Subcommand};

    use super::*;
    use crate::view::fixtures::running;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        verb: Verb,
    }

    #[derive(Subcommand)]
    enum Verb {
        Exec(ExecArgs),
        Shell(ShellArgs),
        Attach(AttachArgs),
        Logs(LogsArgs),
        PortForward(PortForwardArgs),
    }

    fn line(words: &str) -> String {
        let words = std::iter::once("kubectl-stopc").chain(words.split(' '));
        let object = running();
        let line = match Line::parse_from(words).verb {
            Verb::Exec(args) => exec(&args, &object),
            Verb::Shell(args) => shell(&args, &object, true),
            Verb::Attach(args) => attach(&args, &object),
            Verb::Logs(args) => logs(&args, &object),
            Verb::PortForward(args) => port_forward(&args, &object),
        };
        line.join(" ")
    }

    #[test]
    fn the_main_container_is_named_and_flags_are_passed_on() {
        for (words, expected) in [
            (
                "exec -it web -- ls -l /",
                "exec web --container=main --stdin --tty -- ls -l /",
            ),
            (
                "exec web -c side -q -- id",
                "exec web --container=side --quiet -- id",
            ),
            (
                "shell web --shell zsh",
                "exec web --container=main --stdin --tty -- zsh",
            ),
            ("attach stopc/web -i", "attach web --container=main --stdin"),
            (
                "logs web -f --tail=-1 --since 1h --timestamps",
                "logs web --container=main --follow --timestamps --since=1h --tail=-1",
            ),
            (
                "logs web --all-containers -p",
                "logs web --all-containers --previous",
            ),
            (
                "port-forward web 8080:80 :9090 --address 0.0.0.0",
                "port-forward pod/web 8080:80 :9090 --address=0.0.0.0",
            ),
        ] {
            assert_eq!(line(words), expected, "{words}");
        }
        assert!(line("shell web").ends_with("&& exec bash || exec sh"));
    }
}
