/*!
`sbom`: a software bill of materials for the program of each image, in CycloneDX's format. It lists
the packages of `Cargo.lock` that the program depends on, for all platforms. The images contain
nothing but these programs.
*/

use std::fs;

use anyhow::{Context, Result};

use super::product::BINARIES;
use crate::progress::Progress;
use crate::tools::Tools;
use crate::workspace::Workspace;

/// Version of the format, as cargo-sbom takes it.
const FORMAT: &str = "cyclone_dx_json_1_6";

/// Writes `dist/sbom/PROGRAM.cdx.json`.
pub(crate) fn command(workspace: &Workspace, progress: &Progress) -> Result<()> {
    progress.expect(2);
    let tools = Tools::of(workspace);
    tools.prepare_cargo_sbom(progress)?;
    let directory = workspace.dist().join("sbom");
    progress.step("Write the bills of materials", |step| {
        fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
        for (binary, package) in BINARIES {
            let mut command = tools.cargo_sbom();
            command.current_dir(workspace.root());
            command.args(["sbom", "--output-format", FORMAT, "--cargo-package", package]);
            let text = step.output(&mut command)?;
            let file = directory.join(format!("{binary}.cdx.json"));
            fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        }
        Ok(())
    })?;
    progress.say(format!("written to {}", directory.display()));
    Ok(())
}
