/*!
Whether something made earlier is still what its inputs would give: a fingerprint of the inputs,
kept in a file next to the product.
*/

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// FNV-1a over everything fed to it, 64 bits wide twice: a cache key, not a proof against an
/// adversary.
#[derive(Clone, Debug)]
pub(crate) struct Fingerprint {
    low: u64,
    high: u64,
}

/// The file that remembers what a product was made from.
#[derive(Clone, Debug)]
pub(crate) struct Stamp {
    path: PathBuf,
}

// === impl Fingerprint ===

impl Default for Fingerprint {
    fn default() -> Self {
        // The second half starts elsewhere, so that both would have to collide.
        Self {
            low: 0xcbf2_9ce4_8422_2325,
            high: 0x6c62_272e_07bb_0142,
        }
    }
}

impl Fingerprint {
    /// The fingerprint of nothing.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds bytes, set apart from those before.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        for byte in bytes.iter().copied().chain((bytes.len() as u64).to_le_bytes()) {
            self.low = (self.low ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            self.high = (self.high.rotate_left(5) ^ u64::from(byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        self
    }

    /// Adds a text.
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// Adds a file's content, or every file's below a directory in the order of their names, with
    /// the names.
    pub(crate) fn path(&mut self, path: &Path) -> Result<&mut Self> {
        if path.is_dir() {
            let entries = fs::read_dir(path).with_context(|| format!("reading {}", path.display()))?;
            let mut entries = entries
                .collect::<Result<Vec<_>, _>>()
                .with_context(|| format!("reading {}", path.display()))?;
            entries.sort_by_key(fs::DirEntry::file_name);
            for entry in entries {
                self.text(&entry.file_name().to_string_lossy());
                self.path(&entry.path())?;
            }
        } else {
            self.bytes(&fs::read(path).with_context(|| format!("reading {}", path.display()))?);
        }
        Ok(self)
    }

    /// 32 hexadecimal digits.
    pub(crate) fn finish(&self) -> String {
        format!("{:016x}{:016x}", self.low, self.high)
    }
}

// === impl Stamp ===

impl Stamp {
    /// The stamp kept in a file.
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Whether the product was made from inputs with this fingerprint.
    pub(crate) fn is(&self, fingerprint: &str) -> bool {
        fs::read_to_string(&self.path).is_ok_and(|text| text.trim() == fingerprint)
    }

    /// Remembers it, once the product is complete.
    pub(crate) fn set(&self, fingerprint: &str) -> Result<()> {
        if let Some(dir) = self.path.parent() {
            fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        }
        fs::write(&self.path, fingerprint).with_context(|| format!("writing {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_one_input_ends_matters() {
        let one = Fingerprint::new().text("ab").text("c").finish();
        let other = Fingerprint::new().text("a").text("bc").finish();
        assert_ne!(one, other);
        assert_eq!(one, Fingerprint::new().text("ab").text("c").finish());
    }
}
