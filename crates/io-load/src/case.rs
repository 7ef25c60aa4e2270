//! What is measured, and how much of it.

use crate::image::{LARGE_FILES, MOST_ROUNDS};

/// A kind of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// The system call `getpid`.
    Getpid,
    /// A program is started, and has ended.
    Spawn,
    /// One byte over TCP on loopback and back.
    Loopback,
    /// The metadata of a small file of the image.
    Stat,
    /// A small file of the image is opened, read and closed.
    ReadSmall,
    /// All entries of a directory of the image.
    List,
    /// A new empty file.
    Create,
    /// A new file gets another name.
    Rename,
    /// A new file is removed.
    Unlink,
    /// One byte is appended to a small file of the image, which overlayfs therefore copies.
    CopyUpSmall,
    /// The same with a large file.
    CopyUpLarge,
    /// 4 KiB are appended to a new file, which is then synced.
    AppendSync,
    /// 1 MiB is appended to a new file, which is synced at the end.
    Write,
    /// 1 MiB of a file in the page cache.
    Read,
    /// 1 MiB of a file that is not in the page cache.
    ReadDisk,
    /// 4 KiB at a random place of a file in the page cache.
    ReadRandom,
    /// 4 KiB at a random place of a file, in the page cache.
    WriteRandom,
}

/// How much of a case is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount {
    /// Number of operations that are timed together.
    pub operations: u32,
    /// How often they are timed in one run of the program.
    pub repeats: u32,
    /// Number of rounds that the files of the image suffice for.
    pub rounds: u32,
}

// === impl Case ===

impl Case {
    /// All cases, in the order of the report.
    pub const ALL: &[Self] = &[
        Self::Getpid,
        Self::Spawn,
        Self::Loopback,
        Self::Stat,
        Self::ReadSmall,
        Self::List,
        Self::Create,
        Self::Rename,
        Self::Unlink,
        Self::CopyUpSmall,
        Self::CopyUpLarge,
        Self::AppendSync,
        Self::Write,
        Self::Read,
        Self::ReadDisk,
        Self::ReadRandom,
        Self::WriteRandom,
    ];

    /// Its name on the command line and in the measurements.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Getpid => "getpid",
            Self::Spawn => "spawn",
            Self::Loopback => "loopback",
            Self::Stat => "stat",
            Self::ReadSmall => "read-small",
            Self::List => "list",
            Self::Create => "create",
            Self::Rename => "rename",
            Self::Unlink => "unlink",
            Self::CopyUpSmall => "copy-up-small",
            Self::CopyUpLarge => "copy-up-large",
            Self::AppendSync => "append-sync",
            Self::Write => "write",
            Self::Read => "read",
            Self::ReadDisk => "read-disk",
            Self::ReadRandom => "read-random",
            Self::WriteRandom => "write-random",
        }
    }

    /// The case with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|case| case.name() == name)
    }

    /// What one operation is, for a table.
    pub const fn what(self) -> &'static str {
        match self {
            Self::Getpid => "getpid",
            Self::Spawn => "fork, exec and wait",
            Self::Loopback => "1 byte over TCP on loopback and back",
            Self::Stat => "stat of a file of the image",
            Self::ReadSmall => "open, read and close a file of the image, 4 KiB",
            Self::List => "list a directory of the image, 512 files",
            Self::Create => "create a file",
            Self::Rename => "rename a new file",
            Self::Unlink => "remove a new file",
            Self::CopyUpSmall => "first write to a file of the image, 4 KiB",
            Self::CopyUpLarge => "first write to a file of the image, 24 MiB",
            Self::AppendSync => "append 4 KiB and fsync",
            Self::Write => "write 1 MiB, with one fsync for 24",
            Self::Read => "read 1 MiB, cached",
            Self::ReadDisk => "read 1 MiB, not cached",
            Self::ReadRandom => "read 4 KiB at a random place, cached",
            Self::WriteRandom => "write 4 KiB at a random place, without fsync",
        }
    }

    /// How much of it is measured: times of 10 to 100 ms, as far as the files of the image allow.
    pub const fn amount(self) -> Amount {
        let (operations, repeats) = match self {
            Self::Getpid => (100_000, 5),
            Self::Spawn => (20, 3),
            Self::Loopback => (1_000, 3),
            Self::Stat => (10_240, 5),
            Self::ReadSmall => (2_560, 5),
            Self::List => (40, 5),
            Self::Create | Self::Rename | Self::Unlink => (500, 3),
            Self::CopyUpSmall => (32, 1),
            Self::CopyUpLarge => (1, 1),
            Self::AppendSync => (16, 3),
            Self::Write | Self::ReadDisk => (24, 2),
            Self::Read => (96, 5),
            Self::ReadRandom => (10_000, 5),
            Self::WriteRandom => (5_000, 3),
        };
        let rounds = match self {
            Self::CopyUpLarge => LARGE_FILES,
            _ => MOST_ROUNDS,
        };
        Amount {
            operations,
            repeats,
            rounds,
        }
    }
}
