//! Files that give power, and files that are none: as in a container of the image, before and after
//! they are written.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rootfs::Attached;
use rustix::fs::{CWD, FileType, Mode, XattrFlags, getxattr, makedev, mknodat, setxattr};

use crate::container::Container;
use crate::node::Node;

pub(crate) const CAPABILITY: &str = "security.capability";
const ACL: &str = "system.posix_acl_access";
/// CAP_NET_BIND_SERVICE, effective and permitted; of any namespace, and of that in which 1000 is
/// root.
pub(crate) const CAPABILITY_2: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const CAPABILITY_3: [u8; 24] = [
    1, 0, 0, 3, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xe8, 3, 0, 0,
];
/// `u::rw-,u:33:r--,g::r--,m::r--,o::---`
const ACL_OF_33: [u8; 44] = [
    2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 33, 0, 0, 0, 4, 0, 4, 0, 255, 255, 255, 255, 16,
    0, 4, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255,
];
const NAMES: [&str; 9] = [
    "setuid", "setgid", "sticky", "caps-v2", "caps-v3", "acl", "disk", "memory", "fifo",
];

/// Makes one of each kind.
fn make(directory: &Path) {
    fs::create_dir_all(directory).unwrap();
    let path = |name: &str| directory.join(name);
    let file = |name: &str, mode: u32| {
        fs::write(path(name), name).unwrap();
        fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    file("setuid", 0o4755);
    file("setgid", 0o2755);
    fs::create_dir(path("sticky")).unwrap();
    fs::set_permissions(path("sticky"), fs::Permissions::from_mode(0o1777)).unwrap();
    for (name, key, value) in [
        ("caps-v2", CAPABILITY, &CAPABILITY_2[..]),
        ("caps-v3", CAPABILITY, &CAPABILITY_3),
        ("acl", ACL, &ACL_OF_33),
    ] {
        file(name, 0o640);
        setxattr(path(name), key, value, XattrFlags::CREATE).unwrap();
    }
    for (name, kind, device) in [
        ("disk", FileType::BlockDevice, makedev(254, 0)),
        ("memory", FileType::CharacterDevice, makedev(1, 1)),
        ("fifo", FileType::Fifo, 0),
    ] {
        mknodat(CWD, path(name), kind, Mode::from_raw_mode(0o666), device).unwrap();
    }
}

/// What stat(2) reports for each.
fn look(directory: &Path) -> Vec<String> {
    let of = |name: &&str| {
        let path = directory.join(name);
        let stat = fs::symlink_metadata(&path).unwrap();
        let value = |key: &str| {
            let mut value = [0; 64];
            getxattr(&path, key, &mut value).map(|length| value[..length].to_vec())
        };
        format!(
            "{name} {:o} {}:{} {:x} {:?} {:?}",
            stat.mode(),
            stat.uid(),
            stat.gid(),
            stat.rdev(),
            value(CAPABILITY),
            value(ACL)
        )
    };
    NAMES.iter().map(of).collect()
}

/// A path in a container, as the node sees it.
fn within(container: &Container, path: &str) -> PathBuf {
    format!("/proc/{}/root/{path}", container.process.id()).into()
}

#[test]
fn h13_special_files_of_an_image_are_as_in_its_container() {
    Node::with(|node| {
        let base = node.layer("base", &[("power", None)]);
        make(&base.join("power"));
        let expected = look(&base.join("power"));
        assert!(
            expected.iter().any(|line| line.contains("[1, 0, 0, 3")),
            "{expected:#?}"
        );
        let provider = node.provider(&[&base]);
        let consumer = node.consumer("consumer").start();
        assert_eq!(node.attach(&provider, &consumer).unwrap(), Attached::Now);
        assert_eq!(look(&within(&provider, "power")), expected);
        assert_eq!(look(&within(&consumer, "power")), expected);

        // What is changed moves to the upper directory, with everything that it is. A directory of
        // an image cannot be renamed on any overlay.
        for name in NAMES.into_iter().filter(|name| *name != "sticky") {
            let path = within(&consumer, "power").join(name);
            fs::rename(&path, path.with_extension("moved")).unwrap();
            fs::rename(path.with_extension("moved"), &path).unwrap();
            assert!(fs::symlink_metadata(node.upper("power").join(name)).is_ok());
        }
        assert_eq!(look(&within(&consumer, "power")), expected);
        consumer.end();
        let again = node.consumer("again").start();
        assert_eq!(node.attach_when_free(&provider, &again), Attached::Now);
        assert_eq!(look(&within(&again, "power")), expected);
    });
}

#[test]
fn h13_special_files_made_in_a_container_stay() {
    Node::with(|node| {
        let base = node.layer("base", &[("etc/motd", Some("x"))]);
        let provider = node.provider(&[&base]);
        let consumer = node.consumer("consumer").start();
        assert_eq!(node.attach(&provider, &consumer).unwrap(), Attached::Now);
        make(&within(&consumer, "made"));
        let expected = look(&within(&consumer, "made"));
        consumer.end();
        let again = node.consumer("again").start();
        assert_eq!(node.attach_when_free(&provider, &again), Attached::Now);
        assert_eq!(look(&within(&again, "made")), expected);
    });
}
