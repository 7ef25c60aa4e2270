//! Flags that several commands have.

use std::time::Duration;

use clap::{Args, ValueEnum};
use kube::api::PatchParams;

use crate::session::FIELD_MANAGER;
use crate::units;

/// Whether to wait, and for how long.
#[derive(Clone, Copy, Debug, Args)]
pub struct WaitFlags {
    /// Waits until it is done, which is the default. `--wait=false` is the same as --no-wait.
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        default_value_t = true,
        action = clap::ArgAction::Set
    )]
    wait: bool,
    /// Returns as soon as the API server has accepted the request.
    #[arg(long)]
    no_wait: bool,
    /// How long to wait, as in 30s, 5m or 1h30m. The exit code is 3 after that.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = units::duration)]
    pub timeout: Duration,
}

/// What to do with a container that is stopped, for commands that need it to run.
#[derive(Clone, Copy, Debug, Args)]
pub struct StartFlags {
    /// Starts the container if it is stopped, without asking.
    #[arg(long)]
    pub start: bool,
    /// Fails if the container is stopped, without asking.
    #[arg(long, conflicts_with = "start")]
    pub no_start: bool,
    /// How long to wait until it runs, as in 30s, 5m or 1h30m.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = units::duration)]
    pub timeout: Duration,
}

/// Whether to change anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DryRun {
    /// Change the objects.
    #[default]
    None,
    /// Only print what would be done.
    Client,
    /// Send the request, and have the API server check it without storing it.
    Server,
}

/// `--dry-run`
#[derive(Clone, Copy, Debug, Args)]
pub struct DryRunFlag {
    /// `client` only prints what would be done, `server` has the API server check the request
    /// without storing it.
    #[arg(
        long,
        value_enum,
        value_name = "WHERE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "client",
        default_value = "none",
        hide_possible_values = true
    )]
    pub dry_run: DryRun,
}

// === impl WaitFlags ===

impl WaitFlags {
    /// Whether to wait.
    pub fn waits(self) -> bool {
        self.wait && !self.no_wait
    }
}

// === impl DryRun ===

impl DryRun {
    /// Whether nothing is changed.
    pub fn is_dry(self) -> bool {
        self != Self::None
    }

    /// Behind the line that describes what was done.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Client => " (dry run)",
            Self::Server => " (server dry run)",
        }
    }

    /// Parameters of a patch.
    pub fn patch_params(self) -> PatchParams {
        PatchParams {
            dry_run: self == Self::Server,
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        }
    }
}
