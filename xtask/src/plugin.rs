/*!
`plugin`: builds `kubectl-stopc` as a static program, with the names that kubectl looks for.
*/

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::images::product;
use crate::progress::{Progress, Step};
use crate::workspace::Workspace;

/// Name of the package and of its program.
const PROGRAM: &str = "kubectl-stopc";
/// The test class that runs the program.
const TESTS: &str = "commands";
/// Names of links to the program: for `kubectl sc`, and those that kubectl runs to complete the
/// command line of both.
const LINKS: [&str; 3] = ["kubectl-sc", "kubectl_complete-stopc", "kubectl_complete-sc"];

/// Builds the plugin into `dist/`, and copies it to a directory.
pub(crate) fn command(workspace: &Workspace, progress: &Progress, install: Option<&Path>) -> Result<()> {
    progress.expect(1);
    let built = build(workspace, progress)?;
    if let Some(dir) = install {
        place(&built, dir)?;
    }
    let shown = install.map_or_else(|| workspace.dist(), Path::to_owned);
    println!("{}", shown.join(PROGRAM).display());
    Ok(())
}

/// Builds the plugin into `dist/`, and returns its path there.
pub(crate) fn build(workspace: &Workspace, progress: &Progress) -> Result<PathBuf> {
    progress.step("Compile the plugin", |step| {
        let built = product::build_static(workspace, PROGRAM, step)?;
        place(&built, &workspace.dist())?;
        Ok(workspace.dist().join(PROGRAM))
    })
}

/// Builds the plugin for the end-to-end tests, and returns its path. Cargo builds it with the tests
/// of its commands, which have run before. A build of its package alone would compile the
/// dependencies again, with fewer features.
pub(crate) fn for_tests(workspace: &Workspace, step: &Step<'_>) -> Result<PathBuf> {
    let mut command = Command::new("cargo");
    command
        .current_dir(workspace.root())
        .args(["test", "--no-run", "--workspace", "--test", TESTS]);
    step.run(&mut command)?;
    Ok(workspace.target().join("debug").join(PROGRAM))
}

/// Copies the program to a directory atomically, because it may be running, and makes the links.
fn place(program: &Path, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let partial = dir.join(format!(".{PROGRAM}.partial"));
    let copying = || format!("copying {PROGRAM} to {}", dir.display());
    fs::copy(program, &partial).with_context(copying)?;
    fs::rename(&partial, dir.join(PROGRAM)).with_context(copying)?;
    for link in LINKS {
        let path = dir.join(link);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("replacing {}", path.display()));
            }
            _ => {}
        }
        symlink(PROGRAM, &path).with_context(|| format!("making {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_placed_with_its_links_and_replaced() {
        let dir = std::env::temp_dir().join(format!("xtask-plugin-{}", std::process::id()));
        let source = dir.join("built");
        fs::create_dir_all(&dir).unwrap();
        for content in ["first", "second"] {
            fs::write(&source, content).unwrap();
            place(&source, &dir.join("bin")).unwrap();
            for name in [&[PROGRAM][..], &LINKS].concat() {
                let read = fs::read_to_string(dir.join("bin").join(name)).unwrap();
                assert_eq!(read, content, "{name}");
            }
        }
        let count = fs::read_dir(dir.join("bin")).unwrap().count();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(count, 1 + LINKS.len(), "nothing else is left there");
    }
}
