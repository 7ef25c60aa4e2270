/*!
A hook (`createContainer`) that makes directories, files, links and device nodes with modes and
owners in the container's root. It runs in the container's mount namespace, before the runtime
changes the root.
*/

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use crate::bundle::Bundle;

/// Makes the files.
pub(crate) fn run() -> Result<()> {
    make(&Bundle::read()?.root)
}

fn make(root: &Path) -> Result<()> {
    let state = root.join("var/lib/fake-gpu");
    fs::create_dir_all(&state).context("making the state directory")?;
    fs::write(state.join("settings"), "of the hook\n").context("writing a file")?;
    fs::set_permissions(state.join("settings"), fs::Permissions::from_mode(0o640))?;
    chown(state.join("settings"), Some(0), Some(44))?;
    symlink("settings", state.join("link")).context("making a link")?;
    fs::create_dir(state.join("empty")).context("making a directory")?;
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
