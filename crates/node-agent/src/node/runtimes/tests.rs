//! With fake runtimes on real sockets, laid out as the distributions do it.

use std::os::unix::fs::symlink;
use std::time::Instant;

use super::fake::{FakeRuntime, Kind, host_at, listen};
use super::*;
use crate::node::{Cri, image_lease};

const CONTAINERD: &str = "/run/containerd/containerd.sock";
const CRIO: &str = "/run/crio/crio.sock";
const K3S: &str = "/run/k3s/containerd/containerd.sock";

/// Long for a fake that answers, short for a test.
const SHORT: Duration = Duration::from_secs(2);

fn cri_at(root: &Path, timeout: Duration) -> Cri {
    let sockets = SOCKETS.iter().map(PathBuf::from).collect();
    Cri::of(Runtimes::with_timeout(&host_at(root), sockets, timeout))
}

async fn refusal(cri: &Cri, container: &str) -> String {
    cri.container(container).await.unwrap_err().to_string()
}

#[tokio::test]
async fn the_socket_of_each_distribution_is_found() {
    for (distribution, socket, kind) in [
        ("kubeadm with containerd", CONTAINERD, Kind::Containerd),
        ("CRI-O", CRIO, Kind::Crio),
        ("k3s and RKE2", K3S, Kind::Containerd),
        (
            "MicroK8s",
            "/var/snap/microk8s/common/run/containerd.sock",
            Kind::Containerd,
        ),
        ("k0s", "/run/k0s/containerd.sock", Kind::Containerd),
        ("Docker Engine", "/run/cri-dockerd.sock", Kind::Crio),
    ] {
        let node = tempfile::tempdir().unwrap();
        let _runtime = FakeRuntime::serve(node.path(), socket, kind, &["c1"]);
        let container = Cri::new(&host_at(node.path()), None).container("c1").await;
        let container = container.unwrap_or_else(|error| panic!("{distribution}: {error}"));
        assert_eq!(
            (container.name.as_str(), container.first),
            ("main", Some(7)),
            "{distribution}"
        );
    }
}

#[tokio::test]
async fn crio_is_found_where_var_run_is_a_directory_or_a_link() {
    let directory = tempfile::tempdir().unwrap();
    let _runtime = FakeRuntime::serve(directory.path(), "/var/run/crio/crio.sock", Kind::Crio, &["c1"]);
    cri_at(directory.path(), SHORT).container("c1").await.unwrap();

    let link = tempfile::tempdir().unwrap();
    let _runtime = FakeRuntime::serve(link.path(), CRIO, Kind::Crio, &["c1"]);
    std::fs::create_dir(link.path().join("var")).unwrap();
    // The node's links are followed on the node, not in the agent's container.
    symlink("/run", link.path().join("var/run")).unwrap();
    cri_at(link.path(), SHORT).container("c1").await.unwrap();
}

/// Docker's containerd next to k3s: it answers first, and does not know the container.
#[tokio::test]
async fn the_runtime_that_knows_the_container_is_chosen_and_remembered() {
    let node = tempfile::tempdir().unwrap();
    let docker = FakeRuntime::serve(node.path(), CONTAINERD, Kind::Containerd, &["other"]);
    let k3s = FakeRuntime::serve(node.path(), K3S, Kind::Containerd, &["c1", "c2"]);
    let cri = cri_at(node.path(), SHORT);
    for id in ["c1", "c2", "c1", "c2"] {
        cri.container(id).await.unwrap();
    }
    assert_eq!(k3s.asked(), 4);
    assert!(docker.asked() <= 1, "the choice is remembered");

    k3s.change(|known| known.containers.clear());
    docker.change(|known| known.add("c3", r#"{"pid":8}"#));
    let before = k3s.asked();
    for id in ["c3", "other", "c3", "other"] {
        cri.container(id).await.unwrap();
    }
    // As the chosen one, and then as one of all.
    assert!(k3s.asked() <= before + 2, "the choice is forgotten");
}

#[tokio::test]
async fn a_stale_socket_is_passed_over_and_named() {
    let node = tempfile::tempdir().unwrap();
    drop(listen(node.path(), CONTAINERD));
    let crio = FakeRuntime::serve(node.path(), CRIO, Kind::Crio, &["c1"]);
    let cri = cri_at(node.path(), SHORT);
    cri.container("c1").await.unwrap();
    drop(crio);
    let refusal = refusal(&cri, "c1").await;
    assert!(
        refusal.contains("/run/containerd/containerd.sock: ") && refusal.contains("refused"),
        "{refusal}"
    );
}

/// A runtime that hangs delays neither the others nor the refusal.
#[tokio::test]
async fn a_socket_that_never_answers_is_bounded() {
    let node = tempfile::tempdir().unwrap();
    let _silent = listen(node.path(), CONTAINERD);
    let k3s = FakeRuntime::serve(node.path(), K3S, Kind::Containerd, &["c1"]);
    let begun = Instant::now();
    let patient = cri_at(node.path(), Duration::from_mins(1));
    patient.container("c1").await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "the silent one was waited for"
    );

    drop(k3s);
    let cri = cri_at(node.path(), Duration::from_millis(300));
    let refusal = refusal(&cri, "c1").await;
    assert!(
        refusal.contains("/run/containerd/containerd.sock: no answer within 0.3 s"),
        "{refusal}"
    );
    assert!(begun.elapsed() < Duration::from_secs(45));
}

#[tokio::test]
async fn a_runtime_that_restarts_is_found_again() {
    let node = tempfile::tempdir().unwrap();
    let before = FakeRuntime::serve(node.path(), CRIO, Kind::Crio, &["c1"]);
    let cri = cri_at(node.path(), SHORT);
    cri.container("c1").await.unwrap();
    drop(before);
    std::fs::remove_file(node.path().join(CRIO.trim_start_matches('/'))).unwrap();
    assert!(refusal(&cri, "c1").await.contains("no socket at "));
    let _after = FakeRuntime::serve(node.path(), CRIO, Kind::Crio, &["c1"]);
    cri.container("c1").await.unwrap();
}

#[tokio::test]
async fn an_explicit_socket_is_the_only_one() {
    let node = tempfile::tempdir().unwrap();
    let _usual = FakeRuntime::serve(node.path(), CONTAINERD, Kind::Containerd, &["c1"]);
    let own = FakeRuntime::serve(node.path(), "/opt/cri/own.sock", Kind::Crio, &[]);
    let cri = Cri::new(&host_at(node.path()), Some("/opt/cri/own.sock".into()));
    let refused = refusal(&cri, "c1").await;
    assert!(
        refused.contains("(/opt/cri/own.sock: does not know it)"),
        "{refused}"
    );
    own.change(|known| known.add("c1", r#"{"pid":9}"#));
    assert_eq!(cri.container("c1").await.unwrap().first, Some(9));
}

#[tokio::test]
async fn a_refusal_names_every_socket_with_its_answer() {
    let node = tempfile::tempdir().unwrap();
    let _crio = FakeRuntime::serve(node.path(), CRIO, Kind::Crio, &[]);
    let refused = refusal(&cri_at(node.path(), SHORT), "c1").await;
    assert!(
        refused.contains("container c1 (/run/crio/crio.sock: does not know it; no socket at "),
        "{refused}"
    );
    for socket in SOCKETS {
        assert!(refused.contains(socket), "{socket}: {refused}");
    }
    assert!(refused.contains("--cri-socket"), "{refused}");
}

/// Leases are made at the containerd that has the container, and released wherever they are.
#[tokio::test]
async fn i20_layers_are_kept_by_the_runtime_that_has_the_container() {
    let node = tempfile::tempdir().unwrap();
    let docker = FakeRuntime::serve(node.path(), CONTAINERD, Kind::Containerd, &[]);
    let k3s = FakeRuntime::serve(node.path(), K3S, Kind::Containerd, &["c1"]);
    let _crio = FakeRuntime::serve(node.path(), CRIO, Kind::Crio, &[]);
    drop(listen(node.path(), "/run/cri-dockerd.sock"));
    let cri = cri_at(node.path(), SHORT);
    image_lease::pin(&cri, "u1", "c1", false).await.unwrap();
    let leases = |runtime: &FakeRuntime| runtime.known.lock().unwrap().leases.len();
    assert_eq!((leases(&docker), leases(&k3s)), (0, 1));
    // An agent that has seen no container yet.
    let cri = cri_at(node.path(), SHORT);
    assert_eq!(image_lease::pinned(&cri).await.unwrap(), ["u1"]);
    image_lease::unpin(&cri, "u1").await.unwrap();
    assert_eq!(leases(&k3s), 0);
    image_lease::unpin(&cri, "u1").await.unwrap();
}

#[tokio::test]
async fn i20_a_runtime_without_leases_is_not_an_error() {
    let node = tempfile::tempdir().unwrap();
    let _crio = FakeRuntime::serve(node.path(), CRIO, Kind::Crio, &["c1"]);
    let cri = cri_at(node.path(), SHORT);
    image_lease::pin(&cri, "u1", "c1", false).await.unwrap();
    assert_eq!(image_lease::pinned(&cri).await.unwrap(), [""; 0]);
    image_lease::unpin(&cri, "u1").await.unwrap();
    // With no runtime at all, what is kept is not known.
    let empty = tempfile::tempdir().unwrap();
    assert!(
        image_lease::unpin(&cri_at(empty.path(), SHORT), "u1")
            .await
            .is_err()
    );
}
