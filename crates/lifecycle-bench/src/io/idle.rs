//! What the product takes on a node while a container runs and the product has nothing to do: the
//! provider of the container, and the node agent. The kubelet's summary has it.

use anyhow::{Context, Result};
use serde::Deserialize;

use super::measured::Idle;
use crate::cluster::Cluster;

/// Name of the node agent's container in the chart.
const AGENT: &str = "node-agent";

/// The part of the kubelet's summary that is read.
#[derive(Debug, Deserialize)]
struct Summary {
    pods: Vec<PodStats>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodStats {
    pod_ref: PodRef,
    #[serde(default)]
    containers: Vec<ContainerStats>,
}

#[derive(Debug, Deserialize)]
struct PodRef {
    name: String,
    namespace: String,
}

#[derive(Debug, Deserialize)]
struct ContainerStats {
    name: String,
    #[serde(default)]
    cpu: Cpu,
    #[serde(default)]
    memory: Memory,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cpu {
    usage_nano_cores: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Memory {
    working_set_bytes: Option<u64>,
}

/// What the kubelet of the node reports. Nothing, with a message, if it cannot be read: not every
/// cluster allows that, and the times are worth keeping.
pub(super) async fn read(cluster: &Cluster, node: &str, provider: &str) -> Vec<Idle> {
    match summary(cluster, node).await {
        Ok(summary) => of(&summary, &cluster.namespace, provider),
        Err(error) => {
            eprintln!("the report has no memory of idle processes: {error:#}");
            Vec::new()
        }
    }
}

async fn summary(cluster: &Cluster, node: &str) -> Result<Summary> {
    let path = format!("/api/v1/nodes/{node}/proxy/stats/summary");
    let request = http::Request::get(path).body(Vec::new())?;
    let summary = cluster.client.request(request).await;
    summary.with_context(|| format!("reading the summary of the kubelet on {node}"))
}

fn of(summary: &Summary, namespace: &str, provider: &str) -> Vec<Idle> {
    let is_provider = |pod: &PodRef| pod.namespace == namespace && pod.name == provider;
    let mut idle = Vec::new();
    for pod in &summary.pods {
        for container in &pod.containers {
            let what = if is_provider(&pod.pod_ref) {
                "provider of one container"
            } else if container.name == AGENT {
                "node agent"
            } else {
                continue;
            };
            idle.push(Idle {
                what: what.to_owned(),
                memory: container.memory.working_set_bytes,
                nano_cores: container.cpu.usage_nano_cores,
            });
        }
    }
    idle.sort_by(|a, b| b.what.cmp(&a.what));
    idle
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_provider_and_the_agent_are_read() {
        let pod = |namespace: &str, name: &str, containers| json!({"podRef": {"namespace": namespace, "name": name, "uid": "1"}, "containers": containers});
        let container = |name: &str| json!({"name": name, "memory": {"workingSetBytes": 7}, "cpu": {"usageNanoCores": 9}});
        let summary = json!({ "node": {}, "pods": [
            pod("system", "agent-1", json!([{ "name": AGENT }, container("registrar")])),
            pod("bench-1", "ours-1-provider", json!([container("provider")])),
            pod("bench-2", "ours-1-provider", json!([container("provider")])),
            pod("bench-1", "ours-1", json!([container("main")])),
            json!({"podRef": {"namespace": "bench-1", "name": "new"}}),
        ]});
        let summary = serde_json::from_value(summary).unwrap();
        let idle = of(&summary, "bench-1", "ours-1-provider");
        let expected = [
            Idle {
                what: "provider of one container".to_owned(),
                memory: Some(7),
                nano_cores: Some(9),
            },
            Idle {
                what: "node agent".to_owned(),
                memory: None,
                nano_cores: None,
            },
        ];
        assert_eq!(idle, expected);
    }
}
