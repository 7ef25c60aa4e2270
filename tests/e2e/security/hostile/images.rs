//! Images that image builders cannot create: an image that runs as a plain pod runs here, and
//! otherwise the message explains why.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use stoppablecontainer_api::StoppableContainer;
use testkit::{Exclusive, Namespace, NodeShell, alone_in_namespace, in_namespace};

use super::{beside_neighbour, create_plain, harmless};
use crate::support::{create, running, start, stop};

/// Additional memory that the agent may need for any image, in KiB.
const MEMORY: u64 = 32 << 10;

/// Attempts on masked paths and devices. The image does not have a shell; the program prints the
/// kernel's responses.
const ATTEMPTS: [&[&str]; 19] = [
    &["cat", "/proc/kcore"],
    &["cat", "/proc/keys"],
    &["cat", "/proc/timer_list"],
    &["ls", "/proc/scsi"],
    &["ls", "/sys/firmware"],
    // Harmless if it is not masked: it prints help.
    &["write", "/proc/sysrq-trigger", "h"],
    &["write", "/proc/sys/kernel/domainname", "hostile"],
    &["write", "/proc/irq/default_smp_affinity", "1"],
    &["ls", "/dev"],
    &["ls", "/dev/pts"],
    &["ls", "/dev/shm"],
    &["ls", "/dev/mqueue"],
    &["write", "/dev/null", "text"],
    &["cat", "/dev/null"],
    &["write", "/dev/termination-log", "text"],
    &["ls", "/hostile-target"],
    &["cat", "/disk"],
    &["cat", "/memory"],
    &["write", "/dev/kmsg", "text"],
];

/// The runtime's /dev covers the image's own.
#[tokio::test]
async fn h4_masks_and_devices_are_the_runtimes_whatever_the_image_has_in_dev() {
    in_namespace("devices", async |ns| {
        harmless(&ns, async |_| {
            run_both(&ns, "hostile-devices").await?;
            let (plain, kept) = (attempt(&ns, "plain").await?, attempt(&ns, "kept").await?);
            ensure!(plain == kept, "plain pod: {plain:#?}\nours: {kept:#?}");
            let said = |words: &[&str]| {
                kept.iter()
                    .find(|line| line.starts_with(&words.join(" ")))
                    .cloned()
            };
            for refused in [ATTEMPTS[5], ATTEMPTS[6], ATTEMPTS[16], ATTEMPTS[17]] {
                let line = said(refused).unwrap_or_default();
                ensure!(line.contains("(os error "), "it was not refused: {line}");
            }
            stop(&ns, "kept").await?;
            start(&ns, "kept").await?;
            let again = attempt(&ns, "kept").await?;
            ensure!(kept == again, "before: {kept:#?}\nafter: {again:#?}");
            Ok(())
        })
        .await
    })
    .await;
}

/// A symlink at /dev is rejected, by a runtime that would follow it or by the agent.
#[tokio::test]
async fn h4_a_link_for_dev_is_refused_with_a_reason() {
    in_namespace("dev-link", async |ns| {
        harmless(&ns, async |_| {
            create_kept(&ns, "kept", "hostile-dev-link").await?;
            let words = ["create failed", "must be a real one"];
            refused(&ns, "kept", &words).await.map(drop)
        })
        .await
    })
    .await;
}

#[tokio::test]
async fn h10_hostile_configs_run_as_a_plain_pod_or_say_why_not() {
    alone_in_namespace("configs", async |ns, alone| {
        harmless(&ns, async |node| {
            let memory = AgentMemory::watch(node, &alone).await?;
            for image in ["malformed-config", "huge-config", "huge-environment"] {
                create_kept(&ns, image, image).await?;
            }
            // Volumes and labels with paths outside the root: the runtime creates the volumes
            // inside the root, and the product does not create any.
            run_both(&ns, "hostile-config").await?;
            refused(&ns, "malformed-config", &["cannot unmarshal"]).await?;
            refused(&ns, "huge-environment", &["argument list too long"]).await?;
            let line = refused(&ns, "huge-config", &["config is too large"]).await?;
            ensure!(line.lines().count() == 1 && line.len() < 400, "{line}");
            memory.ensure_bounded(node).await
        })
        .await
    })
    .await;
}

/// The maximum number of layers of image builders, and one more than most of them allow.
#[tokio::test]
async fn h10_images_of_very_many_layers_are_kept() {
    alone_in_namespace("layers", async |ns, alone| {
        harmless(&ns, async |node| {
            let memory = AgentMemory::watch(node, &alone).await?;
            for layers in ["127", "128"] {
                create_kept(&ns, layers, &format!("layers-{layers}")).await?;
            }
            for (name, last) in [("127", "126"), ("128", "127")] {
                running(&ns, name).await?;
                for layer in ["1", last] {
                    let file = format!("/layer-{layer}");
                    let seen = ns
                        .exec(name, "main", &["/static", "cat", &file])
                        .await?
                        .success()?;
                    ensure!(seen == layer, "{file} is {seen:?}");
                }
                ns.exec(name, "main", &["/static", "write", "/layer-1", "kept"])
                    .await?
                    .success()?;
                stop(&ns, name).await?;
                start(&ns, name).await?;
                let seen = ns
                    .exec(name, "main", &["/static", "cat", "/layer-1"])
                    .await?
                    .success()?;
                ensure!(seen.trim_end() == "kept", "/layer-1 is {seen:?}");
            }
            memory.ensure_bounded(node).await
        })
        .await
    })
    .await;
}

/// A container of a test image with the image's entrypoint.
async fn template(ns: &Namespace, image: &str) -> Result<Value> {
    let mut template = beside_neighbour(ns, &json!({"image": format!("test/{image}:1")})).await?;
    template["spec"]["containers"][0]["command"] = Value::Null;
    Ok(template)
}

async fn create_kept(ns: &Namespace, name: &str, image: &str) -> Result<()> {
    create(ns, name, true, template(ns, image).await?).await
}

/// Runs an image as `plain` and as `kept`.
async fn run_both(ns: &Namespace, image: &str) -> Result<()> {
    create_plain(ns, "plain", &template(ns, image).await?).await?;
    create_kept(ns, "kept", image).await?;
    ns.pod_ready("plain").await?;
    running(ns, "kept").await.map(drop)
}

/// The results of the attempts, by their arguments.
async fn attempt(ns: &Namespace, pod: &str) -> Result<Vec<String>> {
    let mut seen = Vec::new();
    for words in ATTEMPTS {
        let command = [&["/static"], words].concat();
        let output = ns.exec(pod, "main", &command).await?;
        let words = words.join(" ");
        seen.push(format!(
            "{words}: {} {}{}",
            output.code, output.stdout, output.stderr
        ));
    }
    Ok(seen)
}

/// Watches until a condition of the object contains one of these texts, and returns its message.
/// The consumer does not run then.
async fn refused(ns: &Namespace, name: &str, words: &[&str]) -> Result<String> {
    let message = |object: &StoppableContainer| {
        let conditions = object.status.iter().flat_map(|s| &s.conditions);
        conditions
            .filter(|c| c.status == "False")
            .find(|c| words.iter().any(|words| c.message.contains(words)))
            .map(|c| c.message.clone())
    };
    let object = ns
        .wait(name, &format!("a condition says one of {words:?}"), |object| {
            message(object).is_some()
        })
        .await?;
    let pod = ns.api::<Pod>().get_opt(name).await?;
    // Between its attempts a pod that restarts is called Running, and never Ready.
    let conditions = pod.and_then(|pod| pod.status?.conditions).unwrap_or_default();
    let is_ready = conditions
        .iter()
        .any(|c| c.type_ == "Ready" && c.status == "True");
    ensure!(!is_ready, "{name} runs all the same");
    message(&object).context("the condition is gone")
}

/// The maximum memory of a node's agent from a certain moment on. Other tests must not use the
/// agent meanwhile.
struct AgentMemory {
    /// The process ID on the node.
    process: String,
    before: u64,
}

// === impl AgentMemory ===

impl AgentMemory {
    async fn watch(node: &NodeShell<'_>, _: &Exclusive) -> Result<Self> {
        // The agent process that serves; others are its probes.
        let find = "cd /proc; for process in [0-9]*; do
               [ \"$(cat $process/comm 2>/dev/null)\" = node-agent ] || continue
               [ \"$(tr '\\0' '\\n' < $process/cmdline | sed -n 2p)\" != run ] || echo $process
             done";
        let found = node.sh(find).await?;
        let process = found
            .lines()
            .next()
            .context("no process of the agent")?
            .to_owned();
        // Resets the maximum, see proc(5).
        node.sh(&format!("echo 5 > /proc/{process}/clear_refs")).await?;
        let before = Self::most(node, &process).await?;
        Ok(Self { process, before })
    }

    async fn ensure_bounded(&self, node: &NodeShell<'_>) -> Result<()> {
        let (before, after) = (self.before, Self::most(node, &self.process).await?);
        println!("the agent had {before} KiB, and at most {after} KiB since");
        ensure!(
            after.saturating_sub(before) < MEMORY,
            "the agent needs {before} KiB, then {after} KiB"
        );
        Ok(())
    }

    /// In KiB.
    async fn most(node: &NodeShell<'_>, process: &str) -> Result<u64> {
        let status = node.sh(&format!("cat /proc/{process}/status")).await?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let words = line.context("the agent's process has ended")?;
        Ok(words.trim().trim_end_matches(" kB").parse()?)
    }
}
