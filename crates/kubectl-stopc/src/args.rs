//! The command line.

use clap::{Parser, Subcommand};

use crate::cmd;
use crate::failure::Failure;
use crate::session::Connection;

/// Stops containers and starts them again with their files kept.
///
/// A StoppableContainer is a pod that can be switched off: `stop` frees its CPU, memory and GPUs
/// and keeps every file below `/`, and `start` continues with these files. All commands take
/// several names, and wait until the cluster has done what they ask for.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-stopc",
    bin_name = "kubectl stopc",
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 done, 1 failed (the cause is on standard error), 2 the command line is wrong, 3 timed \
                  out while the cluster is still at it, 130 interrupted.\n\n`kubectl stopc COMMAND --help` describes a \
                  command."
)]
pub struct Args {
    /// The cluster and the user.
    #[command(flatten)]
    pub connection: Connection,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists containers with their phase, node and disk usage. Also: ls, get.
    // Not visible aliases: the completion would offer one of the names, and not always the first.
    #[command(aliases = ["ls", "get"])]
    List(cmd::list::ListArgs),
    /// Describes containers: state, cause and next command, steps of the last start, usage, events.
    ///
    /// The exit code is 1 if a container is not in the state that its spec asks for.
    Status(cmd::status::StatusArgs),
    /// Creates a container and waits until it runs.
    ///
    /// The container is described by --image and the other flags, or by a file with a
    /// StoppableContainer or a Pod. Flags change what is in the file.
    Create(cmd::create::CreateArgs),
    /// Starts containers with their kept files, and waits until they run.
    ///
    /// A container that already runs is not changed.
    Start(cmd::power::StartArgs),
    /// Stops containers, keeps their files, and waits until they are stopped.
    ///
    /// The pod gets the stop signal of its image and its grace period. After that its CPU, memory
    /// and GPUs are free. Every file below `/` is kept on the node.
    Stop(cmd::power::StopArgs),
    /// Replaces the pods of containers and keeps their files. A stopped container is started.
    Restart(cmd::power::RestartArgs),
    /// Waits until containers are in a state.
    Wait(cmd::wait::WaitArgs),
    /// Deletes containers with all their files. Also: rm.
    ///
    /// It asks first, and names the containers and how much is lost. Without a terminal, -y is
    /// needed. To free CPU and memory and keep the files, use `stop`.
    #[command(alias = "rm")]
    Delete(cmd::delete::DeleteArgs),
    /// Deletes all files of containers, which then start with the files of their image.
    ///
    /// The object, its name and its template stay. A running container is stopped first. It asks
    /// first, and names the containers and how much is lost. Without a terminal, -y is needed.
    Reset(cmd::recover::ResetArgs),
    /// Uses the kept files of containers with the present image, if it differs from theirs.
    ///
    /// Files that were not changed are then those of the present image. It asks first, and names
    /// both images. Without a terminal, -y is needed.
    Accept(cmd::recover::AcceptArgs),
    /// Runs a command in the main container.
    Exec(cmd::inside::ExecArgs),
    /// Opens a shell in the main container. Also: sh.
    #[command(alias = "sh")]
    Shell(cmd::inside::ShellArgs),
    /// Connects to the main container's process.
    Attach(cmd::inside::AttachArgs),
    /// Prints the main container's log.
    Logs(cmd::inside::LogsArgs),
    /// Forwards local ports to the container.
    PortForward(cmd::inside::PortForwardArgs),
    /// Copies files between this machine and the main container.
    ///
    /// The image needs no tar. Modes, symbolic and hard links, times in seconds and holes of files
    /// are kept, and owners where the writing side is root. The copy reads and writes as the user
    /// of the container. A file appears when it is complete, and replaces a link instead of
    /// following it. Directories that exist keep their mode and owner. On this machine the bits
    /// set-user-ID and set-group-ID are dropped, and devices and FIFOs are left out. Extended
    /// attributes are not copied. The container has to run: a stopped one can be started.
    Cp(cmd::copy::CopyArgs),
    /// Changes CPU, memory or the limit of the kept files.
    ///
    /// It changes the template of the main container, and prints whether the change is live or
    /// takes effect at the next start.
    Resize(cmd::resize::ResizeArgs),
    /// Lists what was added (A), changed (C) and deleted (D) against the image.
    ///
    /// The container may be running or stopped. While it runs, changes of the last moment may be
    /// missing. Files in volumes are not part of it. What is not printable in a path is written as
    /// \xHH. It takes the permission to create pods/exec in the namespace.
    Diff(cmd::files::DiffArgs),
    /// Prints the disk usage of the kept files.
    ///
    /// The agents measure running containers every 10 seconds or less often, and stopped ones once
    /// after the stop. --depth lists the directories of one container, which the agent measures for
    /// it; that takes the permission to create pods/exec in the namespace. What the image has and
    /// was not changed takes nothing.
    Du(cmd::usage::DuArgs),
    /// Lists the containers with the most files first, with their limits.
    Top(cmd::usage::TopArgs),
    /// Checks the installation: CRDs, webhook, controller, agents, permissions, versions, orphans.
    ///
    /// It changes nothing: the webhook is checked with a dry run. What you may not read is reported
    /// as unknown. The exit code is 1 if something does not work.
    Doctor(cmd::doctor::DoctorArgs),
    /// Prints the versions of the plugin, the controller and the agents.
    Version(cmd::version::VersionArgs),
    /// Prints the completion script of a shell, or installs kubectl's completion of this plugin.
    ///
    /// kubectl completes `kubectl stopc` itself, in every shell with `kubectl completion`, if the
    /// program kubectl_complete-stopc is in the PATH. --install puts it next to the plugin. The
    /// script of a shell completes `kubectl-stopc`, for those who call the plugin by that name.
    Completion(cmd::completion::CompletionArgs),
}

// === impl Command ===

impl Command {
    /// Checks what can be checked without a cluster.
    ///
    /// # Errors
    /// If a command that changes something does not say what.
    pub fn check(&self) -> Result<(), Failure> {
        let selection = match self {
            Self::Start(args) => &args.selection,
            Self::Stop(args) => &args.selection,
            Self::Restart(args) => &args.selection,
            Self::Wait(args) => &args.selection,
            Self::Delete(args) => &args.selection,
            Self::Reset(args) => &args.flags.selection,
            Self::Accept(args) => &args.flags.selection,
            Self::Resize(args) => &args.selection,
            _ => return Ok(()),
        };
        selection.chosen().map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn an_unknown_flag_is_an_error_of_usage() {
        let error = Args::try_parse_from(["kubectl-stopc", "stop", "web", "--colour"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn a_change_has_to_say_what_it_changes() {
        for command in [
            "start",
            "stop",
            "restart",
            "delete",
            "reset",
            "accept",
            "wait --for=ready",
        ] {
            let words = format!("kubectl-stopc {command} -A");
            let args = Args::parse_from(words.split(' '));
            assert_eq!(args.command.check().unwrap_err().exit_code(), 2, "{command}");
        }
        let args = Args::parse_from(["kubectl-stopc", "list", "-A"]);
        assert_eq!(args.command.check(), Ok(()));
    }

    #[test]
    fn a_typed_name_and_a_selection_exclude_each_other() {
        for line in [
            &["stop", "web", "--all"][..],
            &["stop", "web", "-l", "a=b"],
            &["delete", "web", "-A"],
        ] {
            let words = ["kubectl-stopc"].iter().chain(line);
            assert!(Args::try_parse_from(words).is_err(), "{line:?}");
        }
    }
}
