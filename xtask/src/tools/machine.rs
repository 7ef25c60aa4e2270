/*!
The files of virtual machines that are nodes: Debian with systemd, bootstrapped once for each
security module. Its packages bring the kernel and containerd of that release. What makes a node of
it is written by `cluster::machine`.
*/

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::ValueEnum;

use super::stamp::{Fingerprint, Stamp};
use crate::progress::Step;

/// Release of Debian.
pub(crate) const SUITE: &str = "trixie";
/// Packages on top of the minimal system: those of a node, and those of tests that make disks.
const PACKAGES: &[&str] = &[
    "systemd-sysv",
    "udev",
    "dbus",
    "linux-image-cloud-amd64",
    "containerd",
    "runc",
    "containernetworking-plugins",
    "iproute2",
    "iptables",
    "nftables",
    "conntrack",
    "kmod",
    "netbase",
    "procps",
    "e2fsprogs",
    "btrfs-progs",
];
/// Number of lines that debootstrap prints, for the progress display.
const LINES: usize = 760;

/// A security module of the kernel that confines containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lsm {
    /// With the profile that containerd loads.
    #[value(name = "apparmor")]
    AppArmor,
    /// With Debian's policy, enforcing.
    #[value(name = "selinux")]
    SeLinux,
}

// === impl Lsm ===

impl Lsm {
    /// Its name, as the kernel has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AppArmor => "apparmor",
            Self::SeLinux => "selinux",
        }
    }

    /// Packages that it needs.
    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::AppArmor => &["apparmor"],
            Self::SeLinux => &["selinux-basics", "selinux-policy-default", "policycoreutils"],
        }
    }
}

/// The directory of a machine's files, below that of the tools.
pub(super) fn root(tools: &Path, lsm: Lsm) -> PathBuf {
    tools.join(format!("machine-{}", lsm.name()))
}

/// Bootstraps the files, unless that was done with these packages.
pub(super) fn provide(step: &Step<'_>, tools: &Path, lsm: Lsm) -> Result<()> {
    let root = root(tools, lsm);
    let packages = [PACKAGES, lsm.packages()].concat().join(",");
    let fingerprint = Fingerprint::new().text(SUITE).text(&packages).finish();
    let stamp = Stamp::new(root.with_extension("stamp"));
    if root.is_dir() && stamp.is(&fingerprint) {
        return Ok(());
    }
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("removing {}", root.display()))?;
    }
    step.run_counting(
        Command::new("debootstrap")
            .args(["--variant=minbase", &format!("--include={packages}"), SUITE])
            .arg(&root),
        LINES,
    )?;
    let archives = root.join("var/cache/apt/archives");
    step.run(
        Command::new("find")
            .arg(archives)
            .args(["-name", "*.deb", "-delete"]),
    )?;
    stamp.set(&fingerprint)
}
