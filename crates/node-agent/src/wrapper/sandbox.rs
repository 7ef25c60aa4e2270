/*!
Containers in a sandbox that the agent cannot enter (gVisor, Kata Containers).

There the wrapper runs on another kernel, so its connection never arrives (the agent leaves a line
for the container's log in the volume), and the process that the
runtime reports for the container is the sandbox's: its mounts are not the container's. The agent
looks at that process of every container that runs and has not connected.
*/

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use exec_wrapper::protocol::VOLUME_MOUNT_PATH;
use rootfs::{Process, attach};
use rustix::process::Pid;
use stoppablecontainer_api::StoppableContainerInstance;
use stoppablecontainer_api::conditions::reason;

use crate::backoff::Backoff;
use crate::filesystem::{Failure, Filesystems, Reporter, blocked};
use crate::node::{Cri, Host};
use crate::volumes::{Role, Volume};

/// First and longest pause between two looks.
const PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(10));

/// A container that runs in a sandbox.
#[derive(Debug, PartialEq, Eq)]
struct Sandboxed {
    container_id: String,
    /// Name of the runtime's handler. Empty for its default.
    handler: String,
    pid: i32,
}

/// What a look found.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// The container does not run.
    Nothing,
    /// The agent can enter it.
    Container,
    Sandboxed(Sandboxed),
}

/// Looks at the container of a volume until it has connected or can be entered. Reports a container
/// that cannot.
pub(super) async fn watch(filesystems: &Filesystems, volume: &Volume) {
    watch_with(filesystems, volume, PAUSES).await;
}

async fn watch_with(filesystems: &Filesystems, volume: &Volume, pauses: (Duration, Duration)) {
    // Records of earlier versions do not name it, and their containers have started.
    let Some(container) = &volume.record.container else {
        return;
    };
    let (pod, node) = (&volume.record.pod, &filesystems.node);
    let mut backoff = Backoff::new(pauses.0, pauses.1);
    let mut pause = backoff.next();
    let mut suspected = None;
    loop {
        tokio::time::sleep(pause).await;
        pause = backoff.next();
        if volume.is_identified() {
            return;
        }
        let key = &volume.record.instance.uid;
        match look(&node.cri, &node.host, key, &pod.uid, container).await {
            Ok(Seen::Nothing) => suspected = None,
            Ok(Seen::Container) => return,
            // A process may have ended and its number be another's: what counts is seen twice.
            Ok(Seen::Sandboxed(found)) if suspected.as_ref() != Some(&found) => {
                suspected = Some(found);
                pause = pauses.0;
            }
            Ok(Seen::Sandboxed(found)) => match report(filesystems, volume, container, &found).await {
                Ok(()) => return,
                Err(error) => tracing::warn!(%pod, "cannot report the sandbox of a container: {error:#}"),
            },
            Err(error) => tracing::debug!(%pod, "cannot look at the container: {error:#}"),
        }
    }
}

async fn look(cri: &Cri, host: &Arc<Host>, key: &str, pod_uid: &str, container: &str) -> Result<Seen> {
    let Some(running) = cri.running(pod_uid, container).await? else {
        return Ok(Seen::Nothing);
    };
    let Some(pid) = cri.container(&running.container_id).await?.first else {
        return Ok(Seen::Nothing);
    };
    let (host, key) = (Arc::clone(host), key.to_owned());
    let entered = move || {
        let process = Process::open(Pid::from_raw(pid).context("no process")?)?;
        let has_volume = || {
            let table = process.mounts(&host.proc)?;
            let mut mounts = table.mounts().iter();
            anyhow::Ok(mounts.any(|mount| mount.mountpoint.as_os_str() == VOLUME_MOUNT_PATH))
        };
        anyhow::Ok(has_volume()? || attach::is_attached(&host.proc, &process, None, &key)?)
    };
    let entered = tokio::task::spawn_blocking(entered).await??;
    Ok(if entered {
        Seen::Container
    } else {
        Seen::Sandboxed(Sandboxed {
            container_id: running.container_id,
            handler: running.handler,
            pid,
        })
    })
}

async fn report(
    filesystems: &Filesystems,
    volume: &Volume,
    container: &str,
    found: &Sandboxed,
) -> Result<()> {
    let record = &volume.record;
    let instance = filesystems.instances.wait_until_known(&record.instance.uid).await;
    let object = instance.state().object;
    let class = object.as_deref().and_then(runtime_class);
    let message = message(class.as_deref(), container, found);
    tracing::warn!(pod = %record.pod, instance = %instance.id, "{message}");
    let guard = filesystems.volumes.try_lock(&volume.id);
    let noticed = guard
        .context("the volume is busy")
        .and_then(|guard| guard.write_notice(&message));
    if let Err(error) = noticed {
        tracing::warn!(pod = %record.pod, "cannot leave a line for the container's log: {error:#}");
    }
    match record.role {
        Role::Provider => {
            let failure = Failure::new(reason::RUNTIME_CLASS_UNSUPPORTED, message);
            Reporter::new(filesystems, &instance, &record.pod.uid)
                .failed(&failure)
                .await
        }
        Role::Consumer => {
            blocked::set(&instance, &record.pod.uid, &message);
            Ok(())
        }
    }
}

fn runtime_class(object: &StoppableContainerInstance) -> Option<String> {
    object.spec.template.decode().ok()?.spec?.runtime_class_name
}

fn message(class: Option<&str>, container: &str, found: &Sandboxed) -> String {
    let handler = match found.handler.as_str() {
        "" => "the default handler".to_owned(),
        handler => format!("handler {handler}"),
    };
    let runs = match class {
        Some(class) => format!("the runtime class {class} ({handler})"),
        None => format!("the node's default runtime ({handler})"),
    };
    format!(
        "{runs} runs container {container} in a sandbox that the node agent cannot enter: the volume is not mounted \
         in process {} of the node, which the container runtime reports for the container; set \
         spec.template.spec.runtimeClassName to a RuntimeClass of runc, crun or youki",
        found.pid
    )
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::OwnedFd;

    use serde_json::json;
    use testkit::scripted::Scripted;

    use super::*;
    use crate::counters::Counters;
    use crate::instance::ObjectRef;
    use crate::node::fake::{FakeRuntime, Kind, host_at};
    use crate::node::{Disks, Minimum, Node};
    use crate::volumes::{VolumeRecord, Volumes};

    const SOCKET: &str = "/run/containerd/containerd.sock";

    async fn seen(pid: i32, running: bool) -> Seen {
        let node = tempfile::tempdir().unwrap();
        let runtime = FakeRuntime::serve(node.path(), SOCKET, Kind::Containerd, &[]);
        runtime.change(|known| {
            known.add("c1", &format!(r#"{{"pid":{pid}}}"#));
            if running {
                known
                    .pods
                    .insert("p1".to_owned(), ("c1".to_owned(), "runsc".to_owned()));
            }
        });
        let host = host_at(node.path());
        look(&Cri::new(&host, None), &host, "u1", "p1", "main")
            .await
            .unwrap()
    }

    /// As gVisor and Kata report it: a process that does not have the container's mounts.
    #[tokio::test]
    async fn a_process_without_the_volume_is_a_sandbox() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let sandboxed = Sandboxed {
            container_id: "c1".to_owned(),
            handler: "runsc".to_owned(),
            pid,
        };
        let message = message(Some("gvisor"), "main", &sandboxed);
        for part in ["runtime class gvisor", "handler runsc", "runc, crun or youki"] {
            assert!(message.contains(part), "{message}");
        }
        assert_eq!(seen(pid, true).await, Seen::Sandboxed(sandboxed));
        assert_eq!(seen(pid, false).await, Seen::Nothing);
    }

    /// With real mounts, in a mount namespace of its own. Needs root.
    #[tokio::test]
    async fn a_process_with_the_volume_is_the_containers() {
        let root = tempfile::tempdir().unwrap();
        let script = r#"mount -t tmpfs none "$0" && cd "$0" && mkdir usr bin lib lib64 .stoppablecontainer
            for name in usr bin lib lib64; do [ ! -e /$name ] || mount --bind /$name $name; done
            mount -t tmpfs none .stoppablecontainer && exec chroot . sleep 60"#;
        let mut child = std::process::Command::new("unshare")
            .args(["--mount", "sh", "-c", script])
            .arg(root.path())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let mut looked = Seen::Nothing;
        for _ in 0..100 {
            looked = seen(pid, true).await;
            if looked == Seen::Container {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(looked, Seen::Container);
    }

    #[tokio::test]
    async fn a_process_that_ended_is_no_finding() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        child.wait().unwrap();
        let node = tempfile::tempdir().unwrap();
        let runtime = FakeRuntime::serve(node.path(), SOCKET, Kind::Containerd, &[]);
        runtime.change(|known| {
            known.add("c1", &format!(r#"{{"pid":{pid}}}"#));
            known
                .pods
                .insert("p1".to_owned(), ("c1".to_owned(), String::new()));
        });
        let host = host_at(node.path());
        let looked = look(&Cri::new(&host, None), &host, "u1", "p1", "main").await;
        assert!(looked.is_err(), "{looked:?}");
    }

    /// The agent of a node with one pod, in a sandbox of gVisor, and the pod's volume.
    fn in_gvisor(node: &std::path::Path, client: kube::Client, role: Role) -> (Filesystems, Arc<Volume>) {
        let host = host_at(node);
        let amount = || "0".parse().unwrap();
        let volumes = Volumes::open(OwnedFd::from(File::open(node).unwrap())).unwrap();
        let object = |name: &str, uid: &str| ObjectRef {
            namespace: "ns".to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
        };
        let record = VolumeRecord {
            target: "/pods/p1/mount".into(),
            pod: object("web-pod", "p1"),
            instance: object("web", "u1"),
            role,
            prefix: "/data".into(),
            container: Some("main".to_owned()),
            image_id: None,
        };
        std::fs::create_dir_all(node.join("volumes/v1/mount")).unwrap();
        let volume = volumes.try_lock("v1").unwrap().publish(record);
        let node = Node {
            name: "n1".to_owned(),
            cri: Cri::new(&host, None),
            disks: Disks::new(&[]),
            minimum_free: Minimum {
                bytes: amount(),
                inodes: amount(),
            },
            host,
        };
        let filesystems = Filesystems::new(
            node,
            client,
            volumes,
            Counters::new(&::metrics::Metrics::new("0")),
        );
        let instance = json!({
            "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainerInstance",
            "metadata": { "name": "web", "namespace": "ns", "uid": "u1" },
            "spec": { "stoppableContainerName": "web", "template": { "spec": {
                "runtimeClassName": "gvisor", "containers": [{ "name": "main", "image": "web:1" }],
            } } },
        });
        filesystems
            .instances
            .apply(serde_json::from_value(instance).unwrap())
            .unwrap();
        (filesystems, volume)
    }

    fn runtime(node: &std::path::Path) -> FakeRuntime {
        let runtime = FakeRuntime::serve(node, SOCKET, Kind::Containerd, &[]);
        runtime.change(|known| {
            known.add("c1", &format!(r#"{{"pid":{}}}"#, std::process::id()));
            known
                .pods
                .insert("p1".to_owned(), ("c1".to_owned(), "runsc".to_owned()));
        });
        runtime
    }

    const SHORT: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(50));

    #[tokio::test]
    async fn i12_the_status_names_the_runtime_class_of_a_sandboxed_provider() {
        let node = tempfile::tempdir().unwrap();
        let _runtime = runtime(node.path());
        let (client, mut api) = Scripted::new();
        let (filesystems, volume) = in_gvisor(node.path(), client, Role::Provider);
        let path = "/apis/stoppablecontainer.xtlsoft.top/v1alpha1/namespaces/ns/stoppablecontainerinstances/web/status";
        tokio::join!(watch_with(&filesystems, &volume, SHORT), async {
            let call = api.expect("PATCH", path).await;
            let status = &call.body["status"]["filesystem"];
            assert_eq!(status["state"], "Failed");
            assert_eq!(status["reason"], "RuntimeClassUnsupported");
            let message = status["message"].as_str().unwrap();
            assert!(
                message.starts_with("the runtime class gvisor (handler runsc) runs container main"),
                "{message}"
            );
            let notice = std::fs::read_to_string(node.path().join("volumes/v1/mount/notice")).unwrap();
            assert_eq!(notice, format!("{message}\n"));
            let object = filesystems.instances.find("u1").unwrap().state().object;
            call.answer(&serde_json::to_value(object.as_deref()).unwrap());
        });
    }

    #[tokio::test]
    async fn i12_a_sandboxed_consumer_is_blocked_and_one_that_connected_is_not() {
        let node = tempfile::tempdir().unwrap();
        let _runtime = runtime(node.path());
        let (client, _api) = Scripted::new();
        let (filesystems, volume) = in_gvisor(node.path(), client, Role::Consumer);
        let instance = filesystems.instances.find("u1").unwrap();
        volume.set_identified();
        watch_with(&filesystems, &volume, SHORT).await;
        assert_eq!(instance.state().blocked, None);

        let volumes = &filesystems.volumes;
        let volume = volumes.try_lock("v1").unwrap().publish(volume.record.clone());
        watch_with(&filesystems, &volume, SHORT).await;
        let blocked = instance.state().blocked.unwrap();
        assert_eq!(blocked.consumer.pod_uid, "p1");
        assert!(
            blocked.consumer.message.contains("handler runsc"),
            "{}",
            blocked.consumer.message
        );
    }
}
