//! The directory of a user: programs in its `PATH`, and a kubeconfig whose namespace is that of the
//! test.

use std::ffi::OsString;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::Result;
use testkit::{Namespace, kubectl};

use super::program;

/// The directory, which is removed when this is dropped.
pub(super) struct Home {
    dir: tempfile::TempDir,
}

// === impl Home ===

impl Home {
    /// Makes it, with kubectl and the plugin.
    pub(super) async fn make(ns: &Namespace) -> Result<Self> {
        let home = Self {
            dir: tempfile::tempdir()?,
        };
        // Without the variable, kubectl is in PATH.
        if let Some(program) = std::env::var_os("KUBECTL") {
            home.link("kubectl", Path::new(&program))?;
        }
        home.link("kubectl-stopc", &program()?)?;
        let config = ns
            .kubectl(&["config", "view", "--raw", "--flatten"])
            .await?
            .success()?;
        std::fs::write(home.kubeconfig(), config)?;
        let (file, namespace) = (home.kubeconfig(), format!("--namespace={}", ns.name));
        let file = format!("--kubeconfig={}", file.display());
        kubectl(&["config", "set-context", "--current", &namespace, &file], "")
            .await?
            .success()?;
        Ok(home)
    }

    /// Adds a program.
    pub(super) fn link(&self, name: &str, program: &Path) -> Result<()> {
        Ok(symlink(program, self.dir.path().join(name))?)
    }

    /// The directory itself.
    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The kubeconfig.
    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// The value of `PATH`: the directory, and that of this program.
    pub(super) fn path(&self) -> Result<OsString> {
        let own = std::env::var_os("PATH").unwrap_or_default();
        let dirs = std::iter::once(self.dir.path().to_owned()).chain(std::env::split_paths(&own));
        Ok(std::env::join_paths(dirs)?)
    }
}
