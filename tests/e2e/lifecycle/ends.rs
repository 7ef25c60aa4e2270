//! Consumers that end without a stop: past a deadline, in a crash loop, or before they ran.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use serde_json::{Value, json};
use stoppablecontainer_api::conditions::{CONSUMER_READY, reason};
use stoppablecontainer_api::{Phase, StoppableContainer};
use testkit::{Namespace, in_namespace};

use crate::support::{
    blocked, blocked_saying, condition, create, phase, set_running, shell_template, start, uid_of,
};

fn main_status(pod: &Pod) -> Option<&ContainerStatus> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find(|container| container.name == "main")
}

/// The kubelet ends the pod five seconds after each start. The scheduler places the next ones, with
/// an increasing back-off. The first one has no placeholder any more and goes to its node directly.
#[tokio::test]
async fn f12_i18_a_deadline_does_not_make_a_loop() {
    in_namespace("deadline", async |ns| {
        let mut template = shell_template();
        template["spec"]["activeDeadlineSeconds"] = json!(5);
        create(&ns, "kept", false, template).await?;
        phase(&ns, "kept", Phase::Stopped).await?;
        set_running(&ns, "kept", true).await?;
        let mut pods = vec![ns.pod_ready("kept").await?];
        for _ in 0..2 {
            let before = pods.last().map(uid_of).unwrap_or_default();
            pods.push(ns.other_pod_ready("kept", &before).await?);
        }
        let pinned = |pod: &Pod| {
            let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.clone());
            affinity.and_then(|affinity| affinity.node_affinity).is_some()
        };
        ensure!(
            !pinned(&pods[0]) && pinned(&pods[1]) && pinned(&pods[2]),
            "not the first by its node's name and the others through the scheduler"
        );
        // Between the second and the third start are at least the deadline and ten seconds.
        let created = |pod: &Pod| pod.metadata.creation_timestamp.clone().map(|time| time.0);
        let second = created(&pods[1]).context("no time")?;
        let third = created(&pods[2]).context("no time")?;
        let between = third.duration_since(second).as_secs();
        ensure!(between >= 14, "started again after {between} s");
        blocked_saying(&ns, "kept", CONSUMER_READY, "DeadlineExceeded", "deadline").await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn i12_a_crash_loop_shows_the_last_exit_code_and_reason() {
    in_namespace("crashes", async |ns| {
        let mut template = shell_template();
        let script = "echo no config in /etc/app > /dev/termination-log; exit 3";
        template["spec"]["containers"][0]["command"] = json!(["/bin/sh", "-c", script]);
        create(&ns, "kept", true, template).await?;
        let message = blocked(&ns, "kept", CONSUMER_READY, "CrashLoopBackOff").await?;
        ensure!(
            message.contains("exit code 3 (Error)") && message.contains("no config in /etc/app"),
            "{message}"
        );
        // By now it may be running for an instant.
        let loops = |object: &StoppableContainer| {
            let phase = object.status.as_ref().and_then(|status| status.phase);
            phase == Some(Phase::ProviderReady)
                && condition(object, CONSUMER_READY).is_some_and(|(_, why, _)| why == "CrashLoopBackOff")
        };
        ns.wait("kept", "it is not Running while it waits", loops).await?;
        Ok(())
    })
    .await;
}

/// Waits until the container cannot run for this reason, and watches two more attempts, each of
/// which is Ready for an instant.
async fn never_runs(ns: &Namespace, name: &str, words: &str) -> Result<()> {
    let message = blocked_saying(ns, name, CONSUMER_READY, reason::CONTAINER_CANNOT_RUN, words).await?;
    ensure!(message.contains("container main: "), "{message}");
    let ready = |object: &StoppableContainer| {
        let phase = object.status.as_ref().and_then(|status| status.phase);
        let consumer = condition(object, CONSUMER_READY);
        phase == Some(Phase::Running) || consumer.is_none_or(|(status, ..)| status == "True")
    };
    let now = ns.api::<Pod>().get(name).await?;
    let tries = main_status(&now).map_or(0, |container| container.restart_count);
    let tried = |pod: &Pod| main_status(pod).is_some_and(|container| container.restart_count >= tries + 2);
    tokio::select! {
        object = ns.wait(name, "ready for an instant", ready) => {
            anyhow::bail!("it was ready for an instant: {:?}", object?.status)
        }
        pod = ns.wait(name, "two more tries", tried) => {
            let pod = pod?;
            let last = main_status(&pod).and_then(|container| container.last_state.clone());
            let said = last.and_then(|state| state.terminated).and_then(|end| end.message).unwrap_or_default();
            ensure!(said.contains(words), "the pod's status does not say it: {said:?}");
        }
    }
    Ok(())
}

/// A plain pod's status names the file in the same way.
#[tokio::test]
async fn i12_a_program_that_is_missing_or_not_executable_is_named() {
    in_namespace("cannot-run", async |ns| {
        let of = |command: Value| {
            let mut template = shell_template();
            template["spec"]["containers"][0]["command"] = command;
            template
        };
        create(&ns, "missing", true, of(json!(["/nowhere/serve", "--port=1"]))).await?;
        create(&ns, "denied", true, of(json!(["/etc/passwd"]))).await?;
        let mut elsewhere = of(json!(["nowhere"]));
        elsewhere["spec"]["containers"][0]["terminationMessagePath"] = json!("/run/last/words");
        create(&ns, "elsewhere", true, elsewhere).await?;
        tokio::try_join!(
            never_runs(&ns, "missing", "/nowhere/serve: no such file or directory"),
            never_runs(&ns, "denied", "/etc/passwd: permission denied"),
            never_runs(&ns, "elsewhere", "nowhere: executable file not found in $PATH"),
        )?;
        // The correction is an ordinary edit.
        set_running(&ns, "missing", false).await?;
        phase(&ns, "missing", Phase::Stopped).await?;
        let template = json!({"spec": {"template": shell_template()}});
        ns.patch::<StoppableContainer>("missing", template).await?;
        start(&ns, "missing").await.map(drop)
    })
    .await;
}
