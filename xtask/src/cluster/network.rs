/*!
The cluster's place in the machine's network: one bridge for the control plane's address, one per
node for its pods.

All of it is in the machine's own network namespace, as nodes share it; nothing is masqueraded to
the outside. A virtual machine has a bridge of its own inside, and a cable (a tap device) to the
machine, which routes to it.
*/

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::dir::{ClusterDir, Owner};
use super::node::Node;
use crate::shell;

/// Address that the API server advertises; it belongs to the bridge [`API_BRIDGE`].
pub(super) const API_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
/// Port of the API server.
pub(super) const API_PORT: u16 = 6443;
/// Port of the local image registry, on 127.0.0.1.
pub(super) const REGISTRY_PORT: u16 = 5000;
/// Addresses of all pods.
pub(super) const POD_NETWORK: &str = "10.244.0.0/16";
/// Addresses of Services.
pub(super) const SERVICE_NETWORK: &str = "10.96.0.0/16";
/// Address of the Service `kubernetes`.
pub(super) const SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// Bridge that holds [`API_ADDRESS`]. It never has a port: a local address is reachable without.
const API_BRIDGE: &str = "stopc-api";
/// Ports of the control plane, with what listens there.
pub(super) const PORTS: &[(u16, &str)] = &[
    (API_PORT, "the API server"),
    (2379, "etcd"),
    (2380, "etcd"),
    (10257, "the controller manager"),
    (10259, "the scheduler"),
    (10256, "kube-proxy"),
    (10249, "kube-proxy"),
    (REGISTRY_PORT, "the image registry"),
];
/// Kernel settings that pods' traffic needs: below `/proc/sys`. A bridge's frames must pass the
/// packet filter, or the answer of a pod to a pod of the same node does not come from the Service's
/// address.
const SYSCTLS: &[(&str, &str)] = &[
    ("net/ipv4/ip_forward", "1"),
    ("net/bridge/bridge-nf-call-iptables", "1"),
];
/// What the kubelet changes by itself; kept so that `down` can put it back.
const KUBELET_SYSCTLS: &[&str] = &[
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];
/// The comment that marks our rules in a forwarding chain that drops by default.
const RULE_COMMENT: &str = "stoppablecontainer-cluster";

/// Refuses ports that another process listens on.
pub(super) fn require_free_ports<'a>(ports: impl IntoIterator<Item = &'a (u16, &'a str)>) -> Result<()> {
    for (port, part) in ports {
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_err() {
            let holder = shell::capture("ss", ["-Hltnp", &format!("sport = :{port}")]).unwrap_or_default();
            let holder = holder
                .split("users:")
                .nth(1)
                .unwrap_or("unknown")
                .trim()
                .to_owned();
            bail!(
                "port {port}, which {part} of the local cluster needs, is in use by {holder}: stop that process first"
            );
        }
    }
    Ok(())
}

/// Remembers the kernel settings as they are now.
pub(super) fn remember_sysctls(owner: &mut Owner) {
    load_bridge_filter();
    let names = SYSCTLS
        .iter()
        .map(|(name, _)| *name)
        .chain(KUBELET_SYSCTLS.iter().copied());
    owner.sysctls = names
        .filter_map(|name| {
            Some((
                name.to_owned(),
                fs::read_to_string(sysctl(name)).ok()?.trim().to_owned(),
            ))
        })
        .collect();
}

/// Makes the control plane's bridge and sets what the kernel must do for the pods.
pub(super) fn prepare() -> Result<()> {
    load_bridge_filter();
    for (name, value) in SYSCTLS {
        let path = sysctl(name);
        fs::write(&path, value).with_context(|| {
            format!("setting {path} to {value} (is the kernel module br_netfilter missing?)")
        })?;
    }
    make_bridge(API_BRIDGE, API_ADDRESS, 32)?;
    allow_forwarding()
}

/// Makes a node's bridge or cable.
pub(super) fn prepare_node(node: &Node) -> Result<()> {
    if node.is_machine() {
        make_cable(node)
    } else {
        make_bridge(&node.bridge(), node.address(), 24)
    }
}

/// Removes what [`prepare`] and kube-proxy made, and puts the kernel's settings back.
pub(super) fn clean(owner: &Owner) -> Result<()> {
    remove_bridge(API_BRIDGE)?;
    remove_service_rules();
    for rule in forwarding_rules() {
        let _ = shell::capture("iptables", ["-w", "-D"].into_iter().chain(rule.split(' ')));
    }
    for (name, value) in &owner.sysctls {
        let path = sysctl(name);
        fs::write(&path, value).with_context(|| format!("setting {path} back to {value}"))?;
    }
    Ok(())
}

/// Removes a node's bridge, and the pods' ends of it with it.
pub(super) fn clean_node(node: &Node) -> Result<()> {
    remove_bridge(&node.bridge())
}

/// Removes the nft tables of a kube-proxy that is gone: one beside a new kube-proxy's leaves
/// Service addresses refusing.
pub(super) fn remove_service_rules() {
    for family in ["ip", "ip6"] {
        let _ = shell::capture("nft", ["delete", "table", family, "kube-proxy"]);
    }
}

/// Whether nft tables of a kube-proxy exist.
pub(super) fn has_service_rules() -> bool {
    shell::succeeds("nft", ["list", "table", "ip", "kube-proxy"])
}

/// Interfaces of the cluster that exist, for the status and for tests of cleanness.
pub(super) fn interfaces(dir: &ClusterDir) -> Result<Vec<String>> {
    let nodes = Node::all(dir)?;
    let names = std::iter::once(API_BRIDGE.to_owned()).chain(nodes.iter().map(Node::bridge));
    Ok(names.filter(|name| interface_exists(name)).collect())
}

fn make_bridge(name: &str, address: Ipv4Addr, prefix: u8) -> Result<()> {
    if !interface_exists(name) {
        // A bridge without an address of its own takes that of a port, which changes as pods come
        // and go.
        let [_, second, third, fourth] = address.octets();
        let mac = format!("02:5c:00:{second:02x}:{third:02x}:{fourth:02x}");
        shell::capture("ip", ["link", "add", name, "address", &mac, "type", "bridge"])
            .with_context(|| format!("making the bridge {name}"))?;
    }
    shell::capture(
        "ip",
        ["address", "replace", &format!("{address}/{prefix}"), "dev", name],
    )
    .and_then(|_| shell::capture("ip", ["link", "set", name, "up"]))
    .with_context(|| format!("setting up the bridge {name}"))?;
    Ok(())
}

/// The cable has no address of its own: the virtual machine answers for its pods.
fn make_cable(node: &Node) -> Result<()> {
    let (name, network, address) = (node.bridge(), node.pod_network(), node.address().to_string());
    let make = || -> Result<()> {
        if !interface_exists(&name) {
            shell::capture("ip", ["tuntap", "add", "dev", &name, "mode", "tap"])?;
        }
        shell::capture("ip", ["link", "set", &name, "up"])?;
        let route = [
            "route", "replace", &network, "via", &address, "dev", &name, "onlink", "src",
        ];
        shell::capture("ip", route.into_iter().chain([API_ADDRESS.to_string().as_str()]))?;
        Ok(())
    };
    make().with_context(|| format!("making the network interface {name} (is /dev/net/tun missing?)"))
}

fn remove_bridge(name: &str) -> Result<()> {
    if interface_exists(name) {
        shell::capture("ip", ["link", "delete", name])
            .with_context(|| format!("removing the bridge {name}"))?;
    }
    Ok(())
}

/// Whether this process's network namespace has the interface. `/sys` shows that of its mount.
fn interface_exists(name: &str) -> bool {
    let interfaces = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    let mut names = interfaces.lines().filter_map(|line| line.split_once(':'));
    names.any(|(interface, _)| interface.trim() == name)
}

/// A machine with Docker drops what it forwards by default, and frames between pods count as
/// forwarded.
fn allow_forwarding() -> Result<()> {
    let policy = shell::capture("iptables", ["-w", "-S", "FORWARD"]).unwrap_or_default();
    if !policy.contains("-P FORWARD DROP") || !forwarding_rules().is_empty() {
        return Ok(());
    }
    for direction in ["-s", "-d"] {
        let rule = [
            "-w",
            "-I",
            "FORWARD",
            direction,
            POD_NETWORK,
            "-m",
            "comment",
            "--comment",
            RULE_COMMENT,
            "-j",
            "ACCEPT",
        ];
        shell::capture("iptables", rule)
            .context("allowing the pods' traffic past the machine's packet filter")?;
    }
    Ok(())
}

/// Our rules as `iptables -S` lists them, without the leading `-A`.
fn forwarding_rules() -> Vec<String> {
    let rules = shell::capture("iptables", ["-w", "-S", "FORWARD"]).unwrap_or_default();
    let ours = rules.lines().filter(|line| line.contains(RULE_COMMENT));
    ours.filter_map(|line| line.strip_prefix("-A "))
        .map(str::to_owned)
        .collect()
}

fn load_bridge_filter() {
    if !Path::new("/proc/sys/net/bridge").exists() {
        let _ = shell::capture("modprobe", ["br_netfilter"]);
    }
}

fn sysctl(name: &str) -> String {
    format!("/proc/sys/{name}")
}
