//! Every stand-in, before and after the product's webhook: the pod runs, everything except the main
//! container is as in a plain pod, five starts result in one spec, and secrets are not kept.

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use injectors::{Injector, SECRET};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::PostParams;
use serde_json::{Value, json};
use stoppablecontainer_api::names::provider_pod_name;
use testkit::{Hook, Injectors, Namespace, NodeShell, Order, in_namespace};

use super::kueue::{Queue, with_queue};
use super::{MAIN, container, hook, istio_root_certificate, names, spec_of, variable};
use crate::support::{data_directory, node_of, run, start, stop};

const STARTS: usize = 5;
/// Number of containers that start concurrently.
const WIDTH: usize = 8;
const INJECTORS: [Injector; 13] = [
    Injector::Istio,
    Injector::IstioFirst,
    Injector::IstioLast,
    Injector::Linkerd,
    Injector::LinkerdFirst,
    Injector::Vault,
    Injector::Kueue,
    Injector::Registry,
    Injector::Kyverno,
    Injector::Vpa,
    Injector::Env,
    Injector::VaultEnv,
    Injector::Remover,
];

/// One container with one webhook on one side of the product's.
struct Case<'a> {
    ns: &'a Namespace,
    queue: &'a Queue,
    injector: Injector,
    order: Order,
}

#[tokio::test]
async fn i4_i5_every_injector_before_and_after_ours_five_starts() {
    in_namespace("injectors", async |ns| {
        istio_root_certificate(&ns).await?;
        let server = Injectors::start(&ns).await?;
        for order in Order::BOTH {
            let hooks: Vec<Hook> = INJECTORS
                .into_iter()
                .map(|injector| {
                    let prefix = case_name(injector, order);
                    let hook = hook(injector, &format!("object.metadata.name.startsWith('{prefix}')"));
                    // A rewriter with that name is called again after the product changed the pod,
                    // and then the product is called again.
                    match (injector, order) {
                        (Injector::Registry, Order::Before) => {
                            hook.with(json!({"reinvocationPolicy": "IfNeeded"}))
                        }
                        _ => hook,
                    }
                })
                .collect();
            server.register(order, &hooks).await?;
        }
        with_queue(&ns, true, async |queue| all_cases(&ns, queue).await).await
    })
    .await;
}

async fn all_cases(ns: &Namespace, queue: &Queue) -> Result<()> {
    let cases = INJECTORS.into_iter().flat_map(|injector| {
        Order::BOTH.map(|order| Case {
            ns,
            queue,
            injector,
            order,
        })
    });
    let results: Vec<Result<()>> = futures::stream::iter(cases)
        .map(async |case| case.five_starts().await.with_context(|| case.name()))
        .buffer_unordered(WIDTH)
        .collect()
        .await;
    let failures: Vec<String> = results
        .into_iter()
        .filter_map(|result| result.err().map(|error| format!("{error:#}")))
        .collect();
    ensure!(failures.is_empty(), "{}", failures.join("\n\n"));
    Ok(())
}

/// The scheduler places the consumer at the first start, and the next ones have the node's name.
fn without_placement(spec: &Value) -> Value {
    let mut spec = spec.clone();
    for field in ["affinity", "nodeName"] {
        spec[field].take();
    }
    spec
}

fn case_name(injector: Injector, order: Order) -> String {
    format!("{injector}-{}", order.name())
}

/// A pod that opts in to all of them. Its image does not have a shell.
fn template() -> Value {
    json!({
        "metadata": {
            "labels": {"app": "web", "version": "v1", "kueue.x-k8s.io/queue-name": "user-queue"},
            "annotations": {
                "linkerd.io/inject": "enabled",
                "vault.hashicorp.com/agent-inject": "true",
                "vault.hashicorp.com/role": "my-role",
                "vault.hashicorp.com/agent-inject-secret-config": "secret/data/my-app/config",
            },
        },
        "spec": {
            "terminationGracePeriodSeconds": 5,
            "initContainers": [{
                "name": "prepare", "image": "test/scratch:1", "args": ["true"],
                "volumeMounts": [{"name": "shared", "mountPath": "/shared"}],
            }],
            "containers": [{
                "name": MAIN, "image": "test/scratch:1", "command": ["/static", "serve", "8080"],
                "ports": [{"name": "http", "containerPort": 8080}],
                "env": [{"name": "PASSWORD", "value": "vault:secret/data/app#password"}],
                "startupProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 1, "failureThreshold": 60},
                "livenessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 5},
                "readinessProbe": {"exec": {"command": ["/static", "cat", "/notes"]}, "periodSeconds": 5},
                "securityContext": {"capabilities": {"drop": ["NET_RAW", "CHOWN"]}},
                "volumeMounts": [{"name": "shared", "mountPath": "/shared"}],
            }],
            "volumes": [{"name": "shared", "emptyDir": {}}],
        },
    })
}

// === impl Case ===

impl Case<'_> {
    fn name(&self) -> String {
        case_name(self.injector, self.order)
    }

    async fn five_starts(&self) -> Result<()> {
        let name = self.name();
        let first = run(self.ns, &name, self.template()).await?;
        let spec = spec_of(&first)?;
        self.provider_is_plain().await?;
        self.others_are_as_in_a_plain_pod(&spec).await?;
        self.did_its_work(&first, &spec).await?;
        self.in_main(&["write", "/notes", "kept"]).await?;
        for at in 2..=STARTS {
            stop(self.ns, &name).await?;
            ensure!(
                !self.queue.admitted().contains(&name),
                "stopped, but quota is used"
            );
            let again = start(self.ns, &name)
                .await
                .with_context(|| format!("start {at}"))?;
            let (first, again) = (without_placement(&spec), without_placement(&spec_of(&again)?));
            ensure!(
                again == first,
                "start {at} has another spec: {:#}",
                serde_json::to_value(json_patch::diff(&first, &again))?
            );
            ensure!(self.in_main(&["cat", "/notes"]).await? == "kept\n", "start {at}");
        }
        stop(self.ns, &name).await?;
        self.no_secret_is_kept(&node_of(&first)?).await
    }

    fn template(&self) -> Value {
        let mut template = template();
        if self.order == Order::After {
            template["metadata"]["annotations"]["vault.hashicorp.com/agent-init-first"] = json!("true");
        }
        template
    }

    async fn in_main(&self, arguments: &[&str]) -> Result<String> {
        let command = [&["/static"], arguments].concat();
        self.ns.exec(&self.name(), MAIN, &command).await?.success()
    }

    async fn provider_is_plain(&self) -> Result<()> {
        let pod = self.ns.api::<Pod>().get(&provider_pod_name(&self.name())).await?;
        let spec = spec_of(&pod)?;
        ensure!(
            names(&spec, "containers") == ["provider"] && names(&spec, "initContainers").is_empty(),
            "the provider was injected into: {spec:#}"
        );
        let gates = spec["schedulingGates"].as_array().map_or(0, Vec::len);
        ensure!(
            gates == 0 && pod.finalizers().is_empty(),
            "the provider was taken: {spec:#}"
        );
        if self.injector == Injector::Registry {
            let image = spec["containers"][0]["image"].as_str();
            ensure!(image == Some("index.docker.io/test/scratch:1"), "{image:?}");
        }
        Ok(())
    }

    /// The same template as a plain pod, as processed by the API server. Everything except the main
    /// container must be the same.
    async fn others_are_as_in_a_plain_pod(&self, spec: &Value) -> Result<()> {
        let mut plain = self.template();
        let name = format!("{}-plain", self.name());
        plain["metadata"]["name"] = json!(name);
        let params = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let plain = self
            .ns
            .api::<Pod>()
            .create(&params, &serde_json::from_value(plain)?)
            .await?;
        // Some variables contain the pod's own name.
        let plain = spec_of(&plain)?.to_string().replace(&name, &self.name());
        let plain: Value = serde_json::from_str(&plain)?;
        for key in ["initContainers", "containers"] {
            ensure!(
                names(spec, key) == names(&plain, key),
                "{key}: {spec:#}\nplain: {plain:#}"
            );
            for other in names(&plain, key).into_iter().filter(|name| *name != MAIN) {
                let (ours, theirs) = (container(spec, other)?, container(&plain, other)?);
                ensure!(
                    ours == theirs,
                    "{other} is not as in a plain pod: {:#}",
                    serde_json::to_value(json_patch::diff(theirs, ours))?
                );
            }
        }
        let volumes = |spec: &Value| -> Vec<Value> {
            let volumes = spec["volumes"].as_array().into_iter().flatten();
            volumes
                .filter(|v| v["name"] != "stoppablecontainer")
                .cloned()
                .collect()
        };
        ensure!(
            volumes(spec) == volumes(&plain),
            "volumes: {spec:#}\nplain: {plain:#}"
        );
        let (ours, theirs) = (container(spec, MAIN)?, container(&plain, MAIN)?);
        for field in ["ports", "resources", "livenessProbe", "startupProbe", "name"] {
            ensure!(
                ours[field] == theirs[field],
                "{field}: {} and {}",
                ours[field],
                theirs[field]
            );
        }
        let capabilities = |container: &Value| container["securityContext"]["capabilities"].clone();
        ensure!(
            capabilities(ours) == capabilities(theirs),
            "{ours:#}\nplain: {theirs:#}"
        );
        Ok(())
    }

    /// The effect of each stand-in, seen in the pod and from the main container.
    async fn did_its_work(&self, pod: &Pod, spec: &Value) -> Result<()> {
        let main = container(spec, MAIN)?;
        let image = main["image"].as_str().unwrap_or_default();
        ensure!(image.contains("exec-wrapper"), "the main container runs {image}");
        let init = names(spec, "initContainers");
        let containers = names(spec, "containers");
        match self.injector {
            Injector::Istio | Injector::IstioFirst | Injector::IstioLast => {
                let order = match self.injector {
                    Injector::Istio => {
                        init == ["istio-init", "istio-proxy", "prepare"] && containers == [MAIN]
                    }
                    Injector::IstioFirst => containers == ["istio-proxy", MAIN],
                    _ => containers == [MAIN, "istio-proxy"],
                };
                ensure!(order, "{init:?}, {containers:?}");
                let proxy = container(spec, "istio-proxy")?;
                ensure!(variable(proxy, "ISTIO_META_APP_CONTAINERS") == MAIN, "{proxy:#}");
                ensure!(
                    variable(proxy, "ISTIO_META_POD_PORTS").contains("8080"),
                    "{proxy:#}"
                );
                let probers = variable(proxy, "ISTIO_KUBE_APP_PROBERS");
                ensure!(
                    probers.contains("/app-health/app/livez") && probers.contains("/app-health/app/startupz")
                );
                ensure!(main["livenessProbe"]["httpGet"]["port"] == 15020, "{main:#}");
                let shown = pod.annotations().get("kubectl.kubernetes.io/default-container");
                ensure!(shown.map(String::as_str) == Some(MAIN), "{shown:?}");
            }
            Injector::Linkerd | Injector::LinkerdFirst => {
                let proxy = container(spec, "linkerd-proxy")?;
                let capabilities = &proxy["securityContext"]["capabilities"];
                ensure!(
                    *capabilities == main["securityContext"]["capabilities"],
                    "{proxy:#}"
                );
                let order = match self.injector {
                    Injector::Linkerd => init == ["linkerd-init", "linkerd-proxy", "prepare"],
                    _ => containers == ["linkerd-proxy", MAIN],
                };
                ensure!(order, "{init:?}, {containers:?}");
            }
            Injector::Vault => {
                let file = self.in_main(&["cat", "/vault/secrets/config"]).await?;
                ensure!(file == format!("password: {SECRET}\n"), "{file}");
                let expected = match self.order {
                    Order::Before => ["prepare", "vault-agent-init"],
                    // With the instruction to be first, it removes the list and adds it again.
                    Order::After => ["vault-agent-init", "prepare"],
                };
                ensure!(
                    init == expected && containers == [MAIN, "vault-agent"],
                    "{init:?}, {containers:?}"
                );
                // The first webhook inserts its mount at the start.
                let mounts: Vec<_> = main["volumeMounts"].as_array().into_iter().flatten().collect();
                let at = |path| mounts.iter().position(|mount| mount["mountPath"] == path);
                let before = at("/vault/secrets") < at("/.stoppablecontainer");
                ensure!(before == (self.order == Order::Before), "{mounts:#?}");
            }
            Injector::VaultEnv => {
                let environment = self.in_main(&["cat", "/proc/1/environ"]).await?;
                let expected = format!("PASSWORD={SECRET} of secret/data/app#password\0");
                ensure!(environment.contains(&expected), "{environment}");
                ensure!(self.in_main(&["ls", "/vault"]).await? == "vault-env\n");
                let command = self.in_main(&["cat", "/proc/1/cmdline"]).await?;
                ensure!(command == "/static\0serve\08080\0", "{command:?}");
            }
            Injector::Kueue => {
                ensure!(self.queue.admitted().contains(&self.name()), "not admitted");
                let terms = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
                    ["nodeSelectorTerms"];
                ensure!(
                    terms[0]["matchFields"][0]["values"][0] == json!(node_of(pod)?),
                    "{terms}"
                );
                ensure!(
                    spec["nodeSelector"]["kubernetes.io/os"] == "linux" && spec["schedulingGates"].is_null()
                );
                ensure!(pod.annotations().contains_key("kueue.x-k8s.io/workload"));
            }
            Injector::Kyverno => {
                let security = &main["securityContext"];
                ensure!(security["allowPrivilegeEscalation"] == false, "{security}");
            }
            Injector::Vpa => ensure!(main["resources"]["requests"]["memory"] == "64Mi", "{main:#}"),
            Injector::Env => {
                // The image does not define PATH. A plain pod leaves the reference as written.
                let environment = self.in_main(&["cat", "/proc/1/environ"]).await?;
                ensure!(environment.contains("INJECTED=$(PATH)\0"), "{environment}");
            }
            _ => {}
        }
        Ok(())
    }

    async fn no_secret_is_kept(&self, node: &str) -> Result<()> {
        let upper = format!("{}/upper", data_directory(self.ns, &self.name()).await?);
        let shell = NodeShell::on(self.ns, node).await?;
        let found = shell
            .sh(&format!(
                "cd {upper}; grep -rlF {SECRET} . || true; find . -path './vault/*' -type f; cat notes"
            ))
            .await?;
        ensure!(found == "kept", "kept on the node: {found}");
        Ok(())
    }
}
