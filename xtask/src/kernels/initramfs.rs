/*!
The initramfs of a virtual machine: modules, and a static program that loads them and makes the
root.
*/

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::download::Kernel;
use crate::progress::Step;

/// The first process of a virtual machine.
const INIT: &str = include_str!("init.c");

/// Modes of what is in it: with the type, as in `struct stat`.
const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

/// Makes it in `dir`, in less than a second.
pub(super) fn make(step: &Step<'_>, kernel: &Kernel, dir: &Path) -> Result<PathBuf> {
    let (source, program, product) = (dir.join("init.c"), dir.join("init"), dir.join("initramfs"));
    fs::write(&source, INIT).with_context(|| format!("writing {}", source.display()))?;
    step.run(
        Command::new("cc")
            .args(["-static", "-Os", "-s", "-Wall", "-Wextra", "-Werror", "-o"])
            .arg(&program)
            .arg(&source),
    )?;
    let mut archive = Archive::create(&product)?;
    for name in ["dev", "modules"] {
        archive.add(name, DIRECTORY, &[])?;
    }
    archive.add_file("init", &program)?;
    let modules = &kernel.modules;
    for entry in fs::read_dir(modules).with_context(|| format!("reading {}", modules.display()))? {
        let entry = entry.with_context(|| format!("reading {}", modules.display()))?;
        let name = format!("modules/{}", entry.file_name().to_string_lossy());
        archive.add_file(&name, &entry.path())?;
    }
    archive.finish()?;
    Ok(product)
}

/// An archive as the kernel takes it: cpio(5), "New ASCII Format".
struct Archive {
    file: File,
    path: PathBuf,
    entries: u32,
}

// === impl Archive ===

impl Archive {
    fn create(path: &Path) -> Result<Self> {
        Ok(Self {
            file: File::create(path).with_context(|| format!("making {}", path.display()))?,
            path: path.to_owned(),
            entries: 0,
        })
    }

    fn add_file(&mut self, name: &str, path: &Path) -> Result<()> {
        let content = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        self.add(name, PROGRAM, &content)
    }

    fn add(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.entries += 1;
        let entry = entry(self.entries, name, mode, content);
        self.file
            .write_all(&entry)
            .with_context(|| format!("writing {}", self.path.display()))
    }

    fn finish(mut self) -> Result<()> {
        self.add("TRAILER!!!", 0, &[])
    }
}

/// One entry: a header of numbers in hexadecimal, the name, the content, each filled up to a
/// multiple of four bytes.
fn entry(number: u32, name: &str, mode: u32, content: &[u8]) -> Vec<u8> {
    let (owner, group, links, time, device, checksum) = (0, 0, 1, 0, 0, 0);
    let numbers = [
        number as usize,
        mode as usize,
        owner,
        group,
        links,
        time,
        content.len(),
        device,
        device,
        device,
        device,
        name.len() + 1,
        checksum,
    ];
    let mut entry = b"070701".to_vec();
    for number in numbers {
        entry.extend(format!("{number:08x}").bytes());
    }
    entry.extend(name.bytes().chain([0]));
    entry.resize(entry.len().next_multiple_of(4), 0);
    entry.extend(content);
    entry.resize(entry.len().next_multiple_of(4), 0);
    entry
}

#[cfg(test)]
mod tests {
    use super::{PROGRAM, entry};

    #[test]
    fn entries_are_as_cpio_writes_them() {
        let entry = String::from_utf8(entry(7, "init", PROGRAM, b"hello")).unwrap();
        let zeros = "0".repeat(8);
        let header = format!(
            "070701{:08x}{PROGRAM:08x}{zeros}{zeros}{:08x}{zeros}{:08x}{}{:08x}{zeros}",
            7,
            1,
            5,
            zeros.repeat(4),
            5
        );
        assert_eq!(entry, format!("{header}init\0\0hello\0\0\0"));
        assert_eq!(entry.len() % 4, 0);
    }
}
