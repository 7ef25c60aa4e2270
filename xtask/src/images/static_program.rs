/*!
The static program of the scratch test image, which is also the pause program.
*/

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::progress::Step;
use crate::tools::{Fingerprint, Stamp};
use crate::workspace::Workspace;

/// Builds the program if it does not exist, and returns its path.
pub(super) fn build(workspace: &Workspace, step: &Step<'_>) -> Result<PathBuf> {
    let source = workspace.join("tests/images/static/main.rs");
    let product = workspace.target().join("images/static/static-program");
    let mut fingerprint = Fingerprint::new();
    let fingerprint = fingerprint.path(&source)?.finish();
    let stamp = Stamp::new(product.with_extension("stamp"));
    if product.is_file() && stamp.is(&fingerprint) {
        return Ok(product);
    }
    let dir = workspace.target().join("images/static");
    std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    let mut command = Command::new("rustc");
    // The explicit target keeps the flag away from programs that run during compilation.
    command.args([
        "--edition=2024",
        "--target=x86_64-unknown-linux-gnu",
        "-Ctarget-feature=+crt-static",
    ]);
    command.args([
        "-Copt-level=s",
        "-Cpanic=abort",
        "-Cstrip=symbols",
        "-Clto=fat",
        "-Ccodegen-units=1",
        "-o",
    ]);
    step.run(command.current_dir(workspace.root()).arg(&product).arg(&source))?;
    stamp.set(&fingerprint)?;
    Ok(product)
}
