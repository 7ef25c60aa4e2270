//! I13: dry runs and diffs do not change anything. The tests compare the content of etcd before and
//! after.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use stoppablecontainer::reconcile::pods::consumer_pod;
use stoppablecontainer_api::{Phase, StoppableContainerInstance};
use testkit::{Namespace, alone_in_namespace, cluster_command};

use crate::support::release::Release;
use crate::support::{create, phase, run, shell_template, stop};

/// Keys that change all the time: heartbeats of nodes, of API servers and of leaders.
const HEARTBEATS: [&str; 3] = [
    "/registry/leases/",
    "/registry/masterleases/",
    "/registry/minions/",
];

/// Number of attempts, because concurrent changes may disturb the comparison.
const ATTEMPTS: usize = 5;

/// Key and revision of its last change.
type Keys = BTreeMap<String, String>;

#[tokio::test]
async fn i13_dry_runs_and_diffs_of_every_kind_change_nothing_in_etcd() {
    alone_in_namespace("side-effects", async |ns, _alone| {
        run(&ns, "kept", shell_template()).await?;
        stop(&ns, "kept").await?;
        let ours = format!("/{}/", ns.name);

        // Keys that changed in every attempt. Concurrent changes affect different keys each time,
        // dry runs the same keys.
        let mut elsewhere: Option<BTreeSet<String>> = None;
        let mut events = BTreeSet::new();
        for attempt in 0..ATTEMPTS {
            let before = keys().await?;
            ask_everything(&ns).await?;
            // A real object: once it exists, the controllers have processed all earlier changes.
            let witness = format!("witness-{attempt}");
            create(&ns, &witness, false, shell_template()).await?;
            phase(&ns, &witness, Phase::Stopped).await?;
            let after = keys().await?;

            let changed = changes(&before, &after);
            let (here, other): (BTreeSet<_>, _) = changed.into_iter().partition(|key| key.contains(&ours));
            let objects;
            (events, objects) = here
                .into_iter()
                .partition(|key| key.starts_with("/registry/events/"));
            ensure!(objects.is_empty(), "dry runs changed {objects:?}");
            let still = match elsewhere.take() {
                Some(earlier) => earlier.intersection(&other).cloned().collect(),
                None => other,
            };
            if events.is_empty() && still.is_empty() {
                return Ok(());
            }
            elsewhere = Some(still);
        }
        // The last event of an earlier start or stop may arrive late, but only once.
        let elsewhere = elsewhere.unwrap_or_default();
        ensure!(
            events.is_empty() && elsewhere.is_empty(),
            "{ATTEMPTS} rounds of dry runs changed each time: {elsewhere:?}, events: {events:?}"
        );
        Ok(())
    })
    .await;
}

/// All ways of dry runs, for all kinds, for existing and new objects.
async fn ask_everything(ns: &Namespace) -> Result<()> {
    let controller = format!("--as={}", Release::find(&ns.client).await?.controller_user()?);
    let instance = ns.api::<StoppableContainerInstance>().get("kept").await?;
    let of_user = json!({"running": true, "template": shell_template()});
    let mut of_controller = serde_json::to_value(&instance.spec)?;
    of_controller["running"] = json!(true);
    for (kind, spec) in [
        ("StoppableContainer", of_user),
        ("StoppableContainerInstance", of_controller),
    ] {
        let object = |name| {
            json!({
                "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": kind,
                "metadata": {"name": name}, "spec": spec,
            })
        };
        for name in ["kept", "fresh"] {
            let manifest = object(name);
            let applied = ask(ns, &["apply", "--dry-run=server"], &manifest).await?;
            ensure!(applied.contains("(server dry run)"), "{applied}");
            let shown = ask(ns, &["diff"], &manifest).await?;
            ensure!(shown.contains("running: true"), "no difference shown: {shown:?}");
        }
        ask(ns, &["create", "--dry-run=server"], &object("fresh")).await?;
        // Only the controller deletes an instance with an owner.
        let mut delete = vec!["delete", "--dry-run=server", kind, "kept"];
        if kind == "StoppableContainerInstance" {
            delete.push(&controller);
        }
        ns.kubectl(&delete).await?.success()?;
    }

    let pod = consumer_pod(&instance)?;
    let rewritten = ask(ns, &["create", "--dry-run=server", "-o=json", &controller], &pod).await?;
    ensure!(
        rewritten.contains("csi.stoppablecontainer.xtlsoft.top"),
        "not rewritten: {rewritten}"
    );
    ask(ns, &["apply", "--dry-run=server", &controller], &pod).await?;
    let shown = ask(ns, &["diff", &controller], &pod).await?;
    ensure!(shown.contains("csi.stoppablecontainer.xtlsoft.top"), "{shown}");
    let refused = ns
        .kubectl_with_input(&["create", "--dry-run=server", "-f", "-"], &pod.to_string())
        .await?;
    ensure!(refused.code != 0, "a consumer of another user: {refused:?}");
    Ok(())
}

/// Runs kubectl with a manifest. `diff` ends with 1 if there is a difference.
async fn ask(ns: &Namespace, args: &[&str], manifest: &Value) -> Result<String> {
    let output = ns
        .kubectl_with_input(&[args, &["-f", "-"]].concat(), &manifest.to_string())
        .await?;
    let expected = i32::from(args[0] == "diff");
    ensure!(output.code == expected, "{args:?} of {manifest}: {output:?}");
    Ok(output.stdout)
}

async fn keys() -> Result<Keys> {
    let what = "the command that prints what etcd holds, a line `KEY REVISION` for each key";
    let lines = cluster_command("E2E_ETCD_KEYS_COMMAND", what, &[]).await?;
    let keys: Keys = lines
        .lines()
        .map(|line| {
            let (key, revision) = line.rsplit_once(' ').with_context(|| format!("read {line:?}"))?;
            Ok((key.to_owned(), revision.to_owned()))
        })
        .collect::<Result<_>>()?;
    ensure!(
        keys.keys().any(|key| key.contains("/stoppablecontainers/")),
        "these are not etcd's keys: {lines}"
    );
    Ok(keys)
}

/// Keys that are new, deleted or changed, except heartbeats and the witnesses.
fn changes(before: &Keys, after: &Keys) -> BTreeSet<String> {
    before
        .keys()
        .chain(after.keys())
        .filter(|key| before.get(*key) != after.get(*key))
        .filter(|key| !HEARTBEATS.iter().any(|prefix| key.starts_with(prefix)) && !key.contains("witness"))
        .cloned()
        .collect()
}
