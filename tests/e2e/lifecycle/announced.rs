//! The first start of a container whose image was used before: the consumer pod is created while
//! the provider pod starts.

use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::runtime::watcher;
use stoppablecontainer_api::names::ANNOTATION_IMAGE_ID;
use stoppablecontainer_api::{Phase, StoppableContainerInstance, StoppableContainerInstanceStatus};
use testkit::{Namespace, in_namespace};
use tokio::task::JoinHandle;

use crate::support::{node_of, run, shell_on, shell_template, start, stop};

/// The states of an instance, as the API server sent them.
struct Seen {
    states: Arc<Mutex<Vec<StoppableContainerInstanceStatus>>>,
    watching: JoinHandle<()>,
}

impl Seen {
    fn watch(ns: &Namespace, name: &str) -> Self {
        let states = Arc::<Mutex<Vec<StoppableContainerInstanceStatus>>>::default();
        let noted = Arc::clone(&states);
        let mut events = Box::pin(watcher::watch_object(
            ns.api::<StoppableContainerInstance>(),
            name,
        ));
        let watching = tokio::spawn(async move {
            while let Some(event) = events.next().await {
                let status = event.ok().flatten().and_then(|object| object.status);
                if let (Some(status), Ok(mut noted)) = (status, noted.lock()) {
                    noted.push(status);
                }
            }
        });
        Self { states, watching }
    }

    /// The phases while the filesystem was announced and not ready.
    fn announced(&self) -> Vec<Option<Phase>> {
        let states = self
            .states
            .lock()
            .map(|states| states.clone())
            .unwrap_or_default();
        let announced = states
            .into_iter()
            .filter(|state| state.filesystem.as_ref().is_some_and(|f| f.announced));
        announced.map(|state| state.phase).collect()
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

/// What a program sees of its user, environment and files.
async fn look(ns: &Namespace, name: &str) -> Result<String> {
    let commands = "id; env | grep -v -e KUBERNETES -e HOSTNAME | sort; pwd; cat /etc/os-release; ls /root";
    ns.sh(name, "main", commands).await
}

/// The second container of an image in a namespace is announced on a node, starts like the first
/// one, and keeps its files. In another namespace nothing of the image is shown before its provider
/// runs.
#[tokio::test]
async fn i1_i3_the_second_container_of_an_image_starts_while_its_provider_does() {
    in_namespace("announced", async |ns| -> Result<()> {
        let first = run(&ns, "first", shell_template()).await?;
        let seen = Seen::watch(&ns, "second");
        let pod = run(&ns, "second", shell_on(&node_of(&first)?)).await?;
        let phases = seen.announced();
        ensure!(!phases.is_empty(), "not announced: {:#?}", seen.states);
        ensure!(
            !phases.contains(&Some(Phase::Running)),
            "Running while its command waits: {:#?}",
            seen.states
        );
        ensure!(look(&ns, "second").await? == look(&ns, "first").await?);
        let filesystem = |object: &StoppableContainerInstance| object.status.clone()?.filesystem;
        let instance = ns
            .wait::<StoppableContainerInstance>("second", "its filesystem is ready", |object| {
                filesystem(object).is_some_and(|filesystem| !filesystem.announced)
            })
            .await?;
        let image = filesystem(&instance).and_then(|filesystem| filesystem.image);
        let image = image.context("a filesystem without its image")?;
        ensure!(
            pod.annotations().get(ANNOTATION_IMAGE_ID) == Some(&image.id),
            "{pod:#?}"
        );

        ns.sh("second", "main", "echo kept > /root/file").await?;
        stop(&ns, "second").await?;
        start(&ns, "second").await?;
        ensure!(ns.sh("second", "main", "cat /root/file").await? == "kept");
        Ok(())
    })
    .await;
    in_namespace("announced-elsewhere", async |ns| -> Result<()> {
        let seen = Seen::watch(&ns, "first");
        run(&ns, "first", shell_template()).await?;
        ensure!(seen.announced().is_empty(), "announced: {:#?}", seen.states);
        let consumer = ns.api::<Pod>().get("first").await?;
        ensure!(consumer.annotations().contains_key(ANNOTATION_IMAGE_ID));
        Ok(())
    })
    .await;
}
