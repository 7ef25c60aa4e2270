/*!
The image of the container that holds a pod's namespaces. Every pod needs it, so `cluster up`
provides it.
*/

use anyhow::Result;

use super::buildah::{Buildah, Recipe};
use super::destination::Destination;
use super::platform::Platform;
use super::static_program;
use crate::cluster::{PAUSE_IMAGE, registry};
use crate::progress::Step;
use crate::tools::Fingerprint;
use crate::workspace::Workspace;

/// Builds the image and pushes it to the local registry, if it is missing there.
pub(crate) fn provide(workspace: &Workspace, step: &Step<'_>) -> Result<()> {
    // `up` on a running cluster must not wait for another build.
    if registry::has(PAUSE_IMAGE) {
        return Ok(());
    }
    let buildah = Buildah::new(workspace);
    let _lock = buildah.lock()?;
    let sources = workspace.join("tests/images/static");
    let mut fingerprint = Fingerprint::new();
    let fingerprint = fingerprint.path(&sources)?.finish();
    let program = static_program::build(workspace, step)?;
    if !buildah.has(PAUSE_IMAGE) {
        let context = program.parent().unwrap_or(workspace.root());
        let file = sources.join("Containerfile.pause");
        buildah.build(
            &Recipe {
                platform: Platform::OF_MACHINE,
                name: PAUSE_IMAGE,
                file: &file,
                context,
                target: "",
                args: &[],
            },
            step,
        )?;
    }
    Destination::Embedded.deliver(&buildah, PAUSE_IMAGE, &fingerprint, step)
}
