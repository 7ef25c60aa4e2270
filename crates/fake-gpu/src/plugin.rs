/*!
The device plugins (`v1beta1`): offer devices to the kubelet, and answer an allocation in one of the
ways that the interface has. Each way has a resource of its own.
*/

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use csi_proto::device_plugin as api;
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::codegen::BoxStream;
use tonic::transport::{Endpoint, Server, Uri};
use tonic::{Request, Response, Status};

use crate::driver::{DEVICES, DIRECTORY, FIRMWARE, KIND};

/// Name of the kubelet's socket in its directory.
const KUBELET: &str = "kubelet.sock";

/// How a plugin answers an allocation.
#[derive(Clone, Copy)]
enum Answer {
    /// Names in CDI.
    Cdi,
    /// Annotations of the container, which name devices in CDI for older kubelets.
    Annotations,
    /// Devices, mounts and variables, without CDI.
    Edits,
    /// The device of FUSE, as plugins for programs that mount their own file systems do.
    Fuse,
}

/// Resources without their vendor, which are also the names of the sockets, the answers, and how
/// many devices there are.
const RESOURCES: [(&str, Answer, usize); 5] = [
    ("gpu", Answer::Cdi, DEVICES),
    ("noted", Answer::Annotations, DEVICES),
    ("card", Answer::Edits, DEVICES),
    ("pair", Answer::Cdi, 2),
    ("fuse", Answer::Fuse, 2),
];

struct Plugin {
    answer: Answer,
    devices: usize,
}

/// Serves in the kubelet's directory of device plugins. Returns only with an error.
pub(crate) async fn serve(directory: &Path) -> Result<()> {
    let mut servers = Vec::new();
    for (name, answer, devices) in RESOURCES {
        let socket = directory.join(socket_of(name));
        let _ = std::fs::remove_file(&socket);
        let listener =
            UnixListener::bind(&socket).with_context(|| format!("binding {}", socket.display()))?;
        let server = Server::builder()
            .add_service(api::device_plugin_server::DevicePluginServer::new(Plugin {
                answer,
                devices,
            }))
            .serve_with_incoming(UnixListenerStream::new(listener));
        servers.push(tokio::spawn(server));
        register(directory, name).await?;
        println!("registered {name}");
    }
    for server in servers {
        server.await?.context("serving")?;
    }
    Ok(())
}

fn socket_of(name: &str) -> PathBuf {
    PathBuf::from(format!("fake-{name}.sock"))
}

async fn register(directory: &Path, name: &str) -> Result<()> {
    let kubelet = directory.join(KUBELET);
    let connector = tower::service_fn(move |_: Uri| {
        let kubelet = kubelet.clone();
        async move { UnixStream::connect(kubelet).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://kubelet").connect_with_connector_lazy(connector);
    let (vendor, _) = KIND.split_once('/').unwrap_or_default();
    api::registration_client::RegistrationClient::new(channel)
        .register(api::RegisterRequest {
            version: "v1beta1".to_owned(),
            endpoint: socket_of(name).display().to_string(),
            resource_name: format!("{vendor}/{name}"),
            options: None,
        })
        .await
        .context("registering with the kubelet")?;
    Ok(())
}

// === impl Plugin ===

impl Plugin {
    fn allocated(&self, ids: &[String]) -> api::ContainerAllocateResponse {
        let in_cdi = |id: &String| format!("{KIND}={id}");
        match self.answer {
            Answer::Cdi => api::ContainerAllocateResponse {
                cdi_devices: ids.iter().map(|id| api::CdiDevice { name: in_cdi(id) }).collect(),
                ..api::ContainerAllocateResponse::default()
            },
            Answer::Annotations => api::ContainerAllocateResponse {
                annotations: HashMap::from([(
                    "cdi.k8s.io/fake-gpu".to_owned(),
                    ids.iter().map(in_cdi).collect::<Vec<_>>().join(","),
                )]),
                ..api::ContainerAllocateResponse::default()
            },
            Answer::Edits => api::ContainerAllocateResponse {
                devices: ids
                    .iter()
                    .flat_map(|id| ["fake-card", "infiniband/uverbs"].map(|name| format!("/dev/{name}{id}")))
                    .map(|container_path| api::DeviceSpec {
                        container_path,
                        host_path: "/dev/zero".to_owned(),
                        permissions: "r".to_owned(),
                    })
                    .collect(),
                mounts: vec![api::Mount {
                    container_path: "/usr/lib/firmware/fake-card".to_owned(),
                    host_path: Path::new(DIRECTORY).join(FIRMWARE).display().to_string(),
                    read_only: true,
                }],
                envs: HashMap::from([("FAKE_CARD".to_owned(), ids.len().to_string())]),
                annotations: HashMap::from([("fake.example.com/note".to_owned(), "a card".to_owned())]),
                ..api::ContainerAllocateResponse::default()
            },
            Answer::Fuse => api::ContainerAllocateResponse {
                devices: vec![api::DeviceSpec {
                    container_path: "/dev/fuse".to_owned(),
                    host_path: "/dev/fuse".to_owned(),
                    permissions: "rw".to_owned(),
                }],
                ..api::ContainerAllocateResponse::default()
            },
        }
    }
}

#[tonic::async_trait]
impl api::device_plugin_server::DevicePlugin for Plugin {
    async fn get_device_plugin_options(
        &self,
        _: Request<api::Empty>,
    ) -> Result<Response<api::DevicePluginOptions>, Status> {
        Ok(Response::new(api::DevicePluginOptions::default()))
    }

    async fn list_and_watch(
        &self,
        _: Request<api::Empty>,
    ) -> Result<Response<BoxStream<api::ListAndWatchResponse>>, Status> {
        let devices = (0..self.devices).map(|number| api::Device {
            id: number.to_string(),
            health: "Healthy".to_owned(),
            topology: None,
        });
        let all = api::ListAndWatchResponse {
            devices: devices.collect(),
        };
        // The list does not change. The kubelet would take its end for the end of the plugin.
        let list = tokio_stream::once(Ok(all)).chain(tokio_stream::pending());
        Ok(Response::new(Box::pin(list)))
    }

    async fn allocate(
        &self,
        request: Request<api::AllocateRequest>,
    ) -> Result<Response<api::AllocateResponse>, Status> {
        let requests = request.into_inner().container_requests.into_iter();
        let container_responses = requests
            .map(|request| self.allocated(&request.devices_ids))
            .collect();
        Ok(Response::new(api::AllocateResponse { container_responses }))
    }
}
