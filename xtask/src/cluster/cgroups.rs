/*!
The cluster's control groups: its processes leave those of the shell that started them, whose limits
and whose end are not theirs. Each node has a root of its own, below which its kubelet makes
`kubepods`: two kubelets with one root would each remove the other's pods.

The machine's hierarchy is taken as it is, v1 or v2, and never remounted.
*/

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::node::Node;
use crate::second_cluster;

/// Parent of all nodes' groups, of the first cluster.
const PARENT: &str = "stoppablecontainer";
/// The cluster's share of the processors: the file of v1 and of v2, and eight times its default. A
/// nice value is not enough for what computes beside a cluster, because the kernel compares it only
/// within a session (autogroup, sched(7)), and sessions with the cluster's group.
const PROCESSOR_SHARES: [(&str, &str); 2] = [("cpu.shares", "8192"), ("cpu.weight", "800")];
const MOUNT: &str = "/sys/fs/cgroup";
/// How long the groups of killed processes may stay busy.
const PATIENCE: Duration = Duration::from_secs(10);

/// The group of the processes that belong to no node.
pub(super) const CONTROL_PLANE: &str = "control-plane";

/// The group of a node's own processes, beside its pods'.
pub(super) fn system_of(node: &Node) -> String {
    format!("{}/system", node.name)
}

/// Parent of all nodes' groups.
fn parent() -> String {
    second_cluster::own(PARENT)
}

/// A node's group for the kubelet's configuration: a path below the hierarchy's root.
pub(super) fn root_of(node: &Node) -> String {
    format!("/{}/{}", parent(), node.name)
}

/// The group of a node's own processes in the unified hierarchy, as packet filters know it: a path
/// below where the machine mounts control groups, and its depth in the hierarchy.
pub(super) fn unified_of(node: &Node) -> Result<(String, usize)> {
    let hierarchy = hierarchies()?
        .into_iter()
        .find(|path| path.join("cgroup.controllers").is_file())
        .context("the machine has no unified hierarchy of control groups")?;
    let group = Path::new(&parent()).join(system_of(node));
    let below = hierarchy.strip_prefix(MOUNT).unwrap_or(&hierarchy).join(&group);
    Ok((below.display().to_string(), group.components().count()))
}

/// Makes a group in every hierarchy, by its path below the cluster's, and returns the files that
/// take a process into it.
pub(super) fn prepare(group: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for hierarchy in hierarchies()? {
        let mut path = hierarchy.clone();
        for part in &Path::new(&parent()).join(group) {
            if hierarchy.join("cgroup.controllers").is_file() {
                delegate(&path);
            }
            let child = path.join(part);
            fs::create_dir_all(&child)
                .with_context(|| format!("making the control group {}", child.display()))?;
            if hierarchy.join("cpuset.cpus").is_file() {
                inherit_cpuset(&path, &child)?;
            }
            path = child;
        }
        prefer(&hierarchy.join(parent()))?;
        files.push(path.join("cgroup.procs"));
    }
    Ok(files)
}

/// Removes a node's groups: after a power cut it has none. The kubelet's start would stumble over
/// those of dead pods, three seconds each. No process may be left in them.
pub(super) fn clean_node(node: &Node) -> Result<()> {
    for hierarchy in hierarchies()? {
        retry(|| remove_tree(&hierarchy.join(parent()).join(&node.name)))?;
    }
    Ok(())
}

/// Removes the cluster's groups; no process may be left in them.
pub(super) fn clean() -> Result<()> {
    for hierarchy in hierarchies()? {
        retry(|| remove_tree(&hierarchy.join(parent())))?;
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

/// Sets the cluster's share in the hierarchy of the processors.
fn prefer(path: &Path) -> Result<()> {
    for (file, share) in PROCESSOR_SHARES {
        let file = path.join(file);
        if file.is_file() {
            fs::write(&file, share).with_context(|| format!("writing {}", file.display()))?;
        }
    }
    Ok(())
}

/// Hands every controller of v2 down to the children of `path`.
fn delegate(path: &Path) {
    let controllers = fs::read_to_string(path.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        // One that the machine keeps to itself is missed by the kubelet, which says so.
        let _ = fs::write(path.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// A new cpuset group of v1 is empty and takes no process.
fn inherit_cpuset(parent: &Path, child: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if !fs::read_to_string(child.join(file))
            .unwrap_or_default()
            .trim()
            .is_empty()
        {
            continue;
        }
        let value =
            fs::read_to_string(parent.join(file)).with_context(|| format!("reading {}", parent.display()))?;
        fs::write(child.join(file), value.trim())
            .with_context(|| format!("writing {}", child.join(file).display()))?;
    }
    Ok(())
}

fn remove_tree(path: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(path) else {
        return Ok(());
    };
    for entry in entries.filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path).with_context(|| format!("removing the control group {}", path.display()))
}

/// The kernel is done with the processes of a group a moment after they were killed.
fn retry(work: impl Fn() -> Result<()>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match work() {
            Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(20)),
            result => return result,
        }
    }
}
