//! Restarts that the user asks for.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use stoppablecontainer_api::conditions::{RESTART_REQUIRED, reason};
use stoppablecontainer_api::names::{ANNOTATION_RESTARTED_AT, provider_pod_name};
use stoppablecontainer_api::{StopSteps, StoppableContainer};
use testkit::{Namespace, in_namespace};

use crate::support::{condition, phase, run, running, set_running, shell_template, stop, uid_of};

/// Sets the annotation of the template, or removes it.
async fn request(ns: &Namespace, at: Value) -> Result<()> {
    let metadata = json!({"annotations": {ANNOTATION_RESTARTED_AT: at}});
    let patch = json!({"spec": {"template": {"metadata": metadata}}});
    ns.patch::<StoppableContainer>("kept", patch).await?;
    Ok(())
}

/// Waits until the controller has seen the present spec.
async fn seen(ns: &Namespace) -> Result<StoppableContainer> {
    let is_seen = |object: &StoppableContainer| {
        let observed = object
            .status
            .as_ref()
            .and_then(|status| status.observed_generation);
        observed == object.metadata.generation
    };
    ns.wait("kept", "the controller has seen the spec", is_seen).await
}

/// The consumer that runs after a request, which is another one than `before`.
async fn restarted(ns: &Namespace, before: &Pod) -> Result<Pod> {
    let pod = ns.pod_ready("kept").await?;
    if uid_of(&pod) != uid_of(before) {
        return Ok(pod);
    }
    ns.other_pod_ready("kept", &uid_of(before)).await
}

/// The consumer is replaced once, with its files and on its node, and edits take effect. Taking the
/// annotation out again changes nothing.
#[tokio::test]
async fn i14_a_request_restarts_a_running_container_once() {
    in_namespace("restart", async |ns| {
        let first = run(&ns, "kept", shell_template()).await?;
        let provider = ns.pod_ready(&provider_pod_name("kept")).await?;
        ns.sh("kept", "main", "echo kept > /root/file").await?;
        // An edit alone does not restart it.
        let mut template = shell_template();
        template["spec"]["containers"][0]["env"] = json!([{"name": "GREETING", "value": "hello"}]);
        ns.patch::<StoppableContainer>("kept", json!({"spec": {"template": template}}))
            .await?;
        let required = |object: &StoppableContainer| condition(object, RESTART_REQUIRED).is_some();
        ns.wait("kept", "a restart is required", required).await?;
        ensure!(
            uid_of(&ns.pod_ready("kept").await?) == uid_of(&first),
            "an edit restarted it"
        );

        request(&ns, json!("2026-01-01T00:00:00Z")).await?;
        let second = restarted(&ns, &first).await?;
        running(&ns, "kept").await?;
        let read = ns.sh("kept", "main", "echo $GREETING; cat /root/file").await?;
        ensure!(read == "hello\nkept", "{read}");
        let object = seen(&ns).await?;
        ensure!(
            condition(&object, RESTART_REQUIRED).is_none(),
            "a restart is still required"
        );
        let stop = object.status.and_then(|status| status.last_stop);
        let why = stop.as_ref().map(|stop: &StopSteps| stop.reason.as_str());
        ensure!(why == Some(reason::RESTARTED), "why it was stopped: {stop:?}");
        let same = ns.pod_ready(&provider_pod_name("kept")).await?;
        ensure!(uid_of(&same) == uid_of(&provider), "the provider was replaced");

        // A tool that manages the template takes the annotation out, and sets the same again.
        for same in [Value::Null, json!("2026-01-01T00:00:00Z")] {
            request(&ns, same).await?;
            // The write of a status that knows the new spec would begin another stop.
            let last = seen(&ns).await?.status.and_then(|status| status.last_stop);
            ensure!(last == stop, "it is restarted again: {last:?}");
            ensure!(
                uid_of(&ns.pod_ready("kept").await?) == uid_of(&second),
                "it was restarted again"
            );
        }
        Ok(())
    })
    .await;
}

/// A request while the object is stopped starts nothing, and its start answers it.
#[tokio::test]
async fn i14_a_request_starts_nothing_that_is_stopped() {
    in_namespace("restart-stopped", async |ns| {
        run(&ns, "kept", shell_template()).await?;
        stop(&ns, "kept").await?;
        request(&ns, json!("1")).await?;
        seen(&ns).await?;
        ensure!(ns.api::<Pod>().get_opt("kept").await?.is_none(), "it was started");
        set_running(&ns, "kept", true).await?;
        let pod = running(&ns, "kept").await?;
        // Another edit, because the status that follows it would begin a stop.
        ns.patch::<StoppableContainer>(
            "kept",
            json!({"spec": {"provider": {"resources": {"requests": {"memory": "20Mi"}}}}}),
        )
        .await?;
        phase(&ns, "kept", stoppablecontainer_api::Phase::Running).await?;
        ensure!(
            uid_of(&ns.pod_ready("kept").await?) == uid_of(&pod),
            "it was restarted"
        );
        Ok(())
    })
    .await;
}
