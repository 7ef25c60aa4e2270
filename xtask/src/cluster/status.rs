/*!
`cluster status`: what runs, as a table.
*/

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::Result;

use super::context::Cluster;
use super::node::Node;
use super::process::Daemon;
use super::{control_plane, network, registry};

/// Prints the state of every part. Returns whether all run and the API server is ready.
pub(super) fn print(cluster: &Cluster<'_>) -> Result<bool> {
    let (text, ready) = describe(cluster)?;
    // A reader that closes the pipe early (`| head -1`) is not an error.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(ready)
}

fn describe(cluster: &Cluster<'_>) -> Result<(String, bool)> {
    let dir = &cluster.dir;
    let Some(owner) = dir.owner()? else {
        return Ok((
            "There is no local cluster; `cargo xtask cluster up` makes one.\n".to_owned(),
            false,
        ));
    };
    let mut text = String::new();
    writeln!(
        text,
        "Kubernetes {} in {}, owned by the clone {}",
        cluster.tools.release().version(),
        dir.root().display(),
        owner.clone.display()
    )?;
    let nodes = Node::all(dir)?;
    let names = std::iter::once(registry::PROCESS).chain(control_plane::PROCESSES.iter().copied());
    let names = names
        .map(str::to_owned)
        .chain(nodes.iter().map(|node| node.name.clone()));
    let mut all_run = true;
    for name in names {
        let daemon = Daemon::new(dir, &name);
        if let Some(pid) = daemon.pid() {
            writeln!(text, "  {name:<26} runs, process {pid}")?;
        } else {
            all_run = false;
            writeln!(
                text,
                "  {name:<26} does not run; its log is {}",
                daemon.log().display()
            )?;
        }
    }
    writeln!(
        text,
        "  {:<26} {}",
        "interfaces",
        network::interfaces(dir)?.join(", ")
    )?;
    let ready = all_run && control_plane::is_ready(dir, &cluster.tools);
    writeln!(
        text,
        "  {:<26} {}",
        "API server",
        if ready { "ready" } else { "not ready" }
    )?;
    writeln!(text, "  {:<26} {}", "kubeconfig", cluster.kubeconfig().display())?;
    writeln!(text, "  {:<26} {}", "images", registry::address())?;
    if !ready {
        writeln!(text, "`cargo xtask cluster up` brings up what is missing.")?;
    }
    Ok((text, ready))
}
