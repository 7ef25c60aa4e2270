/*!
The container runtimes that the local cluster's nodes can have.

CRI-O is not built here: not every Go module proxy serves its module. It is used as the machine has
it, and its directory here has links to its programs, so that a node finds exactly those.
*/

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::stamp::Stamp;
use crate::shell;

/// CRI-O and the program of it that makes a pod's namespaces.
const CRI_O_PROGRAMS: [&str; 2] = ["crio", "pinns"];

/// A container runtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
#[value(rename_all = "kebab-case")]
pub(crate) enum Runtime {
    /// The containerd of the release of Kubernetes.
    #[default]
    Containerd,
    /// The machine's CRI-O.
    CriO,
}

// === impl Runtime ===

impl Runtime {
    /// Its program.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::CriO => "crio",
        }
    }
}

/// Finds CRI-O on this machine and links its programs into a directory.
///
/// # Errors
/// When the machine has none.
pub(super) fn link_cri_o(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    for program in CRI_O_PROGRAMS {
        let Some(found) = shell::which(program) else {
            bail!(
                "{program} is missing: nodes with CRI-O use the machine's. Install CRI-O (https://cri-o.io), \
                 and make sure that `crio --version` works and that pinns is in the PATH too"
            );
        };
        let found = fs::canonicalize(&found).with_context(|| format!("following {}", found.display()))?;
        let link = dir.join(program);
        if fs::read_link(&link).is_ok_and(|target| target == found) {
            continue;
        }
        let _ = fs::remove_file(&link);
        symlink(&found, &link).with_context(|| format!("linking {}", link.display()))?;
    }
    Stamp::new(dir.with_extension("stamp")).set(&cri_o_version(&dir.join("crio"))?)
}

/// The version that `crio --version` prints.
fn cri_o_version(program: &Path) -> Result<String> {
    let said = shell::output(Command::new(program).arg("--version"))?;
    let version = said
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("crio version "));
    let version = version.map(|version| version.trim().to_owned());
    version.with_context(|| format!("`{} --version` does not print a version first", program.display()))
}
