/*!
`reset` and `accept`: what becomes of files that cannot be used, or are not wanted any more.

Both are answers with an identifier (see `docs/storage.md`): that of the offer in the instance's
status, or for a reset without an offer that of the instance.
*/

use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::Patch;
use serde_json::json;
use stoppablecontainer_api::names::{ANNOTATION_RECOVERY, provider_pod_name};
use stoppablecontainer_api::{
    RecoveryAnswer, RecoveryOffer, RecoveryVerb, StoppableContainer, StoppableContainerInstance,
};

use crate::confirm::{Stakes, confirm, decide};
use crate::failure::Failure;
use crate::select::{Selection, fetch};
use crate::session::Session;
use crate::units;
use crate::wait::{Goal, Recovery, Target, conclude, wait_for};

use super::delete::losing;
use super::flags::{DryRun, DryRunFlag, WaitFlags};

/// Arguments of `reset`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  kubectl stopc reset web\n  kubectl stopc reset web -y --no-wait")]
pub struct ResetArgs {
    /// Flags.
    #[command(flatten)]
    pub flags: RecoverFlags,
}

/// Arguments of `accept`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  kubectl stopc accept web")]
pub struct AcceptArgs {
    /// Flags.
    #[command(flatten)]
    pub flags: RecoverFlags,
}

/// The flags of both.
#[derive(Clone, Debug, Args)]
pub struct RecoverFlags {
    /// Which containers.
    #[command(flatten)]
    pub selection: Selection,
    /// Waiting.
    #[command(flatten)]
    pub wait: WaitFlags,
    /// Dry run.
    #[command(flatten)]
    pub dry_run: DryRunFlag,
    /// Does not ask.
    #[arg(short, long)]
    pub yes: bool,
    /// A container that does not exist is not an error.
    #[arg(long)]
    pub ignore_not_found: bool,
}

/// `reset`
///
/// # Errors
/// If a container is not reset in the end.
pub async fn reset(session: &mut Session, args: &ResetArgs) -> Result<(), Failure> {
    recover(session, &args.flags, RecoveryVerb::Reset).await
}

/// `accept`
///
/// # Errors
/// If there is nothing to accept, or the files cannot be used after that.
pub async fn accept(session: &mut Session, args: &AcceptArgs) -> Result<(), Failure> {
    recover(session, &args.flags, RecoveryVerb::Accept).await
}

async fn recover(session: &mut Session, flags: &RecoverFlags, verb: RecoveryVerb) -> Result<(), Failure> {
    let chosen = flags.selection.chosen()?;
    let dry_run = flags.dry_run.dry_run;
    let (objects, mut failures) = fetch(session, &chosen, verb.as_str()).await?;
    if flags.ignore_not_found {
        failures.retain(|failure| !failure.is_not_found());
    }
    let mut orders = Vec::new();
    for object in objects {
        let instance = instance(session, &object).await?;
        match answer(&object, instance.as_ref(), verb) {
            Ok(answer) => orders.push((object, instance, answer)),
            Err(cause) => failures.push(Failure::failed(cause)),
        }
    }
    if orders.is_empty() {
        return Failure::all(failures);
    }
    if !dry_run.is_dry() {
        let question = match verb {
            RecoveryVerb::Reset => {
                let objects: Vec<_> = orders.iter().map(|(object, ..)| object.clone()).collect();
                losing("Reset", &objects, &session.namespace)
            }
            RecoveryVerb::Accept => {
                let mut lines = Vec::new();
                for (object, instance, _) in &orders {
                    let provider = provider(session, object).await;
                    lines.push(images(object, instance.as_ref(), provider.as_ref()));
                }
                format!("{}\nUse the kept files with the present image?", lines.join("\n"))
            }
        };
        let decision = decide(Stakes::Files, &chosen, flags.yes, session.screen.can_ask());
        confirm(&mut session.screen, decision, &question)?;
    }
    let done = match verb {
        RecoveryVerb::Reset => "reset",
        RecoveryVerb::Accept => "accepted",
    };
    let mut waits = Vec::new();
    for (object, _, answer) in &orders {
        let target = Target::of(object, &session.namespace);
        if let Err(failure) = annotate(session, object, answer, dry_run).await {
            failures.push(failure);
        } else if dry_run.is_dry() || !flags.wait.waits() {
            let line = format!("stoppablecontainer/{} {done}{}", target.shown, dry_run.suffix());
            session.screen.print(&line);
        } else {
            let uid = object
                .status
                .as_ref()
                .and_then(|status| status.instance_uid.as_deref());
            waits.push((target, Goal::Recovered(Recovery::after(answer, uid))));
        }
    }
    // Each has an answer of its own, so each is a wait of its own.
    for (target, goal) in waits {
        let timeout = flags.wait.timeout;
        let outcomes = wait_for(session, &[target], &goal, timeout, |session, target, time| {
            let text = format!(
                "stoppablecontainer/{} {done} ({})",
                target.shown,
                units::elapsed(time)
            );
            session.screen.print(&text);
        })
        .await?;
        if let Err(failure) = conclude(outcomes, &goal, timeout, Vec::new()) {
            failures.push(failure);
        }
    }
    Failure::all(failures)
}

async fn instance(
    session: &Session,
    object: &StoppableContainer,
) -> Result<Option<StoppableContainerInstance>, Failure> {
    let Some(name) = object
        .status
        .as_ref()
        .and_then(|status| status.instance_name.as_ref())
    else {
        return Ok(None);
    };
    let namespace = object.namespace().unwrap_or_else(|| session.namespace.clone());
    let instances = session.api::<StoppableContainerInstance>(&namespace);
    match instances.get_opt(name).await {
        Ok(found) => Ok(found),
        Err(error) => Err(session.failure(&format!("read instance {name}"), &error).await),
    }
}

async fn annotate(
    session: &Session,
    object: &StoppableContainer,
    answer: &RecoveryAnswer,
    dry_run: DryRun,
) -> Result<(), Failure> {
    if dry_run == DryRun::Client {
        return Ok(());
    }
    let patch = json!({
        "metadata": {
            // The object that was asked about, and no later one of its name.
            "uid": object.uid(),
            "annotations": { ANNOTATION_RECOVERY: answer.to_string() },
        },
    });
    let namespace = object.namespace().unwrap_or_else(|| session.namespace.clone());
    let name = object.name_any();
    let api = session.containers(&namespace);
    match api
        .patch(&name, &dry_run.patch_params(), &Patch::Merge(patch))
        .await
    {
        Ok(_) => Ok(()),
        Err(error) => {
            let what = format!("{} {name}", answer.verb.as_str());
            Err(session.failure(&what, &error).await)
        }
    }
}

/// The answer that orders `verb`.
///
/// # Errors
/// If it is not possible, with the reason and what is.
fn answer(
    object: &StoppableContainer,
    instance: Option<&StoppableContainerInstance>,
    verb: RecoveryVerb,
) -> Result<RecoveryAnswer, String> {
    let name = object.name_any();
    let offer = instance.and_then(offer);
    if let Some(offer) = offer.filter(|offer| offer.verbs.contains(&verb)) {
        return Ok(RecoveryAnswer {
            verb,
            id: offer.id.clone(),
        });
    }
    match verb {
        RecoveryVerb::Accept if offer.is_some() => Err(format!(
            "{name}: these files cannot be accepted; see what is possible: kubectl stopc status {name}"
        )),
        RecoveryVerb::Accept => Err(format!(
            "{name}: nothing to accept; its files are used with the image that they were created with"
        )),
        RecoveryVerb::Reset => {
            let uid = object
                .status
                .as_ref()
                .and_then(|status| status.instance_uid.as_deref());
            uid.map(RecoveryAnswer::abandoning)
                .ok_or_else(|| format!("{name}: nothing to reset; it has not been created on a node yet"))
        }
    }
}

fn offer(instance: &StoppableContainerInstance) -> Option<&RecoveryOffer> {
    instance.status.as_ref()?.filesystem.as_ref()?.recovery.as_ref()
}

/// The image of the files and the present one, with their digests. The present one is that of the
/// provider, which the node agent compared.
fn images(
    object: &StoppableContainer,
    instance: Option<&StoppableContainerInstance>,
    provider: Option<&Pod>,
) -> String {
    let status = instance.and_then(|instance| instance.status.as_ref());
    let pinned = status.and_then(|status| status.image.as_ref());
    let recorded = status.and_then(|status| status.filesystem.as_ref()?.image.as_ref());
    let of_files = match (pinned, recorded) {
        (Some(image), _) => format!("{} ({})", image.name, image.digest),
        (None, Some(image)) => format!("{} ({})", image.reference, image.id),
        (None, None) => "an unknown image".to_owned(),
    };
    let statuses = provider.and_then(|pod| pod.status.as_ref()?.container_statuses.as_ref());
    let digest = statuses
        .and_then(|statuses| statuses.first())
        .map(|status| status.image_id.as_str())
        .filter(|id| !id.is_empty())
        .unwrap_or("digest unknown");
    format!(
        "{}: the files were created with {of_files}; the present image is {} ({digest}).",
        object.name_any(),
        object.spec.template.main().image
    )
}

async fn provider(session: &Session, object: &StoppableContainer) -> Option<Pod> {
    let namespace = object.namespace().unwrap_or_else(|| session.namespace.clone());
    let pods = session.api::<Pod>(&namespace);
    // Only for the question, which says if it is unknown.
    pods.get_opt(&provider_pod_name(&object.name_any())).await.ok()?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::fixtures::stopped;

    fn instance(verbs: &[&str]) -> StoppableContainerInstance {
        serde_json::from_value(json!({
            "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainerInstance",
            "metadata": { "name": "web" },
            "spec": { "stoppableContainerName": "web", "template": {} },
            "status": {
                "image": { "name": "nginx:1.24", "digest": "nginx@sha256:old" },
                "filesystem": {
                    "state": "Failed", "nodeName": "node1",
                    "recovery": { "id": "4be1d1a2f07c93e5", "verbs": verbs },
                },
            },
        }))
        .unwrap()
    }

    #[test]
    fn an_offer_is_answered_with_its_id() {
        let both = instance(&["accept", "reset"]);
        let said = |verb| answer(&stopped(), Some(&both), verb).unwrap().to_string();
        assert_eq!(said(RecoveryVerb::Accept), "accept-4be1d1a2f07c93e5");
        assert_eq!(said(RecoveryVerb::Reset), "reset-4be1d1a2f07c93e5");
    }

    #[test]
    fn healthy_or_vanished_files_are_reset_by_the_uid_of_their_instance() {
        let said = answer(&stopped(), None, RecoveryVerb::Reset).unwrap();
        assert_eq!(said.to_string(), "reset-11111111222233334444555555555555");
        assert_eq!(RecoveryAnswer::parse(&said.to_string()), Some(said));
        let mut new = stopped();
        new.status = None;
        assert!(
            answer(&new, None, RecoveryVerb::Reset)
                .unwrap_err()
                .contains("nothing to reset")
        );
    }

    #[test]
    fn only_what_is_offered_can_be_accepted() {
        let refused = |instance: Option<&StoppableContainerInstance>| {
            answer(&stopped(), instance, RecoveryVerb::Accept).unwrap_err()
        };
        assert!(refused(None).contains("nothing to accept"));
        assert!(refused(Some(&instance(&["reset"]))).contains("cannot be accepted"));
    }

    #[test]
    fn both_digests_are_named() {
        let provider = serde_json::from_value(json!({
            "metadata": { "name": "web-provider" },
            "status": { "containerStatuses": [{
                "name": "provider", "image": "", "imageID": "nginx@sha256:new", "ready": true, "restartCount": 0,
            }] },
        }));
        assert_eq!(
            images(&stopped(), Some(&instance(&["accept"])), Some(&provider.unwrap())),
            "web: the files were created with nginx:1.24 (nginx@sha256:old); the present image is nginx:1.25 \
             (nginx@sha256:new)."
        );
        assert_eq!(
            images(&stopped(), None, None),
            "web: the files were created with an unknown image; the present image is nginx:1.25 (digest unknown)."
        );
    }
}
