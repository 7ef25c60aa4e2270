/*!
Free space on the disks of kept filesystems. Below the minimum the agent makes no new filesystem,
and warns running consumers.
*/

use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use rustix::fs::{OFlags, fstatvfs};
use rustix::io::Errno;
use stoppablecontainer_api::whole_quantity;

use super::Host;

/// What has to be free on the disk of a data directory.
#[derive(Clone, Debug)]
pub(crate) struct Minimum {
    pub(crate) bytes: Amount,
    pub(crate) inodes: Amount,
}

/// A share of the whole, or a number.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Amount {
    Percent(u64),
    Number(u64, String),
}

/// Free space of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) free_bytes: u64,
    pub(crate) bytes: u64,
    pub(crate) free_inodes: u64,
    /// Zero where the file system has no fixed number.
    pub(crate) inodes: u64,
}

/// What the disk of a directory has, or of the nearest directory above it that exists.
pub(crate) fn look(host: &Host, directory: &Path) -> Result<Space> {
    for path in directory.ancestors() {
        match host.root.open(path, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(fd) => {
                let stat =
                    fstatvfs(&fd).with_context(|| format!("examine the disk of {}", path.display()))?;
                return Ok(Space {
                    free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
                    bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
                    free_inodes: stat.f_favail,
                    inodes: stat.f_files,
                });
            }
            Err(e) if matches!(e.problem, rootfs::root::Problem::System(Errno::NOENT)) => {}
            Err(e) => return Err(e.into()),
        }
    }
    bail!("{} has no directory above it", directory.display())
}

/// Where something is short, as the beginning of a sentence.
pub(crate) fn on(node: &str, prefix: &Path, shortage: &str) -> String {
    format!("node {node} has {shortage} on the disk of {}", prefix.display())
}

// === impl Minimum ===

impl Minimum {
    /// What there is too little of. Once short, a fifth more has to be free before it counts as
    /// enough.
    pub(crate) fn shortage(&self, space: Space, was_short: bool) -> Option<String> {
        let is_short = |free: u64, of: u64, amount: &Amount| {
            let least = amount.of(of);
            let least = if was_short {
                least.saturating_add(least / 5)
            } else {
                least
            };
            of > 0 && free < least
        };
        if is_short(space.free_bytes, space.bytes, &self.bytes) {
            return Some(format!("less than {} free (minimumFree)", self.bytes));
        }
        if is_short(space.free_inodes, space.inodes, &self.inodes) {
            return Some(format!(
                "less than {} of its inodes free (minimumFreeInodes)",
                self.inodes
            ));
        }
        None
    }
}

// === impl Amount ===

impl Amount {
    fn of(&self, whole: u64) -> u64 {
        match self {
            Self::Percent(percent) => {
                u64::try_from(u128::from(whole) * u128::from(*percent) / 100).unwrap_or(u64::MAX)
            }
            Self::Number(number, _) => *number,
        }
    }
}

impl FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(percent) = text.strip_suffix('%') {
            let percent = percent.parse().ok().filter(|percent| *percent <= 100);
            return percent
                .map(Self::Percent)
                .ok_or_else(|| format!("{text} is not a percentage from 0% to 100%"));
        }
        let number = whole_quantity(text).and_then(|number| u64::try_from(number).ok());
        number
            .map(|number| Self::Number(number, text.to_owned()))
            .ok_or_else(|| format!("{text:?} is neither a percentage such as 5% nor a number such as 10Gi"))
    }
}

impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Number(_, text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minimum(bytes: &str, inodes: &str) -> Minimum {
        Minimum {
            bytes: bytes.parse().unwrap(),
            inodes: inodes.parse().unwrap(),
        }
    }

    fn space(free_bytes: u64, free_inodes: u64) -> Space {
        Space {
            free_bytes,
            bytes: 1000,
            free_inodes,
            inodes: 1000,
        }
    }

    #[test]
    fn f22_too_little_is_less_than_the_minimum_of_bytes_or_inodes() {
        let short = |minimum: &Minimum, space| minimum.shortage(space, false).is_some();
        let percent = minimum("5%", "5%");
        assert!(!short(&percent, space(50, 50)));
        assert!(short(&percent, space(49, 50)));
        assert!(short(&percent, space(50, 49)));
        let number = minimum("60", "0");
        assert!(short(&number, space(59, 0)));
        assert!(!short(&number, space(60, 0)));
        assert!(!short(&minimum("0", "0"), space(0, 0)), "switched off");
        let endless = Space {
            inodes: 0,
            ..space(1000, 0)
        };
        assert!(!short(&percent, endless), "btrfs counts no inodes");
    }

    #[test]
    fn i12_what_is_short_is_said_and_stays_said_until_there_is_clearly_enough() {
        let minimum = minimum("5%", "10");
        let shortage = |space, was_short| minimum.shortage(space, was_short);
        assert_eq!(
            shortage(space(49, 50), false).unwrap(),
            "less than 5% free (minimumFree)"
        );
        assert_eq!(
            shortage(space(50, 9), false).unwrap(),
            "less than 10 of its inodes free (minimumFreeInodes)"
        );
        assert!(shortage(space(59, 50), true).is_some());
        assert_eq!(shortage(space(60, 50), true), None);
    }

    #[test]
    fn amounts_are_read() {
        assert_eq!("10%".parse(), Ok(Amount::Percent(10)));
        assert_eq!("1Ki".parse(), Ok(Amount::Number(1024, "1Ki".to_owned())));
        for wrong in ["", "%", "-1%", "101%", "-5", "many"] {
            assert!(wrong.parse::<Amount>().is_err(), "{wrong:?}");
        }
    }
}
