/*!
A hook (`prestart`) that does what NVIDIA's container runtime did before CDI
(`nvidia-container-runtime-hook` and libnvidia-container's `nvidia-container-cli configure`): if a
variable of the container asks for devices, it enters the container's mount namespace, mounts the
driver's libraries and the device into the container's root, and runs the node's ldconfig there.
*/

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::mount::mount_bind;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::bundle::Bundle;
use crate::driver::SYSTEM;

/// The variable. An image or a pod sets it; `void` asks for nothing.
const DEVICES: &str = "NVIDIA_VISIBLE_DEVICES=";

/// Gives the container a device, if it asks for one. The driver is in the directory of this
/// program.
pub(crate) fn run() -> Result<()> {
    let bundle = Bundle::read()?;
    let mut asked = bundle
        .environment
        .iter()
        .filter_map(|variable| variable.strip_prefix(DEVICES));
    if asked
        .next_back()
        .is_none_or(|devices| matches!(devices, "" | "void"))
    {
        return Ok(());
    }
    let program = std::env::current_exe().context("finding this program")?;
    let driver = program.parent().context("a program without directory")?;
    let process = bundle.process.context("a state without process")?;
    let namespace = fs::File::open(format!("/proc/{process}/ns/mnt")).context("opening the namespace")?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))
        .context("entering the mount namespace")?;
    configure(driver, &bundle.root)
}

fn configure(driver: &Path, root: &Path) -> Result<()> {
    let libraries = root.join(SYSTEM.trim_start_matches('/'));
    fs::create_dir_all(&libraries).context("making the directory of the libraries")?;
    for entry in fs::read_dir(driver).context("listing the driver")? {
        let file = entry?;
        let name = file.file_name();
        if name.to_string_lossy().contains(".so.") {
            bind(&file.path(), &libraries.join(name))?;
        }
    }
    bind(Path::new("/dev/null"), &root.join("dev/nvidia0"))?;
    let status = Command::new("/sbin/ldconfig")
        .arg("-r")
        .arg(root)
        .args(["-f", "/etc/ld.so.conf", "-C", "/etc/ld.so.cache", SYSTEM])
        .status()
        .context("running ldconfig")?;
    ensure!(status.success(), "ldconfig: {status}");
    Ok(())
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    let context = || format!("mounting {}", to.display());
    fs::write(to, "").with_context(context)?;
    mount_bind(from, to).with_context(context)
}
