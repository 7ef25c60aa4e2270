/*!
The image of the container that holds a pod's namespaces. No pod starts without it, so `cluster up` provides it.
*/

use std::process::Command;

use anyhow::Result;

use super::static_program;
use crate::cluster::{PAUSE_IMAGE, registry};
use crate::progress::Step;
use crate::workspace::Workspace;

/// Builds the image and puts it into the local registry, unless it is there.
pub fn provide(workspace: &Workspace, step: &Step<'_>) -> Result<()> {
    if registry::has(PAUSE_IMAGE) {
        return Ok(());
    }
    let program = static_program::build(workspace, step)?;
    let context = program.parent().unwrap_or(workspace.root());
    let file = workspace.join("tests/images/static/Containerfile.pause");
    let mut command = Command::new("buildah");
    command.args(["bud", "--quiet", "--isolation", "chroot", "--format", "docker", "-t", PAUSE_IMAGE, "-f"]);
    step.run(command.arg(file).arg(context))?;
    registry::push(&format!("containers-storage:{PAUSE_IMAGE}"), PAUSE_IMAGE, step)
}
