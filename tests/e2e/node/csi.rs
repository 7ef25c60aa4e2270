//! The node agent as a CSI plugin, tested with the conformance test for CSI plugins.

mod calls;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;
use serde_json::json;
use stoppablecontainer_api::names::{CSI_DRIVER, provider_pod_name};
use testkit::{Namespace, in_namespace};

use crate::support::{node_of, run, shell_template, uid_of};

/// The kubelet's directory on the node.
const KUBELET: &str = "/var/lib/kubelet";

/// Skip messages of csi-sanity, and the reasons why they are correct. All other node and identity
/// tests run.
const SKIPPED: &[(&str, &str)] = &[
    (
        "NodeStageVolume not supported",
        "an inline volume is published in one step; there is nothing to stage",
    ),
    ("NodeUnstageVolume not supported", "as above"),
    (
        "NodeGetVolume not supported",
        "statistics: the volume holds a socket and a program; what the container writes is not in it",
    ),
    ("NodeExpandVolume not supported", "an inline volume has no size"),
    (
        "NodeGetVolumeHealth not supported",
        "an alpha call that no kubelet makes",
    ),
    ("NodeGetStorageHealth not supported", "as above"),
    (
        "Service does not have single node multi writer capability",
        "an inline volume belongs to one pod",
    ),
];

/// csi-sanity's node tests need a controller, which a plugin for inline volumes does not have, so a
/// shim adds one. The volumes that the shim creates are additional volumes of a real provider pod.
/// The agent therefore checks them like those of the kubelet.
#[tokio::test]
async fn f24_csi_sanity_passes() {
    in_namespace("csi-sanity", async |ns| {
        run(&ns, "kept", shell_template()).await?;
        let provider = ns.api::<Pod>().get(&provider_pod_name("kept")).await?;
        let pod = sanity(&ns, &provider)?;
        ns.create_json::<Pod>(pod).await?;
        let ended = ns
            .wait("sanity", "csi-sanity has ended", |pod: &Pod| {
                exit_code(pod).is_some()
            })
            .await?;
        let params = LogParams {
            container: Some("sanity".to_owned()),
            ..LogParams::default()
        };
        let log = ns.api::<Pod>().logs("sanity", &params).await?;
        ensure!(exit_code(&ended) == Some(0), "{log}");
        let summary = log
            .lines()
            .find(|line| line.contains("Passed") && line.contains("Skipped"))
            .context("csi-sanity printed no summary")?;
        ensure!(
            summary.split('|').any(|count| count.trim() == "0 Failed"),
            "{summary}"
        );
        let reasons = log
            .lines()
            .filter_map(|line| line.trim().strip_prefix("[SKIPPED] "));
        let surprises: Vec<_> = reasons
            .filter(|reason| !reason.starts_with("in ["))
            .filter(|reason| !SKIPPED.iter().any(|(known, _)| known == reason))
            .collect();
        ensure!(surprises.is_empty(), "skipped without a reason: {surprises:?}");
        // The names of the expected tests, because a run that skips all tests passes too.
        let passed = passed(&log);
        for test in ["should work", "should be idempotent", "should remove target path"] {
            ensure!(
                passed.iter().any(|name| name.ends_with(test)),
                "csi-sanity did not pass {test:?}: {log}"
            );
        }
        Ok(())
    })
    .await;
}

/// The names of the passed tests. With `--ginkgo.v`, each test is a block between two rulers. Its
/// first line is the name, and it contains a line with only a bullet if it passed.
fn passed(log: &str) -> Vec<&str> {
    let is_rule = |line: &str| line.len() > 10 && line.bytes().all(|byte| byte == b'-');
    let lines: Vec<_> = log.lines().map(str::trim_end).collect();
    let is_pass = |line: &&str| {
        let time = line.strip_prefix("\u{2022} [").unwrap_or_default();
        time.starts_with(|first: char| first.is_ascii_digit())
    };
    lines
        .split(|line| is_rule(line))
        .filter(|test| test.iter().any(is_pass))
        .flatten()
        .copied()
        .collect()
}

/// The pod with csi-sanity and the shim, on the node of `provider`, with its volumes in the
/// directory of that pod.
fn sanity(ns: &Namespace, provider: &Pod) -> Result<serde_json::Value> {
    let context = context_of(ns, provider);
    let agent = format!("{KUBELET}/plugins/{CSI_DRIVER}/csi.sock");
    let volumes = format!("{KUBELET}/pods/{}/volumes/kubernetes.io~csi", uid_of(provider));
    let mounts = json!([
        {"name": "shim", "mountPath": "/shim"},
        {"name": "kubelet", "mountPath": KUBELET, "mountPropagation": "HostToContainer"},
    ]);
    Ok(json!({
        "metadata": {"name": "sanity"},
        "spec": {
            "nodeName": node_of(provider)?, "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "initContainers": [{
                "name": "shim", "image": "test/csi-sanity:1", "restartPolicy": "Always", "volumeMounts": mounts,
                "command": ["/csi-test", "shim", agent, "/shim/csi.sock", context.to_string()],
            }],
            "containers": [{
                "name": "sanity", "image": "test/csi-sanity:1", "volumeMounts": mounts,
                "command": [
                    "/csi-sanity", "--csi.endpoint=/shim/csi.sock", format!("--csi.mountdir={volumes}/sanity"),
                    format!("--csi.stagingdir={volumes}/sanity-staging"), "--ginkgo.v", "--ginkgo.no-color",
                    "--ginkgo.focus=Identity Service|Node Service",
                ],
                "securityContext": {"privileged": true},
            }],
            "volumes": [
                {"name": "shim", "emptyDir": {}},
                {"name": "kubelet", "hostPath": {"path": KUBELET}},
            ],
        }
    }))
}

/// The kubelet's description of a pod when it publishes a volume.
fn context_of(ns: &Namespace, pod: &Pod) -> serde_json::Value {
    json!({
        "csi.storage.k8s.io/pod.name": pod.metadata.name,
        "csi.storage.k8s.io/pod.namespace": ns.name,
        "csi.storage.k8s.io/pod.uid": uid_of(pod),
        "csi.storage.k8s.io/ephemeral": "true",
    })
}

fn exit_code(pod: &Pod) -> Option<i32> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let state = statuses.iter().find(|c| c.name == "sanity")?.state.as_ref()?;
    state.terminated.as_ref().map(|t| t.exit_code)
}
