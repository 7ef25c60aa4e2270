/*!
The lines of listings.

```text
added|changed|deleted SP file|directory|link|other SP COUNT SP PATH LF
BYTES SP INODES SP PATH LF
```

`PATH` is absolute and escaped ([`crate::path`]).
*/

use crate::path::{BadEscape, escape, unescape};

/// What is different from the image at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// How it is different.
    pub kind: ChangeKind,
    /// What there is, or was before it was deleted.
    pub file_type: FileType,
    /// How many changes the line stands for: those below the path, where they are not listed.
    pub count: u64,
    /// The absolute path.
    pub path: Vec<u8>,
}

/// Kinds of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// The image does not have it.
    Added,
    /// Content, type, owner, mode or attributes are not those of the image.
    Changed,
    /// Only the image has it.
    Deleted,
}

/// Types of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileType {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A device, FIFO or socket.
    Other,
}

/// What a directory takes on the disk, with all below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryUsage {
    /// Space in bytes.
    pub bytes: u64,
    /// Number of inodes.
    pub inodes: u64,
    /// The absolute path.
    pub path: Vec<u8>,
}

/// A line that is not of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line of the answer is not in the expected format")]
pub struct BadLine;

// === impl Change ===

impl Change {
    /// The line, with its line feed.
    pub fn to_line(&self) -> String {
        let (kind, file_type) = (self.kind.as_str(), self.file_type.as_str());
        format!("{kind} {file_type} {} {}\n", self.count, escape(&self.path))
    }

    /// Reads a line without its line feed.
    ///
    /// # Errors
    /// If it is something else.
    pub fn parse(line: &str) -> Result<Self, BadLine> {
        let mut words = line.splitn(4, ' ');
        let mut word = || words.next().ok_or(BadLine);
        Ok(Self {
            kind: ChangeKind::parse(word()?)?,
            file_type: FileType::parse(word()?)?,
            count: word()?.parse().map_err(|_| BadLine)?,
            path: unescape(word()?)?,
        })
    }
}

// === impl DirectoryUsage ===

impl DirectoryUsage {
    /// The line, with its line feed.
    pub fn to_line(&self) -> String {
        format!("{} {} {}\n", self.bytes, self.inodes, escape(&self.path))
    }

    /// Reads a line without its line feed.
    ///
    /// # Errors
    /// If it is something else.
    pub fn parse(line: &str) -> Result<Self, BadLine> {
        let mut words = line.splitn(3, ' ');
        let mut word = || words.next().ok_or(BadLine);
        let (bytes, inodes, path) = (word()?, word()?, word()?);
        let number = |word: &str| word.parse().map_err(|_| BadLine);
        Ok(Self {
            bytes: number(bytes)?,
            inodes: number(inodes)?,
            path: unescape(path)?,
        })
    }
}

// === impl ChangeKind ===

impl ChangeKind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Deleted => "deleted",
        }
    }

    fn parse(word: &str) -> Result<Self, BadLine> {
        let all = [Self::Added, Self::Changed, Self::Deleted];
        all.into_iter().find(|kind| kind.as_str() == word).ok_or(BadLine)
    }
}

// === impl FileType ===

impl FileType {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Link => "link",
            Self::Other => "other",
        }
    }

    fn parse(word: &str) -> Result<Self, BadLine> {
        let all = [Self::File, Self::Directory, Self::Link, Self::Other];
        all.into_iter().find(|kind| kind.as_str() == word).ok_or(BadLine)
    }
}

impl From<BadEscape> for BadLine {
    fn from(_: BadEscape) -> Self {
        Self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_read_as_they_were_written() {
        let change = Change {
            kind: ChangeKind::Deleted,
            file_type: FileType::Directory,
            count: 12,
            path: b"/a b\n\xff".to_vec(),
        };
        let line = change.to_line();
        assert_eq!(line, "deleted directory 12 /a b\\x0a\\xff\n");
        assert_eq!(Change::parse(line.trim_end_matches('\n')), Ok(change));
    }

    #[test]
    fn usages_are_read_as_they_were_written() {
        let usage = DirectoryUsage {
            bytes: u64::MAX,
            inodes: 1,
            path: b"/a b\n".to_vec(),
        };
        let line = usage.to_line();
        assert_eq!(line, "18446744073709551615 1 /a b\\x0a\n");
        assert_eq!(DirectoryUsage::parse(line.trim_end_matches('\n')), Ok(usage));
        for line in ["", "1 2", "x 1 /", "-1 1 /", "1 1 /\\"] {
            assert_eq!(DirectoryUsage::parse(line), Err(BadLine), "{line}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for line in [
            "",
            "added file 1",
            "moved file 1 /",
            "added pipe 1 /",
            "added file -1 /",
            "added file 1 /\\",
        ] {
            assert_eq!(Change::parse(line), Err(BadLine), "{line}");
        }
    }
}
