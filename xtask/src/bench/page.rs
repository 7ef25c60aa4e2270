//! The parts of `docs/benchmarks.md` that benchmarks write, and the circumstances of their runs.

use std::fs;
use std::path::Path;
use std::thread::available_parallelism;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::progress::Progress;
use crate::tools::Release;
use crate::workspace::Workspace;
use crate::{results, shell};

/// The document.
pub(super) const DOCUMENT: &str = "docs/benchmarks.md";
/// The field of the measurements that has the circumstances.
const FIELD: &str = "circumstances";

/// When and where a run was made.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Circumstances {
    date: String,
    kubernetes: String,
    kernel: String,
    processors: usize,
}

// === impl Circumstances ===

impl Circumstances {
    /// Of a run now, with this release of Kubernetes.
    pub(super) fn now(release: Release) -> Result<Self> {
        Ok(Self {
            date: results::today()?,
            kubernetes: release.version().to_owned(),
            kernel: shell::capture("uname", ["-r"])?.trim().to_owned(),
            processors: available_parallelism()?.get(),
        })
    }

    /// Adds them to the measurements of the run.
    pub(super) fn add_to(&self, file: &Path) -> Result<()> {
        let mut measured: Value = read(file)?;
        measured[FIELD] = serde_json::to_value(self)?;
        let text = serde_json::to_string_pretty(&measured)? + "\n";
        fs::write(file, text).with_context(|| format!("writing {}", file.display()))
    }

    /// A sentence, in two lines.
    pub(super) fn text(&self) -> String {
        format!(
            "Measured on {} with Kubernetes {} and Linux {},\nwith {} processors for all processes.",
            self.date, self.kubernetes, self.kernel, self.processors
        )
    }
}

/// Reads the measurements of a run.
pub(super) fn read<T: DeserializeOwned>(file: &Path) -> Result<T> {
    let bytes = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("reading {}", file.display()))
}

/// Writes the part of the document that a command writes.
pub(super) fn write(workspace: &Workspace, progress: &Progress, command: &str, part: &str) -> Result<()> {
    results::replace(workspace, DOCUMENT, &format!("cargo xtask {command}"), part)?;
    progress.say(format!("{DOCUMENT} is updated"));
    Ok(())
}
