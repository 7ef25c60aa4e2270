//! A fake runtime: a CRI server of this process on a real Unix socket, with or without containerd's
//! leases.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use csi_proto::containerd::leases::leases_server::{Leases, LeasesServer};
use csi_proto::containerd::leases::{
    AddResourceRequest, CreateRequest, CreateResponse, DeleteRequest, Lease, ListRequest,
    ListResourcesRequest, ListResourcesResponse, ListResponse, Resource,
};
use csi_proto::containerd::snapshots::snapshots_server::{Snapshots, SnapshotsServer};
use csi_proto::containerd::snapshots::{Info, StatSnapshotRequest, StatSnapshotResponse};
use csi_proto::cri::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use csi_proto::cri::{
    Container, ContainerMetadata, ContainerStatus, ContainerStatusRequest, ContainerStatusResponse,
    ImageSpec, LinuxPodSandboxStatus, ListContainersRequest, ListContainersResponse, ListPodSandboxRequest,
    ListPodSandboxResponse, Namespace as PodNamespaces, NamespaceOption, PodSandbox, PodSandboxStatus,
    PodSandboxStatusRequest, PodSandboxStatusResponse, UserNamespace,
};
use rootfs::{Namespace, Proc, Root};
use rustix::fs::OFlags;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::node::Host;

/// A node whose root is this directory.
pub(crate) fn host_at(directory: &Path) -> Arc<Host> {
    let proc = Proc::open().unwrap();
    let namespace = Namespace::new(proc.open_at("thread-self/ns/mnt", OFlags::RDONLY).unwrap());
    let root = Root::new(OwnedFd::from(File::open(directory).unwrap()));
    Arc::new(Host {
        proc,
        namespace,
        root,
    })
}

/// Whether the fake is a containerd or a CRI-O, which has no leases.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Containerd,
    Crio,
}

/// What a fake knows, and what it was asked.
#[derive(Default)]
pub(crate) struct Known {
    /// Verbose infos of containers, by id.
    pub(crate) containers: HashMap<String, String>,
    /// The running container and the runtime handler of pods, by UID.
    pub(crate) pods: HashMap<String, (String, String)>,
    /// The user namespaces of pods that have one, by UID.
    pub(crate) users: HashMap<String, UserNamespace>,
    /// Resources of leases, by the lease.
    pub(crate) leases: HashMap<String, Vec<Resource>>,
    /// How often a container was asked for.
    pub(crate) asked: usize,
}

/// Handle of a fake that serves. It ends with the handle, and its socket's file stays.
pub(crate) struct FakeRuntime {
    pub(crate) known: Arc<Mutex<Known>>,
    /// Its tasks, those of its connections included.
    tasks: Option<Runtime>,
}

#[derive(Clone)]
struct Service(Arc<Mutex<Known>>);

// === impl Known ===

impl Known {
    pub(crate) fn add(&mut self, id: &str, info: &str) {
        self.containers.insert(id.to_owned(), info.to_owned());
    }
}

// === impl FakeRuntime ===

impl FakeRuntime {
    /// Serves at `socket` of the node at `root`. A file that is there already is replaced.
    pub(crate) fn serve(root: &Path, socket: &str, kind: Kind, containers: &[&str]) -> Self {
        let mut tasks = tokio::runtime::Builder::new_multi_thread();
        let tasks = tasks.worker_threads(1).enable_all().build().unwrap();
        let listener = {
            let _entered = tasks.enter();
            UnixListener::from_std(listen(root, socket)).unwrap()
        };
        let info = r#"{"pid":7,"snapshotter":"overlayfs","snapshotKey":"top"}"#;
        let known = Known {
            containers: containers
                .iter()
                .map(|id| ((*id).to_owned(), info.to_owned()))
                .collect(),
            ..Known::default()
        };
        let known = Arc::new(Mutex::new(known));
        let service = Service(Arc::clone(&known));
        let mut server = Server::builder().add_service(RuntimeServiceServer::new(service.clone()));
        if kind == Kind::Containerd {
            server = server
                .add_service(LeasesServer::new(service.clone()))
                .add_service(SnapshotsServer::new(service));
        }
        let serving = server.serve_with_incoming(UnixListenerStream::new(listener));
        tasks.spawn(async move { serving.await.unwrap() });
        Self {
            known,
            tasks: Some(tasks),
        }
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.known.lock().unwrap());
    }

    pub(crate) fn asked(&self) -> usize {
        self.known.lock().unwrap().asked
    }
}

impl Drop for FakeRuntime {
    fn drop(&mut self) {
        self.tasks.take().unwrap().shutdown_background();
    }
}

/// A socket that listens, at a path of the node.
pub(crate) fn listen(root: &Path, socket: &str) -> std::os::unix::net::UnixListener {
    let path: PathBuf = root.join(socket.trim_start_matches('/'));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let _ = std::fs::remove_file(&path);
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

#[tonic::async_trait]
impl RuntimeService for Service {
    async fn list_containers(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Result<Response<ListContainersResponse>, Status> {
        let labels = request.into_inner().filter.unwrap_or_default().label_selector;
        let known = self.0.lock().unwrap();
        let uid = labels.get("io.kubernetes.pod.uid").cloned().unwrap_or_default();
        let container = known.pods.get(&uid).map(|(id, _)| Container {
            id: id.clone(),
            pod_sandbox_id: uid,
            ..Container::default()
        });
        Ok(Response::new(ListContainersResponse {
            containers: container.into_iter().collect(),
        }))
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<ListPodSandboxRequest>,
    ) -> Result<Response<ListPodSandboxResponse>, Status> {
        let labels = request.into_inner().filter.unwrap_or_default().label_selector;
        let mut known = self.0.lock().unwrap();
        known.asked += 1;
        let uid = labels.get("io.kubernetes.pod.uid").cloned().unwrap_or_default();
        let sandbox = known.pods.get(&uid).map(|_| PodSandbox {
            id: uid,
            ..PodSandbox::default()
        });
        Ok(Response::new(ListPodSandboxResponse {
            items: sandbox.into_iter().collect(),
        }))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<PodSandboxStatusRequest>,
    ) -> Result<Response<PodSandboxStatusResponse>, Status> {
        let known = self.0.lock().unwrap();
        let uid = request.into_inner().pod_sandbox_id;
        let pod = known.pods.get(&uid);
        let linux = known.users.get(&uid).map(|users| LinuxPodSandboxStatus {
            namespaces: Some(PodNamespaces {
                options: Some(NamespaceOption {
                    userns_options: Some(users.clone()),
                    ..NamespaceOption::default()
                }),
            }),
        });
        let (_, handler) = pod.ok_or_else(|| Status::not_found("no sandbox"))?;
        Ok(Response::new(PodSandboxStatusResponse {
            status: Some(PodSandboxStatus {
                runtime_handler: handler.clone(),
                linux,
                ..PodSandboxStatus::default()
            }),
            ..PodSandboxStatusResponse::default()
        }))
    }

    async fn container_status(
        &self,
        request: Request<ContainerStatusRequest>,
    ) -> Result<Response<ContainerStatusResponse>, Status> {
        let request = request.into_inner();
        let mut known = self.0.lock().unwrap();
        known.asked += 1;
        let info = known.containers.get(&request.container_id);
        let info = info.ok_or_else(|| Status::not_found("container not found"))?;
        Ok(Response::new(ContainerStatusResponse {
            status: Some(ContainerStatus {
                id: request.container_id,
                metadata: Some(ContainerMetadata {
                    name: "main".to_owned(),
                    attempt: 0,
                }),
                image: Some(ImageSpec {
                    image: "web:1".to_owned(),
                    ..ImageSpec::default()
                }),
                ..ContainerStatus::default()
            }),
            info: HashMap::from([("info".to_owned(), info.clone())]),
        }))
    }
}

#[tonic::async_trait]
impl Leases for Service {
    async fn create(&self, request: Request<CreateRequest>) -> Result<Response<CreateResponse>, Status> {
        self.0
            .lock()
            .unwrap()
            .leases
            .entry(request.into_inner().id)
            .or_default();
        Ok(Response::new(CreateResponse::default()))
    }

    async fn add_resource(&self, request: Request<AddResourceRequest>) -> Result<Response<()>, Status> {
        let AddResourceRequest { id, resource } = request.into_inner();
        let mut known = self.0.lock().unwrap();
        let lease = known
            .leases
            .get_mut(&id)
            .ok_or_else(|| Status::not_found("no lease"))?;
        lease.extend(resource);
        Ok(Response::new(()))
    }

    async fn list_resources(
        &self,
        request: Request<ListResourcesRequest>,
    ) -> Result<Response<ListResourcesResponse>, Status> {
        let resources = self
            .0
            .lock()
            .unwrap()
            .leases
            .get(&request.into_inner().id)
            .cloned();
        Ok(Response::new(ListResourcesResponse {
            resources: resources.unwrap_or_default(),
        }))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<()>, Status> {
        let removed = self.0.lock().unwrap().leases.remove(&request.into_inner().id);
        removed
            .map(|_| Response::new(()))
            .ok_or_else(|| Status::not_found("no lease"))
    }

    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let known = self.0.lock().unwrap();
        let lease = |id: &String| Lease {
            id: id.clone(),
            labels: HashMap::from([(
                "stoppablecontainer.xtlsoft.top/instance".to_owned(),
                id.replace("stoppablecontainer-", ""),
            )]),
        };
        Ok(Response::new(ListResponse {
            leases: known.leases.keys().map(lease).collect(),
        }))
    }
}

#[tonic::async_trait]
impl Snapshots for Service {
    async fn stat(
        &self,
        request: Request<StatSnapshotRequest>,
    ) -> Result<Response<StatSnapshotResponse>, Status> {
        Ok(Response::new(StatSnapshotResponse {
            info: Some(Info {
                name: request.into_inner().key,
                parent: "layer".to_owned(),
            }),
        }))
    }
}
