/*!
A hook (`createContainer`) that makes directories, files, links, FIFOs and device nodes with modes
and owners in the container's root. It runs in the container's mount namespace, before the runtime
changes the root.
*/

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use crate::bundle::Bundle;

/// A variable of a container that is to get a socket too.
const SOCKET: &str = "FAKE_GPU_SOCKET=1";

/// Makes the files.
pub(crate) fn run() -> Result<()> {
    let bundle = Bundle::read()?;
    make(&bundle.root)?;
    if bundle.environment.iter().any(|variable| variable == SOCKET) {
        // The path is too long to bind one.
        let path = bundle.root.join("var/lib/fake-gpu/socket");
        let mode = Mode::from_raw_mode(0o600);
        mknodat(CWD, path, FileType::Socket, mode, 0).context("making a socket")?;
    }
    Ok(())
}

fn make(root: &Path) -> Result<()> {
    let state = root.join("var/lib/fake-gpu");
    fs::create_dir_all(&state).context("making the state directory")?;
    fs::write(state.join("settings"), "of the hook\n").context("writing a file")?;
    fs::set_permissions(state.join("settings"), fs::Permissions::from_mode(0o640))?;
    chown(state.join("settings"), Some(0), Some(44))?;
    symlink("settings", state.join("link")).context("making a link")?;
    fs::create_dir(state.join("empty")).context("making a directory")?;
    let mode = Mode::from_raw_mode(0o600);
    mknodat(CWD, state.join("pipe"), FileType::Fifo, mode, 0).context("making a FIFO")?;
    let mode = Mode::from_raw_mode(0o666);
    mknodat(
        CWD,
        state.join("null"),
        FileType::CharacterDevice,
        mode,
        makedev(1, 3),
    )
    .context("making a device node")?;
    fs::set_permissions(state.join("null"), fs::Permissions::from_mode(0o666))?;
    Ok(())
}
