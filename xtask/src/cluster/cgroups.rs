/*!
The nodes' control groups. Each node has a root of its own, below which its kubelet makes `kubepods`: two kubelets
with one root would each remove the other's pods.

The machine's hierarchy is taken as it is, v1 or v2, and never remounted.
*/

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::node::Node;

/// Parent of all nodes' groups.
const PARENT: &str = "stoppablecontainer";
const MOUNT: &str = "/sys/fs/cgroup";

/// A node's group as the kubelet is told, a path below the hierarchy's root.
pub fn root_of(node: &Node) -> String {
    format!("/{PARENT}/{}", node.name)
}

/// Makes a node's group in every hierarchy.
pub fn prepare(node: &Node) -> Result<()> {
    for hierarchy in hierarchies()? {
        let path = hierarchy.join(PARENT).join(&node.name);
        fs::create_dir_all(&path).with_context(|| format!("making the control group {}", path.display()))?;
        if hierarchy.join("cgroup.controllers").is_file() {
            delegate(&hierarchy, &path)?;
        } else if hierarchy.join("cpuset.cpus").is_file() {
            inherit_cpuset(&hierarchy, &hierarchy.join(PARENT))?;
            inherit_cpuset(&hierarchy.join(PARENT), &path)?;
        }
    }
    Ok(())
}

/// Removes a node's group and everything below it; no process may be left in it.
pub fn clean(node: &Node) -> Result<()> {
    for hierarchy in hierarchies()? {
        remove_tree(&hierarchy.join(PARENT).join(&node.name))?;
        // Fails while another node has its group there, which is as it should be.
        let _ = fs::remove_dir(hierarchy.join(PARENT));
    }
    Ok(())
}

/// The mount points of the hierarchies: one in v2, one per controller in v1.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?;
    let entries = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind) = (fields.next()?, fields.next()?);
        (matches!(kind, "cgroup" | "cgroup2") && path.starts_with(MOUNT)).then(|| PathBuf::from(path))
    });
    let mut found: Vec<_> = entries.collect();
    found.sort();
    found.dedup();
    Ok(found)
}

/// Hands every controller of v2 down to `path`.
fn delegate(hierarchy: &Path, path: &Path) -> Result<()> {
    let mut levels: Vec<_> = path.ancestors().skip(1).take_while(|level| level.starts_with(hierarchy)).collect();
    levels.reverse();
    for level in levels {
        let controllers = fs::read_to_string(level.join("cgroup.controllers")).unwrap_or_default();
        for controller in controllers.split_whitespace() {
            // One that the machine keeps to itself is missed by the kubelet, which says so.
            let _ = fs::write(level.join("cgroup.subtree_control"), format!("+{controller}"));
        }
    }
    Ok(())
}

/// A new cpuset group of v1 is empty and takes no process.
fn inherit_cpuset(parent: &Path, child: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let value = fs::read_to_string(parent.join(file)).with_context(|| format!("reading {}", parent.display()))?;
        fs::write(child.join(file), value.trim()).with_context(|| format!("writing {}", child.join(file).display()))?;
    }
    Ok(())
}

fn remove_tree(path: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(path) else { return Ok(()) };
    for entry in entries.filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path).with_context(|| format!("removing the control group {}", path.display()))
}
