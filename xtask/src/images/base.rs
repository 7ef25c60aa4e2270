/*!
The base layer of all Debian-based test images: a minimal Debian, bootstrapped once.
*/

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use super::buildah::{Buildah, Recipe};
use super::platform::Platform;
use crate::progress::Step;
use crate::tools::{Fingerprint, Stamp};
use crate::workspace::Workspace;

/// Name of the image in the clone's storage.
pub(super) const NAME: &str = "localhost/stoppablecontainer-test-base:1";
const SUITE: &str = "bookworm";
/// Number of lines that debootstrap prints, for the progress display.
const LINES: usize = 420;
const CONTAINERFILE: &str = "FROM scratch\nADD base.tar /\nCMD [\"bash\"]\n";

/// Inputs of the image.
pub(super) fn fingerprint() -> String {
    Fingerprint::new().text(SUITE).text(CONTAINERFILE).finish()
}

/// Builds the image if it does not exist.
pub(super) fn provide(workspace: &Workspace, buildah: &Buildah, step: &Step<'_>) -> Result<()> {
    let stamp = Stamp::new(workspace.target().join("images/base.stamp"));
    if stamp.is(&fingerprint()) && buildah.has(NAME) {
        return Ok(());
    }
    let dir = workspace.target().join("images/base");
    let root = dir.join("root");
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))?;
    }
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    step.run_counting(
        Command::new("debootstrap")
            .args(["--variant=minbase", SUITE])
            .arg(&root),
        LINES,
    )?;
    let packages = root.join("var/cache/apt/archives");
    step.run(
        Command::new("find")
            .arg(packages)
            .args(["-name", "*.deb", "-delete"]),
    )?;
    let archive = dir.join("base.tar");
    step.run(
        Command::new("tar")
            .args(["--numeric-owner", "--xattrs", "-C"])
            .arg(&root)
            .arg("-cf")
            .arg(&archive)
            .arg("."),
    )?;
    fs::remove_dir_all(&root).with_context(|| format!("removing {}", root.display()))?;
    let file = dir.join("Containerfile");
    fs::write(&file, CONTAINERFILE).with_context(|| format!("writing {}", file.display()))?;
    buildah.build(
        &Recipe {
            platform: Platform::OF_MACHINE,
            name: NAME,
            file: &file,
            context: &dir,
            target: "",
            args: &[],
        },
        step,
    )?;
    fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))?;
    stamp.set(&fingerprint())
}
