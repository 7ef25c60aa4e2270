//! `resize`: CPU, memory and the limit of the kept files.

use clap::Args;
use kube::ResourceExt;
use kube::api::Patch;
use serde_json::{Value, json};
use stoppablecontainer_api::StoppableContainer;
use stoppablecontainer_api::conditions::RESTART_REQUIRED;

use crate::confirm::{Stakes, confirm, decide};
use crate::failure::Failure;
use crate::select::{Selection, fetch};
use crate::session::Session;
use crate::view;
use crate::wait::{Goal, Target, conclude, wait_for};

use super::create::{Resources, quantity};
use super::flags::{DryRun, DryRunFlag, WaitFlags};
use super::power::question;

/// Arguments of `resize`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  kubectl stopc resize web --cpu 4 --memory 8Gi\n  kubectl stopc resize web --size \
                        50Gi"
)]
#[command(group = clap::ArgGroup::new("resources").required(true).multiple(true))]
pub struct ResizeArgs {
    /// Which containers.
    #[command(flatten)]
    pub selection: Selection,
    /// CPU: request and limit, as in 500m or 2.
    #[arg(long, value_name = "QUANTITY", value_parser = quantity, group = "resources")]
    pub cpu: Option<String>,
    /// Memory: request and limit, as in 4Gi.
    #[arg(long, value_name = "QUANTITY", value_parser = quantity, group = "resources")]
    pub memory: Option<String>,
    /// Limit of the kept files (ephemeral-storage), as in 20Gi.
    #[arg(long, value_name = "QUANTITY", value_parser = quantity, group = "resources")]
    pub size: Option<String>,
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

/// `resize`
///
/// # Errors
/// If a change is refused.
pub async fn run(session: &mut Session, args: &ResizeArgs) -> Result<(), Failure> {
    let chosen = args.selection.chosen()?;
    let dry_run = args.dry_run.dry_run;
    let (objects, mut failures) = fetch(session, &chosen, "resize").await?;
    if objects.is_empty() && failures.is_empty() {
        session.screen.note("No such containers; nothing was changed.");
        return Ok(());
    }
    if !dry_run.is_dry() {
        let decision = decide(Stakes::Reversible, &chosen, args.yes, session.screen.can_ask());
        let question = question("resize", &objects, &session.namespace);
        confirm(&mut session.screen, decision, &question)?;
    }
    for object in &objects {
        if let Err(failure) = resize(session, args, object, dry_run).await {
            failures.push(failure);
        }
    }
    Failure::all(failures)
}

async fn resize(
    session: &mut Session,
    args: &ResizeArgs,
    object: &StoppableContainer,
    dry_run: DryRun,
) -> Result<(), Failure> {
    let target = Target::of(object, &session.namespace);
    let patch = patch(object, args)?;
    if dry_run != DryRun::Client {
        let patch: kube::core::params::Patch<()> = serde_json::from_value(patch)
            .map(Patch::Json)
            .map_err(|error| Failure::failed(format!("{}: {error}", target.shown)))?;
        let api = session.containers(&target.namespace);
        let patched = api.patch(&target.name, &dry_run.patch_params(), &patch).await;
        if let Err(error) = patched {
            return Err(session.failure(&format!("resize {}", target.name), &error).await);
        }
    }
    let effect = if dry_run.is_dry() {
        dry_run.suffix().to_owned()
    } else if !object.spec.running {
        "; takes effect at the next start".to_owned()
    } else if args.wait.waits() {
        let timeout = args.wait.timeout;
        let goal = Goal::Observed;
        let outcomes = wait_for(
            session,
            std::slice::from_ref(&target),
            &goal,
            timeout,
            |_, _, _| {},
        )
        .await?;
        conclude(outcomes, &goal, timeout, Vec::new())?;
        let now = session.containers(&target.namespace).get(&target.name).await;
        effect(&now.map_err(|error| crate::explain::request(&format!("read {}", target.shown), &error))?)
    } else {
        String::new()
    };
    let line = format!("stoppablecontainer/{} resized{effect}", target.shown);
    session.screen.print(&line);
    Ok(())
}

/// When a change of a running container takes effect.
fn effect(object: &StoppableContainer) -> String {
    if view::is_true(object, RESTART_REQUIRED) {
        let name = object.name_any();
        format!("; takes effect at the next start: kubectl stopc restart {name}")
    } else {
        "; live".to_owned()
    }
}

/// The change of the main container's resources, which must still be the main container.
fn patch(object: &StoppableContainer, args: &ResizeArgs) -> Result<Value, Failure> {
    let name = object.name_any();
    let template = object
        .spec
        .template
        .value()
        .map_err(|error| Failure::failed(format!("cannot resize {name}: {error}")))?;
    let mut main = template["spec"]["containers"][0].clone();
    let resources = Resources {
        cpu: args.cpu.as_deref(),
        memory: args.memory.as_deref(),
        size: args.size.as_deref(),
        gpu: None,
    };
    resources.apply(&mut main);
    let path = "/spec/template/spec/containers/0";
    Ok(json!([
        { "op": "test", "path": format!("{path}/name"), "value": main["name"] },
        { "op": "add", "path": format!("{path}/resources"), "value": main["resources"] },
    ]))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::view::fixtures::{object, running, value};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ResizeArgs,
    }

    #[test]
    fn only_the_named_resources_of_the_main_container_change() {
        let mut value = value(true, "Running", &[]);
        value["spec"]["template"]["spec"]["containers"][0]["resources"] =
            json!({ "limits": { "cpu": "1", "nvidia.com/gpu": "1" } });
        let object: StoppableContainer = serde_json::from_value(value).unwrap();
        let args = Line::parse_from(["resize", "web", "--memory", "8Gi", "--size", "50Gi"]).args;
        assert_eq!(
            patch(&object, &args).unwrap(),
            json!([
                { "op": "test", "path": "/spec/template/spec/containers/0/name", "value": "main" },
                { "op": "add", "path": "/spec/template/spec/containers/0/resources", "value": {
                    "limits": { "cpu": "1", "nvidia.com/gpu": "1", "memory": "8Gi", "ephemeral-storage": "50Gi" },
                    "requests": { "memory": "8Gi" },
                } },
            ])
        );
    }

    #[test]
    fn something_has_to_change() {
        assert!(Line::try_parse_from(["resize", "web"]).is_err());
        assert!(Line::try_parse_from(["resize", "web", "--cpu", "-1"]).is_err());
    }

    #[test]
    fn a_change_of_a_running_container_is_live_or_needs_a_restart() {
        assert_eq!(effect(&running()), "; live");
        let edited = object(
            true,
            "Running",
            &[("RestartRequired", "True", "TemplateEdited", "resources")],
        );
        assert_eq!(
            effect(&edited),
            "; takes effect at the next start: kubectl stopc restart web"
        );
    }
}
