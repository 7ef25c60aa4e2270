/*!
What the container runtime knows, by CRI: which container is which, and what an
image's config says.
*/

use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use csi_proto::cri::image_service_client::ImageServiceClient;
use csi_proto::cri::runtime_service_client::RuntimeServiceClient;
use csi_proto::cri::{ContainerStatusRequest, ImageSpec, ImageStatusRequest};
use hyper_util::rt::TokioIo;
use rootfs::Root;
use rustix::fs::OFlags;
use serde::Deserialize;
use stoppablecontainer_api::ImageFacts;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::host::Host;

/// Where runtimes listen by default.
const SOCKETS: [&str; 5] = [
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/k0s/containerd.sock",
    "/run/cri-dockerd.sock",
];
/// How long a call may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest sum of an image's facts, in bytes: they become part of an object of the API, which ends at 1.5 MiB.
const MAX_FACTS: usize = 256 << 10;

/// The runtime of this node.
#[derive(Clone, Debug)]
pub(crate) struct Cri {
    channel: Channel,
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
}

/// Something that the runtime does not tell.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CriError {
    /// The call failed.
    #[error("container runtime: {}", .0.message())]
    Call(#[from] tonic::Status),
    /// The answer lacks what every answer has.
    #[error("container runtime: the answer lacks {0}")]
    Missing(&'static str),
    /// The image's config is not as the OCI image specification describes.
    #[error("the image's config is not understood: {0}")]
    Config(#[from] serde_json::Error),
    /// The image's config is too large.
    #[error("the image's config has {0} bytes of environment and commands, more than {MAX_FACTS}")]
    TooLarge(usize),
}

// === impl Cri ===

impl Cri {
    /// A client for the runtime's socket on the node; connects when it is used.
    pub(crate) fn new(host: &Arc<Host>, socket: Option<PathBuf>) -> Self {
        let endpoint = Endpoint::from_static("http://runtime")
            .timeout(TIMEOUT)
            .connect_timeout(TIMEOUT);
        let host = Arc::clone(host);
        let connector = tower::service_fn(move |_: Uri| {
            let (host, socket) = (Arc::clone(&host), socket.clone());
            async move { connect(&host.root, socket.as_deref()).await.map(TokioIo::new) }
        });
        Self {
            channel: endpoint.connect_with_connector_lazy(connector),
        }
    }

    /// The container of this id.
    pub(crate) async fn container(&self, id: &str) -> Result<Container, CriError> {
        let request = ContainerStatusRequest {
            container_id: id.to_owned(),
            verbose: false,
        };
        let answer = RuntimeServiceClient::new(self.channel.clone())
            .container_status(request)
            .await?
            .into_inner();
        let status = answer.status.ok_or(CriError::Missing("the container's status"))?;
        Ok(Container {
            name: status
                .metadata
                .ok_or(CriError::Missing("the container's name"))?
                .name,
            image: status.image.map(|image| image.image).unwrap_or_default(),
            image_ref: status.image_ref,
        })
    }

    /// What the config of a container's image says.
    pub(crate) async fn facts(&self, container: &Container) -> Result<ImageFacts, CriError> {
        let image = ImageSpec {
            image: container.image_ref.clone(),
            ..ImageSpec::default()
        };
        let request = ImageStatusRequest {
            image: Some(image),
            verbose: true,
        };
        let answer = ImageServiceClient::new(self.channel.clone())
            .image_status(request)
            .await?
            .into_inner();
        let image = answer.image.ok_or(CriError::Missing("the container's image"))?;
        facts(&container.image, &image.id, &answer.info)
    }
}

async fn connect(host: &Root, socket: Option<&Path>) -> std::io::Result<UnixStream> {
    let candidates: Vec<&Path> = match socket {
        Some(socket) => vec![socket],
        None => SOCKETS.iter().map(Path::new).collect(),
    };
    let mut failed = std::io::Error::new(
        std::io::ErrorKind::NotFound,
        format!("no socket of a container runtime at {candidates:?} on the node; --cri-socket names it"),
    );
    for path in candidates {
        let Ok(socket) = host.open(path, OFlags::PATH) else {
            continue;
        };
        match UnixStream::connect(format!("/proc/self/fd/{}", socket.as_raw_fd())).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// The part of `info` that containerd and CRI-O share.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Info {
    image_spec: Option<Spec>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    config: Option<Config>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Config {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
}

fn facts(reference: &str, id: &str, info: &HashMap<String, String>) -> Result<ImageFacts, CriError> {
    let info = info.get("info").ok_or(CriError::Missing("the image's config"))?;
    let info: Info = serde_json::from_str(info)?;
    let config = info
        .image_spec
        .ok_or(CriError::Missing("the image's config"))?
        .config
        .unwrap_or_default();
    let facts = ImageFacts {
        reference: reference.to_owned(),
        id: id.to_owned(),
        entrypoint: config.entrypoint.unwrap_or_default(),
        cmd: config.cmd.unwrap_or_default(),
        env: config.env.unwrap_or_default(),
        working_dir: config.working_dir.unwrap_or_default(),
        user: config.user.unwrap_or_default(),
        stop_signal: config.stop_signal.unwrap_or_default(),
    };
    let lists = facts.entrypoint.iter().chain(&facts.cmd).chain(&facts.env);
    let size = lists.map(|s| s.len() + 1).sum::<usize>()
        + [&facts.working_dir, &facts.user, &facts.stop_signal]
            .map(String::len)
            .iter()
            .sum::<usize>();
    if size > MAX_FACTS {
        Err(CriError::TooLarge(size))
    } else {
        Ok(facts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(info: &str) -> Result<ImageFacts, CriError> {
        facts(
            "nginx:1.25",
            "sha256:1",
            &HashMap::from([("info".to_owned(), info.to_owned())]),
        )
    }

    #[test]
    fn what_containerd_says() {
        let facts = read(
            r#"{"chainID":"sha256:x","imageSpec":{"architecture":"amd64","config":{"User":"app:grp","ExposedPorts":{"80/tcp":{}},
            "Env":["PATH=/bin","A=b=c"],"Entrypoint":["/e.sh"],"Cmd":["nginx","-g","daemon off;"],"WorkingDir":"/w","StopSignal":"SIGQUIT"},
            "rootfs":{"type":"layers"}}}"#,
        );
        let facts = facts.unwrap();
        assert_eq!(
            (facts.reference.as_str(), facts.id.as_str()),
            ("nginx:1.25", "sha256:1")
        );
        assert_eq!(facts.entrypoint, ["/e.sh"]);
        assert_eq!(facts.cmd, ["nginx", "-g", "daemon off;"]);
        assert_eq!(facts.env, ["PATH=/bin", "A=b=c"]);
        assert_eq!(
            (
                facts.working_dir.as_str(),
                facts.user.as_str(),
                facts.stop_signal.as_str()
            ),
            ("/w", "app:grp", "SIGQUIT")
        );
    }

    #[test]
    fn h10_null_is_nothing() {
        let facts = read(r#"{"imageSpec":{"config":{"Env":null,"Cmd":null,"User":null}}}"#).unwrap();
        assert_eq!(
            facts,
            ImageFacts {
                reference: "nginx:1.25".into(),
                id: "sha256:1".into(),
                ..ImageFacts::default()
            }
        );
        assert!(read(r#"{"imageSpec":{"config":null}}"#).is_ok());
    }

    #[test]
    fn h10_wrong_types_and_huge_values_are_refused() {
        for config in [r#"{"Env":"A=b"}"#, r#"{"Cmd":[1]}"#, r#"{"User":0}"#, "7"] {
            assert!(
                read(&format!(r#"{{"imageSpec":{{"config":{config}}}}}"#)).is_err(),
                "{config}"
            );
        }
        assert!(matches!(read("{}"), Err(CriError::Missing(_))));
        let huge = format!(
            r#"{{"imageSpec":{{"config":{{"Env":["A={}"]}}}}}}"#,
            "x".repeat(MAX_FACTS)
        );
        assert!(matches!(read(&huge), Err(CriError::TooLarge(_))));
    }
}
