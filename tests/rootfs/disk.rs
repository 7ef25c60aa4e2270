/*!
A disk for kept filesystems: an ext4 image on a loop device, mounted where a [`Node`] has its store,
so that a test can fill it, break it and cut its power.
*/

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::container;
use crate::node::Node;

/// A mounted disk; unmounted when it is dropped.
pub(crate) struct Disk {
    image: PathBuf,
    mountpoint: PathBuf,
}

/// A file system that is read-only for writers until it is dropped: they wait.
struct Frozen<'a>(&'a Path);

// === impl Disk ===

impl Disk {
    /// Makes a disk of so many MiB in a new (sparse) image file and mounts it as the node's store.
    pub(crate) fn make(node: &Node, image: &Path, megabytes: u64, inodes: u32) -> Self {
        format(image, megabytes, inodes);
        Self::mount(node, image)
    }

    /// The same with options for mkfs.ext4(8).
    pub(crate) fn make_with(node: &Node, image: &Path, megabytes: u64, options: &[&OsStr]) -> Self {
        format_with(image, megabytes, options);
        Self::mount(node, image)
    }

    /// The same on btrfs, of which the store may take so many MiB.
    pub(crate) fn make_with_quota(node: &Node, image: &Path, megabytes: u64) -> Self {
        fs::File::create(image).unwrap().set_len(256 << 20).unwrap();
        run("mkfs.btrfs", [OsStr::new("-q"), image.as_ref()]);
        let mountpoint = node.path("store");
        fs::create_dir_all(&mountpoint).unwrap();
        mount_with(image, &mountpoint, "loop");
        let limit = format!("{megabytes}M");
        for arguments in [&["quota", "enable"][..], &["qgroup", "limit", &limit]] {
            let arguments = arguments.iter().map(OsStr::new);
            run("btrfs", arguments.chain([mountpoint.as_ref()]));
        }
        Self {
            image: image.to_owned(),
            mountpoint,
        }
    }

    /// Mounts the disk in an image file as the node's store, as the node does after its power came
    /// back.
    pub(crate) fn mount(node: &Node, image: &Path) -> Self {
        let mountpoint = node.path("store");
        fs::create_dir_all(&mountpoint).unwrap();
        mount(image, &mountpoint);
        Self {
            image: image.to_owned(),
            mountpoint,
        }
    }

    /// Remounts it, `ro` or `rw`.
    pub(crate) fn remount(&self, how: &str) {
        let options = format!("remount,{how}");
        run(
            "mount",
            [OsStr::new("-o"), options.as_ref(), self.mountpoint.as_ref()],
        );
    }

    /// Tells the file system of an error, after which it takes no writes.
    pub(crate) fn end_writing(&self) {
        let devices = Command::new("losetup")
            .args(["--noheadings", "--output", "NAME", "--associated"])
            .arg(&self.image)
            .output()
            .unwrap();
        let device = String::from_utf8(devices.stdout).unwrap();
        let name = device.trim().trim_start_matches("/dev/");
        fs::write(format!("/sys/fs/ext4/{name}/trigger_fs_error"), "by a test").unwrap();
    }

    /// Unmounts it, checks it as a node does while it starts, and mounts it again.
    pub(crate) fn repair(self, node: &Node) -> Self {
        let image = self.image.clone();
        drop(self);
        // The kernel lets go of it when the last namespace that had it is taken apart.
        let gone = (0..2000).any(|_| {
            let devices = Command::new("losetup")
                .arg("--associated")
                .arg(&image)
                .output()
                .unwrap();
            devices.stdout.is_empty()
        });
        assert!(gone, "the disk is still in use");
        // 1 says that it found something and repaired it.
        let status = Command::new("e2fsck")
            .arg("-p")
            .arg(&image)
            .output()
            .unwrap()
            .status;
        assert!(matches!(status.code(), Some(0 | 1)), "e2fsck: {status}");
        Self::mount(node, &image)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        unmount(&self.mountpoint);
    }
}

/// The machine's hardware: a file system that holds the image of a node's disk. All that the disk
/// ever wrote is in the image and what is still in the node's memory is not, so a copy of it is
/// what a power cut leaves.
pub(crate) struct Hardware {
    mountpoint: PathBuf,
}

// === impl Hardware ===

impl Hardware {
    /// Has room for a disk of so many MiB.
    pub(crate) fn make(node: &Node, megabytes: u64) -> Self {
        let (image, mountpoint) = (node.path("hardware.image"), node.path("hardware"));
        format(&image, megabytes * 2, 64);
        fs::create_dir(&mountpoint).unwrap();
        mount(&image, &mountpoint);
        Self { mountpoint }
    }

    /// Where the disk's image is.
    pub(crate) fn disk(&self) -> PathBuf {
        self.mountpoint.join("disk.image")
    }

    /// Copies the disk as it is at one moment, which may be in the middle of anything.
    pub(crate) fn cut_power(&self, copy: &Path) {
        let frozen = Frozen::freeze(&self.mountpoint);
        run(
            "cp",
            [OsStr::new("--sparse=always"), self.disk().as_ref(), copy.as_ref()],
        );
        drop(frozen);
    }
}

impl Drop for Hardware {
    fn drop(&mut self) {
        unmount(&self.mountpoint);
    }
}

// === impl Frozen ===

impl<'a> Frozen<'a> {
    fn freeze(mountpoint: &'a Path) -> Self {
        run("fsfreeze", [OsStr::new("--freeze"), mountpoint.as_ref()]);
        Self(mountpoint)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        run("fsfreeze", [OsStr::new("--unfreeze"), self.0.as_ref()]);
    }
}

/// Makes a disk of so many MiB in a new (sparse) image file and mounts it: a machine's own, which
/// is to be quick and survives nothing.
pub(crate) fn make_machine(image: &Path, megabytes: u64, mountpoint: &Path) {
    fs::File::create(image).unwrap().set_len(megabytes << 20).unwrap();
    let options = ["-q", "-F", "-m", "0", "-O", "^has_journal", "-N", "65536"].map(OsStr::new);
    run("mkfs.ext4", options.into_iter().chain([image.as_ref()]));
    fs::create_dir(mountpoint).unwrap();
    mount_with(image, mountpoint, "loop");
}

/// A tmpfs of so many MiB, to be unmounted by the caller.
pub(crate) fn small_tmpfs(path: &Path, megabytes: u64) {
    fs::create_dir(path).unwrap();
    container::attach(
        container::new_mount("tmpfs", &[("size", format!("{megabytes}m"))]),
        path,
    );
}

/// Detaches a mount at once, even while processes have files open there.
pub(crate) fn unmount(path: &Path) {
    rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH).unwrap();
}

/// Writes zeros until the file system takes no more.
pub(crate) fn fill(path: &Path) {
    use std::io::Write;
    let mut file = fs::File::create(path).unwrap();
    for size in [1 << 16, 1 << 12] {
        let block = vec![0; size];
        while file.write_all(&block).is_ok() {}
    }
    // Allocation is put off until then.
    let _ = file.sync_all();
}

fn format(image: &Path, megabytes: u64, inodes: u32) {
    format_with(image, megabytes, &["-N", &inodes.to_string()].map(OsStr::new));
}

fn format_with(image: &Path, megabytes: u64, more: &[&OsStr]) {
    fs::File::create(image).unwrap().set_len(megabytes << 20).unwrap();
    // No blocks reserved for root, who is all that writes here.
    let options = ["-q", "-F", "-m", "0", "-b", "4096", "-J", "size=4"].map(OsStr::new);
    run(
        "mkfs.ext4",
        options
            .into_iter()
            .chain(more.iter().copied())
            .chain([image.as_ref()]),
    );
}

/// A write that fails ends all writing, be it data or the file system's own.
fn mount(image: &Path, mountpoint: &Path) {
    mount_with(image, mountpoint, "loop,data_err=abort,errors=remount-ro");
}

fn mount_with(image: &Path, mountpoint: &Path, options: &str) {
    run(
        "mount",
        [
            OsStr::new("-o"),
            options.as_ref(),
            image.as_ref(),
            mountpoint.as_ref(),
        ],
    );
}

fn run<'a>(program: &str, arguments: impl IntoIterator<Item = &'a OsStr>) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {output:?}");
}
