//! The example of the API reference that trains on a GPU in a queue of Kueue. The program asks the
//! loader for the driver.

use std::path::Path;

use anyhow::{Context, Result};
use injectors::Injector;
use testkit::{Injectors, Namespace, Order};

use super::vendor::{GPU, Vendor, with_devices};
use crate::injectors::kueue::with_queue;
use crate::injectors::{hook, priority_class};
use crate::support::{container_says, running, start, stop};

/// The resource and the class of the example. The class has another name here, because it is gone
/// with the namespace of the test that made it.
const REPLACED: [(&str, &str); 2] = [
    ("nvidia.com/gpu", GPU),
    ("\"high-priority\"", "\"high-priority-gpu\""),
];
const NAME: &str = "ml-training";
/// All pods except the test's own.
const TRAINING: &str = "object.metadata.name.startsWith('ml-training')";

#[tokio::test]
async fn i5_the_kueue_example_of_the_api_reference_finds_its_driver_at_every_start() {
    with_devices("gpu-kueue", async |ns, vendor| {
        with_queue(ns, true, async |_| train(ns, vendor).await).await
    })
    .await;
}

async fn train(ns: &Namespace, vendor: &Vendor<'_>) -> Result<()> {
    vendor.install("550").await?;
    priority_class(ns, "high-priority-gpu").await?;
    let server = Injectors::start(ns).await?;
    server
        .register(Order::Before, &[hook(Injector::Kueue, TRAINING)])
        .await?;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/samples/kueue.yaml");
    let mut sample = std::fs::read_to_string(file).context("reading the example")?;
    for (from, to) in REPLACED {
        sample = sample.replace(from, to);
    }
    ns.kubectl_with_input(&["apply", "-f", "-"], &sample)
        .await?
        .success()?;
    running(ns, NAME).await?;
    container_says(ns, NAME, "trainer", "epoch 1 driver 550").await?;
    stop(ns, NAME).await?;
    vendor.install("560").await?;
    start(ns, NAME).await?;
    container_says(ns, NAME, "trainer", "epoch 2 driver 560").await
}
