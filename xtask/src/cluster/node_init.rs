/*!
The first process of a node: makes the node's view of the file system, starts the container runtime
and the kubelet, starts them again when they end, and reaps. When it dies the kernel kills
everything else in the node: a power cut.
*/

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::process::{WaitOptions, getpid, wait};

use super::dir::ClusterDir;
use super::node::{FSTAB, Node, kept};
use super::node_config::{self, socket};
use crate::tools::{Runtime, Tools};

/// How long the container runtime may take until it listens.
const PATIENCE: Duration = Duration::from_mins(1);
/// Between the end of the runtime or the kubelet and its next start, as a service manager would
/// wait.
const RESTART_DELAY: Duration = Duration::from_secs(1);

/// Is the node. Returns only with an error: a node ends by being killed.
pub(super) fn run(name: &str, dir: &ClusterDir, tools: &Tools) -> Result<()> {
    if !getpid().is_init() {
        bail!("node-init must be the first process of a PID namespace: `cargo xtask cluster up` starts it");
    }
    let node = Node::named(name)?;
    mount_file_systems(&node, dir, tools)?;
    let mut runtime = start_runtime(&node, dir, tools)?;
    wait_for_socket(&mut runtime, tools.runtime())?;
    let mut kubelet = start_kubelet(&node, dir, tools)?;
    loop {
        let ended = match wait(WaitOptions::empty()) {
            Ok(Some((pid, _))) => u32::try_from(pid.as_raw_nonzero().get()).unwrap_or_default(),
            Ok(None) | Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error).context("waiting for the node's processes"),
        };
        // Anything else that ends here is an orphan, and reaped by now.
        if ended == runtime.id() {
            eprintln!("node-init: the container runtime ended, starting it again");
            thread::sleep(RESTART_DELAY);
            runtime = start_runtime(&node, dir, tools)?;
        } else if ended == kubelet.id() {
            eprintln!("node-init: the kubelet ended, starting it again");
            thread::sleep(RESTART_DELAY);
            kubelet = start_kubelet(&node, dir, tools)?;
        }
    }
}

fn mount_file_systems(node: &Node, dir: &ClusterDir, tools: &Tools) -> Result<()> {
    // Shared among the node's own mount namespaces, as under systemd; the machine's stays a master
    // that sees nothing.
    let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    mount_change("/", shared).context("sharing the node's mounts")?;
    for (own, place) in kept(tools.runtime()) {
        let source = node.dir(dir).join(own);
        mount_bind(&source, place).with_context(|| format!("binding {} over {place}", source.display()))?;
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("tmpfs", "/run", "tmpfs", flags, c"mode=755").context("mounting an empty /run")?;
    mount_disks();
    Ok(())
}

/// Mounts what the node's own table says, before anything uses it. A disk that is broken does not
/// keep a node from starting.
fn mount_disks() {
    if !Path::new(FSTAB).exists() {
        return;
    }
    let status = Command::new("mount").args(["--all", "--fstab", FSTAB]).status();
    if !status.as_ref().is_ok_and(std::process::ExitStatus::success) {
        eprintln!("node-init: not all file systems of {FSTAB} are mounted: {status:?}");
    }
}

fn start_runtime(node: &Node, dir: &ClusterDir, tools: &Tools) -> Result<Child> {
    let runtime = tools.runtime();
    let own = node.dir(dir);
    let mut command = Command::new(tools.runtime_program());
    match runtime {
        Runtime::Containerd => {
            command.arg("--config").arg(own.join("containerd.toml"));
        }
        Runtime::CriO => {
            // Not the machine's configuration. A user's registries.conf goes before /etc.
            command.arg("--config").arg(own.join("cri-o/crio.conf"));
            command.args(["--config-dir", ""]);
            command.env("HOME", own.join("cri-o/home"));
        }
    }
    start(command, &dir.log(&format!("{}-{}", node.name, runtime.program())))
}

fn start_kubelet(node: &Node, dir: &ClusterDir, tools: &Tools) -> Result<Child> {
    let mut command = tools.kube("kubelet");
    command.args(node_config::kubelet_arguments(node, dir));
    start(command, &dir.log(&format!("{}-kubelet", node.name)))
}

fn start(mut command: Command, log: &Path) -> Result<Child> {
    let open = || std::fs::File::options().append(true).create(true).open(log);
    let file = open().with_context(|| format!("opening {}", log.display()))?;
    command
        .stdout(file.try_clone().context("copying a descriptor")?)
        .stderr(file);
    command
        .spawn()
        .with_context(|| format!("starting {}", crate::progress::describe(&command)))
}

fn wait_for_socket(runtime: &mut Child, kind: Runtime) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let (name, socket) = (kind.program(), socket(kind));
    while UnixStream::connect(socket).is_err() {
        if let Some(status) = runtime
            .try_wait()
            .with_context(|| format!("waiting for {name}"))?
        {
            bail!("{name} ended with {status}");
        }
        if Instant::now() > deadline {
            bail!(
                "{name} does not listen on {socket} after {} s",
                PATIENCE.as_secs()
            );
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
