//! A device with a CDI specification, on every release. All other tests of devices are in
//! `devices`, and run where the container runtime knows CDI.

use anyhow::ensure;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::json;
use testkit::{fact, in_namespace};

use crate::devices::variants::{template, with_device};
use crate::devices::vendor::{GPU, devices_in, knows_cdi, runtime_of};
use crate::support::run;

/// Prints the kinds of the device nodes, without their numbers.
const DEVICES: &str = "ls /dev | grep -E 'nvidia|fake' | sed 's/[0-9]*$//' | sort -u";

/// The kubelet hands the device to the runtime, and a runtime that does not know CDI starts both
/// without it.
#[tokio::test]
async fn i5_a_device_of_cdi_is_in_both_containers_or_in_neither() {
    in_namespace("cdi", async |ns| {
        devices_in(&ns, async |ns, vendor| {
            vendor.install("550").await?;
            let template = with_device(&template("program"), GPU);
            let mut plain = template.clone();
            plain["metadata"] = json!({"name": "plain"});
            ns.create_json::<Pod>(plain).await?;
            run(ns, "kept", template).await?;
            ns.pod_ready("plain").await?;
            let plain = ns.sh("plain", "main", DEVICES).await?;
            let kept = ns.sh("kept", "main", DEVICES).await?;
            ensure!(plain == kept, "plain pod: {plain:?}\nours: {kept:?}");
            let runtime = runtime_of(ns.cluster_api::<Node>().get(&vendor.node).await?)?;
            ensure!(
                kept.is_empty() != knows_cdi(&runtime),
                "{runtime} gave the containers {kept:?}"
            );
            let what = if kept.is_empty() {
                "the container starts without the device, as a plain pod does"
            } else {
                "the container has the device, as a plain pod does"
            };
            fact("a device with a CDI specification", what);
            Ok(())
        })
        .await
    })
    .await;
}
