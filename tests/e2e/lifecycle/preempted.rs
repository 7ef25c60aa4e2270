//! An object of higher priority takes the room of a lower one, as plain pods do.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};
use stoppablecontainer_api::StoppableContainer;
use stoppablecontainer_api::conditions::{CONSUMER_READY, reason};
use testkit::{Namespace, alone_in_namespace};

use crate::support::{blocked, cleaned_up, node_of, run, running, shell_template};

/// The preempted object queues with the scheduler's words, and continues with its files when the
/// room is free again.
#[tokio::test]
async fn i12_a_preempted_object_queues_and_continues_with_its_files() {
    alone_in_namespace("preempted", async |ns, _alone| {
        let classes = ns.cluster_api::<PriorityClass>();
        let names = ["low", "high"].map(|level| format!("{}-{level}", ns.name));
        for (name, value) in names.iter().zip([10, 1_000]) {
            let class = json!({"metadata": {"name": name}, "value": value});
            classes
                .create(&PostParams::default(), &serde_json::from_value(class)?)
                .await?;
        }
        let tested = preempt(&ns, &names).await;
        let mut cleaned = Ok(());
        for name in &names {
            cleaned = cleaned.and(delete(&classes, name).await);
        }
        cleaned_up(tested, cleaned)
    })
    .await;
}

async fn delete(classes: &Api<PriorityClass>, name: &str) -> Result<()> {
    classes.delete(name, &DeleteParams::default()).await?;
    Ok(())
}

async fn preempt(ns: &Namespace, [low, high]: &[String; 2]) -> Result<()> {
    let nodes = ns.cluster_api::<Node>().list(&ListParams::default()).await?;
    let node = nodes.items.first().context("no node")?;
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let allocatable = node
        .status
        .as_ref()
        .and_then(|status| status.allocatable.as_ref());
    let cpus: u64 = allocatable.context("a node without resources")?["cpu"]
        .0
        .parse()?;
    let template = |class: &str| -> Value {
        let mut template = shell_template();
        let spec = &mut template["spec"];
        spec["priorityClassName"] = json!(class);
        spec["nodeSelector"] = json!({"kubernetes.io/hostname": name});
        // More than half of the node.
        spec["containers"][0]["resources"] = json!({"requests": {"cpu": format!("{}m", cpus * 520)}});
        template
    };
    let pod = run(ns, "low", template(low)).await?;
    ns.sh("low", "main", "echo kept > /root/file").await?;
    run(ns, "high", template(high)).await?;
    blocked(ns, "low", CONSUMER_READY, reason::UNSCHEDULABLE).await?;
    ns.delete::<StoppableContainer>("high").await?;
    let again = running(ns, "low").await?;
    ensure!(node_of(&again)? == node_of(&pod)?, "it is elsewhere");
    ensure!(
        ns.sh("low", "main", "cat /root/file").await? == "kept",
        "the file is gone"
    );
    Ok(())
}
