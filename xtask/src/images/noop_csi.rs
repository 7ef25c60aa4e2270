/*!
The image of the CSI driver that does nothing, for `bench starts`: a program of `crates/csi-test`.
*/

use std::fs;

use anyhow::{Context, Result};
use serde_json::json;

use super::buildah::Buildah;
use super::destination::Destination;
use super::layout::{self, Entry};
use super::platform::Platform;
use super::product;
use crate::progress::Step;
use crate::tools::Fingerprint;
use crate::workspace::Workspace;

const PROGRAM: &str = "csi-test";

/// Delivers the image if the cluster does not have it, and returns its name.
pub(crate) fn provide(
    workspace: &Workspace,
    step: &Step<'_>,
    destination: &Destination<'_>,
) -> Result<String> {
    let program = product::build_test_program(workspace, PROGRAM, step)?;
    let program = fs::read(&program).with_context(|| format!("reading {}", program.display()))?;
    let mut fingerprint = Fingerprint::new();
    fingerprint.text(include_str!("noop_csi.rs")).text(layout::SOURCE);
    let fingerprint = fingerprint.bytes(&program).finish();
    // A node that has an image of this name has this program.
    let name = format!("docker.io/test/noop-csi:{}", &fingerprint[..12]);
    let buildah = Buildah::new(workspace);
    let _lock = buildah.lock()?;
    let directory = buildah.layout(&name);
    let layer = vec![(PROGRAM.to_owned(), Entry::File(program))];
    let config = json!({"config": {"Entrypoint": [format!("/{PROGRAM}"), "noop"]}});
    layout::write(&directory, Platform::OF_MACHINE, [layer], config)?;
    let delivered = destination.deliver(&buildah, &name, &fingerprint, step);
    fs::remove_dir_all(&directory).with_context(|| format!("removing {}", directory.display()))?;
    delivered?;
    Ok(name)
}
