//! What a user sees of a start and a stop: conditions, steps with times, and events.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use serde_json::json;
use stoppablecontainer_api::StoppableContainer;
use stoppablecontainer_api::conditions::{
    CONSUMER_READY, CONSUMER_SCHEDULED, READY, STOPPED_CONDITION, reason,
};
use testkit::{Namespace, in_namespace};

use crate::support::{
    blocked_saying, condition, create, running, set_running, shell_template, start, stop, told, told_about,
};

/// How many events with each reason there are about the objects that are called `name`, by kind.
async fn events(ns: &Namespace, name: &str) -> Result<BTreeMap<(String, String), usize>> {
    let params = ListParams::default().fields(&format!("regarding.name={name}"));
    let mut counts = BTreeMap::new();
    for event in ns.api::<Event>().list(&params).await? {
        let kind = event.regarding.and_then(|object| object.kind).unwrap_or_default();
        let reason = event.reason.unwrap_or_default();
        *counts.entry((kind, reason)).or_default() += 1;
    }
    Ok(counts)
}

#[tokio::test]
async fn i12_kubectl_waits_for_stopped() {
    in_namespace("wait-stopped", async |ns| {
        create(&ns, "kept", true, shell_template()).await?;
        running(&ns, "kept").await?;
        let wait = ["wait", "stopc/kept", "--for=condition=Stopped", "--timeout=120s"];
        set_running(&ns, "kept", false).await?;
        ns.kubectl(&wait).await?.success()?;
        ensure!(
            ns.api::<Pod>().get_opt("kept").await?.is_none(),
            "Stopped, and there is a pod"
        );
        // The condition of the last stop does not count for the next.
        start(&ns, "kept").await?;
        set_running(&ns, "kept", false).await?;
        ns.kubectl(&wait).await?.success()?;
        ensure!(
            ns.api::<Pod>().get_opt("kept").await?.is_none(),
            "Stopped, and there is a pod"
        );
        Ok(())
    })
    .await;
}

/// Every step has one event, about the object that the user made, and is in its status.
#[tokio::test]
async fn i12_the_steps_of_a_start_and_a_stop_are_told_once() {
    in_namespace("steps", async |ns| {
        create(&ns, "kept", true, shell_template()).await?;
        running(&ns, "kept").await?;
        told(&ns, "kept", reason::STARTED).await?;
        // The pod may be ready a moment later than it runs.
        let is_ready = |object: &StoppableContainer| {
            let start = object
                .status
                .as_ref()
                .and_then(|status| status.last_start.as_ref());
            start.is_some_and(|start| start.ready_at.is_some())
        };
        let object = ns.wait("kept", "its start is over", is_ready).await?;
        for (kind, status, why) in [
            (CONSUMER_SCHEDULED, "True", reason::SCHEDULED),
            (STOPPED_CONDITION, "False", reason::RUN_REQUESTED),
        ] {
            let found = condition(&object, kind).context("no condition")?;
            ensure!((found.0, found.1) == (status, why), "{kind}: {found:?}");
        }
        let start = object
            .status
            .and_then(|status| status.last_start)
            .context("no lastStart")?;
        for (step, at) in [
            ("requestedAt", &start.requested_at),
            ("scheduledAt", &start.scheduled_at),
            ("providerReadyAt", &start.provider_ready_at),
            ("filesystemReadyAt", &start.filesystem_ready_at),
            ("consumerCreatedAt", &start.consumer_created_at),
            ("readyAt", &start.ready_at),
        ] {
            ensure!(at.is_some(), "{step} is missing: {start:?}");
        }

        stop(&ns, "kept").await?;
        told(&ns, "kept", reason::STOPPED).await?;
        let object = ns.api::<StoppableContainer>().get("kept").await?;
        let stop = object
            .status
            .and_then(|status| status.last_stop)
            .context("no lastStop")?;
        ensure!(
            stop.reason == reason::STOPPED && stop.requested_at.is_some() && stop.consumer_gone_at.is_some(),
            "{stop:?}"
        );
        let counts = events(&ns, "kept").await?;
        for reason in [
            reason::SCHEDULED,
            reason::PULLING,
            reason::FILESYSTEM_PREPARED,
            reason::STARTED,
            reason::STOPPING,
            reason::STOPPED,
        ] {
            let of = |kind: &str| counts.get(&(kind.to_owned(), reason.to_owned())).copied();
            ensure!(of("StoppableContainer") == Some(1), "{reason}: {counts:?}");
            ensure!(
                of("StoppableContainerInstance").is_none(),
                "{reason} is doubled: {counts:?}"
            );
        }
        Ok(())
    })
    .await;
}

/// A missing Secret, a gate, and an exit code: `Ready` says what the user can do.
#[tokio::test]
async fn i12_ready_says_the_cause_and_the_next_step() {
    in_namespace("next-step", async |ns| {
        let mut secret = shell_template();
        secret["spec"]["containers"][0]["envFrom"] = json!([{"secretRef": {"name": "missing"}}]);
        let mut gated = shell_template();
        gated["spec"]["schedulingGates"] = json!([{"name": "example.com/later"}]);
        let mut image = shell_template();
        image["spec"]["containers"][0]["image"] = json!("ubuntu:no-such-tag");
        for (name, template) in [("secret", secret), ("gated", gated), ("image", image)] {
            create(&ns, name, true, template).await?;
        }
        let words = "Create it in this namespace";
        let message = blocked_saying(&ns, "secret", READY, "CreateContainerConfigError", words).await?;
        ensure!(message.contains("\"missing\" not found"), "{message}");
        blocked_saying(&ns, "gated", READY, reason::SCHEDULING_GATED, "example.com/later").await?;
        let pulls = |object: &StoppableContainer| {
            condition(object, READY).is_some_and(|(status, why, message)| {
                status == "False"
                    && ["ErrImagePull", "ImagePullBackOff"].contains(&why)
                    && message.contains("Correct the image in the template")
            })
        };
        ns.wait("image", "Ready says that the image cannot be pulled", pulls)
            .await?;
        Ok(())
    })
    .await;
}

/// A container that ends is started again by the kubelet: the event has the exit code.
#[tokio::test]
async fn i12_a_restart_of_the_container_is_told_with_its_exit_code() {
    in_namespace("exit-code", async |ns| {
        let mut template = shell_template();
        let script =
            "if [ -e /root/second ]; then exec sleep infinity; fi; touch /root/second; sleep 3; exit 3";
        template["spec"]["containers"][0]["command"] = json!(["/bin/sh", "-c", script]);
        create(&ns, "kept", true, template).await?;
        ns.pod_restarted("kept", "main", 1).await?;
        running(&ns, "kept").await?;
        let about = ("StoppableContainer", "kept");
        told_about(ns.api(), about, reason::RESTARTED, "exit code 3").await?;
        let is_ready = |object: &StoppableContainer| {
            condition(object, CONSUMER_READY).is_some_and(|(status, ..)| status == "True")
        };
        ns.wait("kept", "it is ready again", is_ready).await?;
        Ok(())
    })
    .await;
}
