/*!
`cluster up`: every part is started if it does not run, so the command means the same on an empty
machine, after a reboot and on a cluster that is up.
*/

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use super::context::Cluster;
use super::dir::Owner;
use super::node::{Kind, Node};
use super::pki::Pki;
use super::process::Daemon;
use super::{control_plane, down, network, preflight, registry};
use crate::progress::Step;
use crate::shell;
use crate::tools::Tools;

/// How long a node may take until it is Ready.
const PATIENCE: Duration = Duration::from_mins(2);
/// The same for a virtual machine, whose processors are emulated.
const MACHINE_PATIENCE: Duration = Duration::from_mins(12);
/// Steps of this command but those of the tools.
pub(super) const STEPS: usize = 5;

/// What a node's kubelet said last.
struct NodeWord {
    ready: bool,
    /// When it said so, in whole seconds since 1970.
    heartbeat: f64,
    /// When it last said that it lives, in seconds since 1970.
    lease: f64,
}

/// Brings the cluster up with the nodes that it has, and with the first `nodes` at least.
pub(super) fn run(cluster: &Cluster<'_>, nodes: u8) -> Result<()> {
    preflight::check(cluster, &wanted(cluster, nodes)?)?;
    cluster.progress.expect(Tools::CLUSTER_STEPS + STEPS + 1);
    cluster
        .tools
        .prepare_cluster(cluster.workspace, cluster.progress)?;
    Tools::prepare_images(cluster.progress)?;
    let _lock = cluster.dir.lock()?;
    let mut owner = claim(cluster)?;
    match start(cluster, &mut owner, nodes) {
        Err(error) if !owner.tools.is_empty() => {
            // State of an earlier life that its own programs cannot use any more, as a disk that
            // was full leaves it.
            cluster.progress.say(format!(
                "the cluster's old state cannot be used, starting afresh: {error:#}"
            ));
            down::stop_and_clean(cluster, &owner)?;
            cluster.dir.make("", 0o755)?;
            let mut owner = claim(cluster)?;
            start(cluster, &mut owner, nodes)?;
            finish(cluster, owner)
        }
        Err(error) => {
            let logs = cluster.workspace.logs().join("cluster");
            let kept = keep_logs(cluster, &logs);
            let clean = down::stop_and_clean(cluster, &owner);
            Err(error).with_context(|| match clean.and(kept) {
                Ok(()) => format!(
                    "the cluster did not come up; what was made of it is removed, but for its logs, which are now in {}",
                    logs.display()
                ),
                Err(left) => format!("the cluster did not come up, and could not be removed again ({left:#})"),
            })
        }
        Ok(()) => finish(cluster, owner),
    }
}

/// Starts a cluster that was up once and whose processes were stopped. If it does not start it is
/// left as it is.
pub(super) fn start_existing(cluster: &Cluster<'_>) -> Result<()> {
    let mut owner = cluster
        .dir
        .owner()?
        .context("the cluster's directory says nothing of its owner")?;
    start(cluster, &mut owner, 1)
}

/// Starts nodes at the same time and waits until Kubernetes calls each Ready on the word of this
/// start, not of an earlier one.
pub(super) fn start_nodes(cluster: &Cluster<'_>, nodes: &[Node], step: &Step<'_>) -> Result<()> {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("reading the clock")?
        .as_secs_f64();
    let mut started = Vec::new();
    for node in nodes {
        let fresh = node.daemon(&cluster.dir).pid().is_none();
        node.start(&cluster.dir, &cluster.tools)?;
        started.push((node, fresh.then_some(since)));
    }
    let begun = Instant::now();
    for (node, since) in started {
        step.note(format!("waiting for {} to be Ready", node.name));
        wait_for_node(cluster, node, since, begun)?;
    }
    Ok(())
}

/// Waits until a node is Ready, by a word that is newer than `since` if there is such a time.
fn wait_for_node(cluster: &Cluster<'_>, node: &Node, since: Option<f64>, begun: Instant) -> Result<()> {
    let daemon = node.daemon(&cluster.dir);
    let (patience, logs) = if node.is_machine() {
        (
            MACHINE_PATIENCE,
            format!("{0}.log and {0}-journal.log", node.name),
        )
    } else {
        let runtime = cluster.tools.runtime().program();
        (
            PATIENCE,
            format!("{0}-kubelet.log and {0}-{runtime}.log", node.name),
        )
    };
    loop {
        match last_word(cluster, node) {
            Ok(word) if word.ready && since.is_none_or(|since| word.is_since(since)) => return Ok(()),
            _ if begun.elapsed() > patience => bail!(
                "{} is not Ready after {} s; see {} in {}",
                node.name,
                patience.as_secs(),
                logs,
                cluster.dir.join("logs").display()
            ),
            _ => daemon.require_alive()?,
        }
        thread::sleep(Duration::from_millis(200));
    }
}

// === impl NodeWord ===

impl NodeWord {
    /// Whether all of it is of a kubelet that was started at `start`. The heartbeat's whole second
    /// alone may be of the one before.
    fn is_since(&self, start: f64) -> bool {
        self.heartbeat >= start.floor() && self.lease > start
    }
}

/// Copies the logs of the cluster's processes to where they survive it.
fn keep_logs(cluster: &Cluster<'_>, place: &Path) -> Result<()> {
    fs::create_dir_all(place).with_context(|| format!("making {}", place.display()))?;
    let logs = cluster.dir.join("logs");
    for entry in fs::read_dir(&logs).with_context(|| format!("reading {}", logs.display()))? {
        let entry = entry.with_context(|| format!("reading {}", logs.display()))?;
        fs::copy(entry.path(), place.join(entry.file_name())).context("copying a log")?;
    }
    Ok(())
}

/// Takes the directory for this clone; what another clone or other programs left in it is thrown
/// away.
fn claim(cluster: &Cluster<'_>) -> Result<Owner> {
    let dir = &cluster.dir;
    // Another clone may have come first while this one waited for the lock.
    dir.require_own_or_dead(cluster.workspace)?;
    let found = dir.owner()?;
    let of_others = found
        .as_ref()
        .is_some_and(|owner| owner.clone != cluster.workspace.root());
    let mut owner = found.unwrap_or_default();
    let of_other_programs = !owner.tools.is_empty() && owner.tools != cluster.tools.fingerprint();
    if of_others || of_other_programs {
        let whose = if of_others {
            "by another clone"
        } else {
            "by other versions of its programs"
        };
        cluster
            .progress
            .say(format!("the cluster was made {whose}: starting afresh"));
        down::stop_and_clean(cluster, &owner)?;
        dir.make("", 0o755)?;
        owner = Owner::default();
    }
    cluster.workspace.root().clone_into(&mut owner.clone);
    owner.release = cluster.tools.release();
    owner.runtime = cluster.tools.runtime();
    if owner.sysctls.is_empty() {
        network::remember_sysctls(&mut owner);
    }
    dir.set_owner(&owner)?;
    Ok(owner)
}

/// Remembers that the state was good once.
fn finish(cluster: &Cluster<'_>, mut owner: Owner) -> Result<()> {
    owner.tools = cluster.tools.fingerprint();
    cluster.dir.set_owner(&owner)?;
    let kubeconfig = cluster.kubeconfig();
    cluster.progress.say(format!(
        "the cluster is up: export KUBECONFIG={}",
        kubeconfig.display()
    ));
    Ok(())
}

/// The nodes that exist and the first `nodes`, in their order.
fn wanted(cluster: &Cluster<'_>, nodes: u8) -> Result<Vec<Node>> {
    let mut wanted = Node::all(&cluster.dir)?;
    for index in 1..=nodes {
        if wanted.iter().all(|node| node.index != index) {
            wanted.push(Node::numbered(Kind::Process, index));
        }
    }
    wanted.sort_by_key(|node| node.index);
    Ok(wanted)
}

fn start(cluster: &Cluster<'_>, owner: &mut Owner, nodes: u8) -> Result<()> {
    let Cluster {
        progress, dir, tools, ..
    } = cluster;
    let nodes = wanted(cluster, nodes)?;
    progress.step("Certificates and network of the cluster", |_| {
        Pki::new(dir).prepare_control_plane()?;
        network::prepare()?;
        if Daemon::new(dir, "kube-proxy").pid().is_none() {
            network::remove_service_rules();
        }
        nodes.iter().try_for_each(|node| node.prepare(dir, tools, owner))
    })?;
    progress.step("Start the image registry", |step| {
        registry::start(dir, tools)?;
        (cluster.provide_pause)(cluster.workspace, step)
    })?;
    progress.step("Start the control plane", |step| {
        control_plane::start(dir, tools, step)
    })?;
    let names: Vec<_> = nodes.iter().map(|node| node.name.as_str()).collect();
    progress.step(&format!("Start {}", names.join(", ")), |step| {
        start_nodes(cluster, &nodes, step)
    })?;
    progress.step("Wait for the default service account", |step| {
        // A pod that starts before these exist waits for "failed to sync configmap cache".
        for object in ["configmap/kube-root-ca.crt", "serviceaccount/default"] {
            step.run(
                cluster
                    .kubectl()
                    .args(["wait", "--for=create", "--timeout=60s", object]),
            )?;
        }
        Ok(())
    })
}

/// The node's state, from the API server.
fn last_word(cluster: &Cluster<'_>, node: &Node) -> Result<NodeWord> {
    let field = |object: &[&str], path: &str| -> Result<String> {
        let mut command = cluster.kubectl();
        command
            .arg("get")
            .args(object)
            .args(["--request-timeout=5s", "-o", &format!("jsonpath={path}")]);
        shell::output(&mut command)
    };
    let seconds = |time: &str| -> Result<f64> {
        let text = shell::capture("date", ["-d", time, "+%s.%N"])?;
        text.trim()
            .parse()
            .with_context(|| format!("reading the time {time}"))
    };
    let ready = r#"{.status.conditions[?(@.type=="Ready")].status} {.status.conditions[?(@.type=="Ready")].lastHeartbeatTime}"#;
    let ready = field(&["node", &node.name], ready)?;
    let (status, heartbeat) = ready.split_once(' ').context("the node has no Ready condition")?;
    let lease = field(
        &["lease", "-n", "kube-node-lease", &node.name],
        "{.spec.renewTime}",
    )?;
    Ok(NodeWord {
        ready: status == "True",
        heartbeat: seconds(heartbeat)?,
        lease: seconds(&lease)?,
    })
}
