//! The command line.

use clap::{Parser, Subcommand};

use crate::cmd;
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
    disable_help_subcommand = true,
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
    /// Lists containers with their phase, node and disk usage.
    #[command(visible_aliases = ["ls", "get"])]
    List(cmd::list::ListArgs),
    /// Describes containers: state, cause and next command, steps of the last start, usage, events.
    Status(cmd::status::StatusArgs),
    /// Creates a container and waits until it runs.
    Create(cmd::create::CreateArgs),
    /// Starts containers with their kept files, and waits until they run.
    Start(cmd::power::StartArgs),
    /// Stops containers, keeps their files, and waits until they are stopped.
    Stop(cmd::power::StopArgs),
    /// Replaces the pods of containers and keeps their files. A stopped container is started.
    Restart(cmd::power::RestartArgs),
    /// Waits until containers are in a state.
    Wait(cmd::wait::WaitArgs),
    /// Deletes containers with all their files.
    #[command(visible_alias = "rm")]
    Delete(cmd::delete::DeleteArgs),
    /// Deletes all files of containers, which then start with the files of their image.
    Reset(cmd::recover::ResetArgs),
    /// Uses the kept files of containers with the present image, if it differs from theirs.
    Accept(cmd::recover::AcceptArgs),
    /// Runs a command in the main container.
    Exec(cmd::inside::ExecArgs),
    /// Opens a shell in the main container.
    #[command(visible_alias = "sh")]
    Shell(cmd::inside::ShellArgs),
    /// Connects to the main container's process.
    Attach(cmd::inside::AttachArgs),
    /// Prints the main container's log.
    Logs(cmd::inside::LogsArgs),
    /// Forwards local ports to the container.
    PortForward(cmd::inside::PortForwardArgs),
    /// Changes CPU, memory or the limit of the kept files.
    Resize(cmd::resize::ResizeArgs),
    /// Prints the disk usage of the kept files.
    Du(cmd::usage::DuArgs),
    /// Lists the containers with the most files first, with their limits.
    Top(cmd::usage::TopArgs),
    /// Checks the installation: CRDs, webhook, controller, agents, permissions, versions, orphans.
    Doctor(cmd::doctor::DoctorArgs),
    /// Prints the versions of the plugin, the controller and the agents.
    Version(cmd::version::VersionArgs),
    /// Prints the completion script of a shell, or installs kubectl's completion of this plugin.
    Completion(cmd::completion::CompletionArgs),
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
