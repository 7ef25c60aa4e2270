/*!
The second disk of a virtual machine: the part of the cluster's directory that belongs to the node,
with the programs of Kubernetes. It is mounted where that directory is outside, so that paths in
configuration files are the same.
*/

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use rustix::fs::{XattrFlags, lsetxattr};

use super::super::dir::ClusterDir;
use super::super::network::API_ADDRESS;
use super::super::node::{Kind, Node};
use super::super::node_config::{self, LEGACY_GPU};
use super::super::pki::{CLUSTER, PROXY, Pki};
use crate::progress::describe;
use crate::shell;
use crate::tools::{Lsm, Tools};

/// Where it is mounted.
pub(super) const PLACE: &str = "/var/lib/stoppablecontainer-cluster";
/// Its size.
const MEBIBYTES: u32 = 512;
/// Programs of containerd that are built here, for releases that do not use Debian's.
const CONTAINERD: &[&str] = &["containerd", "containerd-shim-runc-v2", "ctr"];
const KUBE: &str = "bin/kube";
/// The labels of programs in Debian's policy for SELinux, where they are in `/usr/bin`. The kubelet
/// is the one of Kubernetes' programs that starts others.
const LABELS: &[(&str, &str)] = &[
    ("containerd", "dockerd_exec_t"),
    ("containerd-shim-runc-v2", "dockerd_exec_t"),
    ("ctr", "bin_t"),
    ("kube", "kubelet_exec_t"),
];
/// Those of other files, by a part of their paths, and the one of all that are left.
const CONFIGURATION: &[(&str, &str)] = &[
    ("cni", "container_config_t"),
    ("certs.d", "container_config_t"),
    ("containerd.toml", "container_config_t"),
    (LEGACY_GPU, "container_config_t"),
];
const LABEL: &str = "kubernetes_config_t";

/// Makes it, and returns its image.
pub(super) fn make(node: &Node, dir: &ClusterDir, tools: &Tools) -> Result<PathBuf> {
    let (content, image) = (node.dir(dir).join("seed"), node.dir(dir).join("seed.image"));
    clear(&content)?;
    copy_configuration(node, dir, tools, &content)?;
    place(&tools.kube_program(), &content.join(KUBE))?;
    if tools.release().containerd().is_some() {
        for program in CONTAINERD {
            place(&tools.containerd(program), &content.join("bin").join(program))?;
        }
    }
    let scripts = content.join("nodes").join(&node.name);
    for (name, text) in scripts_of(node, dir, tools) {
        let path = scripts.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    if node.kind == Kind::Machine(Lsm::SeLinux) {
        label(&content)?;
    }
    let _ = fs::remove_file(&image);
    let mut command = Command::new("mkfs.ext4");
    command.args(["-q", "-F", "-m", "0", "-O", "^has_journal", "-d"]);
    shell::output(command.arg(&content).arg(&image).arg(format!("{MEBIBYTES}M")))?;
    clear(&content)?;
    Ok(image)
}

/// The files that the node's configuration names, and no others of the cluster.
fn copy_configuration(node: &Node, dir: &ClusterDir, tools: &Tools, content: &Path) -> Result<()> {
    let (pki, name) = (Pki::new(dir), &node.name);
    let serving = format!("{name}-serving");
    let mut files = vec![
        PathBuf::from(pki.cert(CLUSTER)),
        PathBuf::from(pki.cert(&serving)),
        PathBuf::from(pki.key(&serving)),
        dir.join(format!("kubeconfig/{name}.conf")),
        dir.join(format!("kubeconfig/{name}-{PROXY}.conf")),
    ];
    let own = [
        "containerd.toml",
        "certs.d/_default/hosts.toml",
        "cni/10-bridge.conflist",
    ];
    let own = own.iter().chain(&["kubelet.json", "resolv.conf"]);
    files.extend(own.map(|file| node.dir(dir).join(file)));
    if tools.release().containerd().is_some() {
        files.push(node.dir(dir).join(LEGACY_GPU));
    }
    for file in files {
        let below = file.strip_prefix(dir.root()).unwrap_or(&file);
        place(&file, &content.join(below))?;
    }
    Ok(())
}

/// What its services run.
fn scripts_of(node: &Node, dir: &ClusterDir, tools: &Tools) -> [(&'static str, String); 5] {
    let kube = Path::new(PLACE).join(KUBE);
    let kube = |program: &str, arguments: Vec<String>| {
        let mut command = Command::new(&kube);
        command.arg(program).args(arguments);
        format!("exec {}\n", describe(&command))
    };
    let containerd = match tools.release().containerd() {
        Some(_) => format!("PATH={PLACE}/bin:$PATH exec {PLACE}/bin/containerd"),
        None => "exec containerd".to_owned(),
    };
    let own = node.dir(dir);
    let proxy = dir.join(format!("kubeconfig/{}-{PROXY}.conf", node.name));
    [
        ("network.sh", also_at(dir) + &network(node)),
        ("facts.sh", include_str!("files/facts.sh").to_owned()),
        (
            "containerd.sh",
            format!("{containerd} --config {}/containerd.toml\n", own.display()),
        ),
        (
            "kubelet.sh",
            kube("kubelet", node_config::kubelet_arguments(node, dir)),
        ),
        (
            "kube-proxy.sh",
            kube(PROXY, node_config::proxy_arguments(&proxy, &node.name)),
        ),
    ]
}

/// The second cluster's directory is another one outside. It is not a link, because SELinux does
/// not let the services follow one.
fn also_at(dir: &ClusterDir) -> String {
    if dir.root() == Path::new(PLACE) {
        return String::new();
    }
    let root = dir.root().display();
    format!("mkdir -p {root}\nmount --bind {PLACE} {root}\n")
}

/// The bridge of the pods has the node's address. The first card is the cable to the machine
/// outside, the second one QEMU's own network.
fn network(node: &Node) -> String {
    let (bridge, address) = (node.bridge(), node.address());
    format!(
        "set -e\n\
         ip link add {bridge} type bridge\n\
         ip address add {address}/24 dev {bridge}\n\
         ip link set {bridge} up\n\
         ip link set eth0 up\n\
         ip route add {API_ADDRESS} dev eth0 src {address}\n\
         ip route add default via {API_ADDRESS} dev eth0 src {address}\n\
         ip address add 10.0.2.15/24 dev eth1\n\
         ip link set eth1 up\n"
    )
}

/// Labels a directory and what is in it.
fn label(path: &Path) -> Result<()> {
    let name = path.file_name().unwrap_or_default();
    let program = LABELS
        .iter()
        .find(|(program, _)| path.is_file() && name == *program);
    let has = |part: &str| path.iter().any(|name| name == part);
    let own = program.or_else(|| CONFIGURATION.iter().find(|(part, _)| has(part)));
    let value = format!("system_u:object_r:{}:s0\0", own.map_or(LABEL, |(_, label)| label));
    lsetxattr(path, "security.selinux", value.as_bytes(), XattrFlags::empty())
        .with_context(|| format!("labelling {}", path.display()))?;
    if path.is_dir() {
        for entry in fs::read_dir(path).with_context(|| format!("reading {}", path.display()))? {
            label(&entry?.path())?;
        }
    }
    Ok(())
}

/// Copies a file, with its directories.
fn place(file: &Path, target: &Path) -> Result<()> {
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    }
    fs::copy(file, target)
        .map(drop)
        .with_context(|| format!("copying {} to {}", file.display(), target.display()))
}

fn clear(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("removing {}", dir.display()))?;
    }
    Ok(())
}
