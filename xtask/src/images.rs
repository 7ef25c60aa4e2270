/*!
Images: the product's own, built with the shipped Dockerfile, and those of the tests and examples,
built here because a public registry may not be reachable.
*/

mod base;
mod buildah;
mod destination;
mod hand_made;
pub(crate) mod io;
mod layout;
pub(crate) mod noop_csi;
pub(crate) mod pause;
mod platform;
pub(crate) mod product;
pub(crate) mod sbom;
mod static_program;
pub(crate) mod testing;

pub(crate) use destination::Destination;

use anyhow::Result;

use crate::cluster::Cluster;
use crate::progress::Progress;
use crate::tools::Tools;
use crate::workspace::Workspace;

/// `image`: builds the product's images and pushes them to a registry, or to the local cluster if
/// it is running.
pub(crate) fn command(workspace: &Workspace, progress: &Progress, registry: Option<String>) -> Result<()> {
    progress.expect(1 + product::STEPS);
    Tools::prepare_images(progress)?;
    let local = Cluster::new(workspace, progress, pause::provide)
        .existing_kubeconfig()
        .is_ok();
    let destination = match registry {
        Some(host) => Some(Destination::Registry(host)),
        None => local.then_some(Destination::Embedded),
    };
    let tag = product::provide(workspace, progress, destination.as_ref())?;
    println!("{tag}");
    Ok(())
}

/// `test-images`: builds the test images and pushes them to the local cluster.
pub(crate) fn test_command(workspace: &Workspace, progress: &Progress) -> Result<()> {
    Cluster::new(workspace, progress, pause::provide).existing_kubeconfig()?;
    progress.expect(1 + testing::STEPS);
    Tools::prepare_images(progress)?;
    testing::provide(workspace, progress, &Destination::Embedded)
}
