/*!
The user namespace that processes of a volume's pod are in.

A pod is in that of the node, or with `hostUsers: false` in one of its own, which the runtime makes
for all of its containers. A process of either pod may make others, in which it mounts what it likes
and gives mounts the names that it likes. So only the pod's own counts. The runtime says whether the
pod has one, and with which ids; a namespace that the runtime made is directly below the node's; one
that a process of such a pod makes is below the pod's.
*/

use std::sync::Arc;

use anyhow::Result;
use rootfs::process::ProcessError;
use rootfs::user_namespace::IdMaps;
use rootfs::{Process, UserNamespace};

use super::Volume;
use crate::node::{Cri, CriError, Host};

/// The user namespace of a process, as far as it is served.
#[derive(Clone, Debug)]
pub(crate) enum Users {
    /// The node's.
    Node,
    /// That of the pod.
    Pod(Arc<UserNamespace>),
}

// === impl Users ===

impl Users {
    /// What the mount engine takes.
    pub(crate) fn namespace(&self) -> Option<&UserNamespace> {
        match self {
            Self::Node => None,
            Self::Pod(namespace) => Some(namespace),
        }
    }

    /// The user namespace of a process of a pod that has these ids, if it has ids of its own.
    /// `None` if it is neither the node's nor the pod's.
    pub(crate) fn of(
        host: &Host,
        process: &Process,
        pod: Option<&IdMaps>,
    ) -> Result<Option<Self>, ProcessError> {
        if process.shares_user_namespace(&host.proc)? {
            return Ok(Some(Self::Node));
        }
        let Some(pod) = pod else { return Ok(None) };
        let namespace = process.user_namespace(&host.proc)?;
        let is_child = is_child_of_the_nodes(host, &namespace)?;
        let is_pods = is_child && sorted(process.id_maps(&host.proc)?) == sorted(pod.clone());
        Ok(is_pods.then(|| Self::Pod(Arc::new(namespace))))
    }
}

// === impl Volume ===

impl Volume {
    /// [`Users::of`] for a process of the volume's pod.
    pub(crate) async fn users_of(&self, cri: &Cri, host: &Host, process: &Process) -> Result<Option<Users>> {
        // Most processes are the node's, or are refused without a question to the runtime.
        if process.shares_user_namespace(&host.proc)? {
            return Ok(Some(Users::Node));
        }
        if !is_child_of_the_nodes(host, &process.user_namespace(&host.proc)?)? {
            return Ok(None);
        }
        Ok(Users::of(host, process, self.id_maps(cri).await?)?)
    }

    /// The ids of the pod, if it has ids of its own. The kubelet never changes those of a pod.
    pub(crate) async fn id_maps(&self, cri: &Cri) -> Result<Option<&IdMaps>, CriError> {
        let ask = || cri.id_maps(&self.record.pod.uid);
        Ok(self.id_maps.get_or_try_init(ask).await?.as_ref())
    }
}

fn is_child_of_the_nodes(host: &Host, namespace: &UserNamespace) -> Result<bool, ProcessError> {
    let own = host.proc.own_user_namespace()?;
    namespace
        .is_child_of(&own)
        .map_err(|errno| ProcessError::System("cannot examine its user namespace", errno))
}

/// Ranges do not overlap, and the kernel writes them in an order of its own.
fn sorted(mut maps: IdMaps) -> IdMaps {
    maps.users.sort_unstable_by_key(|range| range.inside);
    maps.groups.sort_unstable_by_key(|range| range.inside);
    maps
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::OwnedFd;
    use std::process::{Child, Command};

    use csi_proto::cri::{IdMapping, NamespaceMode, UserNamespace};
    use rustix::process::Pid;

    use super::*;
    use crate::instance::ObjectRef;
    use crate::node::fake::{FakeRuntime, Kind, host_at};
    use crate::volumes::{Role, VolumeRecord, Volumes};

    const SOCKET: &str = "/run/containerd/containerd.sock";

    /// A process in namespaces of its own, with the ids from 100000 on. Ends when it is dropped.
    struct Process(Child);

    impl Process {
        /// `program` starts what is in its arguments.
        fn start(program: &mut Command) -> Self {
            let child = program
                .args(["unshare", "--user"])
                .args(["sleep", "infinity"])
                .spawn();
            let process = Self(child.unwrap());
            let is_sleep =
                || std::fs::read_to_string(format!("/proc/{}/comm", process.0.id())).unwrap() == "sleep\n";
            while !is_sleep() {
                std::thread::yield_now();
            }
            process
        }

        fn with_ids() -> Self {
            let process = Self::start(&mut Command::new("env"));
            for map in ["uid_map", "gid_map"] {
                let path = format!("/proc/{}/{map}", process.0.id());
                std::fs::write(path, "0 100000 65536\n").unwrap();
            }
            process
        }

        /// In a namespace that a process of the other one made, with the same ids.
        fn below(other: &Self) -> Self {
            let enter = || {
                let mut enter = Command::new("nsenter");
                enter.arg(format!("--user=/proc/{}/ns/user", other.0.id()));
                enter.args(["--setuid=0", "--setgid=0"]);
                enter
            };
            let process = Self::start(&mut enter());
            let map = "echo 0 0 65536 > /proc/$0/uid_map && echo 0 0 65536 > /proc/$0/gid_map";
            let mapped = enter()
                .args(["sh", "-c", map])
                .arg(process.0.id().to_string())
                .status();
            assert!(mapped.unwrap().success());
            process
        }

        fn open(&self) -> rootfs::Process {
            rootfs::Process::open(Pid::from_child(&self.0)).unwrap()
        }
    }

    impl Drop for Process {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    fn ids(first: u32) -> UserNamespace {
        let map = IdMapping {
            container_id: 0,
            host_id: first,
            length: 65536,
        };
        UserNamespace {
            mode: NamespaceMode::Pod.into(),
            uids: vec![map],
            gids: vec![map],
        }
    }

    /// Each pod is asked about two processes: one in a user namespace with the ids from 100000 on,
    /// and one in a user namespace that a process of that one made.
    #[tokio::test]
    async fn i8_h20_only_the_user_namespace_that_the_runtime_made_for_the_pod_is_served() {
        let (own, node) = (Process::with_ids(), tempfile::tempdir().unwrap());
        let below = Process::below(&own);
        let runtime = FakeRuntime::serve(node.path(), SOCKET, Kind::Containerd, &[]);
        let host = host_at(node.path());
        let cri = Cri::new(&host, None);
        let volumes = Volumes::open(OwnedFd::from(File::open(node.path()).unwrap())).unwrap();
        let node_mode = UserNamespace {
            mode: NamespaceMode::Node.into(),
            ..ids(100_000)
        };
        for (pod, users, served) in [
            ("without", None, false),
            ("of-the-node", Some(node_mode), false),
            ("with-other-ids", Some(ids(200_000)), false),
            ("with", Some(ids(100_000)), true),
        ] {
            let object = |name: &str| ObjectRef {
                namespace: "ns".to_owned(),
                name: name.to_owned(),
                uid: name.to_owned(),
            };
            let volume = volumes.try_lock(pod).unwrap().publish(VolumeRecord {
                target: "/pods/p1/mount".into(),
                pod: object(pod),
                instance: object("web"),
                role: Role::Consumer,
                prefix: "/data".into(),
                container: Some("main".to_owned()),
                image_id: None,
            });
            runtime.change(|known| {
                known
                    .pods
                    .insert(pod.to_owned(), ("c1".to_owned(), String::new()));
                known.users.extend(users.map(|users| (pod.to_owned(), users)));
            });
            let users_of =
                async |process: &Process| volume.users_of(&cri, &host, &process.open()).await.unwrap();
            let (users, asked) = (users_of(&own).await, runtime.asked());
            assert_eq!(matches!(users, Some(Users::Pod(_))), served, "{pod}: {users:?}");
            assert_eq!(users.is_some(), served, "{pod}");
            assert!(users_of(&below).await.is_none(), "{pod}: below");
            assert!(users_of(&own).await.is_some() == served, "{pod}");
            assert_eq!(runtime.asked(), asked, "{pod}: the runtime is asked once");
        }
        let volume = volumes.get("without").unwrap();
        let ours = rootfs::Process::open(rustix::process::getpid()).unwrap();
        let users = volume.users_of(&cri, &host, &ours).await.unwrap();
        assert!(matches!(users, Some(Users::Node)));
    }
}
