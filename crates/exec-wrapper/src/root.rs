//! Whether this process is already in the kept filesystem.

use std::io::Read;

use exec_wrapper::protocol::KEPT_ROOT_SOURCE;

/// A container has dozens of mounts, of some 200 bytes each; a table beyond this is nobody's container.
const MAX_TABLE: u64 = 8 << 20;

/// True if the root of this mount namespace is a kept filesystem. The source of a mount can be set only by who may
/// mount, so nothing that an image holds can pretend it.
pub(crate) fn is_kept() -> bool {
    let mut table = String::new();
    match std::fs::File::open("/proc/self/mountinfo")
        .and_then(|file| file.take(MAX_TABLE).read_to_string(&mut table))
    {
        Ok(_) => root_source(&table) == Some(KEPT_ROOT_SOURCE),
        Err(_) => false,
    }
}

/// Source of the uppermost mount on `/` (proc_pid_mountinfo(5): the fifth field is the mount point; the source is the
/// second after the separator).
fn root_source(table: &str) -> Option<&str> {
    let root = table.lines().rfind(|line| line.split(' ').nth(4) == Some("/"))?;
    let (_, after) = root.split_once(" - ")?;
    after.split(' ').nth(1)
}

#[cfg(test)]
mod tests {
    use super::root_source;

    const BELOW: &str =
        "30 1 0:30 / / rw,relatime - overlay overlay rw,lowerdir=/a:/b,upperdir=/c,workdir=/d\n";

    #[test]
    fn the_uppermost_root_counts() {
        let kept = "40 30 0:31 / / rw - overlay stoppablecontainer rw\n41 40 0:5 / /proc rw - proc proc rw\n";
        assert_eq!(root_source(BELOW), Some("overlay"));
        assert_eq!(root_source(&format!("{BELOW}{kept}")), Some("stoppablecontainer"));
    }

    #[test]
    fn a_mount_of_that_name_elsewhere_does_not_count() {
        let elsewhere = "42 30 0:32 / /stoppablecontainer rw shared:1 - tmpfs stoppablecontainer rw\n";
        assert_eq!(root_source(&format!("{BELOW}{elsewhere}")), Some("overlay"));
    }

    #[test]
    fn a_table_without_root_has_none() {
        assert_eq!(root_source(""), None);
        assert_eq!(root_source("40 30 0:31 / / rw -"), None);
    }
}
