//! A stopped container does not hold its claims, and does not keep pods away from its node.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};
use stoppablecontainer_api::StoppableContainer;
use stoppablecontainer_api::conditions::CONSUMER_READY;
use stoppablecontainer_api::names::provider_pod_name;
use testkit::{Namespace, NodeShell, in_namespace};

use crate::support::{
    blocked_saying, cleaned_up, forget, node_of, run, running, set_running, shell_template, start, stop,
};

const CLAIMS: [&str; 2] = ["goes", "stays"];

/// Claims that wait for their first consumer: the placeholder lists them while the scheduler
/// chooses the node, and the provider never does. If they are deleted while the container is
/// stopped, they disappear immediately, as with a Deployment scaled to zero. The next start has the
/// same message as a plain pod.
#[tokio::test]
async fn i2_a_stopped_container_holds_no_claims() {
    in_namespace("claims", async |ns| {
        ns.create_json::<Pod>(json!({"metadata": {"name": "where"}, "spec": shell_template()["spec"]}))
            .await?;
        let name = node_of(&ns.pod_ready("where").await?)?;
        let node = NodeShell::on(&ns, &name).await?;
        let directory = format!("/var/lib/{}", ns.name);
        node.sh(&format!("mkdir -p {directory}/goes {directory}/stays"))
            .await?;
        let tested = with_claims(&ns, &name, &directory).await;
        let tested = cleaned_up(tested, forget(&ns, "kept").await);
        let tested = cleaned_up(tested, without_volumes(&ns).await);
        cleaned_up(tested, node.sh(&format!("rm -r {directory}")).await.map(drop))?;
        node.close().await
    })
    .await;
}

async fn with_claims(ns: &Namespace, node: &str, directory: &str) -> Result<()> {
    let class: StorageClass = serde_json::from_value(json!({
        "metadata": {"name": ns.name}, "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }))?;
    ns.cluster_api()
        .create(&PostParams::default(), &class)
        .await
        .context("a class")?;
    for claim in CLAIMS {
        make_volume(ns, node, directory, claim).await?;
    }
    run(ns, "kept", template(&CLAIMS)).await?;
    ns.sh(
        "kept",
        "main",
        "echo kept > /root/file; echo 1 > /goes/file; echo 2 > /stays/file",
    )
    .await?;
    stop(ns, "kept").await?;
    ensure!(
        claims_of_provider(ns).await? == [""; 0],
        "Stopped, and the provider has claims"
    );
    ns.delete::<PersistentVolumeClaim>("goes").await?;

    // The scheduler's message.
    set_running(ns, "kept", true).await?;
    blocked_saying(ns, "kept", CONSUMER_READY, "Unschedulable", "\"goes\" not found").await?;
    ns.patch::<StoppableContainer>("kept", json!({"spec": {"template": template(&["stays"])}}))
        .await?;
    running(ns, "kept").await?;
    ensure!(ns.sh("kept", "main", "cat /root/file /stays/file").await? == "kept\n2");

    // A claim that is removed from the template while the container runs is held until the next
    // start.
    ns.patch::<StoppableContainer>("kept", json!({"spec": {"template": template(&[])}}))
        .await?;
    ns.api::<PersistentVolumeClaim>()
        .delete("stays", &DeleteParams::default())
        .await?;
    stop(ns, "kept").await?;
    start(ns, "kept").await?;
    ns.wait_gone::<PersistentVolumeClaim>("stays").await?;
    ensure!(ns.sh("kept", "main", "cat /root/file").await? == "kept");
    Ok(())
}

/// A claim, and a volume of its class. A volume that named its claim would be bound without waiting
/// for a node.
async fn make_volume(ns: &Namespace, node: &str, directory: &str, claim: &str) -> Result<()> {
    let only = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [node]});
    let volume: PersistentVolume = serde_json::from_value(json!({
        "metadata": {"name": format!("{}-{claim}", ns.name)},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": ns.name, "capacity": {"storage": "16Mi"},
            "persistentVolumeReclaimPolicy": "Retain", "local": {"path": format!("{directory}/{claim}")},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [only]}]}},
        },
    }))?;
    ns.cluster_api()
        .create(&PostParams::default(), &volume)
        .await
        .context("a volume")?;
    ns.create_json::<PersistentVolumeClaim>(json!({"metadata": {"name": claim}, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": ns.name, "resources": {"requests": {"storage": "16Mi"}},
    }}))
    .await
    .map(drop)
}

async fn without_volumes(ns: &Namespace) -> Result<()> {
    let volumes: Api<PersistentVolume> = ns.cluster_api();
    let params = DeleteParams::default();
    for claim in CLAIMS {
        volumes.delete(&format!("{}-{claim}", ns.name), &params).await?;
    }
    ns.cluster_api::<StorageClass>().delete(&ns.name, &params).await?;
    Ok(())
}

fn template(claims: &[&str]) -> Value {
    let mut template = shell_template();
    let volume = |name: &&str| json!({"name": name, "persistentVolumeClaim": {"claimName": name}});
    let mount = |name: &&str| json!({"name": name, "mountPath": format!("/{name}")});
    template["spec"]["volumes"] = claims.iter().map(volume).collect();
    template["spec"]["containers"][0]["volumeMounts"] = claims.iter().map(mount).collect();
    template
}

async fn claims_of_provider(ns: &Namespace) -> Result<Vec<String>> {
    let pod = ns.api::<Pod>().get(&provider_pod_name("kept")).await?;
    let volumes = pod.spec.and_then(|spec| spec.volumes).unwrap_or_default();
    let claims = volumes
        .into_iter()
        .filter_map(|volume| volume.persistent_volume_claim);
    Ok(claims.map(|claim| claim.claim_name).collect())
}

/// The pod's required anti-affinity keeps a peer away while the pod runs. The peer comes to the
/// node after the stop.
#[tokio::test]
async fn i2_a_stopped_container_keeps_no_pod_away() {
    in_namespace("peers", async |ns| {
        let labels = json!({"app": "peers"});
        let mut template = shell_template();
        template["metadata"] = json!({"labels": labels});
        template["spec"]["affinity"] =
            json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": labels}},
            ]}});
        let node = node_of(&run(&ns, "kept", template).await?)?;
        ns.sh("kept", "main", "echo kept > /root/file").await?;
        let peer = |name: &str| {
            let mut peer = shell_template();
            peer["metadata"] = json!({"name": name, "labels": labels});
            peer["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": node});
            peer
        };
        ns.create_json::<Pod>(peer("peer")).await?;
        let kept_away = |pod: &Pod| {
            let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
            let mut scheduled = conditions.filter(|c| c.type_ == "PodScheduled");
            scheduled.any(|c| c.reason.as_deref() == Some("Unschedulable"))
        };
        ns.wait("peer", "it is kept away by what runs", kept_away).await?;
        ns.delete::<Pod>("peer").await?;
        stop(&ns, "kept").await?;
        // A different peer: the scheduler retries a waiting pod only after minutes if the pod does
        // not have an affinity (queueing hints of its InterPodAffinity plugin).
        ns.create_json::<Pod>(peer("late")).await?;
        ns.pod_ready("late").await?;
        ns.delete::<Pod>("late").await?;
        start(&ns, "kept").await?;
        ensure!(ns.sh("kept", "main", "cat /root/file").await? == "kept");

        // A provider with the template's anti-affinity would keep its own consumer away when that
        // goes through the scheduler.
        let mut gated = shell_template();
        gated["metadata"] = json!({"labels": {"app": "own"}});
        gated["spec"]["affinity"] =
            json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "own"}}},
            ]}});
        gated["spec"]["schedulingGates"] = json!([{"name": "example.org/gate"}]);
        crate::support::create(&ns, "gated", true, gated).await?;
        let waits = |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| spec.scheduling_gates.is_some());
        ns.wait("gated", "it is gated", waits).await?;
        let lasts = |pod: &Pod| {
            let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
            affinity.is_some_and(|affinity| affinity.pod_anti_affinity.is_none())
        };
        let provider = provider_pod_name("gated");
        ns.wait(&provider, "the provider does not have anti-affinity while it is gated", lasts)
            .await?;
        ns.patch::<Pod>("gated", json!({"spec": {"schedulingGates": null}})).await?;
        running(&ns, "gated").await.map(drop)
    })
    .await;
}
