//! `start`, `stop` and `restart`.

use std::collections::BTreeMap;

use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, Preconditions};
use serde_json::{Value, json};
use stoppablecontainer_api::names::ANNOTATION_RESTARTED_AT;
use stoppablecontainer_api::{StoppableContainer, StoppableContainerInstance, controller_of};

use crate::confirm::{Stakes, confirm, decide};
use crate::explain;
use crate::failure::Failure;
use crate::select::{Selection, display_name, fetch};
use crate::session::Session;
use crate::units;
use crate::wait::{Goal, Target, conclude, wait_for};

use super::flags::{DryRun, DryRunFlag, WaitFlags};

/// Arguments of `start`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  kubectl stopc start web\n  kubectl stopc start web db --timeout=10m\n  kubectl \
                        stopc start -l team=a -y --no-wait"
)]
pub struct StartArgs {
    /// Which containers.
    #[command(flatten)]
    pub selection: Selection,
    /// Waiting.
    #[command(flatten)]
    pub wait: WaitFlags,
    /// Dry run.
    #[command(flatten)]
    pub dry_run: DryRunFlag,
    /// Does not ask, which -l and --all do.
    #[arg(short, long)]
    pub yes: bool,
}

/// Arguments of `stop`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  kubectl stopc stop web\n  kubectl stopc stop --all -A -y\n  kubectl stopc stop web \
                        --grace-period=5"
)]
pub struct StopArgs {
    /// Which containers.
    #[command(flatten)]
    pub selection: Selection,
    /// Waiting.
    #[command(flatten)]
    pub wait: WaitFlags,
    /// The end of the pod.
    #[command(flatten)]
    pub end: EndFlags,
    /// Dry run.
    #[command(flatten)]
    pub dry_run: DryRunFlag,
    /// Does not ask, which -l and --all do.
    #[arg(short, long)]
    pub yes: bool,
}

/// Arguments of `restart`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  kubectl stopc restart web\n  kubectl stopc restart -l app=web -y")]
pub struct RestartArgs {
    /// Which containers.
    #[command(flatten)]
    pub selection: Selection,
    /// Waiting.
    #[command(flatten)]
    pub wait: WaitFlags,
    /// The end of the pod.
    #[command(flatten)]
    pub end: EndFlags,
    /// Dry run.
    #[command(flatten)]
    pub dry_run: DryRunFlag,
    /// Does not ask, which -l and --all do.
    #[arg(short, long)]
    pub yes: bool,
}

/// How a pod ends.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct EndFlags {
    /// Seconds until the pod is killed. It can only be shorter than the template's.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub grace_period: Option<u32>,
    /// Removes the pod from the API server without waiting for its node. Writes of the last seconds
    /// may be lost.
    #[arg(long, conflicts_with = "grace_period")]
    pub force: bool,
}

/// What the three commands have in common.
struct Order<'a> {
    verb: Verb,
    selection: &'a Selection,
    wait: WaitFlags,
    end: EndFlags,
    dry_run: DryRun,
    yes: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Start,
    Stop,
    Restart,
}

/// `start`
///
/// # Errors
/// If a container does not run in the end.
pub async fn start(session: &mut Session, args: &StartArgs) -> Result<(), Failure> {
    let order = Order {
        verb: Verb::Start,
        selection: &args.selection,
        wait: args.wait,
        end: EndFlags::default(),
        dry_run: args.dry_run.dry_run,
        yes: args.yes,
    };
    order.carry_out(session).await
}

/// `stop`
///
/// # Errors
/// If a container is not stopped in the end.
pub async fn stop(session: &mut Session, args: &StopArgs) -> Result<(), Failure> {
    let order = Order {
        verb: Verb::Stop,
        selection: &args.selection,
        wait: args.wait,
        end: args.end,
        dry_run: args.dry_run.dry_run,
        yes: args.yes,
    };
    order.carry_out(session).await
}

/// `restart`
///
/// # Errors
/// If a container does not run with a new pod in the end.
pub async fn restart(session: &mut Session, args: &RestartArgs) -> Result<(), Failure> {
    let order = Order {
        verb: Verb::Restart,
        selection: &args.selection,
        wait: args.wait,
        end: args.end,
        dry_run: args.dry_run.dry_run,
        yes: args.yes,
    };
    order.carry_out(session).await
}

/// Starts one container if it is stopped, and waits until it runs. For commands that need it to.
pub(crate) async fn start_one(
    session: &mut Session,
    object: &StoppableContainer,
    wait: std::time::Duration,
) -> Result<(), Failure> {
    if !object.spec.running {
        patch(session, object, Verb::Start, DryRun::None, Timestamp::now()).await?;
    }
    let target = Target::of(object, &session.namespace);
    let outcomes = wait_for(session, &[target], &Goal::Running, wait, |_, _, _| {}).await?;
    conclude(outcomes, &Goal::Running, wait, Vec::new())
}

// === impl Order ===

impl Order<'_> {
    async fn carry_out(&self, session: &mut Session) -> Result<(), Failure> {
        let chosen = self.selection.chosen()?;
        let verb = self.verb.word();
        let (objects, mut failures) = fetch(session, &chosen, verb).await?;
        if objects.is_empty() && failures.is_empty() {
            session.screen.note("No such containers; nothing was changed.");
            return Ok(());
        }
        if !self.dry_run.is_dry() && objects.iter().any(|object| self.verb.patch(object, "").is_some()) {
            let question = question(verb, &objects, &session.namespace);
            let decision = decide(Stakes::Reversible, &chosen, self.yes, session.screen.can_ask());
            confirm(&mut session.screen, decision, &question)?;
        }
        if self.end.force {
            session.screen.note(
                "warning: with --force the pod's last writes may be lost, and its processes may run a little longer",
            );
        }
        let (mut targets, mut goals) = (Vec::new(), BTreeMap::new());
        for object in &objects {
            match self.order(session, object).await {
                Ok(Some((target, said))) => {
                    goals.insert(target.clone(), said);
                    targets.push(target);
                }
                Ok(None) => {}
                Err(failure) => failures.push(failure),
            }
        }
        if targets.is_empty() || !self.wait.waits() {
            return Failure::all(failures);
        }
        let goal = self.verb.goal();
        let outcomes = wait_for(
            session,
            &targets,
            &goal,
            self.wait.timeout,
            |session, target, time| {
                let said = goals.get(target).map_or("", String::as_str);
                let text = format!(
                    "stoppablecontainer/{} {said} ({})",
                    target.shown,
                    units::elapsed(time)
                );
                session.screen.print(&text);
            },
        )
        .await?;
        conclude(outcomes, &goal, self.wait.timeout, failures)
    }

    /// Sends the order for one object. The target to wait for, with the word for its end; `None` if
    /// there is nothing to wait for.
    async fn order(
        &self,
        session: &mut Session,
        object: &StoppableContainer,
    ) -> Result<Option<(Target, String)>, Failure> {
        let mut target = Target::of(object, &session.namespace);
        let shown = target.shown.clone();
        let waits_for_pod = self.verb == Verb::Restart && self.wait.waits();
        if !self.dry_run.is_dry() && (waits_for_pod || self.end.seconds().is_some()) {
            target.old_pod = own_pod(session, object, &target).await?;
        }
        let changed = patch(session, object, self.verb, self.dry_run, Timestamp::now()).await?;
        let said = if changed {
            self.verb.past()
        } else {
            self.verb.already()
        };
        if self.dry_run.is_dry() {
            let line = format!("stoppablecontainer/{shown} {said}{}", self.dry_run.suffix());
            session.screen.print(&line);
            return Ok(None);
        }
        self.end_pod(session, &target).await?;
        if !self.wait.waits() {
            let line = format!("stoppablecontainer/{shown} {}", self.verb.ordered(changed));
            session.screen.print(&line);
        }
        Ok(Some((target, said.to_owned())))
    }

    /// Ends the pod earlier than its template says.
    async fn end_pod(&self, session: &Session, target: &Target) -> Result<(), Failure> {
        let (Some(seconds), Some(uid)) = (self.end.seconds(), &target.old_pod) else {
            return Ok(());
        };
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(uid.clone()),
                resource_version: None,
            }),
            ..DeleteParams::default().grace_period(seconds)
        };
        let pods = session.api::<Pod>(&target.namespace);
        match pods.delete(&target.name, &params).await {
            Ok(_) => Ok(()),
            // The controller was faster: the pod is gone, or another one has its name.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => {
                let what = format!("end pod {}", target.shown);
                Err(explain::request(&what, &error))
            }
        }
    }
}

/// UID of the object's consumer pod. A pod of that name that belongs to another owner is none.
async fn own_pod(
    session: &Session,
    object: &StoppableContainer,
    target: &Target,
) -> Result<Option<String>, Failure> {
    let pod = session.api::<Pod>(&target.namespace).get_opt(&target.name).await;
    let pod = pod.map_err(|error| explain::request(&format!("read pod {}", target.shown), &error))?;
    let instance = object
        .status
        .as_ref()
        .and_then(|status| status.instance_uid.as_ref());
    let is_own = |pod: &Pod| {
        let owner = controller_of::<StoppableContainerInstance>(pod);
        owner.is_some_and(|owner| Some(&owner.uid) == instance)
    };
    Ok(pod.filter(is_own).and_then(|pod| pod.uid()))
}

/// Changes the object if that is needed, and says whether it was.
async fn patch(
    session: &Session,
    object: &StoppableContainer,
    verb: Verb,
    dry_run: DryRun,
    now: Timestamp,
) -> Result<bool, Failure> {
    let Some(patch) = verb.patch(object, &now.to_string()) else {
        return Ok(false);
    };
    if dry_run == DryRun::Client {
        return Ok(true);
    }
    let namespace = object.namespace().unwrap_or_else(|| session.namespace.clone());
    let name = object.name_any();
    let api = session.containers(&namespace);
    match api
        .patch(&name, &dry_run.patch_params(), &Patch::Merge(patch))
        .await
    {
        Ok(_) => Ok(true),
        Err(error) => Err(session.failure(&format!("{} {name}", verb.word()), &error).await),
    }
}

/// The question before a change of several objects.
pub(crate) fn question(verb: &str, objects: &[StoppableContainer], namespace: &str) -> String {
    let names: Vec<_> = objects
        .iter()
        .map(|object| display_name(object, namespace))
        .collect();
    let plural = if names.len() == 1 { "" } else { "s" };
    format!(
        "{} {} container{plural} ({})?",
        capitalized(verb),
        names.len(),
        names.join(", ")
    )
}

fn capitalized(word: &str) -> String {
    let mut chars = word.chars();
    chars
        .next()
        .map(|first| first.to_ascii_uppercase().to_string() + chars.as_str())
        .unwrap_or_default()
}

// === impl EndFlags ===

impl EndFlags {
    /// The grace period, if it is not the template's.
    fn seconds(self) -> Option<u32> {
        if self.force { Some(0) } else { self.grace_period }
    }
}

// === impl Verb ===

impl Verb {
    fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
        }
    }

    fn past(self) -> &'static str {
        match self {
            Self::Start => "started",
            Self::Stop => "stopped",
            Self::Restart => "restarted",
        }
    }

    fn already(self) -> &'static str {
        match self {
            Self::Start => "already started",
            Self::Stop => "already stopped",
            Self::Restart => "restarted",
        }
    }

    /// The word without a wait.
    fn ordered(self, changed: bool) -> &'static str {
        match self {
            _ if !changed => self.already(),
            Self::Start => "starting",
            Self::Stop => "stopping",
            Self::Restart => "restarting",
        }
    }

    fn goal(self) -> Goal {
        match self {
            Self::Start => Goal::Running,
            Self::Stop => Goal::Stopped,
            Self::Restart => Goal::Restarted,
        }
    }

    /// The change of the object; `None` if it is as asked already.
    fn patch(self, object: &StoppableContainer, now: &str) -> Option<Value> {
        match self {
            Self::Start => (!object.spec.running).then(|| json!({ "spec": { "running": true } })),
            Self::Stop => object
                .spec
                .running
                .then(|| json!({ "spec": { "running": false } })),
            Self::Restart => Some(json!({
                "spec": {
                    "running": true,
                    "template": { "metadata": { "annotations": { ANNOTATION_RESTARTED_AT: now } } },
                },
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::fixtures::{running, stopped};

    #[test]
    fn only_what_is_not_so_already_is_changed() {
        assert_eq!(Verb::Start.patch(&running(), "now"), None);
        assert_eq!(Verb::Stop.patch(&stopped(), "now"), None);
        assert_eq!(
            Verb::Start.patch(&stopped(), "now"),
            Some(json!({"spec": {"running": true}}))
        );
        assert_eq!(
            Verb::Stop.patch(&running(), "now"),
            Some(json!({"spec": {"running": false}}))
        );
        let restart = Verb::Restart.patch(&stopped(), "2026-01-01T00:00:00Z").unwrap();
        assert_eq!(restart["spec"]["running"], true);
        assert_eq!(
            restart["spec"]["template"]["metadata"]["annotations"][ANNOTATION_RESTARTED_AT],
            "2026-01-01T00:00:00Z"
        );
    }

    #[test]
    fn a_question_names_the_objects() {
        assert_eq!(question("stop", &[running()], "team"), "Stop 1 container (web)?");
        assert_eq!(
            question("stop", &[running(), stopped()], "other"),
            "Stop 2 containers (team/web, team/web)?"
        );
    }
}
