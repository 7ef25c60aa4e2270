//! The integration examples of `config/samples`, verbatim, with webhooks that have the originals'
//! name order and selectors.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use injectors::{Injector, SECRET};
use k8s_openapi::api::core::v1::{Event, Namespace as NamespaceObject, Node, Pod, ServiceAccount};
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;
use stoppablecontainer_api::names::{placeholder_pod_name, provider_pod_name};
use stoppablecontainer_api::{Phase, StoppableContainer};
use testkit::{Injectors, Namespace, Order, in_namespace};

use super::kueue::{Queue, with_queue};
use super::{hook, istio_root_certificate, names, priority_class, spec_of};
use crate::support::{create, phase, running, set_running, shell_template, start, stop};

/// All pods except the test's own.
const ALL: &str = "object.metadata.name != 'injectors' && !object.metadata.name.startsWith('node-shell')";
const GPU: &str = "nvidia.com/gpu";

async fn apply(ns: &Namespace, name: &str) -> Result<()> {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/samples");
    let path = samples.join(name).display().to_string();
    ns.kubectl(&["apply", "-f", &path]).await?.success().map(drop)
}

/// The provider has a single container, whatever is injected elsewhere.
async fn plain_provider(ns: &Namespace, name: &str) -> Result<()> {
    let pod = ns.pod_ready(&provider_pod_name(name)).await?;
    let spec = spec_of(&pod)?;
    ensure!(
        names(&spec, "containers") == ["provider"] && names(&spec, "initContainers").is_empty(),
        "the provider was injected into: {spec:#}"
    );
    Ok(())
}

#[tokio::test]
async fn the_istio_example_of_the_api_reference_runs_verbatim() {
    in_namespace("sample-istio", async |ns| {
        let labels = json!({"metadata": {"labels": {"istio-injection": "enabled"}}});
        ns.cluster_api::<NamespaceObject>()
            .patch(&ns.name, &PatchParams::default(), &Patch::Merge(labels))
            .await?;
        let server = Injectors::start(&ns).await?;
        server
            .register(Order::Before, &[hook(Injector::Istio, ALL)])
            .await?;

        apply(&ns, "istio.yaml").await?;
        // Until istiod has created its ConfigMap in the namespace, the pod waits for it and does
        // not fail.
        until_event(&ns, "web-app", "istio-ca-root-cert").await?;
        phase(&ns, "web-app", Phase::ProviderReady).await?;
        istio_root_certificate(&ns).await?;

        let pod = running(&ns, "web-app").await?;
        ensure!(names(&spec_of(&pod)?, "initContainers") == ["istio-init", "istio-proxy"]);
        ensure!(
            pod.labels()
                .get("service.istio.io/canonical-name")
                .map(String::as_str)
                == Some("web-app")
        );
        ensure!(ns.http_get("web-app", 80, "/").await?.contains("nginx"));
        plain_provider(&ns, "web-app").await?;
        ns.sh("web-app", "web", "echo kept > /usr/share/nginx/html/index.html")
            .await?;
        stop(&ns, "web-app").await?;
        start(&ns, "web-app").await?;
        ensure!(ns.http_get("web-app", 80, "/").await? == "kept\n");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_vault_example_of_the_api_reference_runs_verbatim() {
    in_namespace("sample-vault", async |ns| {
        ns.create_json::<ServiceAccount>(json!({"metadata": {"name": "my-app-sa"}}))
            .await?;
        let server = Injectors::start(&ns).await?;
        server
            .register(Order::After, &[hook(Injector::Vault, ALL)])
            .await?;
        apply(&ns, "vault.yaml").await?;
        for _ in 0..2 {
            running(&ns, "secure-app").await?;
            let secret = ns
                .exec("secure-app", "app", &["/static", "cat", "/vault/secrets/config"])
                .await?;
            ensure!(secret.success()? == format!("password: {SECRET}\n"));
            plain_provider(&ns, "secure-app").await?;
            stop(&ns, "secure-app").await?;
            start(&ns, "secure-app").await?;
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_kueue_example_of_the_api_reference_runs_verbatim() {
    in_namespace("sample-kueue", async |ns| {
        priority_class(&ns, "high-priority").await?;
        let node = any_node(&ns).await?;
        gpus(&ns, &node, Some("1")).await?;
        let result = with_queue(&ns, false, async |queue| train(&ns, queue).await).await;
        gpus(&ns, &node, None).await?;
        result
    })
    .await;
}

async fn train(ns: &Namespace, queue: &Queue) -> Result<()> {
    let name = "ml-training";
    let server = Injectors::start(ns).await?;
    server
        .register(Order::Before, &[hook(Injector::Kueue, ALL)])
        .await?;
    apply(ns, "kueue.yaml").await?;
    // Kueue chooses the kind of node, so it queues what the scheduler chooses a node for.
    let placeholder = placeholder_pod_name(name);
    let gated = ns
        .wait(&placeholder, "the placeholder is gated", is_gated)
        .await?;
    ensure!(gated.spec.as_ref().is_some_and(|s| s.node_name.is_none()));
    phase(ns, name, Phase::Pending).await?;

    queue.open();
    let first = running(ns, name).await?;
    plain_provider(ns, name).await?;
    ensure!(ns.sh(name, "trainer", "cat checkpoint").await? == "1");
    ensure!(queue.admitted() == [name], "{:?}", queue.admitted());
    stop(ns, name).await?;
    ensure!(
        queue.admitted().is_empty(),
        "stopped, and {:?} use quota",
        queue.admitted()
    );
    queue.close();
    set_running(ns, name, true).await?;
    let gated = ns.wait(name, "the pod is gated", is_gated).await?;
    ensure!(gated.spec.as_ref().is_some_and(|s| s.node_name.is_none()));
    phase(ns, name, Phase::ProviderReady).await?;
    queue.open();
    let second = running(ns, name).await?;
    ensure!(
        ns.sh(name, "trainer", "cat checkpoint").await? == "2",
        "the checkpoint is gone"
    );
    let workload = |pod: &Pod| pod.annotations().get("kueue.x-k8s.io/workload").cloned();
    ensure!(workload(&first).is_some() && workload(&first) != workload(&second));
    ensure!(spec_of(&first)? == spec_of(&second)?, "two specs");
    Ok(())
}

/// In a namespace whose queue takes every pod, the provider waits in it too, and has a single
/// container.
#[tokio::test]
async fn a_default_queue_takes_the_provider_as_it_is() {
    in_namespace("kueue-default", async |ns| {
        let server = Injectors::start(&ns).await?;
        server
            .register(Order::Before, &[hook(Injector::KueueDefault, ALL)])
            .await?;
        with_queue(&ns, false, async |queue| queue_both(&ns, queue).await).await
    })
    .await;
}

async fn queue_both(ns: &Namespace, queue: &Queue) -> Result<()> {
    create(ns, "kept", true, shell_template()).await?;
    ns.wait(
        &placeholder_pod_name("kept"),
        "the placeholder is gated",
        is_gated,
    )
    .await?;
    phase(ns, "kept", Phase::Pending).await?;
    queue.open();
    running(ns, "kept").await?;
    plain_provider(ns, "kept").await?;
    ensure!(queue.admitted().len() == 2, "{:?}", queue.admitted());
    stop(ns, "kept").await?;
    ensure!(
        queue.admitted() == [provider_pod_name("kept")],
        "{:?}",
        queue.admitted()
    );
    // The finalizers do not block the deletion.
    ns.delete::<StoppableContainer>("kept").await?;
    ensure!(queue.admitted().is_empty());
    Ok(())
}

fn is_gated(pod: &Pod) -> bool {
    let gates = pod.spec.as_ref().and_then(|s| s.scheduling_gates.as_ref());
    gates.is_some_and(|gates| !gates.is_empty())
}

/// Waits until an event of a pod contains `text`.
async fn until_event(ns: &Namespace, pod: &str, text: &str) -> Result<()> {
    use futures::TryStreamExt;
    use kube::runtime::{WatchStreamExt, watcher};
    let config = watcher::Config::default().fields(&format!("involvedObject.name={pod}"));
    let mut events = std::pin::pin!(watcher(ns.api::<Event>(), config).applied_objects());
    let patience = std::time::Duration::from_mins(2);
    let said = async {
        while let Some(event) = events.try_next().await? {
            if event.message.is_some_and(|message| message.contains(text)) {
                return Ok(());
            }
        }
        anyhow::bail!("the watch ended")
    };
    let timeout = tokio::time::timeout(testkit::patience(patience), said).await;
    timeout.with_context(|| format!("no event of {pod} says {text}"))?
}

async fn any_node(ns: &Namespace) -> Result<String> {
    let nodes = ns.cluster_api::<Node>().list(&ListParams::default()).await?;
    Ok(nodes.items.first().context("a cluster without nodes")?.name_any())
}

/// Sets the number of a node's GPUs, as the kubelet does for a device plugin.
async fn gpus(ns: &Namespace, node: &str, count: Option<&str>) -> Result<()> {
    let resources = json!({GPU: count});
    let patch = json!({"status": {"capacity": resources, "allocatable": resources}});
    ns.cluster_api::<Node>()
        .patch_status(node, &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    Ok(())
}
