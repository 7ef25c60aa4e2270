/*!
Paths in this clone. All files that the commands create are below `target/` or `dist/`. Files that
are shared on the machine (the local cluster) are in `cluster::dir`.
*/

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::second_cluster;

/// Directories without sources: build results, downloads and fuzzing results.
const NO_SOURCES: [&str; 4] = ["artifacts", "corpus", "dist", "target"];

/// Paths of the clone that this program was built from.
#[derive(Clone, Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
}

// === impl Workspace ===

impl Workspace {
    /// The clone whose cargo built this program. This also applies to copies of the program.
    pub(crate) fn current() -> Self {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        Self {
            root: manifest.parent().unwrap_or(manifest).to_owned(),
        }
    }

    /// The directory of the workspace's `Cargo.toml`.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A path below the root.
    pub(crate) fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    /// Cargo's target directory.
    pub(crate) fn target(&self) -> PathBuf {
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| self.join("target"), |dir| self.root.join(dir))
    }

    /// Programs of the local cluster, built from Go modules or unpacked from Debian packages.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target().join("tools")
    }

    /// Kernels for virtual machines, and what their last run left.
    pub(crate) fn kernels(&self) -> PathBuf {
        self.target().join("kernels")
    }

    /// Logs of the long steps, one file per step. The next run overwrites them.
    pub(crate) fn logs(&self) -> PathBuf {
        self.target().join(second_cluster::own("logs"))
    }

    /// The binaries that the Dockerfile copies into the images.
    pub(crate) fn dist(&self) -> PathBuf {
        self.join("dist")
    }

    /// All files with one of these extensions, as sorted paths relative to the root.
    ///
    /// # Errors
    /// If a directory cannot be read.
    pub(crate) fn sources(&self, extensions: &[&str]) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        let mut dirs = vec![PathBuf::new()];
        while let Some(dir) = dirs.pop() {
            let absolute = self.join(&dir);
            let reading = || format!("reading {}", absolute.display());
            for entry in fs::read_dir(&absolute).with_context(reading)? {
                let entry = entry.with_context(reading)?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let path = dir.join(&name);
                let kind = entry.file_type().with_context(reading)?;
                if kind.is_dir() && !name.starts_with('.') && !NO_SOURCES.contains(&name.as_str()) {
                    dirs.push(path);
                } else if kind.is_file()
                    && extensions
                        .iter()
                        .any(|e| path.extension().is_some_and(|x| x == *e))
                {
                    files.push(path);
                }
            }
        }
        files.sort();
        Ok(files)
    }

    /// Version of the product: the tag of its images starts with it.
    pub(crate) fn version() -> &'static str {
        env!("CARGO_PKG_VERSION")
    }
}
