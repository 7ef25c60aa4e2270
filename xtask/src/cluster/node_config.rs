/*!
Configuration files of a node: its container runtime, containerd's registry mirror, the CNI network,
the kubelet, name resolution.
*/

use anyhow::Result;
use serde_json::json;

use super::dir::ClusterDir;
use super::network::REGISTRY_PORT;
use super::node::Node;
use super::pki::{CLUSTER, Pki};
use super::{cgroups, cri_o};
use crate::tools::{Release, Runtime, Tools};

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

/// Writes all of them. They follow from the node and the tools alone, so writing them again
/// changes nothing.
pub(super) fn write(node: &Node, dir: &ClusterDir, tools: &Tools) -> Result<()> {
    let release = tools.release();
    let own = std::path::Path::new("nodes").join(&node.name);
    let pretty = |value: &serde_json::Value| serde_json::to_vec_pretty(value);
    dir.write(
        own.join("containerd.toml"),
        containerd(node, dir, release).as_bytes(),
        0o644,
    )?;
    dir.write(
        own.join("certs.d/_default/hosts.toml"),
        mirror().as_bytes(),
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
/// would start.
fn containerd(node: &Node, dir: &ClusterDir, release: Release) -> String {
    let own = node.dir(dir);
    let own = own.display();
    if release.containerd().is_some() {
        return format!(
            r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"

[grpc]
  address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.grpc.v1.cri"]
  stream_server_address = "127.0.0.1"

[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{PAUSE_IMAGE}"

[plugins."io.containerd.cri.v1.images".registry]
  config_path = "{own}/certs.d"

[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  enable_unprivileged_ports = true

[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["/usr/lib/cni"]
  conf_dir = "{own}/cni"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  SystemdCgroup = false
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
  restrict_oom_score_adj = true
  enable_unprivileged_ports = true
  stream_server_address = "127.0.0.1"

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "{own}/cni"

[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "{own}/certs.d"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
"#
    )
}

/// Every registry of the world is the local one.
fn mirror() -> String {
    let server = format!("http://127.0.0.1:{REGISTRY_PORT}");
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
    if tools.release() != Release::V1_34 {
        // Tests give images on a node other names, and from 1.35 on the kubelet pulls an image that
        // it did not pull under the same name.
        config["imagePullCredentialsVerificationPolicy"] = json!("NeverVerify");
    }
    config
}

fn resolver() -> String {
    "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n".to_owned()
}
