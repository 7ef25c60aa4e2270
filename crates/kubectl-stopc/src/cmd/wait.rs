//! `wait`: until containers are in a state.

use std::time::Duration;

use clap::{Args, ValueEnum};
use stoppablecontainer_api::StoppableContainer;

use crate::failure::Failure;
use crate::select::{Chosen, Selection, fetch};
use crate::session::Session;
use crate::units;
use crate::wait::{Goal, Target, conclude, wait_for};

/// Arguments of `wait`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  kubectl stopc wait web --for=ready\n  kubectl stopc wait --all --for=stopped \
                        --timeout=10m"
)]
pub struct WaitArgs {
    /// Which containers.
    #[command(flatten)]
    pub selection: Selection,
    /// The state. The wait ends at once if a container failed, with the cause.
    #[arg(long = "for", value_enum, value_name = "STATE")]
    pub state: State,
    /// How long to wait, as in 30s, 5m or 1h30m. The exit code is 3 after that.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = units::duration)]
    pub timeout: Duration,
}

/// A state to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum State {
    /// The main container runs.
    Running,
    /// The pod is ready.
    Ready,
    /// Nothing of it runs, and the files are kept.
    Stopped,
    /// The object and its files are gone.
    Deleted,
}

/// `wait`
///
/// # Errors
/// If a container is not in the state.
pub async fn run(session: &mut Session, args: &WaitArgs) -> Result<(), Failure> {
    let chosen = args.selection.chosen()?;
    let goal = args.state.goal();
    let (targets, failures) = match &chosen {
        Chosen::Names(names) => {
            let targets = names.iter().map(|name| Target::named(name, &session.namespace));
            (targets.collect::<Vec<_>>(), Vec::new())
        }
        Chosen::Query { .. } => {
            let (objects, failures) = fetch(session, &chosen, "list").await?;
            (targets(&objects, &session.namespace), failures)
        }
    };
    let outcomes = wait_for(session, &targets, &goal, args.timeout, |session, target, _| {
        let text = format!("stoppablecontainer/{} {}", target.shown, goal.adjective());
        session.screen.print(&text);
    })
    .await?;
    conclude(outcomes, &goal, args.timeout, failures)
}

/// The targets for these objects.
pub(crate) fn targets(objects: &[StoppableContainer], namespace: &str) -> Vec<Target> {
    objects
        .iter()
        .map(|object| Target::of(object, namespace))
        .collect()
}

// === impl State ===

impl State {
    fn goal(self) -> Goal {
        match self {
            Self::Running => Goal::Running,
            Self::Ready => Goal::Ready,
            Self::Stopped => Goal::Stopped,
            Self::Deleted => Goal::Deleted,
        }
    }
}
