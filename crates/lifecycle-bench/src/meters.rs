//! How often the node agents and the operator did something, and how long all of that took. Their
//! metrics have it, which are read through the API server.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, ResourceExt};
use metrics::{Metric, PREFIX, catalogue};
use scale_load::metrics::{Sample, label};
use serde_json::json;
use testkit::tunnel;

use crate::cluster::Cluster;
use crate::measured::Spent;

const PATH: &str = "/metrics";
/// The chart's ClusterRole for readers of the agents' metrics.
const READER: &str = "stoppablecontainer-metrics-reader";
/// How long a token of the bench is valid, in seconds.
const VALIDITY: u32 = 12 * 60 * 60;
/// How often the agents are asked, until the API server knows the permission to read. No watch
/// shows that: its authorizer has a cache of its own.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_secs(1);

/// A program of the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    Agent,
    Operator,
}

/// Something that a program does, and the histogram of its times.
pub(crate) struct Meter {
    pub(crate) what: &'static str,
    program: Program,
    metric: Metric,
    /// Whether this is counted, by the name of a sample with its labels.
    counts: fn(&str) -> bool,
}

pub(crate) const PUBLISH: &str = "agent: NodePublishVolume";
pub(crate) const UNPUBLISH: &str = "agent: NodeUnpublishVolume";

/// Everything that is read, in the order of the table.
pub(crate) const METERS: &[Meter] = &[
    Meter {
        what: PUBLISH,
        program: Program::Agent,
        metric: catalogue::CSI_CALL_SECONDS,
        counts: |sample| label(sample, "method") == "NodePublishVolume",
    },
    Meter {
        what: "agent: move of a container onto its kept filesystem",
        program: Program::Agent,
        metric: catalogue::MOVE_SECONDS,
        counts: |_| true,
    },
    Meter {
        what: UNPUBLISH,
        program: Program::Agent,
        metric: catalogue::CSI_CALL_SECONDS,
        counts: |sample| label(sample, "method") == "NodeUnpublishVolume",
    },
    Meter {
        what: "agent: sync of a kept filesystem, in NodeUnpublishVolume",
        program: Program::Agent,
        metric: catalogue::SYNC_SECONDS,
        counts: |_| true,
    },
    Meter {
        what: "agent: read from the API server",
        program: Program::Agent,
        metric: catalogue::API_REQUEST_SECONDS,
        counts: is_read,
    },
    Meter {
        what: "agent: write to the API server",
        program: Program::Agent,
        metric: catalogue::API_REQUEST_SECONDS,
        counts: is_write,
    },
    Meter {
        what: "operator: admission review",
        program: Program::Operator,
        metric: catalogue::ADMISSION_REVIEW_SECONDS,
        counts: |_| true,
    },
    Meter {
        what: "operator: wait of a StoppableContainer in the queue",
        program: Program::Operator,
        metric: catalogue::QUEUE_SECONDS,
        counts: is_of_object,
    },
    Meter {
        what: "operator: reconciliation of a StoppableContainer",
        program: Program::Operator,
        metric: catalogue::RECONCILIATION_SECONDS,
        counts: is_of_object,
    },
    Meter {
        what: "operator: wait of an instance in the queue",
        program: Program::Operator,
        metric: catalogue::QUEUE_SECONDS,
        counts: is_of_instance,
    },
    Meter {
        what: "operator: reconciliation of an instance",
        program: Program::Operator,
        metric: catalogue::RECONCILIATION_SECONDS,
        counts: is_of_instance,
    },
    Meter {
        what: "operator: read from the API server",
        program: Program::Operator,
        metric: catalogue::API_REQUEST_SECONDS,
        counts: is_read,
    },
    Meter {
        what: "operator: write to the API server",
        program: Program::Operator,
        metric: catalogue::API_REQUEST_SECONDS,
        counts: is_write,
    },
];

fn is_of_object(sample: &str) -> bool {
    label(sample, "kind") == "StoppableContainer"
}

fn is_of_instance(sample: &str) -> bool {
    label(sample, "kind") == "StoppableContainerInstance"
}

fn is_read(sample: &str) -> bool {
    matches!(label(sample, "verb"), "get" | "list")
}

/// Writes that keep the leader the leader do not belong to an object.
fn is_write(sample: &str) -> bool {
    let verb = label(sample, "verb");
    matches!(verb, "create" | "update" | "patch" | "delete") && label(sample, "resource") != "leases"
}

/// Reads the metrics of all agents and replicas of the operator.
pub(crate) struct Meters {
    client: Client,
    token: String,
}

/// What the programs served at one time, by the names of their pods.
#[derive(Debug)]
pub(crate) struct Reading(Vec<(String, Program, Sample)>);

// === impl Program ===

impl Program {
    const ALL: [Self; 2] = [Self::Agent, Self::Operator];

    fn component(self) -> &'static str {
        match self {
            Self::Agent => "node-agent",
            Self::Operator => "controller",
        }
    }
}

// === impl Meters ===

impl Meters {
    /// Makes what reading needs: a token of the namespace's service account, which may read the
    /// metrics for as long as the namespace exists.
    ///
    /// # Errors
    /// If the metrics cannot be read.
    pub(crate) async fn prepare(cluster: &Cluster) -> Result<Self> {
        let binding: ClusterRoleBinding = serde_json::from_value(json!({
            "metadata": { "name": cluster.namespace, "ownerReferences": [cluster.owner().await?] },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": READER },
            "subjects": [
                { "kind": "ServiceAccount", "name": "default", "namespace": cluster.namespace },
            ],
        }))?;
        Api::all(cluster.client.clone())
            .create(&PostParams::default(), &binding)
            .await
            .with_context(|| format!("binding the ClusterRole {READER}"))?;
        let mut attempt = 0;
        loop {
            // The agents remember for a minute that a token may not read.
            let meters = Self {
                client: cluster.client.clone(),
                token: token(cluster).await?,
            };
            match meters.read().await {
                Ok(_) => return Ok(meters),
                Err(error) if attempt == ATTEMPTS => return Err(error),
                Err(_) => {}
            }
            attempt += 1;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// What the programs serve now.
    pub(crate) async fn read(&self) -> Result<Reading> {
        let mut samples = Vec::new();
        for program in Program::ALL {
            let component = program.component();
            let labels =
                format!("app.kubernetes.io/name=stoppablecontainer,app.kubernetes.io/component={component}");
            let params = ListParams::default()
                .labels(&labels)
                .fields("status.phase=Running");
            let mut pods = Api::<Pod>::all(self.client.clone()).list(&params).await?.items;
            pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
            ensure!(
                !pods.is_empty(),
                "the cluster has no running pod of the {component}"
            );
            for pod in pods {
                let name = pod.name_any();
                let text = self.text(&pod, program).await;
                let text = text.with_context(|| format!("reading the metrics of pod {name}"))?;
                let sample = Sample::parse(&text, &format!("{PREFIX}_"));
                ensure!(
                    sample != Sample::default(),
                    "pod {name} serves no metrics: {text}"
                );
                samples.push((name, program, sample));
            }
        }
        Ok(Reading(samples))
    }

    async fn text(&self, pod: &Pod, program: Program) -> Result<String> {
        let namespace = pod.namespace().unwrap_or_default();
        let pods = Api::<Pod>::namespaced(self.client.clone(), &namespace);
        let name = pod.name_any();
        match program {
            Program::Agent => {
                let tunnel = tunnel::open(&pods, &name, 8443).await?.encrypted().await?;
                tunnel.get(PATH, Some(&self.token)).await
            }
            Program::Operator => tunnel::open(&pods, &name, 8080).await?.get(PATH).await,
        }
    }
}

async fn token(cluster: &Cluster) -> Result<String> {
    let request: TokenRequest =
        serde_json::from_value(json!({ "spec": { "audiences": [], "expirationSeconds": VALIDITY } }))?;
    let accounts = Api::<ServiceAccount>::namespaced(cluster.client.clone(), &cluster.namespace);
    let made = accounts
        .create_token_request("default", &PostParams::default(), &request)
        .await
        .context("requesting a token")?;
    Ok(made.status.context("a token request without token")?.token)
}

// === impl Reading ===

impl Reading {
    /// What was done since an earlier reading. A program that started meanwhile began at zero.
    pub(crate) fn since(&self, before: &Self) -> BTreeMap<String, Spent> {
        let mut all = BTreeMap::new();
        for (pod, program, now) in &self.0 {
            let known = before.0.iter().find(|(name, _, _)| name == pod);
            let added = known.map_or_else(|| now.clone(), |(_, _, before)| now.since(before));
            for meter in METERS.iter().filter(|meter| meter.program == *program) {
                let spent: &mut Spent = all.entry(meter.what.to_owned()).or_default();
                spent.count += meter.total(&added, "count");
                spent.seconds += meter.total(&added, "sum");
            }
        }
        all
    }
}

// === impl Meter ===

impl Meter {
    fn total(&self, sample: &Sample, part: &str) -> f64 {
        let name = format!("{}_{part}", self.metric.name);
        let series = sample.of(&name, &[]);
        let counted = series.filter(|(name, _)| (self.counts)(name));
        counted.map(|(_, value)| value).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(program: Program, text: &str) -> Reading {
        let sample = Sample::parse(text, "stoppablecontainer_");
        Reading(vec![("pod".to_owned(), program, sample)])
    }

    #[test]
    fn what_was_done_between_two_readings_is_counted() {
        let before = "stoppablecontainer_csi_call_seconds_count{method=\"NodePublishVolume\"} 2
stoppablecontainer_csi_call_seconds_sum{method=\"NodePublishVolume\"} 1.5
";
        let after = "stoppablecontainer_csi_call_seconds_count{method=\"NodePublishVolume\"} 5
stoppablecontainer_csi_call_seconds_sum{method=\"NodePublishVolume\"} 2.0
stoppablecontainer_csi_call_seconds_count{method=\"NodeUnpublishVolume\"} 1
stoppablecontainer_csi_call_seconds_sum{method=\"NodeUnpublishVolume\"} 0.25
stoppablecontainer_move_seconds_count 1
";
        let spent = reading(Program::Agent, after).since(&reading(Program::Agent, before));
        let expected = |count, seconds| Spent { count, seconds };
        assert_eq!(spent[PUBLISH], expected(3.0, 0.5));
        assert_eq!(spent[UNPUBLISH], expected(1.0, 0.25));
        assert!(spent.keys().all(|what| what.starts_with("agent: ")));
    }

    #[test]
    fn writes_are_those_for_objects() {
        let write = |verb, resource| {
            is_write(&format!(
                "api_request_seconds_count{{verb=\"{verb}\",resource=\"{resource}\"}}"
            ))
        };
        assert!(write("patch", "pods") && !write("get", "pods") && !write("patch", "leases"));
    }
}
