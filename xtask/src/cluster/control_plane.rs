/*!
The control plane: etcd, API server, controller manager, scheduler, and kube-proxy, which serves all
nodes that share the machine's network namespace.
*/

use std::net::Ipv4Addr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::cgroups::CONTROL_PLANE;
use super::dir::ClusterDir;
use super::network::{API_ADDRESS, API_PORT, SERVICE_NETWORK};
use super::pki::{CLUSTER, ETCD, FRONT_PROXY, Pki};
use super::process::Daemon;
use super::{node, node_config};
use crate::progress::Step;
use crate::tools::Tools;

/// In the order of their start; the reverse is the order of their stop.
pub(super) const PROCESSES: &[&str] = &[
    "etcd",
    API_SERVER,
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
];
/// The part that the others need.
pub(crate) const API_SERVER: &str = "kube-apiserver";
/// How long a part may take until it answers. A cold disk makes etcd and the first API server slow.
const PATIENCE: Duration = Duration::from_mins(2);

/// Where the parts of a control plane listen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    /// The address that the API server publishes.
    pub address: Ipv4Addr,
    /// Of the API server.
    pub api: u16,
    /// Of etcd, for the API server.
    pub etcd: u16,
    /// Of etcd, for its peers.
    pub etcd_peer: u16,
    /// Of the controller manager.
    pub controller_manager: u16,
    /// Of the scheduler.
    pub scheduler: u16,
}

/// Those of the local cluster.
const PORTS: Ports = Ports {
    address: API_ADDRESS,
    api: API_PORT,
    etcd: 2379,
    etcd_peer: 2380,
    controller_manager: 10257,
    scheduler: 10259,
};

/// The parts that every control plane has, in the order of their start.
pub(crate) fn commands(dir: &ClusterDir, tools: &Tools, ports: Ports) -> [(&'static str, Command); 4] {
    let pki = Pki::new(dir);
    [
        ("etcd", etcd(dir, tools, &pki, ports)),
        (API_SERVER, api_server(tools, &pki, ports)),
        (
            "kube-controller-manager",
            controller_manager(dir, tools, &pki, ports),
        ),
        ("kube-scheduler", scheduler(dir, tools, ports)),
    ]
}

/// Starts the parts that do not run and waits until the API server is ready.
pub(super) fn start(dir: &ClusterDir, tools: &Tools, step: &Step<'_>) -> Result<()> {
    let proxy = ("kube-proxy", proxy(dir, tools));
    let commands = commands(dir, tools, PORTS).into_iter().chain([proxy]);
    for (index, (name, command)) in commands.enumerate() {
        step.note(format!("starting {name}"));
        Daemon::new(dir, name).start(&command, CONTROL_PLANE, &tools.path())?;
        // The others end at once when the API server does not know their rights yet.
        if name == API_SERVER {
            step.note("waiting for the API server");
            wait_until_ready(dir, tools, &PROCESSES[..=index])?;
        }
    }
    Ok(())
}

/// Whether the API server says that it is ready.
pub(crate) fn is_ready(dir: &ClusterDir, tools: &Tools) -> bool {
    let mut command = tools.kube("kubectl");
    command.arg("--kubeconfig").arg(dir.admin_kubeconfig());
    command.args(["get", "--raw", "/readyz", "--request-timeout=5s"]);
    crate::shell::output(&mut command).is_ok()
}

fn wait_until_ready(dir: &ClusterDir, tools: &Tools, started: &[&str]) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_ready(dir, tools) {
        for name in started {
            Daemon::new(dir, name).require_alive()?;
        }
        if Instant::now() > deadline {
            let log = dir.log("kube-apiserver");
            bail!(
                "the API server is not ready after {} s; see {}",
                PATIENCE.as_secs(),
                log.display()
            );
        }
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

fn etcd(dir: &ClusterDir, tools: &Tools, pki: &Pki<'_>, ports: Ports) -> Command {
    let Ports { etcd, etcd_peer, .. } = ports;
    let mut command = Command::new(tools.unpacked("usr/bin/etcd"));
    command.arg(format!("--data-dir={}", dir.join("etcd").display()));
    command.args([
        "--name=cluster",
        &format!("--listen-client-urls=https://127.0.0.1:{etcd}"),
        &format!("--advertise-client-urls=https://127.0.0.1:{etcd}"),
        &format!("--listen-peer-urls=https://127.0.0.1:{etcd_peer}"),
        &format!("--initial-advertise-peer-urls=https://127.0.0.1:{etcd_peer}"),
        &format!("--initial-cluster=cluster=https://127.0.0.1:{etcd_peer}"),
        "--client-cert-auth",
        "--peer-client-cert-auth",
        "--auto-compaction-retention=8",
        "--log-level=warn",
    ]);
    for prefix in ["", "peer-"] {
        command.arg(format!("--{prefix}cert-file={}", pki.cert("etcd")));
        command.arg(format!("--{prefix}key-file={}", pki.key("etcd")));
        command.arg(format!("--{prefix}trusted-ca-file={}", pki.cert(ETCD)));
    }
    command
}

fn api_server(tools: &Tools, pki: &Pki<'_>, ports: Ports) -> Command {
    let Ports {
        address, api, etcd, ..
    } = ports;
    let mut command = tools.kube("kube-apiserver");
    command.args([
        &format!("--advertise-address={address}"),
        &format!("--secure-port={api}"),
        &format!("--service-cluster-ip-range={SERVICE_NETWORK}"),
        "--allow-privileged=true",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        // Webhooks are reached by their pods' addresses: the API server needs no kube-proxy.
        "--enable-aggregator-routing=true",
        "--kubelet-preferred-address-types=InternalIP",
        &format!("--etcd-servers=https://127.0.0.1:{etcd}"),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
    ]);
    let files = [
        ("client-ca-file", pki.cert(CLUSTER)),
        ("tls-cert-file", pki.cert("apiserver")),
        ("tls-private-key-file", pki.key("apiserver")),
        ("etcd-cafile", pki.cert(ETCD)),
        ("etcd-certfile", pki.cert("apiserver-etcd")),
        ("etcd-keyfile", pki.key("apiserver-etcd")),
        ("kubelet-certificate-authority", pki.cert(CLUSTER)),
        ("kubelet-client-certificate", pki.cert("apiserver-kubelet")),
        ("kubelet-client-key", pki.key("apiserver-kubelet")),
        ("service-account-signing-key-file", pki.key("service-account")),
        (
            "service-account-key-file",
            pki.key("service-account").replace(".key", ".pub"),
        ),
        ("requestheader-client-ca-file", pki.cert(FRONT_PROXY)),
        ("proxy-client-cert-file", pki.cert("front-proxy-client")),
        ("proxy-client-key-file", pki.key("front-proxy-client")),
    ];
    for (flag, file) in files {
        command.arg(format!("--{flag}={file}"));
    }
    command
}

fn controller_manager(dir: &ClusterDir, tools: &Tools, pki: &Pki<'_>, ports: Ports) -> Command {
    let mut command = tools.kube("kube-controller-manager");
    authenticate(&mut command, dir, "kube-controller-manager");
    command.arg(format!("--secure-port={}", ports.controller_manager));
    command.args([
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        "--use-service-account-credentials=true",
    ]);
    let files = [
        ("root-ca-file", pki.cert(CLUSTER)),
        ("service-account-private-key-file", pki.key("service-account")),
        ("cluster-signing-cert-file", pki.cert(CLUSTER)),
        ("cluster-signing-key-file", pki.key(CLUSTER)),
    ];
    for (flag, file) in files {
        command.arg(format!("--{flag}={file}"));
    }
    command
}

fn scheduler(dir: &ClusterDir, tools: &Tools, ports: Ports) -> Command {
    let mut command = tools.kube("kube-scheduler");
    authenticate(&mut command, dir, "kube-scheduler");
    command.arg(format!("--secure-port={}", ports.scheduler));
    command.args(["--bind-address=127.0.0.1", "--leader-elect=false"]);
    command
}

fn proxy(dir: &ClusterDir, tools: &Tools) -> Command {
    let mut command = tools.kube("kube-proxy");
    let kubeconfig = dir.join("kubeconfig/kube-proxy.conf");
    command.args(node_config::proxy_arguments(&kubeconfig, node::FIRST));
    command
}

fn authenticate(command: &mut Command, dir: &ClusterDir, part: &str) {
    let file = dir.join("kubeconfig").join(format!("{part}.conf"));
    for flag in [
        "kubeconfig",
        "authentication-kubeconfig",
        "authorization-kubeconfig",
    ] {
        command.arg(format!("--{flag}={}", file.display()));
    }
}
