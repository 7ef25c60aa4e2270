/*!
The container runtime, by CRI: containers, their first processes and their images.
*/

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use csi_proto::cri::image_service_client::ImageServiceClient;
use csi_proto::cri::runtime_service_client::RuntimeServiceClient;
use csi_proto::cri::{
    ContainerFilter, ContainerState, ContainerStateValue, ContainerStatusRequest, ContainerStatusResponse,
    IdMapping, ImageSpec, ImageStatusRequest, ListContainersRequest, ListPodSandboxRequest, NamespaceMode,
    PodSandboxFilter, PodSandboxState, PodSandboxStateValue, PodSandboxStatusRequest, UserNamespace,
};
use rootfs::user_namespace::{IdMaps, IdRange};
use stoppablecontainer_api::{ImageFacts, same_repository};
use tonic::transport::Channel;

use super::Host;
use super::container_info::ContainerInfo;
use super::hooks::Hooks;
use super::image_config::{self, ConfigError};
use super::runtimes::{Runtime, Runtimes};

/// Largest response of the runtime, in bytes: images whose CRI config exceeds 4 MiB are rejected.
const MAX_ANSWER: usize = 4 << 20;

/// The runtime of this node: of those that answer, the one that has the container at hand.
#[derive(Clone, Debug)]
pub(crate) struct Cri {
    runtimes: Runtimes,
}

/// Labels that the kubelet gives to a pod's containers.
const POD_UID: &str = "io.kubernetes.pod.uid";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";

/// A container that runs, and how.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) container_id: String,
    /// The handler of the pod's RuntimeClass. Empty for the runtime's default.
    pub(crate) handler: String,
}

/// A container as the runtime knows it.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    /// Its name in the pod.
    pub(crate) name: String,
    /// Its image as the pod names it.
    pub(crate) image: String,
    /// Its image as the runtime names it.
    pub(crate) image_ref: String,
    /// The process that the runtime started as this container, on the node. `None` if the runtime
    /// does not say.
    pub(crate) first: Option<i32>,
    /// What has to be repeated of its hooks. `None` if the runtime does not report hooks.
    pub(crate) hooks: Option<Hooks>,
    /// The runtime that has it.
    runtime: Runtime,
}

/// Why the runtime gives no information.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CriError {
    /// The call failed.
    #[error("container runtime: {}", .0.message())]
    Call(#[from] tonic::Status),
    /// No runtime knows the container, or none answers.
    #[error(
        "no container runtime of the node answers for {what} ({answers}); if the kubelet's runtime has another \
         socket, set the agent's --cri-socket (agent.criSocket in the Helm chart)"
    )]
    Unknown {
        /// What was asked for.
        what: String,
        /// The sockets that were tried, each with its answer.
        answers: String,
    },
    /// The response lacks a field that every response has.
    #[error("container runtime: the response has no {0}")]
    Missing(&'static str),
    /// The image's config cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

// === impl Cri ===

impl Cri {
    /// A client for the runtime at this socket of the node, or at one of the usual ones; connects
    /// when it is used.
    pub(crate) fn new(host: &Arc<Host>, socket: Option<PathBuf>) -> Self {
        Self {
            runtimes: Runtimes::new(host, socket),
        }
    }

    #[cfg(test)]
    pub(super) fn of(runtimes: Runtimes) -> Self {
        Self { runtimes }
    }

    /// The container of this id.
    pub(crate) async fn container(&self, id: &str) -> Result<Container, CriError> {
        let (runtime, answer) = match self.status(id, true).await {
            // The runtime names the process only together with all else that it knows.
            Err(CriError::Config(_)) => self.status(id, false).await?,
            answer => answer?,
        };
        let status = answer.status.ok_or(CriError::Missing("container status"))?;
        let info = answer.info.get("info").map(|info| ContainerInfo::parse(info));
        let info = info.unwrap_or_default();
        Ok(Container {
            name: status.metadata.ok_or(CriError::Missing("container name"))?.name,
            image: status.image.map(|image| image.image).unwrap_or_default(),
            image_ref: status.image_ref,
            first: info.first,
            hooks: info.hooks,
            runtime,
        })
    }

    /// The running container of this name in the pod, if there is one.
    pub(crate) async fn running(&self, pod_uid: &str, container: &str) -> Result<Option<Running>, CriError> {
        let labels = [(POD_UID, pod_uid), (CONTAINER_NAME, container)];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let filter = ContainerFilter {
            state: Some(ContainerStateValue {
                state: ContainerState::ContainerRunning.into(),
            }),
            label_selector: HashMap::from(labels),
            ..ContainerFilter::default()
        };
        let call = async |channel: Channel| {
            let request = ListContainersRequest {
                filter: Some(filter.clone()),
            };
            let mut client = RuntimeServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER);
            let listed = client.list_containers(request).await?.into_inner();
            let Some(found) = listed.containers.into_iter().next() else {
                return Ok(None);
            };
            let request = PodSandboxStatusRequest {
                pod_sandbox_id: found.pod_sandbox_id,
                verbose: false,
            };
            let sandbox = client.pod_sandbox_status(request).await?.into_inner().status;
            Ok(Some(Running {
                container_id: found.id,
                handler: sandbox.unwrap_or_default().runtime_handler,
            }))
        };
        let found = self
            .ask_all(&format!("the containers of pod {pod_uid}"), call)
            .await?;
        Ok(found.into_iter().flatten().next())
    }

    /// The ids of a pod's own user namespace, as the kubelet chose them. `None` if the pod has that
    /// of the node.
    pub(crate) async fn id_maps(&self, pod_uid: &str) -> Result<Option<IdMaps>, CriError> {
        let filter = PodSandboxFilter {
            label_selector: HashMap::from([(POD_UID.to_owned(), pod_uid.to_owned())]),
            state: Some(PodSandboxStateValue {
                state: PodSandboxState::SandboxReady.into(),
            }),
            ..PodSandboxFilter::default()
        };
        let call = async |channel: Channel| {
            let filter = Some(filter.clone());
            let mut client = RuntimeServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER);
            let listed = client.list_pod_sandbox(ListPodSandboxRequest { filter }).await?;
            let Some(found) = listed.into_inner().items.into_iter().next() else {
                return Ok(None);
            };
            let request = PodSandboxStatusRequest {
                pod_sandbox_id: found.id,
                verbose: false,
            };
            let sandbox = client.pod_sandbox_status(request).await?.into_inner().status;
            let options = sandbox.and_then(|sandbox| sandbox.linux?.namespaces?.options);
            Ok(Some(
                options.and_then(|options| id_maps(&options.userns_options?)),
            ))
        };
        let found = self.ask_all(&format!("pod {pod_uid}"), call).await?;
        found
            .into_iter()
            .flatten()
            .next()
            .ok_or(CriError::Missing("sandbox of the pod"))
    }

    /// The answer about a container beyond CRI, as JSON of the runtime's own, and the runtime.
    /// `None` if that is empty.
    pub(crate) async fn container_info(&self, id: &str) -> Result<Option<(Runtime, String)>, CriError> {
        let (runtime, mut answer) = self.status(id, true).await?;
        Ok(answer.info.remove("info").map(|info| (runtime, info)))
    }

    /// Asks every runtime of the node that answers for something that no container names. `call`
    /// gets the connection of one.
    ///
    /// # Errors
    /// When none answers.
    pub(crate) async fn ask_all<T, F>(
        &self,
        what: &str,
        call: impl Fn(Channel) -> F,
    ) -> Result<Vec<T>, CriError>
    where
        F: Future<Output = Result<T, CriError>>,
    {
        self.runtimes
            .ask_all(what, |channel| {
                let asked = call(channel);
                async { asked.await.map(Some) }
            })
            .await
    }

    async fn status(&self, id: &str, verbose: bool) -> Result<(Runtime, ContainerStatusResponse), CriError> {
        let call = |channel| async move {
            let request = ContainerStatusRequest {
                container_id: id.to_owned(),
                verbose,
            };
            let answer = RuntimeServiceClient::new(channel)
                .max_decoding_message_size(MAX_ANSWER)
                .container_status(request)
                .await;
            Ok(Some(answer.map_err(too_large_or)?.into_inner()))
        };
        self.runtimes.ask(&format!("container {id}"), call).await
    }

    /// The ID of the image that a name means on this node. `None` if the node does not have it, or
    /// if several runtimes have different ones.
    pub(crate) async fn image_id(&self, name: &str) -> Result<Option<String>, CriError> {
        let call = async |channel: Channel| {
            let image = ImageSpec {
                image: name.to_owned(),
                ..ImageSpec::default()
            };
            let request = ImageStatusRequest {
                image: Some(image),
                verbose: false,
            };
            let mut client = ImageServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER);
            let answer = client.image_status(request).await?.into_inner();
            Ok(answer.image.map(|image| image.id))
        };
        let found = self.ask_all(&format!("image {name}"), call).await?;
        let mut found = found.into_iter().flatten();
        let first = found.next();
        Ok(first.filter(|first| found.all(|other| other == *first)))
    }

    /// What the config of a container's image says. The template names it `named`; the runtime
    /// gives any of its names.
    pub(crate) async fn facts(&self, container: &Container, named: &str) -> Result<ImageFacts, CriError> {
        let image = ImageSpec {
            image: container.image_ref.clone(),
            ..ImageSpec::default()
        };
        let request = ImageStatusRequest {
            image: Some(image),
            verbose: true,
        };
        let answer = ImageServiceClient::new(container.runtime.channel())
            .max_decoding_message_size(MAX_ANSWER)
            .image_status(request)
            .await
            .map_err(too_large_or)?
            .into_inner();
        let image = answer.image.ok_or(CriError::Missing("image of the container"))?;
        let info = answer.info.get("info").ok_or(CriError::Missing("image config"))?;
        let facts = image_config::facts(&container.image, &image.id, info)?;
        Ok(ImageFacts {
            repo_digest: repo_digest([named, &container.image], &image.repo_digests),
            ..facts
        })
    }
}

/// The ids of a user namespace of the pod's own.
fn id_maps(options: &UserNamespace) -> Option<IdMaps> {
    let is_own = options.mode() == NamespaceMode::Pod && !options.uids.is_empty();
    let ranges = |maps: &[IdMapping]| {
        let range = |map: &IdMapping| IdRange {
            inside: map.container_id,
            outside: map.host_id,
            length: map.length,
        };
        maps.iter().map(range).collect()
    };
    is_own.then(|| IdMaps {
        users: ranges(&options.uids),
        groups: ranges(&options.gids),
    })
}

/// By which digest an image can be named. It may have been pulled from several repositories: the
/// one of the template or of the container, if possible. Runtimes write all of a name, pods may
/// leave out the beginning.
fn repo_digest(names: [&str; 2], digests: &[String]) -> String {
    let [_, named] = names;
    let without_digest = named.split('@').next().unwrap_or_default();
    // A colon before a slash is that of a registry's port.
    let repository = match without_digest.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => without_digest,
    };
    let is_of_pod = |digest: &&String| {
        let of = digest.split('@').next().unwrap_or_default();
        of.strip_suffix(repository)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
    };
    let mut exact = names
        .iter()
        .filter_map(|name| digests.iter().find(|digest| same_repository(name, digest)));
    let found = exact.next().or_else(|| digests.iter().find(is_of_pod));
    let found = found.or(digests.first());
    found.cloned().unwrap_or_default()
}

/// A response above the limit of client or runtime will not be smaller the next time.
fn too_large_or(status: tonic::Status) -> CriError {
    let sender = "larger than max";
    match status.code() {
        tonic::Code::OutOfRange => ConfigError::Unreadable(MAX_ANSWER).into(),
        tonic::Code::ResourceExhausted if status.message().contains(sender) => {
            ConfigError::Unreadable(MAX_ANSWER).into()
        }
        _ => status.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::repo_digest;

    #[test]
    fn f25_the_digest_of_the_repository_that_the_pod_names() {
        let digests = [
            "docker.io/team/nginx@sha256:1",
            "docker.io/library/nginx@sha256:2",
            "registry:5000/nginx@sha256:3",
            "docker.io/library/web@sha256:4",
            "docker.io/team/web@sha256:5",
        ]
        .map(str::to_owned);
        for (named, expected) in [
            ("team/nginx:1.25", 0),
            ("docker.io/library/nginx", 1),
            ("library/nginx@sha256:2", 1),
            ("registry:5000/nginx", 2),
            ("registry:5000/nginx:1.25@sha256:3", 2),
            ("nginx", 1),
            ("team/web", 4),
            ("another:1", 0),
        ] {
            assert_eq!(repo_digest(["", named], &digests), digests[expected], "{named}");
        }
        assert_eq!(
            repo_digest(["team/web:2", "nginx"], &digests),
            digests[4],
            "the template's"
        );
        assert_eq!(repo_digest(["nginx"; 2], &[]), "");
    }
}
