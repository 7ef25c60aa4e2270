/*!
Where things are in this clone. Everything that a command makes lies below `target/` or `dist/`; what must be shared
by the whole machine (the local cluster) is in `cluster::dir`.
*/

use std::path::{Path, PathBuf};

/// Paths of the clone that this program was built from.
#[derive(Clone, Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
}

// === impl Workspace ===

impl Workspace {
    /// The clone whose cargo built this program. A copy of the program still belongs to that clone.
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

    /// Programs of the local cluster: built from Go modules or unpacked from Debian packages.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target().join("tools")
    }

    /// Logs of the long steps, one file per step, each overwritten by the next run.
    pub(crate) fn logs(&self) -> PathBuf {
        self.target().join("logs")
    }

    /// The binaries that the Dockerfile copies into the images.
    pub(crate) fn dist(&self) -> PathBuf {
        self.join("dist")
    }

    /// Version of the product: the tag of its images starts with it.
    pub(crate) fn version() -> &'static str {
        env!("CARGO_PKG_VERSION")
    }
}
