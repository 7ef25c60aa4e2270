/*!
Configuration of a node: its container runtime, containerd's registry mirror, the CNI network, name
resolution, and the kubelet with its arguments.
*/

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use super::dir::ClusterDir;
use super::network::{POD_NETWORK, REGISTRY_PORT};
use super::node::{Kind, Node};
use super::pki::{CLUSTER, Pki};
use super::{cgroups, cri_o};
use crate::shell;
use crate::tools::{Lsm, Release, Runtime, Tools};

/// Image of the container that holds a pod's namespaces; built here and served by the local
/// registry.
pub(crate) const PAUSE_IMAGE: &str = "docker.io/xtlsoft/pause:1";
/// Where containerd listens, inside the node.
const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";

/// Where a container runtime listens, inside the node.
pub(super) fn socket(runtime: Runtime) -> &'static str {
    match runtime {
        Runtime::Containerd => CONTAINERD_SOCKET,
        Runtime::CriO => cri_o::SOCKET,
    }
}

/// What the handler `legacy-gpu` starts with, in the node's directory. containerd 2 needs it.
pub(super) const LEGACY_GPU: &str = "legacy-gpu.json";
/// The program of the hook of the handler `legacy-gpu`, on the node.
const LEGACY_HOOK: &str = "/run/fake-gpu/fake-gpu";

/// Where a virtual machine finds the machine's 127.0.0.1, on its second network card: QEMU's own
/// network has it there.
const HOST_LOOPBACK: &str = "10.0.2.2";

/// Writes all files. They follow from the node and the tools alone, so writing them again changes
/// nothing.
pub(super) fn write(node: &Node, dir: &ClusterDir, tools: &Tools) -> Result<()> {
    let release = tools.release();
    let own = Path::new("nodes").join(&node.name);
    let pretty = |value: &serde_json::Value| serde_json::to_vec_pretty(value);
    dir.write(
        own.join("containerd.toml"),
        containerd(node, dir, release).as_bytes(),
        0o644,
    )?;
    if release.containerd().is_some() {
        let specification = legacy_gpu(&tools.containerd("ctr"))?;
        dir.write(own.join(LEGACY_GPU), &pretty(&specification)?, 0o644)?;
    }
    dir.write(
        own.join("certs.d/_default/hosts.toml"),
        mirror(node).as_bytes(),
        0o644,
    )?;
    dir.write(own.join("cni/10-bridge.conflist"), &pretty(&cni(node))?, 0o644)?;
    dir.write(
        own.join("kubelet.json"),
        &pretty(&kubelet(node, dir, tools))?,
        0o644,
    )?;
    dir.write(own.join("resolv.conf"), resolver().as_bytes(), 0o644)?;
    if tools.runtime() == Runtime::CriO {
        cri_o::write(node, dir, tools, PAUSE_IMAGE)?;
    }
    Ok(())
}

/// restrict_oom_score_adj: without CAP_SYS_RESOURCE runc cannot lower a sandbox's score and no pod
/// would start. A virtual machine is as its distribution has it.
fn containerd(node: &Node, dir: &ClusterDir, release: Release) -> String {
    let own = node.dir(dir);
    let own = own.display();
    let (restricted, systemd) = (!node.is_machine(), node.is_machine());
    // Without it a power cut leaves empty files in an image that was pulled just before.
    let synced = if node.is_machine() {
        "image_pull_with_sync_fs = true"
    } else {
        ""
    };
    let selinux = node.kind == Kind::Machine(Lsm::SeLinux);
    if release.containerd().is_some() {
        return format!(
            r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"

[grpc]
  address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.grpc.v1.cri"]
  stream_server_address = "127.0.0.1"

[plugins."io.containerd.cri.v1.images"]
  {synced}

[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{PAUSE_IMAGE}"

[plugins."io.containerd.cri.v1.images".registry]
  config_path = "{own}/certs.d"

[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = {restricted}
  enable_selinux = {selinux}
  enable_unprivileged_ports = true

[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["/usr/lib/cni"]
  conf_dir = "{own}/cni"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  SystemdCgroup = {systemd}

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.legacy-gpu]
  runtime_type = "io.containerd.runc.v2"
  base_runtime_spec = "{own}/{LEGACY_GPU}"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.legacy-gpu.options]
  SystemdCgroup = {systemd}
"#
        );
    }
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"

[grpc]
  address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = {restricted}
  enable_selinux = {selinux}
  enable_unprivileged_ports = true
  {synced}
  stream_server_address = "127.0.0.1"

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "{own}/cni"

[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "{own}/certs.d"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = {systemd}
"#
    )
}

/// What the runtime handler `legacy-gpu` starts with: containerd's default, with a hook that runs
/// for every container, as NVIDIA's did before CDI, and a limit of locked memory that no other
/// container has. Tests install the hook's program (`crates/fake-gpu`); without it, no pod of this
/// handler starts.
fn legacy_gpu(ctr: &Path) -> Result<serde_json::Value> {
    let default = shell::capture(&ctr.display().to_string(), ["oci", "spec"])?;
    let mut specification: serde_json::Value =
        serde_json::from_str(&default).context("parsing the default of `ctr oci spec`")?;
    // Other entries stay.
    let limits = specification["process"]["rlimits"].take();
    let mut limits = limits.as_array().cloned().unwrap_or_default();
    limits.push(json!({"type": "RLIMIT_MEMLOCK", "soft": 5 << 20, "hard": 6 << 20}));
    specification["process"]["rlimits"] = json!(limits);
    specification["hooks"] = json!({"prestart": [{"path": LEGACY_HOOK, "args": ["fake-gpu", "legacy"]}]});
    Ok(specification)
}

/// Every registry of the world is the local one.
fn mirror(node: &Node) -> String {
    let host = if node.is_machine() {
        HOST_LOOPBACK
    } else {
        "127.0.0.1"
    };
    let server = format!("http://{host}:{REGISTRY_PORT}");
    format!("server = \"{server}\"\n\n[host.\"{server}\"]\n  capabilities = [\"pull\", \"resolve\"]\n")
}

fn cni(node: &Node) -> serde_json::Value {
    json!({
        "cniVersion": "0.4.0",
        "name": "stoppablecontainer",
        "plugins": [{
            "type": "bridge",
            "bridge": node.bridge(),
            "isGateway": true,
            "hairpinMode": true,
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": node.pod_network()}]],
                "routes": [{"dst": "0.0.0.0/0"}],
                // Addresses are given back by a power cut, as the pods' namespaces are.
                "dataDir": "/run/cni-addresses",
            },
        }],
    })
}

fn kubelet(node: &Node, dir: &ClusterDir, tools: &Tools) -> serde_json::Value {
    let pki = Pki::new(dir);
    let serving = format!("{}-serving", node.name);
    let mut config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": pki.cert(CLUSTER)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": pki.cert(&serving),
        "tlsPrivateKeyFile": pki.key(&serving),
        "address": node.address().to_string(),
        "port": node.kubelet_port(),
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": node.kubelet_health_port(),
        "containerRuntimeEndpoint": format!("unix://{}", socket(tools.runtime())),
        "cgroupDriver": "cgroupfs",
        // The machine's hierarchy is what it is; from 1.35 on the kubelet refuses v1 otherwise.
        "failCgroupV1": false,
        "cgroupRoot": cgroups::root_of(node),
        "clusterDomain": "cluster.local",
        // No name server runs: a refused connection fails a look-up at once, where a missing one
        // would time out.
        "clusterDNS": ["127.0.0.1"],
        "resolvConf": node.dir(dir).join("resolv.conf"),
        "failSwapOn": false,
        "oomScoreAdj": 0,
        "makeIPTablesUtilChains": false,
        "serializeImagePulls": false,
        "registryPullQPS": 0,
        "nodeStatusUpdateFrequency": "5s",
        // A developer's disk is full enough as it is: evicting pods for it would only confuse.
        "evictionHard": {
            "memory.available": "100Mi", "nodefs.available": "1%", "nodefs.inodesFree": "1%", "imagefs.available": "1%",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    });
    if node.is_machine() {
        config["cgroupDriver"] = json!("systemd");
        if let Some(config) = config.as_object_mut() {
            for of_a_process in ["cgroupRoot", "failCgroupV1", "oomScoreAdj"] {
                config.remove(of_a_process);
            }
        }
    }
    if tools.release() != Release::V1_34 {
        // Tests give images on a node other names, and from 1.35 on the kubelet pulls an image that
        // it did not pull under the same name.
        config["imagePullCredentialsVerificationPolicy"] = json!("NeverVerify");
    }
    config
}

/// The arguments of a node's kubelet.
pub(super) fn kubelet_arguments(node: &Node, dir: &ClusterDir) -> Vec<String> {
    let kubeconfig = dir.join("kubeconfig").join(format!("{}.conf", node.name));
    vec![
        format!("--config={}", node.dir(dir).join("kubelet.json").display()),
        format!("--kubeconfig={}", kubeconfig.display()),
        "--root-dir=/var/lib/kubelet".to_owned(),
        format!("--hostname-override={}", node.name),
        format!("--node-ip={}", node.address()),
        format!("--node-labels=topology.kubernetes.io/zone={}", node.zone()),
    ]
}

/// The arguments of a kube-proxy, whose node has this name.
pub(super) fn proxy_arguments(kubeconfig: &Path, name: &str) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        "--proxy-mode=nftables".to_owned(),
        format!("--cluster-cidr={POD_NETWORK}"),
        format!("--hostname-override={name}"),
        "--healthz-bind-address=127.0.0.1:10256".to_owned(),
        "--metrics-bind-address=127.0.0.1:10249".to_owned(),
        "--oom-score-adj=0".to_owned(),
        // The machine's own limits stay as they are.
        "--conntrack-max-per-core=0".to_owned(),
        "--conntrack-tcp-timeout-established=0".to_owned(),
        "--conntrack-tcp-timeout-close-wait=0".to_owned(),
    ]
}

fn resolver() -> String {
    "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n".to_owned()
}
