//! What the programs measure of a start and a stop on a real cluster.

use std::collections::BTreeMap;

use ::metrics::catalogue;
use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use testkit::{Namespace, in_namespace, tunnel};

use crate::support::metrics::scraped;
use crate::support::release::CONTROLLERS;
use crate::support::{run, shell_template, stop};

/// Port of the operator's metrics.
const PORT: u16 = 8080;

/// Other tests start and stop containers at the same time, so the numbers rise by one at least.
#[tokio::test]
async fn a_start_and_a_stop_move_the_metrics_of_agent_and_operator() {
    in_namespace("metrics", async |ns| {
        let before = sums(&scraped(&ns).await?);
        run(&ns, "kept", shell_template()).await?;
        stop(&ns, "kept").await?;
        let agents = scraped(&ns).await?;
        let after = sums(&agents);
        for sample in [
            "csi_calls_total{method=\"NodePublishVolume\",code=\"Ok\"}",
            "csi_call_seconds_count{method=\"NodePublishVolume\"}",
            "csi_calls_total{method=\"NodeUnpublishVolume\",code=\"Ok\"}",
            "preparations_total{result=\"Ready\"}",
            "moves_total{result=\"done\"}",
            "move_seconds_count",
            "syncs_total{result=\"done\"}",
            "sync_seconds_count",
        ] {
            let value = |of: &BTreeMap<String, f64>| of.get(sample).copied().unwrap_or_default();
            ensure!(value(&after) > value(&before), "{sample}: {before:?}\n{after:?}");
        }
        let leader = leader(&ns).await?;
        let operator = sums(std::slice::from_ref(&leader));
        for sample in [
            "containers{phase=\"Stopped\",reason=\"Stopped\"}",
            "reconciliations_total{kind=\"StoppableContainer\",result=\"done\"}",
            "reconciliations_total{kind=\"StoppableContainerInstance\",result=\"done\"}",
            "queue_seconds_count{kind=\"StoppableContainerInstance\"}",
            "api_requests_total{verb=\"create\",resource=\"pods\",code=\"201\"}",
            "leader_elections_total",
            "certificate_expiry_timestamp_seconds",
        ] {
            ensure!(
                operator.get(sample).is_some_and(|value| *value >= 1.0),
                "{sample}: {operator:?}"
            );
        }
        let names = [&ns.name, "kept"].map(|name| format!("\"{name}\""));
        ensure!(
            names.iter().all(|name| !leader.contains(name)),
            "names of tenants: {leader}"
        );
        // Everything that is served is documented.
        for (text, program) in agents
            .iter()
            .map(|text| (text, catalogue::AGENT))
            .chain([(&leader, catalogue::OPERATOR)])
        {
            let known: Vec<_> = program.iter().chain(catalogue::COMMON).copied().collect();
            let differences = ::metrics::differences(text, &known);
            let undocumented: Vec<_> = differences
                .iter()
                .filter(|difference| !difference.ends_with("is not served"))
                .collect();
            ensure!(undocumented.is_empty(), "{undocumented:?}\n{text}");
        }
        Ok(())
    })
    .await;
}

/// The metrics of the replica that leads.
async fn leader(ns: &Namespace) -> Result<String> {
    let params = ListParams::default().labels(CONTROLLERS);
    for pod in Api::<Pod>::all(ns.client.clone()).list(&params).await? {
        let pods = Api::namespaced(ns.client.clone(), &pod.namespace().unwrap_or_default());
        let text = tunnel::open(&pods, &pod.name_any(), PORT)
            .await?
            .get("/metrics")
            .await?;
        if text.contains("stoppablecontainer_leader 1\n") {
            return Ok(text);
        }
    }
    anyhow::bail!("no replica says that it leads")
}

/// The samples of some scrapes, added up.
fn sums(texts: &[String]) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    let lines = texts.iter().flat_map(|text| text.lines());
    for line in lines.filter(|line| !line.starts_with('#')) {
        let sample = line.trim_start_matches("stoppablecontainer_").rsplit_once(' ');
        if let Some((name, Ok(value))) = sample.map(|(name, value)| (name, value.parse::<f64>())) {
            *sums.entry(name.to_owned()).or_default() += value;
        }
    }
    sums
}
