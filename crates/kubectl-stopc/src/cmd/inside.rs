/*!
`exec`, `shell`, `attach`, `logs` and `port-forward`: kubectl's own commands, with the name of the
pod and of the main container, after making sure that the container runs.
*/

pub(super) mod kubectl;

use clap::Args;
use kube::ResourceExt;
use stoppablecontainer_api::{Phase, StoppableContainer};

use crate::failure::Failure;
use crate::names;
use crate::select::plain_name;
use crate::session::Session;
use crate::view;

use super::flags::StartFlags;
use super::power::start_one;

/// Which container, and what to do if it is stopped.
#[derive(Clone, Debug, Args)]
pub struct Inside {
    /// Name of the container.
    #[arg(value_name = "NAME", add = names::completer())]
    pub name: String,
    /// Container of the pod. [default: the main container]
    #[arg(short, long, value_name = "CONTAINER")]
    pub container: Option<String>,
    /// A stopped container.
    #[command(flatten)]
    pub start: StartFlags,
}

/// Arguments of `exec`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  kubectl stopc exec web -- ls /\n  kubectl stopc exec -it web --start -- bash"
)]
pub struct ExecArgs {
    /// The container.
    #[command(flatten)]
    pub inside: Inside,
    /// Passes standard input on.
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// The command gets a terminal.
    #[arg(short = 't', long)]
    pub tty: bool,
    /// Prints only the output of the command.
    #[arg(short, long)]
    pub quiet: bool,
    /// The command with its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// Arguments of `shell`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  kubectl stopc shell web\n  kubectl stopc shell web --shell /bin/zsh")]
pub struct ShellArgs {
    /// The container.
    #[command(flatten)]
    pub inside: Inside,
    /// The shell. [default: bash, or sh if the container does not have it]
    #[arg(long, value_name = "PATH")]
    pub shell: Option<String>,
}

/// Arguments of `attach`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  kubectl stopc attach web -it")]
pub struct AttachArgs {
    /// The container.
    #[command(flatten)]
    pub inside: Inside,
    /// Passes standard input on.
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// Standard input is a terminal.
    #[arg(short = 't', long)]
    pub tty: bool,
    /// Prints only the output of the process.
    #[arg(short, long)]
    pub quiet: bool,
}

/// Arguments of `logs`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  kubectl stopc logs web -f\n  kubectl stopc logs web --since=1h --tail=100"
)]
pub struct LogsArgs {
    /// The container.
    #[command(flatten)]
    pub inside: Inside,
    /// Continues to print.
    #[arg(short, long)]
    pub follow: bool,
    /// Prints the log of the container before its last restart by the kubelet.
    #[arg(short, long)]
    pub previous: bool,
    /// Only what is newer than this duration.
    #[arg(long, value_name = "DURATION")]
    pub since: Option<String>,
    /// Only what is newer than this time (RFC 3339).
    #[arg(long, value_name = "TIME")]
    pub since_time: Option<String>,
    /// Only the last lines.
    #[arg(long, value_name = "LINES", allow_negative_numbers = true)]
    pub tail: Option<i64>,
    /// At most this number of bytes.
    #[arg(long, value_name = "BYTES")]
    pub limit_bytes: Option<u64>,
    /// With the time of each line.
    #[arg(long)]
    pub timestamps: bool,
    /// The logs of all containers of the pod.
    #[arg(long, conflicts_with = "container")]
    pub all_containers: bool,
    /// With the name of the pod and container before each line.
    #[arg(long)]
    pub prefix: bool,
}

/// Arguments of `port-forward`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  kubectl stopc port-forward web 8080:80\n  kubectl stopc port-forward web :80 \
                        --start"
)]
pub struct PortForwardArgs {
    /// The container.
    #[command(flatten)]
    pub inside: Inside,
    /// Ports: LOCAL:REMOTE, PORT for the same on both sides, or :REMOTE for any local port.
    #[arg(required = true, value_name = "PORT")]
    pub ports: Vec<String>,
    /// Local addresses to listen on, separated by commas.
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<String>,
}

/// `exec`
///
/// # Errors
/// If the container does not run, or kubectl cannot be started.
pub async fn exec(session: &mut Session, args: &ExecArgs) -> Result<(), Failure> {
    let object = running(session, &args.inside.name, args.inside.start).await?;
    kubectl::launch(session, &object, kubectl::exec(args, &object))
}

/// `shell`
///
/// # Errors
/// As for [`exec`].
pub async fn shell(session: &mut Session, args: &ShellArgs) -> Result<(), Failure> {
    let object = running(session, &args.inside.name, args.inside.start).await?;
    let terminal = session.screen.can_ask();
    kubectl::launch(session, &object, kubectl::shell(args, &object, terminal))
}

/// `attach`
///
/// # Errors
/// As for [`exec`].
pub async fn attach(session: &mut Session, args: &AttachArgs) -> Result<(), Failure> {
    let object = running(session, &args.inside.name, args.inside.start).await?;
    kubectl::launch(session, &object, kubectl::attach(args, &object))
}

/// `logs`
///
/// # Errors
/// If the container is stopped, or kubectl cannot be started.
pub async fn logs(session: &mut Session, args: &LogsArgs) -> Result<(), Failure> {
    let object = get(session, &args.inside.name).await?;
    // The log of a container that crashes is wanted most, and that is not Running.
    let has_pod = matches!(view::phase(&object), Some(Phase::Running | Phase::ProviderReady));
    let object = if object.spec.running && has_pod {
        object
    } else {
        running(session, &args.inside.name, args.inside.start).await?
    };
    kubectl::launch(session, &object, kubectl::logs(args, &object))
}

/// `port-forward`
///
/// # Errors
/// As for [`exec`].
pub async fn port_forward(session: &mut Session, args: &PortForwardArgs) -> Result<(), Failure> {
    let object = running(session, &args.inside.name, args.inside.start).await?;
    kubectl::launch(session, &object, kubectl::port_forward(args, &object))
}

/// What to do with a container that a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// It runs.
    Nothing,
    /// It is starting: wait.
    Wait,
    /// It is stopped: start it.
    Start,
    /// It is stopped: ask.
    Ask,
    /// It is stopped and must stay so.
    Refuse,
}

fn need(object: &StoppableContainer, flags: StartFlags, can_ask: bool) -> Need {
    let runs = view::is_current(object) && view::phase(object) == Some(Phase::Running);
    match () {
        () if object.spec.running && runs => Need::Nothing,
        () if object.spec.running => Need::Wait,
        () if flags.start => Need::Start,
        () if flags.no_start || !can_ask => Need::Refuse,
        () => Need::Ask,
    }
}

/// The object, once it runs.
pub(super) async fn running(
    session: &mut Session,
    name: &str,
    flags: StartFlags,
) -> Result<StoppableContainer, Failure> {
    let object = get(session, name).await?;
    let name = object.name_any();
    match need(&object, flags, session.screen.can_ask()) {
        Need::Nothing => return Ok(object),
        Need::Wait | Need::Start => {}
        Need::Ask if session.screen.ask(&format!("{name} is stopped. Start it?")) => {}
        Need::Ask | Need::Refuse => {
            return Err(Failure::failed(format!(
                "{name} is stopped; start it: kubectl stopc start {name}, or repeat the command with --start"
            )));
        }
    }
    start_one(session, &object, flags.timeout).await?;
    session.screen.clear();
    Ok(object)
}

/// The object that a command is about.
pub(super) async fn get(session: &Session, name: &str) -> Result<StoppableContainer, Failure> {
    let name = plain_name(name)?;
    match session.containers(&session.namespace).get(&name).await {
        Ok(object) => Ok(object),
        Err(error) => Err(session.failure(&format!("read {name}"), &error).await),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::view::fixtures::{object, running, stopped};

    fn flags(start: bool, no_start: bool) -> StartFlags {
        StartFlags {
            start,
            no_start,
            timeout: Duration::ZERO,
        }
    }

    #[test]
    fn only_a_stopped_container_is_asked_about() {
        let neither = flags(false, false);
        let starting = object(true, "ProviderReady", &[]);
        assert_eq!(need(&running(), neither, true), Need::Nothing);
        assert_eq!(need(&starting, neither, true), Need::Wait);
        assert_eq!(need(&stopped(), neither, true), Need::Ask);
        assert_eq!(need(&stopped(), neither, false), Need::Refuse);
        assert_eq!(need(&stopped(), flags(true, false), false), Need::Start);
        assert_eq!(need(&stopped(), flags(false, true), true), Need::Refuse);
    }
}
