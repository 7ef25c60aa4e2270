/*!
buildah with a separate storage below `target/`. It does not change the machine's storage, and
`cargo clean` removes it.
*/

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::platform::Platform;
use crate::progress::Step;
use crate::shell;
use crate::workspace::Workspace;

/// Builds images in the clone's own storage.
#[derive(Clone, Debug)]
pub(crate) struct Buildah {
    storage: PathBuf,
}

/// One image to build.
#[derive(Clone, Debug)]
pub(crate) struct Recipe<'a> {
    /// Its name and tag.
    pub name: &'a str,
    /// The Containerfile.
    pub file: &'a Path,
    /// The directory that COPY takes from.
    pub context: &'a Path,
    /// The stage to stop at; empty for the last.
    pub target: &'a str,
    /// Its platform.
    pub platform: Platform,
    /// Build arguments.
    pub args: &'a [(&'a str, &'a str)],
}

/// Held while images are built, because the clone has only one storage and one `dist/`.
#[derive(Debug)]
pub(crate) struct BuildLock {
    _file: File,
}

// === impl Buildah ===

impl Buildah {
    /// The clone's storage.
    pub(crate) fn new(workspace: &Workspace) -> Self {
        Self {
            storage: workspace.target().join("images/storage"),
        }
    }

    /// Waits until other commands have finished building images in this clone.
    pub(crate) fn lock(&self) -> Result<BuildLock> {
        std::fs::create_dir_all(&self.storage)
            .with_context(|| format!("making {}", self.storage.display()))?;
        let path = self.storage.with_extension("lock");
        let file = File::create(&path).with_context(|| format!("making {}", path.display()))?;
        file.lock()
            .with_context(|| format!("locking {}", path.display()))?;
        Ok(BuildLock { _file: file })
    }

    /// Builds an image. Its commands run in a chroot with the machine's network.
    pub(crate) fn build(&self, recipe: &Recipe<'_>, step: &Step<'_>) -> Result<()> {
        let mut command = self.command();
        // Docker's format, because OCI's does not have all fields of an image config.
        command.args([
            "build",
            "--isolation",
            "chroot",
            "--network",
            "host",
            "--format",
            "docker",
            "--arch",
            recipe.platform.architecture(),
            "--tag",
            recipe.name,
        ]);
        command.arg("--file").arg(recipe.file);
        if !recipe.target.is_empty() {
            command.args(["--target", recipe.target]);
        }
        for (name, value) in recipe.args {
            command.arg("--build-arg").arg(format!("{name}={value}"));
        }
        step.run(command.arg(recipe.context))
    }

    /// Makes an image index of images of several platforms, in place of an earlier one.
    pub(crate) fn index(&self, name: &str, images: &[String], step: &Step<'_>) -> Result<()> {
        let _ = shell::output(self.command().args(["manifest", "rm", name]));
        step.run(self.command().args(["manifest", "create", name]).args(images))
    }

    /// Pushes an image index with its images to `docker://...`.
    pub(crate) fn push_index(
        &self,
        name: &str,
        target: &str,
        options: &[&str],
        step: &Step<'_>,
    ) -> Result<()> {
        let mut command = self.command();
        command.args(["manifest", "push", "--all"]).args(options);
        step.run(command.args([name, target]))
    }

    /// Directory of the layout of a hand-made image.
    pub(super) fn layout(&self, name: &str) -> PathBuf {
        self.storage
            .with_file_name("hand-made")
            .join(name.replace(['/', ':'], "_"))
    }

    /// Whether the storage contains an image.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.layout(name).is_dir()
            || shell::output(self.command().args(["inspect", "--type", "image", name])).is_ok()
    }

    /// Removes old builds: images of a repository whose tags do not start with `tag`.
    pub(crate) fn remove_other_tags(&self, repository: &str, tag: &str) -> Result<()> {
        let listing = shell::output(self.command().args(["images", "--format", "{{.Name}}:{{.Tag}}"]))?;
        let prefix = format!("{repository}:");
        let old = listing.lines().filter(|name| {
            name.strip_prefix(&prefix)
                .is_some_and(|own| !own.starts_with(tag))
        });
        let old: Vec<_> = old.collect();
        if old.is_empty() {
            return Ok(());
        }
        shell::output(self.command().arg("rmi").args(old)).map(drop)
    }

    /// Copies an image with skopeo to `docker://...` or `docker-archive:...`. `options` are
    /// skopeo's.
    pub(crate) fn copy(&self, name: &str, target: &str, options: &[&str], step: &Step<'_>) -> Result<()> {
        let (root, run) = (self.storage.join("root"), self.storage.join("run"));
        let layout = self.layout(name);
        let source = if layout.is_dir() {
            format!("oci:{}:latest", layout.display())
        } else {
            format!(
                "containers-storage:[overlay@{}+{}]{name}",
                root.display(),
                run.display()
            )
        };
        step.run(
            in_own_mounts("skopeo")
                .args(["copy", "--quiet"])
                .args(options)
                .args([&source, target]),
        )
    }

    fn command(&self) -> Command {
        let mut command = in_own_mounts("buildah");
        command
            .arg("--root")
            .arg(self.storage.join("root"))
            .arg("--runroot")
            .arg(self.storage.join("run"));
        command.args(["--storage-driver", "overlay"]);
        command
    }
}

/// The storage's overlay driver mounts its directory onto itself and does not unmount it. In a
/// separate mount namespace, the mount disappears with the command.
fn in_own_mounts(program: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", program]);
    command
}
