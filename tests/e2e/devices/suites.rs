//! What the suites `parity` and `durability` look at, in a container with devices.

use std::time::Instant;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{Namespace as NamespaceObject, Pod};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use testkit::Namespace;

use super::LOOK;
use super::variants::{template, unprivileged, with_device};
use super::vendor::{DEVICES, GPU, Vendor, with_devices};
use crate::durability::trial::{self, Happened, Row};
use crate::durability::writing::Writing;
use crate::parity::{Seen, assert_same, look_inside};
use crate::support::{cleaned_up, run, set_running, start, stop};

/// In a namespace that admits only what Pod Security's level `restricted` allows. The container has
/// all devices: which ones a smaller number of them is differs.
#[tokio::test]
async fn i5_a_restricted_container_with_devices_behaves_as_in_a_plain_pod() {
    with_devices("gpu-parity", async |ns, vendor| {
        enforce(ns, json!("restricted")).await?;
        let compared = compare(ns, vendor).await;
        cleaned_up(compared, enforce(ns, Value::Null).await)
    })
    .await;
}

/// With a driver, after a stop, and with the next driver.
async fn compare(ns: &Namespace, vendor: &Vendor<'_>) -> Result<()> {
    let mut template = with_device(&template("program"), GPU);
    let main = &mut template["spec"]["containers"][0];
    json_patch::merge(main, &unprivileged());
    main["resources"] = json!({"limits": {GPU: DEVICES.to_string()}});
    vendor.install("550").await?;
    let plain = of_plain_pod(ns, &template).await?;
    run(ns, "kept", template.clone()).await?;
    assert_same(&plain, &look(ns, "kept").await?)?;
    stop(ns, "kept").await?;
    start(ns, "kept").await?;
    assert_same(&plain, &look(ns, "kept").await?)?;
    stop(ns, "kept").await?;

    vendor.install("560").await?;
    let plain = of_plain_pod(ns, &template).await?;
    ensure!(plain["devices"].contains("libcuda.so.1 560"), "{plain:#?}");
    start(ns, "kept").await?;
    assert_same(&plain, &look(ns, "kept").await?)
}

async fn of_plain_pod(ns: &Namespace, template: &Value) -> Result<Seen> {
    let mut plain = template.clone();
    plain["metadata"] = json!({"name": "plain"});
    ns.create_json::<Pod>(plain).await?;
    ns.pod_ready("plain").await?;
    let seen = look(ns, "plain").await?;
    ns.delete::<Pod>("plain").await?;
    Ok(seen)
}

async fn look(ns: &Namespace, pod: &str) -> Result<Seen> {
    let mut seen = look_inside(ns, pod).await?;
    seen.insert("devices", ns.sh(pod, "main", LOOK).await?);
    Ok(seen)
}

async fn enforce(ns: &Namespace, level: Value) -> Result<()> {
    let patch = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": level}}});
    let api = ns.cluster_api::<NamespaceObject>();
    api.patch(&ns.name, &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    Ok(())
}

/// The hooks' files are not the user's, and what the user writes among them is.
#[tokio::test]
async fn i1_durability_stop_and_start_with_a_device() {
    with_devices("gpu-durable", async |ns, vendor| {
        vendor.install("550").await?;
        let event = async |_: &Writing, _: &Pod| {
            stop(ns, trial::NAME).await?;
            vendor.install("560").await?;
            let since = Instant::now();
            set_running(ns, trial::NAME, true).await?;
            Ok(Happened::interrupted(since))
        };
        Row::new("stop-and-start-with-a-device")
            .limited(GPU, "1")
            .run(ns, event)
            .await?;
        let call = "import ctypes; print(ctypes.CDLL('libcuda.so.1').cuDriverVersion())";
        let version = ns.exec(trial::NAME, "main", &["python3", "-c", call]).await?;
        ensure!(version.stdout.trim() == "560", "{version:?}");
        Ok(())
    })
    .await;
}
