/*!
Configuration of CRI-O on a node: itself, its registries, and the program that it starts runc with.
*/

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use rustix::thread::{CapabilitySet, capability_is_in_bounding_set};

use super::dir::ClusterDir;
use super::network::REGISTRY_PORT;
use super::node::Node;
use crate::tools::Tools;

/// Where CRI-O listens, inside the node.
pub(super) const SOCKET: &str = "/run/crio/crio.sock";
/// Registries that images of tests and samples name. CRI-O has no mirror for every registry.
const REGISTRIES: &[&str] = &["docker.io", "registry.k8s.io", "quay.io", "ghcr.io", "localhost"];

/// Writes all of it. It follows from the node and the tools alone. `pause` is the image of the
/// container that holds a pod's namespaces.
pub(super) fn write(node: &Node, dir: &ClusterDir, tools: &Tools, pause: &str) -> Result<()> {
    let own = Path::new("nodes").join(&node.name).join("cri-o");
    dir.write(
        own.join("crio.conf"),
        crio(node, dir, tools, pause).as_bytes(),
        0o644,
    )?;
    dir.write(
        own.join("home/.config/containers/registries.conf"),
        registries().as_bytes(),
        0o644,
    )?;
    dir.write(
        own.join("policy.json"),
        br#"{"default": [{"type": "insecureAcceptAnything"}]}"#,
        0o644,
    )?;
    dir.write(
        own.join("runc"),
        runc(&tools.unpacked("usr/sbin/runc"), &lacking_capabilities()).as_bytes(),
        0o755,
    )?;
    Ok(())
}

/// Paths are the defaults where a distribution has them; what must survive a power cut is below
/// CRI-O's storage.
fn crio(node: &Node, dir: &ClusterDir, tools: &Tools, pause: &str) -> String {
    let own = node.dir(dir);
    let own = own.display();
    let programs = tools.runtime_program();
    let pinns = programs.with_file_name("pinns");
    let pinns = pinns.display();
    format!(
        r#"[crio]
root = "/var/lib/containers/storage"
runroot = "/run/containers/storage"
storage_driver = "overlay"
version_file = "/run/crio/version"
version_file_persist = "/var/lib/containers/crio-version"
clean_shutdown_file = "/var/lib/containers/crio-clean-shutdown"

[crio.api]
listen = "{SOCKET}"
stream_address = "127.0.0.1"
stream_port = "0"

[crio.runtime]
default_runtime = "runc"
cgroup_manager = "cgroupfs"
pinns_path = "{pinns}"
hooks_dir = []
default_sysctls = ["net.ipv4.ip_unprivileged_port_start=0"]

[crio.runtime.runtimes.runc]
runtime_path = "{own}/cri-o/runc"
runtime_root = "/run/runc"
runtime_type = "oci"
monitor_cgroup = "pod"

[crio.image]
pause_image = "{pause}"
pause_command = ""
signature_policy = "{own}/cri-o/policy.json"

[crio.network]
network_dir = "{own}/cni"
plugin_dirs = ["/usr/lib/cni"]
"#
    )
}

/// Each of the registries is the local one.
fn registries() -> String {
    let mirror = |name: &&str| {
        format!(
            "\n[[registry]]\nprefix = \"{name}\"\nlocation = \"127.0.0.1:{REGISTRY_PORT}\"\ninsecure = true\n"
        )
    };
    let mirrors: String = REGISTRIES.iter().map(mirror).collect();
    format!("unqualified-search-registries = [\"docker.io\"]\n{mirrors}")
}

/// The program that CRI-O starts as runc. The machine may lack three things, and pods would not
/// start: without `CAP_SYS_RESOURCE` runc cannot lower a score of the out-of-memory killer, without
/// a hierarchy for the controller hugetlb it cannot set the kubelet's limits of zero huge pages,
/// and a privileged container cannot have capabilities that the machine does not have. Unlike
/// containerd, CRI-O does not have settings for that.
fn runc(runc: &Path, lacking: &[String]) -> String {
    let runc = runc.display();
    let mut without = String::new();
    for name in lacking {
        // The last of a list, and the others.
        _ = write!(
            without,
            " -e 's/,[[:space:]]*\"{name}\"//g' -e 's/\"{name}\",\\?[[:space:]]*//g'"
        );
    }
    format!(
        r#"#!/bin/sh
edit() {{
  sed -z -i -e 's/"oomScoreAdj": *-[0-9]*/"oomScoreAdj": 0/' \
    -e 's/"hugepageLimits": *\[[^]]*]/"hugepageLimits": []/'{without} "$1"
}}
previous=
for argument in "$@"; do
  case "$previous" in
    --bundle) edit "$argument/config.json" ;;
    --process) edit "$argument" ;;
  esac
  previous=$argument
done
exec {runc} "$@"
"#
    )
}

/// Capabilities that no process of this machine can have, by their names in an OCI configuration.
fn lacking_capabilities() -> Vec<String> {
    let lacks = |one: &CapabilitySet| matches!(capability_is_in_bounding_set(*one), Ok(false));
    let all = CapabilitySet::all().iter_names();
    all.filter(|(_, one)| lacks(one))
        .map(|(name, _)| format!("CAP_{name}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    #[test]
    fn runc_gets_no_limits_that_the_machine_cannot_set() {
        let bundle = std::env::temp_dir().join(format!("cri-o-bundle-{}", std::process::id()));
        fs::create_dir_all(&bundle).expect("making a directory");
        let config = bundle.join("config.json");
        let text = r#"{"process": {"env": ["A=\"oomScoreAdj\": -7"], "oomScoreAdj": -997, "capabilities": {
            "bounding": ["CAP_A", "CAP_X", "CAP_B"], "effective": ["CAP_X", "CAP_A"], "permitted": [
                "CAP_A",
                "CAP_X"
            ], "ambient": ["CAP_X"]}}, "linux": {
            "resources": {"hugepageLimits": [
                {"pageSize": "2MB", "limit": 0}
            ], "pids": {"limit": 5}}}}"#;
        fs::write(&config, text).expect("writing a file");
        let script = bundle.join("runc");
        fs::write(&script, runc(Path::new("echo"), &["CAP_X".to_owned()])).expect("writing a file");
        let mut command = Command::new("sh");
        command.arg(&script).args(["create", "--bundle"]).arg(&bundle);
        let said = crate::shell::output(command.arg("name")).expect("running the program");
        assert_eq!(said, format!("create --bundle {} name\n", bundle.display()));

        let process = bundle.join("process.json");
        fs::write(&process, r#"{"capabilities": {"bounding": ["CAP_X", "CAP_A"]}}"#).expect("writing a file");
        let mut command = Command::new("sh");
        command.arg(&script).args(["exec", "--process"]).arg(&process);
        crate::shell::output(command.arg("name")).expect("running the program");
        let written = fs::read_to_string(&process).expect("reading a file");
        assert_eq!(written, r#"{"capabilities": {"bounding": ["CAP_A"]}}"#);

        let written = fs::read_to_string(&config).expect("reading a file");
        let written: serde_json::Value = serde_json::from_str(&written).expect("it is still JSON");
        assert_eq!(written["process"]["oomScoreAdj"], 0);
        assert_eq!(written["process"]["env"][0], r#"A="oomScoreAdj": -7"#);
        let capabilities = serde_json::json!({
            "bounding": ["CAP_A", "CAP_B"], "effective": ["CAP_A"], "permitted": ["CAP_A"], "ambient": [],
        });
        assert_eq!(written["process"]["capabilities"], capabilities);
        let resources = &written["linux"]["resources"];
        assert_eq!(resources["hugepageLimits"], serde_json::json!([]));
        assert_eq!(resources["pids"]["limit"], 5);
        fs::remove_dir_all(&bundle).expect("cleaning");
    }
}
