/*!
The images that the API reference, the samples and the tests name, built from Debian packages. They behave like the
originals where it matters: entrypoint, command, variables, user, working directory, stop signal, port.
*/

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::buildah::{Buildah, Recipe};
use super::destination::Destination;
use super::{base, static_program};
use crate::progress::Progress;
use crate::tools::{Fingerprint, Stamp};
use crate::workspace::Workspace;

/// One test image.
#[derive(Clone, Copy, Debug)]
struct TestImage {
    /// As manifests name it.
    name: &'static str,
    /// Directory below `tests/images`.
    dir: &'static str,
    /// Containerfile in it.
    file: &'static str,
    /// Made from the Debian base; else from the static program alone.
    debian: bool,
}

const IMAGES: &[TestImage] = &[
    TestImage {
        name: "docker.io/library/nginx:1.25",
        dir: "nginx",
        file: "Containerfile",
        debian: true,
    },
    TestImage {
        name: "docker.io/library/ubuntu:22.04",
        dir: "ubuntu",
        file: "Containerfile",
        debian: true,
    },
    TestImage {
        name: "docker.io/library/python:3.11",
        dir: "python",
        file: "Containerfile",
        debian: true,
    },
    TestImage {
        name: "docker.io/test/named-user:1",
        dir: "named-user",
        file: "Containerfile",
        debian: true,
    },
    TestImage {
        name: "docker.io/test/scratch:1",
        dir: "static",
        file: "Containerfile.scratch",
        debian: false,
    },
];

/// Steps that [`provide`] takes.
pub(crate) const STEPS: usize = 1 + IMAGES.len();

/// Builds the images whose inputs changed and delivers those that the cluster does not have.
pub(crate) fn provide(
    workspace: &Workspace,
    progress: &Progress,
    destination: &Destination<'_>,
) -> Result<()> {
    let buildah = Buildah::new(workspace);
    let _lock = buildah.lock()?;
    progress.step(
        "Test images: Debian base (about a minute the first time)",
        |step| base::provide(workspace, &buildah, step),
    )?;
    for image in IMAGES {
        progress.step(&format!("Test image {}", image.name), |step| {
            let fingerprint = image.fingerprint(workspace)?;
            let stamp = Stamp::new(workspace.target().join(format!("images/{}.stamp", image.dir)));
            if !stamp.is(&fingerprint) || !buildah.has(image.name) {
                let context = if image.debian {
                    image.sources(workspace)
                } else {
                    let program = static_program::build(workspace, step)?;
                    program.parent().map_or_else(PathBuf::new, Path::to_owned)
                };
                let file = image.sources(workspace).join(image.file);
                let args = [("BASE", base::NAME)];
                let args = if image.debian { &args[..] } else { &[] };
                buildah.build(
                    &Recipe {
                        name: image.name,
                        file: &file,
                        context: &context,
                        target: "",
                        args,
                    },
                    step,
                )?;
                stamp.set(&fingerprint)?;
            }
            destination.deliver(&buildah, image.name, &fingerprint, step)
        })?;
    }
    Ok(())
}

// === impl TestImage ===

impl TestImage {
    fn sources(&self, workspace: &Workspace) -> PathBuf {
        workspace.join("tests/images").join(self.dir)
    }

    fn fingerprint(&self, workspace: &Workspace) -> Result<String> {
        let mut fingerprint = Fingerprint::new();
        fingerprint.text(self.name).path(&self.sources(workspace))?;
        if self.debian {
            fingerprint.text(&base::fingerprint());
        }
        Ok(fingerprint.finish())
    }
}
