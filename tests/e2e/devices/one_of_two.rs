//! A device that another pod has taken meanwhile: the next start has another one, and nothing of
//! the first.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use testkit::Namespace;

use super::variants::{template, with_device};
use super::vendor::{PAIR, Vendor, with_devices};
use crate::support::{run, start, stop};

/// What a container has of its device: its node, the link that a hook made to it, and its variable.
const LOOK: &str = "ls /dev | grep nvidia || true
                    ls -l /opt/fake-gpu/devices | awk 'NF > 2 {print $9, $10, $11}' || true
                    { env; tr '\\0' '\\n' < /proc/1/environ; } | grep ^FAKE_GPU_ | sort -u";

#[tokio::test]
async fn i5_another_device_at_the_next_start_is_the_only_one_that_is_seen() {
    with_devices("gpu-pair", another_device).await;
}

async fn another_device(ns: &Namespace, vendor: &Vendor<'_>) -> Result<()> {
    vendor.install("550").await?;
    let template = with_device(&template("program"), PAIR);
    run(ns, "kept", template.clone()).await?;
    let first = device(ns, "kept").await?;
    // The user's files among the hook's are no reason to keep the hook's.
    ns.sh("kept", "main", "echo mine > /opt/fake-gpu/devices/mine")
        .await?;
    stop(ns, "kept").await?;

    // Which device a pod gets is the kubelet's choice: two pods have both.
    let mut holders = Vec::new();
    for name in ["plain-one", "plain-two"] {
        let mut pod = template.clone();
        pod["metadata"] = json!({"name": name});
        ns.create_json::<Pod>(pod).await?;
        ns.pod_ready(name).await?;
        holders.push((name, device(ns, name).await?));
    }
    let mut others = holders.iter().filter(|(_, device)| *device != first);
    let (holder, other) = others.next().context("no pod has the other device")?;
    ensure!(others.next().is_none(), "no pod has device {first}: {holders:?}");
    ns.delete::<Pod>(holder).await?;

    start(ns, "kept").await?;
    let found = device(ns, "kept").await?;
    ensure!(found == *other, "{found}, and device {other} is the free one");
    let mine = ns
        .sh(
            "kept",
            "main",
            "ls /opt/fake-gpu/devices; cat /opt/fake-gpu/devices/mine",
        )
        .await?;
    ensure!(mine == format!("{other}\nmine\nmine"), "{mine}");
    Ok(())
}

/// The number of the one device that a container has.
async fn device(ns: &Namespace, pod: &str) -> Result<String> {
    let seen = ns.sh(pod, "main", LOOK).await?;
    let number = seen
        .lines()
        .next()
        .unwrap_or_default()
        .trim_start_matches("nvidia");
    let lines: Vec<_> = seen
        .lines()
        .filter(|line| !line.starts_with("mine"))
        .map(str::trim)
        .collect();
    let expected = [
        format!("nvidia{number}"),
        format!("{number} -> /dev/nvidia{number}"),
        format!("FAKE_GPU_{number}=1"),
    ];
    ensure!(
        lines == expected,
        "{pod} has more than one device, or less: {seen}"
    );
    Ok(number.to_owned())
}
