/*!
A node that is a virtual machine: Debian with its own kernel and systemd, in QEMU without KVM. The
control plane stays on the machine outside.

Killing QEMU is a power cut. What the virtual machine wrote goes to a layer above its disk and to a
log (`write_log`). At the next start only what the disk of a real machine would have kept reaches
the disk (`disk`). Configuration and programs come on a second disk, which is made at each start
(`seed`).
*/

mod disk;
mod seed;
mod write_log;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::dir::ClusterDir;
use super::node::Node;
use crate::tools::{Lsm, Tools};
use write_log::Replayed;

/// Its processors and its memory.
const PROCESSORS: u8 = 2;
const MEBIBYTES: u32 = 3072;

/// How it is built, apart from what its name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Settings {
    /// Whether its disk has a cache that a power cut empties.
    pub write_cache: bool,
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self { write_cache: true }
    }
}

impl Settings {
    const FILE: &str = "machine.json";

    /// Those of a node.
    pub(super) fn of(node: &Node, dir: &ClusterDir) -> Result<Self> {
        let path = node.dir(dir).join(Self::FILE);
        match fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).with_context(|| format!("reading {}", path.display()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// Sets them for the node's next start.
    pub(super) fn set(self, node: &Node, dir: &ClusterDir) -> Result<()> {
        let own = Path::new("nodes").join(&node.name);
        dir.write(own.join(Self::FILE), &serde_json::to_vec(&self)?, 0o644)?;
        Ok(())
    }
}

/// The log of everything that runs in a virtual machine: its journal.
pub(super) fn journal(node: &Node, dir: &ClusterDir) -> PathBuf {
    dir.log(&format!("{}-journal", node.name))
}

/// Path of a program in a virtual machine that came with the configuration.
pub(super) fn program(name: &str) -> PathBuf {
    Path::new(seed::PLACE).join("bin").join(name)
}

/// What a virtual machine says about itself when it boots: values by names.
pub(super) fn facts(node: &Node, dir: &ClusterDir) -> Result<BTreeMap<String, String>> {
    let path = journal(node, dir);
    let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(facts_in(&String::from_utf8_lossy(&text)))
}

/// Those of a journal's last boot.
fn facts_in(journal: &str) -> BTreeMap<String, String> {
    let facts = journal.lines().filter_map(|line| {
        let (name, value) = line.split_once("]: fact ")?.1.split_once(": ")?;
        Some((name.to_owned(), value.trim_end().to_owned()))
    });
    facts.collect()
}

/// Prepares the disks of a virtual machine that does not run, and returns the command that is it.
pub(super) fn start(node: &Node, lsm: Lsm, dir: &ClusterDir, tools: &Tools) -> Result<Command> {
    let root = tools.machine_root(lsm);
    let (own, seed) = (node.dir(dir), seed::make(node, dir, tools)?);
    let replayed = disk::prepare(&own, &root, lsm)?;
    let boot = root.join("boot");
    let kernel = only(&boot, "vmlinuz-")?;
    let initramfs = only(&boot, "initrd.img-")?;
    let journal = journal(node, dir);
    fs::create_dir_all(dir.join("logs")).context("making the directory of logs")?;
    if let Some(Replayed { kept, lost }) = replayed {
        // As a fact of the boot that follows.
        let fact = format!(
            "[outside]: fact writes: {lost} of {} writes of the disk\n",
            kept + lost
        );
        let file = fs::File::options().append(true).create(true).open(&journal);
        file.and_then(|mut file| file.write_all(fact.as_bytes()))
            .with_context(|| format!("writing {}", journal.display()))?;
    }

    let mut command = Command::new("nice");
    command.args(["-n", "1"]);
    command.args(["qemu-system-x86_64", "-accel", "tcg,thread=multi"]);
    command.args([
        "-nodefaults",
        "-no-reboot",
        "-display",
        "none",
        "-monitor",
        "none",
    ]);
    command.args(["-smp", &PROCESSORS.to_string(), "-m", &MEBIBYTES.to_string()]);
    command.args(["-rtc", "base=utc", "-device", "virtio-rng-pci"]);
    // The console is this process's output. Who wants to type connects to the socket.
    let console = own.join("console.socket");
    command.arg("-chardev").arg(format!(
        "socket,id=console,path={},server=on,wait=off,logfile=/dev/stdout",
        console.display()
    ));
    command.args(["-serial", "chardev:console", "-device", "virtio-serial-pci"]);
    let journal = format!("file,id=journal,path={},append=on", journal.display());
    command.args(["-chardev", &journal, "-device", "virtconsole,chardev=journal"]);
    disk::attach(&mut command, &own, Settings::of(node, dir)?);
    command.arg("-drive").arg(format!(
        "file={},if=none,id=seed,format=raw,read-only=on",
        seed.display()
    ));
    command.args(["-device", "virtio-blk-pci,drive=seed"]);
    let cable = format!("tap,id=cable,ifname={},script=no,downscript=no", node.bridge());
    command.args([
        "-netdev",
        &cable,
        "-device",
        "virtio-net-pci,netdev=cable,romfile=",
    ]);
    // For the image registry, which listens on the machine's 127.0.0.1.
    command.args([
        "-netdev",
        "user,id=host",
        "-device",
        "virtio-net-pci,netdev=host,romfile=",
    ]);
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
    command.arg("-append").arg(format!(
        "root=/dev/vda rw console=ttyS0 loglevel=4 panic=1 net.ifnames=0 systemd.hostname={} security={}",
        node.name,
        lsm.name()
    ));
    Ok(command)
}

/// The only file of a directory whose name begins so.
fn only(dir: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    let mut names = entries.filter_map(Result::ok).map(|entry| entry.path());
    names
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
        })
        .with_context(|| {
            format!(
                "{} has no {prefix}*: remove it to have it made anew",
                dir.display()
            )
        })
}

#[cfg(test)]
mod tests {
    use super::facts_in;

    #[test]
    fn facts_are_those_of_the_last_boot() {
        let journal = "[   29.1] sh[502]: fact systemd: 256\n[ 1.0] sh[1]: in fact: no\r\n\
                       login: [   29.2] sh[502]: fact systemd: 257\r\n[   30.0] sh[502]: fact files: 1 2\n";
        let facts = facts_in(journal);
        assert_eq!(facts.len(), 2, "{facts:?}");
        assert_eq!(
            (facts["systemd"].as_str(), facts["files"].as_str()),
            ("257", "1 2")
        );
    }
}
