//! `delete`: the object with all its files.

use clap::Args;
use kube::ResourceExt;
use kube::api::{DeleteParams, Preconditions};
use stoppablecontainer_api::StoppableContainer;

use crate::confirm::{Stakes, confirm, decide};
use crate::failure::Failure;
use crate::select::{Selection, display_name, fetch};
use crate::session::Session;
use crate::units;
use crate::view;
use crate::wait::{Goal, Target, conclude, wait_for};

use super::flags::{DryRun, DryRunFlag, WaitFlags};

/// Arguments of `delete`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  kubectl stopc delete web\n  kubectl stopc delete -l team=a -y")]
pub struct DeleteArgs {
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

/// `delete`
///
/// # Errors
/// If a container is not deleted in the end.
pub async fn run(session: &mut Session, args: &DeleteArgs) -> Result<(), Failure> {
    let chosen = args.selection.chosen()?;
    let dry_run = args.dry_run.dry_run;
    let (objects, mut failures) = fetch(session, &chosen, "delete").await?;
    if args.ignore_not_found {
        failures.retain(|failure| !failure.is_not_found());
    }
    if objects.is_empty() {
        if failures.is_empty() {
            session.screen.note("No such containers; nothing was deleted.");
        }
        return Failure::all(failures);
    }
    if !dry_run.is_dry() {
        let decision = decide(Stakes::Files, &chosen, args.yes, session.screen.can_ask());
        let question = losing("Delete", &objects, &session.namespace);
        confirm(&mut session.screen, decision, &question)?;
    }
    let mut targets = Vec::new();
    for object in &objects {
        match delete(session, object, dry_run).await {
            Ok(()) => targets.push(Target::of(object, &session.namespace)),
            Err(failure) if args.ignore_not_found && failure.is_not_found() => {}
            Err(failure) => failures.push(failure),
        }
    }
    if dry_run.is_dry() || !args.wait.waits() {
        for target in &targets {
            let said = if dry_run.is_dry() { "deleted" } else { "deleting" };
            let line = format!("stoppablecontainer/{} {said}{}", target.shown, dry_run.suffix());
            session.screen.print(&line);
        }
        return Failure::all(failures);
    }
    let timeout = args.wait.timeout;
    let outcomes = wait_for(
        session,
        &targets,
        &Goal::Deleted,
        timeout,
        |session, target, time| {
            let text = format!(
                "stoppablecontainer/{} deleted ({})",
                target.shown,
                units::elapsed(time)
            );
            session.screen.print(&text);
        },
    )
    .await?;
    conclude(outcomes, &Goal::Deleted, timeout, failures)
}

/// Deletes the object that was asked about, and no later one of its name.
async fn delete(session: &Session, object: &StoppableContainer, dry_run: DryRun) -> Result<(), Failure> {
    if dry_run == DryRun::Client {
        return Ok(());
    }
    let namespace = object.namespace().unwrap_or_else(|| session.namespace.clone());
    let name = object.name_any();
    let params = DeleteParams {
        dry_run: dry_run == DryRun::Server,
        preconditions: Some(Preconditions {
            uid: object.uid(),
            resource_version: None,
        }),
        ..DeleteParams::background()
    };
    match session.containers(&namespace).delete(&name, &params).await {
        Ok(_) => Ok(()),
        Err(error) => Err(session.failure(&format!("delete {name}"), &error).await),
    }
}

/// The question before files are lost: which, and how much.
pub(crate) fn losing(verb: &str, objects: &[StoppableContainer], namespace: &str) -> String {
    let one = |object: &StoppableContainer| {
        let size = view::used(object).map_or_else(|| "size unknown".to_owned(), units::bytes);
        format!("{} ({size})", display_name(object, namespace))
    };
    let names: Vec<_> = objects.iter().map(one).collect();
    let total: i64 = objects.iter().filter_map(view::used).sum();
    match names.as_slice() {
        [name] => format!("{verb} {name}? All its files are lost."),
        _ => format!(
            "{verb} {} containers: {}? All their files are lost, {} together.",
            names.len(),
            names.join(", "),
            units::bytes(total)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::fixtures::{running, stopped};

    #[test]
    fn the_question_names_what_is_lost() {
        assert_eq!(
            losing("Delete", &[running()], "team"),
            "Delete web (1.5 KiB)? All its files are lost."
        );
        let mut unmeasured = stopped();
        unmeasured.status = None;
        assert_eq!(
            losing("Reset", &[running(), unmeasured], "other"),
            "Reset 2 containers: team/web (1.5 KiB), team/web (size unknown)? All their files are lost, 1.5 KiB \
             together."
        );
    }
}
