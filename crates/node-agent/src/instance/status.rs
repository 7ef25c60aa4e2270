//! Writes `status.filesystem` of instances, which is the agent's alone.

use std::time::Duration;

use anyhow::{Context, Result};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use stoppablecontainer_api::names::FIELD_MANAGER_AGENT;
use stoppablecontainer_api::{FilesystemStatus, StoppableContainerInstance};

use super::{Instance, State};

/// How long the API server may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Writes the status that `news` returns, unless it is there already. Several tasks write, each its
/// own part, so `news` is called again when it is this task's turn.
///
/// # Errors
/// The outcome of the write is unknown then. The next write is made even if nothing seems to have
/// changed, see [`repair`].
pub(crate) async fn update(
    client: &Client,
    instance: &Instance,
    news: impl Fn(&State) -> Option<FilesystemStatus>,
) -> Result<()> {
    let due = |state: &State| {
        news(state).filter(|status| state.write_uncertain || state.filesystem() != Some(status))
    };
    if due(&instance.state()).is_none() {
        return Ok(());
    }
    let _writing = instance.writing.lock().await;
    let Some(status) = due(&instance.state()) else {
        return Ok(());
    };
    let write_uncertain = UncertainWrite::begin(instance);
    write(client, instance, &status).await?;
    tracing::info!(instance = %instance.id, state = ?status.state, reason = status.reason, "filesystem");
    write_uncertain.end(status);
    Ok(())
}

/// Repeats a write whose outcome is unknown.
pub(crate) async fn repair(client: &Client, instance: &Instance) -> Result<()> {
    update(client, instance, |state| {
        state.filesystem().filter(|_| state.write_uncertain).cloned()
    })
    .await
}

async fn write(client: &Client, instance: &Instance, status: &FilesystemStatus) -> Result<()> {
    let id = &instance.id;
    let api: Api<StoppableContainerInstance> = Api::namespaced(client.clone(), &id.namespace);
    let patch = json!({
        "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1",
        "kind": "StoppableContainerInstance",
        // With the UID the API server refuses to write to an object that was made anew under the
        // name.
        "metadata": { "name": id.name, "uid": id.uid },
        "status": { "filesystem": status },
    });
    let params = PatchParams::apply(FIELD_MANAGER_AGENT).force();
    let patch = Patch::Apply(patch);
    tokio::time::timeout(TIMEOUT, api.patch_status(&id.name, &params, &patch))
        .await
        .context("the API server does not answer")?
        .with_context(|| format!("write the status of instance {id}"))?;
    Ok(())
}

/// A write in progress. Unless it succeeds, and also if its future is dropped, its outcome is
/// unknown.
struct UncertainWrite<'a>(&'a Instance);

// === impl UncertainWrite ===

impl<'a> UncertainWrite<'a> {
    fn begin(instance: &'a Instance) -> Self {
        instance.change_quietly(|state| state.write_uncertain = true);
        Self(instance)
    }

    fn end(self, written: FilesystemStatus) {
        self.0.change_quietly(|state| {
            state.written = Some(written);
            state.write_uncertain = false;
        });
    }
}

impl Drop for UncertainWrite<'_> {
    fn drop(&mut self) {
        // Wakes the tasks that repair it or wait for what was written.
        self.0.change(|_| {});
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use stoppablecontainer_api::FilesystemState;
    use testkit::scripted::Scripted;

    use super::*;
    use crate::instance::Instances;

    const PATH: &str =
        "/apis/stoppablecontainer.xtlsoft.top/v1alpha1/namespaces/ns/stoppablecontainerinstances/web/status";

    fn instance() -> Arc<Instance> {
        let object = json!({
            "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainerInstance",
            "metadata": { "name": "web", "namespace": "ns", "uid": "u1" },
            "spec": { "stoppableContainerName": "web", "template": { "spec": { "containers": [] } } },
            "status": { "filesystem": { "state": "Ready", "nodeName": "n1" } },
        });
        let instances = Instances::default();
        instances.apply(serde_json::from_value(object).unwrap()).unwrap()
    }

    /// What the task of the disk has to say.
    fn low(state: &State, message: Option<&str>) -> Option<FilesystemStatus> {
        let disk_low = message.map(str::to_owned);
        let known = state.filesystem().filter(|known| known.disk_low != disk_low)?;
        Some(FilesystemStatus {
            disk_low,
            ..known.clone()
        })
    }

    fn answer(instance: &Instance) -> serde_json::Value {
        serde_json::to_value(instance.state().object.as_deref()).unwrap()
    }

    #[tokio::test]
    async fn i12_what_is_there_already_is_not_written() {
        let (client, mut api) = Scripted::new();
        let instance = instance();
        let (done, ()) = tokio::join!(
            update(&client, &instance, |state| low(state, Some("low"))),
            async {
                let call = api.expect("PATCH", PATH).await;
                assert_eq!(call.body["status"]["filesystem"]["diskLow"], "low");
                call.answer(&answer(&instance));
            }
        );
        done.unwrap();
        // The API server does not answer here, so a call would hang: the agent must not make one.
        update(&client, &instance, |state| low(state, Some("low")))
            .await
            .unwrap();
        repair(&client, &instance).await.unwrap();
        assert_eq!(instance.filesystem().unwrap().disk_low.as_deref(), Some("low"));
    }

    /// The API server may have carried out what it did not confirm.
    #[tokio::test]
    async fn i12_a_write_that_failed_is_repeated() {
        let (client, mut api) = Scripted::new();
        let instance = instance();
        let (done, ()) = tokio::join!(
            update(&client, &instance, |state| low(state, Some("low"))),
            async {
                api.expect("PATCH", PATH)
                    .await
                    .refuse(500, "InternalError", "it broke");
            }
        );
        assert!(done.is_err());
        // By now there is room again: to this agent nothing is new.
        let nothing = |state: &State| low(state, None);
        assert!(nothing(&instance.state()).is_none());
        let (done, ()) = tokio::join!(repair(&client, &instance), async {
            let call = api.expect("PATCH", PATH).await;
            assert_eq!(call.body["status"]["filesystem"]["diskLow"], json!(null));
            call.answer(&answer(&instance));
        });
        done.unwrap();
        assert_eq!(instance.filesystem().unwrap().state, FilesystemState::Ready);
        repair(&client, &instance).await.unwrap();
    }

    /// As a conversation with a wrapper ends while the status is written.
    #[tokio::test]
    async fn i12_a_write_whose_caller_has_gone_is_repeated() {
        let (client, mut api) = Scripted::new();
        let instance = instance();
        tokio::select! {
            _ = update(&client, &instance, |state| low(state, Some("low"))) => panic!("the API server has not answered"),
            _ = api.expect("PATCH", PATH) => {}
        }
        assert!(instance.state().write_uncertain);
    }
}
