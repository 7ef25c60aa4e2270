/*!
`cluster partition`: the API server and a node do not reach each other for a while, as after a cable
was pulled; the pods' own traffic goes on, or else the one-node cluster would lose its controllers
too.

The rules are a table of their own. They match a set of ports whose elements the kernel forgets by
itself, so not even a command that is killed leaves a node cut off.
*/

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::cgroups;
use super::network::API_PORT;
use super::node::Node;
use crate::shell;

const TABLE: &str = "stopc-partition";
/// After so long the kernel lets everything through again, whatever became of this command.
const LONGEST: &str = "10m";

/// The rules, while they are there.
struct Rules;

/// Cuts the node, and the pods with these addresses, off from the API server until standard input
/// ends. Prints a line when it is done.
pub(super) fn run(node: &Node, pods: &[Ipv4Addr]) -> Result<()> {
    let rules = Rules::make(node, pods)?;
    println!("{} is cut off", node.name);
    std::io::stdout().flush().context("writing to standard output")?;
    std::io::stdin()
        .read_to_end(&mut Vec::new())
        .context("waiting for the end of standard input")?;
    drop(rules);
    Ok(())
}

// === impl Rules ===

impl Rules {
    fn make(node: &Node, pods: &[Ipv4Addr]) -> Result<Self> {
        let mut child = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .context("starting nft")?;
        let mut stdin = child.stdin.take().context("nft has no standard input")?;
        stdin
            .write_all(text(node, pods)?.as_bytes())
            .context("writing to nft")?;
        drop(stdin);
        let status = child.wait().context("waiting for nft")?;
        ensure!(status.success(), "nft ended with {status}");
        Ok(Self)
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        if let Err(error) = shell::capture("nft", ["delete", "table", "inet", TABLE]) {
            eprintln!("the rules stay for {LONGEST}: {error:#}");
        }
    }
}

fn text(node: &Node, pods: &[Ipv4Addr]) -> Result<String> {
    let (kubelet, address) = (node.kubelet_port(), node.address());
    // What a virtual machine sends comes in from outside, from its own address.
    let (own, pods) = if node.is_machine() {
        (String::new(), [&[address], pods].concat())
    } else {
        let (group, level) = cgroups::unified_of(node)?;
        let own =
            format!("socket cgroupv2 level {level} \"{group}\" tcp dport {API_PORT} tcp dport @ports drop");
        (own, pods.to_vec())
    };
    let mut rules = format!(
        "table inet {TABLE}
         delete table inet {TABLE}
         table inet {TABLE} {{
           set ports {{
             type inet_service; flags timeout
             elements = {{ {API_PORT} timeout {LONGEST}, {kubelet} timeout {LONGEST} }}
           }}
           chain output {{
             type filter hook output priority 0
             {own}
             ip daddr {address} tcp dport {kubelet} tcp dport @ports drop
           }}
           chain input {{
             type filter hook input priority 0
        "
    );
    for pod in pods {
        writeln!(rules, "ip saddr {pod} tcp dport {API_PORT} tcp dport @ports drop")?;
    }
    rules.push_str("}\n}\n");
    Ok(rules)
}
