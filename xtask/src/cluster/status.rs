/*!
`cluster status`: what runs, as a table.
*/

use anyhow::Result;

use super::node::Node;
use super::process::Daemon;
use super::{Cluster, control_plane, network, registry};
use crate::tools::KUBERNETES_VERSION;

/// Prints the state of every part. Returns whether all run and the API server is ready.
pub(super) fn print(cluster: &Cluster<'_>) -> Result<bool> {
    let dir = &cluster.dir;
    let Some(owner) = dir.owner()? else {
        println!("There is no local cluster; `cargo xtask cluster up` makes one.");
        return Ok(false);
    };
    println!(
        "Kubernetes {KUBERNETES_VERSION} in {}, owned by the clone {}",
        dir.root().display(),
        owner.clone.display()
    );
    let nodes = Node::all(dir)?;
    let names = std::iter::once(registry::PROCESS).chain(control_plane::PROCESSES.iter().copied());
    let names = names
        .map(str::to_owned)
        .chain(nodes.iter().map(|node| node.name.clone()));
    let mut all_run = true;
    for name in names {
        let daemon = Daemon::new(dir, &name);
        if let Some(pid) = daemon.pid() {
            println!("  {name:<26} runs, process {pid}");
        } else {
            all_run = false;
            println!("  {name:<26} does not run; its log is {}", daemon.log().display());
        }
    }
    println!("  {:<26} {}", "interfaces", network::interfaces(dir)?.join(", "));
    let ready = all_run && control_plane::is_ready(dir, &cluster.tools);
    println!(
        "  {:<26} {}",
        "API server",
        if ready { "ready" } else { "not ready" }
    );
    println!("  {:<26} {}", "kubeconfig", cluster.kubeconfig().display());
    println!("  {:<26} {}", "images", registry::address());
    if !ready {
        println!("`cargo xtask cluster up` brings up what is missing.");
    }
    Ok(ready)
}
