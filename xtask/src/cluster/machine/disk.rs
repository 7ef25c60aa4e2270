/*!
The disk of a virtual machine. At the first start it is made from Debian's files and those that make
a node of it. Later starts change it by what the last power cut left.
*/

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::Settings;
use super::write_log::{self, Replayed};
use crate::shell;
use crate::tools::Lsm;

/// Size of the disk. Its image takes what is written.
const GIBIBYTES: u64 = 12;
/// Size of the log of writes, as long as nothing is written.
const LOG: u64 = 64 << 30;

/// Files in a node's directory: the disk, the layer of the running machine above it, and the log of
/// that layer.
const IMAGE: &str = "disk.image";
const LAYER: &str = "layer.qcow2";
const WRITES: &str = "writes.log";

/// Files that make a node of a Debian, by their paths. What depends on the node is on the second
/// disk (`%H` is the node's name).
const FILES: &[(&str, &str)] = &[
    ("etc/fstab", include_str!("files/fstab")),
    (
        "etc/modules-load.d/node.conf",
        "br_netfilter\nnf_conntrack\noverlay\n",
    ),
    (
        "etc/sysctl.d/node.conf",
        "net.ipv4.ip_forward = 1\nnet.bridge.bridge-nf-call-iptables = 1\n",
    ),
    (
        "etc/systemd/journald.conf.d/node.conf",
        "[Journal]\nForwardToConsole=yes\nTTYPath=/dev/hvc0\nMaxLevelConsole=info\nStorage=volatile\n",
    ),
    (
        "etc/systemd/system/serial-getty@ttyS0.service.d/node.conf",
        "[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root --keep-baud 115200 - $TERM\n",
    ),
    (
        "etc/systemd/system/containerd.service.d/node.conf",
        include_str!("files/containerd.conf"),
    ),
    (
        "etc/systemd/system/node-network.service",
        include_str!("files/node-network.service"),
    ),
    (
        "etc/systemd/system/node-facts.service",
        include_str!("files/node-facts.service"),
    ),
    (
        "etc/systemd/system/kubelet.service",
        include_str!("files/kubelet.service"),
    ),
    (
        "etc/systemd/system/kube-proxy.service",
        include_str!("files/kube-proxy.service"),
    ),
];
/// Units that are started at boot.
const WANTED: &[&str] = &["node-network", "node-facts", "kubelet", "kube-proxy"];
/// Units of Debian that are not.
const MASKED: &[&str] = &[
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
    "getty@tty1.service",
    "serial-getty@hvc0.service",
];

/// Makes the disk, or brings it to the state in which the last power cut left it. Returns what the
/// power cut left of the writes. The machine must not run.
pub(super) fn prepare(own: &Path, root: &Path, lsm: Lsm) -> Result<Option<Replayed>> {
    let mut replayed = None;
    let [image, layer, writes] = [IMAGE, LAYER, WRITES].map(|name| own.join(name));
    if !image.exists() {
        make(root, lsm, &image)?;
    } else if writes.exists() {
        replayed = Some(write_log::replay(&writes, &image)?);
    }
    let log = File::create(&writes).and_then(|file| file.set_len(LOG));
    log.with_context(|| format!("making {}", writes.display()))?;
    let create = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b"];
    shell::output(Command::new("qemu-img").args(create).arg(&image).arg(&layer))?;
    Ok(replayed)
}

/// Adds it to QEMU's command. Nothing has to reach the machine's own disk: only the virtual machine
/// loses its power.
///
/// QEMU does not merge the requests of the machine: a merged request may have as many buffers as
/// writev(2) takes (`IOV_MAX`), the log adds two more to it, and the write would fail with EIO.
pub(super) fn attach(command: &mut Command, own: &Path, settings: Settings) {
    let file = |name: &str, node: &str| {
        format!(
            "driver=file,filename={},node-name={node},cache.no-flush=on",
            own.join(name).display()
        )
    };
    for device in [
        file(LAYER, "layer-file"),
        "driver=qcow2,file=layer-file,node-name=layer".to_owned(),
        file(WRITES, "writes"),
        "driver=blklogwrites,file=layer,log=writes,node-name=disk,log-super-update-interval=1".to_owned(),
    ] {
        command.args(["-blockdev", &device]);
    }
    let cache = if settings.write_cache { "on" } else { "off" };
    command.args(["-device"]).arg(format!(
        "virtio-blk-pci,drive=disk,write-cache={cache},discard=off,write-zeroes=off,request-merging=off"
    ));
}

/// Makes the image, whole or not at all.
fn make(root: &Path, lsm: Lsm, image: &Path) -> Result<()> {
    write_files(root)?;
    if lsm == Lsm::SeLinux {
        label(root)?;
    }
    let partial = image.with_added_extension("partial");
    let _ = fs::remove_file(&partial);
    let mut command = Command::new("mkfs.ext4");
    command
        .args(["-q", "-F", "-m", "0", "-d"])
        .arg(root)
        .arg(&partial);
    shell::output(command.arg(format!("{GIBIBYTES}G")))?;
    fs::rename(&partial, image).with_context(|| format!("making {}", image.display()))
}

fn write_files(root: &Path) -> Result<()> {
    for (path, text) in FILES {
        let path = root.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
        }
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    let units = root.join("etc/systemd/system");
    fs::create_dir_all(root.join(super::seed::PLACE.trim_start_matches('/')))
        .context("making a mount point")?;
    for unit in WANTED {
        let name = format!("{unit}.service");
        link(
            &format!("../{name}"),
            &units.join("multi-user.target.wants").join(name.as_str()),
        )?;
    }
    for unit in MASKED {
        link("/dev/null", &units.join(unit))?;
    }
    link(
        "/usr/lib/systemd/system/multi-user.target",
        &units.join("default.target"),
    )
}

fn link(to: &str, path: &Path) -> Result<()> {
    let _ = fs::remove_file(path);
    symlink(to, path).with_context(|| format!("linking {}", path.display()))
}

/// What the machine's policy has beyond Debian's, in SELinux's Common Intermediate Language. The
/// rules of Debian for containerd and for the kubelet are not complete: neither may use the volumes
/// of service account tokens. Those for containers leave out capabilities that a runtime gives them
/// by default, without which nginx does not start in a plain pod. All else is enforced.
const POLICY: &str = "(typepermissive dockerd_t)\n\
    (typepermissive kubelet_t)\n\
    (allow container_t self (capability (chown dac_override fowner fsetid kill setgid setuid setpcap \
    net_bind_service net_raw sys_chroot mknod audit_write setfcap)))\n";

/// Gives files the labels of Debian's policy, which works on a machine without SELinux too. The
/// policy knows the programs of CNI only where upstream has them, in `/opt/cni/bin`.
fn label(root: &Path) -> Result<()> {
    for (path, text) in [
        ("config", "SELINUX=enforcing\nSELINUXTYPE=default\n"),
        (
            "default/contexts/files/file_contexts.local",
            "/usr/lib/cni/.*\t--\tsystem_u:object_r:bin_t:s0\n",
        ),
    ] {
        let path = root.join("etc/selinux").join(path);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    let module = "root/node.cil";
    fs::write(root.join(module), POLICY).context("writing the policy's module")?;
    let mut command = Command::new("chroot");
    command
        .arg(root)
        .args(["semodule", "--noreload", "--install", module]);
    shell::output(&mut command)?;
    let mut command = Command::new("chroot");
    command
        .arg(root)
        .args(["setfiles", "-F", "-e", "/proc", "-e", "/sys", "-e", "/dev"]);
    command.args(["/etc/selinux/default/contexts/files/file_contexts", "/"]);
    shell::output(&mut command).map(drop)
}
