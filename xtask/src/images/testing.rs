/*!
The images of docs/api.md, the samples and the tests, built from Debian packages. They behave like
the originals in their entrypoint, command, variables, user, working directory, stop signal and
port.
*/

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::buildah::{Buildah, Recipe};
use super::destination::Destination;
use super::platform::Platform;
use super::{base, hand_made, product, static_program};
use crate::progress::{Progress, Step};
use crate::tools::{Fingerprint, Stamp, golang};
use crate::workspace::Workspace;

/// One test image.
#[derive(Clone, Copy, Debug)]
struct TestImage {
    /// Name in manifests.
    name: &'static str,
    /// Directory below `tests/images`.
    dir: &'static str,
    /// Containerfile in it.
    file: &'static str,
    content: Content,
}

/// Source of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// The Debian base or another test image, and the files beside its Containerfile.
    Debian,
    /// Only the static program.
    Static,
    /// A program of this workspace that other images do not contain, and the Debian base to prepare
    /// it with.
    Program(&'static str),
    /// A program of this workspace, and one that is built from a Go module.
    Programs(&'static str, &'static golang::Program),
}

const IMAGES: &[TestImage] = &[
    TestImage {
        name: "docker.io/library/nginx:1.25",
        dir: "nginx",
        file: "Containerfile",
        content: Content::Debian,
    },
    TestImage {
        name: "docker.io/library/ubuntu:22.04",
        dir: "ubuntu",
        file: "Containerfile",
        content: Content::Debian,
    },
    TestImage {
        name: "docker.io/library/python:3.11",
        dir: "python",
        file: "Containerfile",
        content: Content::Debian,
    },
    TestImage {
        name: "docker.io/test/named-user:1",
        dir: "named-user",
        file: "Containerfile",
        content: Content::Debian,
    },
    TestImage {
        name: "docker.io/test/scratch:1",
        dir: "static",
        file: "Containerfile.scratch",
        content: Content::Static,
    },
    TestImage {
        name: "docker.io/library/my-app:latest",
        dir: "my-app",
        file: "Containerfile",
        content: Content::Debian,
    },
    TestImage {
        name: "docker.io/pytorch/pytorch:2.0.0-cuda11.7-cudnn8-runtime",
        dir: "pytorch",
        file: "Containerfile",
        content: Content::Debian,
    },
    TestImage {
        name: "mcr.microsoft.com/devcontainers/base:bookworm",
        dir: "devcontainer",
        file: "Containerfile",
        content: Content::Debian,
    },
    TestImage {
        name: "quay.io/jupyter/minimal-notebook:python-3.12",
        dir: "notebook",
        file: "Containerfile",
        content: Content::Debian,
    },
    TestImage {
        name: "docker.io/codercom/code-server:4.96.4",
        dir: "web-editor",
        file: "Containerfile",
        content: Content::Debian,
    },
    TestImage {
        name: "docker.io/test/injectors:1",
        dir: "injectors",
        file: "Containerfile",
        content: Content::Program("injectors"),
    },
    TestImage {
        name: "docker.io/test/csi-sanity:1",
        dir: "csi-sanity",
        file: "Containerfile",
        content: Content::Programs("csi-test", &golang::CSI_SANITY),
    },
    TestImage {
        name: "docker.io/test/fake-gpu:1",
        dir: "fake-gpu",
        file: "Containerfile",
        content: Content::Programs("fake-gpu", &golang::NVIDIA_HOOK),
    },
    TestImage {
        name: "docker.io/test/gpu-program:1",
        dir: "gpu-program",
        file: "Containerfile",
        content: Content::Debian,
    },
    TestImage {
        name: "docker.io/test/gpu-no-cache:1",
        dir: "gpu-no-cache",
        file: "Containerfile",
        content: Content::Debian,
    },
    TestImage {
        name: "docker.io/test/gpu-ldconfig:1",
        dir: "gpu-ldconfig",
        file: "Containerfile",
        content: Content::Debian,
    },
    TestImage {
        name: "docker.io/test/gpu-musl:1",
        dir: "gpu-musl",
        file: "Containerfile",
        content: Content::Debian,
    },
    TestImage {
        name: "docker.io/test/gpu-legacy:1",
        dir: "gpu-legacy",
        file: "Containerfile",
        content: Content::Debian,
    },
    TestImage {
        name: "docker.io/test/gpu-compat:1",
        dir: "gpu-compat",
        file: "Containerfile",
        content: Content::Debian,
    },
    TestImage {
        name: "docker.io/test/gpu-taken:1",
        dir: "gpu-taken",
        file: "Containerfile",
        content: Content::Debian,
    },
    TestImage {
        name: "docker.io/test/gpu-hostile:1",
        dir: "gpu-hostile",
        file: "Containerfile",
        content: Content::Debian,
    },
];

/// Number of steps of [`provide`].
pub(crate) const STEPS: usize = 2 + IMAGES.len();
/// Number of steps of [`provide_one`].
pub(crate) const STEPS_OF_ONE: usize = 2;

/// Builds the images whose inputs changed and delivers those that the cluster does not have.
pub(crate) fn provide(
    workspace: &Workspace,
    progress: &Progress,
    destination: &Destination<'_>,
) -> Result<()> {
    let buildah = Buildah::new(workspace);
    let _lock = buildah.lock()?;
    provide_base(workspace, progress, &buildah)?;
    for image in IMAGES {
        image.provide(workspace, progress, &buildah, destination)?;
    }
    progress.step("Hand-made test images", |step| {
        let program = static_program::build(workspace, step)?;
        let fingerprint = hand_made::provide(&buildah, &program, step)?;
        hand_made::IMAGES
            .iter()
            .try_for_each(|image| destination.deliver(&buildah, image.name, &fingerprint, step))
    })
}

/// Like [`provide`], for one image that is built from only the Debian base.
pub(crate) fn provide_one(
    workspace: &Workspace,
    progress: &Progress,
    destination: &Destination<'_>,
    name: &str,
) -> Result<()> {
    let image = IMAGES.iter().find(|image| image.name == name);
    let image = image.with_context(|| format!("unknown test image {name}"))?;
    let buildah = Buildah::new(workspace);
    let _lock = buildah.lock()?;
    provide_base(workspace, progress, &buildah)?;
    image.provide(workspace, progress, &buildah, destination)
}

fn provide_base(workspace: &Workspace, progress: &Progress, buildah: &Buildah) -> Result<()> {
    progress.step(
        "Test images: Debian base (about a minute the first time)",
        |step| base::provide(workspace, buildah, step),
    )
}

// === impl TestImage ===

impl TestImage {
    /// Builds the image if its inputs changed, and delivers it if the cluster does not have it.
    fn provide(
        &self,
        workspace: &Workspace,
        progress: &Progress,
        buildah: &Buildah,
        destination: &Destination<'_>,
    ) -> Result<()> {
        progress.step(&format!("Test image {}", self.name), |step| {
            let program = self.program(workspace, step)?;
            let fingerprint = self.fingerprint(workspace, program.as_deref())?;
            let stamp = Stamp::new(workspace.target().join(format!("images/{}.stamp", self.dir)));
            if !stamp.is(&fingerprint) || !buildah.has(self.name) {
                let file = self.sources(workspace).join(self.file);
                let context = program
                    .as_deref()
                    .and_then(Path::parent)
                    .map_or_else(|| self.sources(workspace), Path::to_owned);
                let args = [("BASE", base::NAME)];
                let args = if self.content == Content::Static {
                    &[]
                } else {
                    &args[..]
                };
                buildah.build(
                    &Recipe {
                        platform: Platform::OF_MACHINE,
                        name: self.name,
                        file: &file,
                        context: &context,
                        target: "",
                        args,
                    },
                    step,
                )?;
                stamp.set(&fingerprint)?;
            }
            destination.deliver(buildah, self.name, &fingerprint, step)
        })
    }

    fn sources(&self, workspace: &Workspace) -> PathBuf {
        workspace.join("tests/images").join(self.dir)
    }

    /// The program in the image, if it has one.
    fn program(&self, workspace: &Workspace, step: &Step<'_>) -> Result<Option<PathBuf>> {
        match self.content {
            Content::Debian => Ok(None),
            Content::Static => static_program::build(workspace, step).map(Some),
            Content::Program(name) => product::build_test_program(workspace, name, step).map(Some),
            Content::Programs(name, go) => {
                let program = product::build_test_program(workspace, name, step)?;
                golang::install(step, go, program.parent().unwrap_or(workspace.root()))?;
                Ok(Some(program))
            }
        }
    }

    fn fingerprint(&self, workspace: &Workspace, program: Option<&Path>) -> Result<String> {
        let mut fingerprint = Fingerprint::new();
        fingerprint.text(self.name).path(&self.sources(workspace))?;
        if self.content == Content::Debian {
            fingerprint.text(&base::fingerprint());
        }
        if let (Content::Program(_) | Content::Programs(..), Some(program)) = (self.content, program) {
            fingerprint.path(program)?;
        }
        if let Content::Programs(_, go) = self.content {
            fingerprint.text(go.module);
        }
        Ok(fingerprint.finish())
    }
}
