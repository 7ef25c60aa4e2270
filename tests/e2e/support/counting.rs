//! A container that counts in its log, for tests of events that must not affect its consumer.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::LogParams;
use serde_json::{Value, json};
use testkit::Namespace;

use super::{container_id, says, shell_template};

/// A container that prints 0, 1, 2 and so on.
pub(crate) fn counting() -> Value {
    with_program("i=0; while :; do echo $i; i=$((i + 1)); sleep 0.1; done")
}

/// A container that runs this script in its shell.
pub(crate) fn with_program(program: &str) -> Value {
    let mut template = shell_template();
    template["spec"]["containers"][0]["command"] = json!(["/bin/sh", "-c", program]);
    template
}

/// The container of [`counting`] is the same as before, did not skip a number, and keeps printing.
pub(crate) async fn unnoticed(ns: &Namespace, before: &Pod) -> Result<()> {
    let name = before.name_any();
    let now = ns.pod_ready(&name).await?;
    ensure!(
        container_id(&now, "main")? == container_id(before, "main")?,
        "the consumer was restarted"
    );
    let log = ns.api::<Pod>().logs(&name, &LogParams::default()).await?;
    // On a busy node the wrapper says why the first start takes longer than usual.
    let waited = |line: &&str| line.starts_with("stoppablecontainer: waiting");
    let mut count = 0;
    for (number, line) in log.lines().skip_while(waited).enumerate() {
        ensure!(line == number.to_string(), "line {number} of the log is {line:?}");
        count += 1;
    }
    says(ns, &name, &(count + 1).to_string()).await
}
