/*!
Debian packages: installed where they bring nothing but programs, else only unpacked.
*/

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::stamp::{Fingerprint, Stamp};
use crate::progress::Step;
use crate::shell;

/// Installs the packages whose programs are missing. Each pair is a program and its package.
pub(super) fn install(step: &Step<'_>, programs: &[(&str, &str)]) -> Result<()> {
    let missing = programs
        .iter()
        .filter(|(program, _)| shell::which(program).is_none());
    install_packages(step, &missing.map(|(_, package)| *package).collect::<Vec<_>>())
}

/// As [`install`], by the paths of files instead of programs.
pub(super) fn install_files(step: &Step<'_>, files: &[(&str, &str)]) -> Result<()> {
    let missing = files.iter().filter(|(file, _)| !Path::new(file).exists());
    install_packages(step, &missing.map(|(_, package)| *package).collect::<Vec<_>>())
}

/// Downloads packages and unpacks them below `dir/root`, without running any of their scripts.
pub(super) fn unpack(step: &Step<'_>, packages: &[&str], dir: &Path) -> Result<()> {
    let fingerprint = packages
        .iter()
        .fold(Fingerprint::new(), |mut sum, name| sum.text(name).clone())
        .finish();
    let stamp = Stamp::new(dir.with_extension("stamp"));
    let root = dir.join("root");
    if root.is_dir() && stamp.is(&fingerprint) {
        return Ok(());
    }
    require_apt()?;
    update_if_unknown(step, packages)?;
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("removing {}", dir.display()))?;
    }
    fs::create_dir_all(&root).with_context(|| format!("making {}", root.display()))?;
    step.run(
        Command::new("apt-get")
            .current_dir(dir)
            .arg("download")
            .args(packages),
    )?;
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            step.run(Command::new("dpkg").arg("-x").arg(&path).arg(&root))?;
            fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    stamp.set(&fingerprint)
}

fn install_packages(step: &Step<'_>, packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    require_apt()?;
    update_if_unknown(step, packages)?;
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
        .args(["install", "-y", "--no-install-recommends"])
        .args(packages);
    step.run(&mut command)
}

fn require_apt() -> Result<()> {
    if shell::which("apt-get").is_none() || shell::which("dpkg").is_none() {
        bail!(
            "apt-get is missing: the local cluster takes containerd, runc, etcd and the CNI plugins from Debian's packages, \
             virtual machines QEMU and their kernels. \
             Use a Debian machine, or set KUBECONFIG to a cluster of your own"
        );
    }
    Ok(())
}

/// A fresh machine has no package lists.
fn update_if_unknown(step: &Step<'_>, packages: &[&str]) -> Result<()> {
    let known = shell::capture("apt-cache", ["policy"].iter().chain(packages))?;
    if known.matches("Candidate: ").count() - known.matches("Candidate: (none)").count() >= packages.len() {
        return Ok(());
    }
    step.run(Command::new("apt-get").arg("update"))
}
