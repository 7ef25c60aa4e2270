/*!
A disk for kept filesystems on a node, mounted at `E2E_DISK`. There is only one such place, so tests
that use it run alone.

The disk is an ext4 image on a loop device. For a power cut, the image is on a separate file system
that can be frozen. The image then contains everything that the disk has written, without the data
in the node's memory. A copy of it is the result of a power cut. The node mounts the copy instead of
the disk at its next boot (`E2E_FSTAB`).
*/

use anyhow::Result;
use testkit::{Exclusive, Namespace, NodeShell};

use crate::support::node::until_it_answers;
use crate::support::{cleaned_up, disk_directory, forget, node_file_systems};

/// The real size of a disk that can fail.
const HARDWARE: &str = "8m";

/// A mounted disk.
pub(crate) struct Disk {
    /// The mount point, which is a prefix that the administrator allows.
    pub(crate) place: String,
    table: String,
}

// === impl Disk ===

impl Disk {
    /// A disk of this size in MiB.
    pub(crate) async fn plain(node: &NodeShell<'_>, megabytes: u32, _: &Exclusive) -> Result<Self> {
        let make = format!("format $images/disk {megabytes}; mount -o loop $images/disk $place");
        Self::make(node, &make).await
    }

    /// The same on a file system that can be frozen, for [`Disk::cut_power`].
    pub(crate) async fn with_a_moment(node: &NodeShell<'_>, megabytes: u32, _: &Exclusive) -> Result<Self> {
        let make = format!(
            "format $images/hardware {}; mkdir $images/below; mount -o loop $images/hardware $images/below
             format $images/below/disk {megabytes}; mount -o loop $images/below/disk $place
             echo \"$images/cut $place ext4 loop 0 0\" >> $table",
            megabytes * 2
        );
        Self::make(node, &make).await
    }

    /// A disk that does not store new blocks after [`Disk::fail`]: its sparse image cannot grow
    /// when the image's own disk is full. It does not have a journal, because a journal would stop
    /// all writes at the first such block.
    pub(crate) async fn that_can_fail(node: &NodeShell<'_>, megabytes: u32, _: &Exclusive) -> Result<Self> {
        let make = format!(
            "mkdir $images/below; mount -t tmpfs -o size={HARDWARE} none $images/below
             truncate --size {megabytes}M $images/below/disk
             mkfs.ext4 -q -F -m 0 -O ^has_journal $images/below/disk
             mount -o loop,errors=continue $images/below/disk $place"
        );
        Self::make(node, &make).await
    }

    /// A disk that cannot hold kept filesystems: its directories do not report the types of
    /// entries.
    pub(crate) async fn unsuitable(node: &NodeShell<'_>, megabytes: u32, _: &Exclusive) -> Result<Self> {
        let make = format!(
            "truncate --size {megabytes}M $images/disk; mkfs.ext4 -q -F -m 0 -O ^filetype $images/disk
             mount -o loop $images/disk $place"
        );
        Self::make(node, &make).await
    }

    /// Makes the disk fail.
    pub(crate) async fn fail(&self, node: &NodeShell<'_>) -> Result<()> {
        self.sh(node, "dd if=/dev/zero of=$images/below/filler bs=64k || true")
            .await
    }

    /// Repairs the disk.
    pub(crate) async fn repair(&self, node: &NodeShell<'_>) -> Result<()> {
        self.sh(node, "rm -f $images/below/filler").await
    }

    /// Unmounts a plain disk, as if it had not been mounted at boot.
    pub(crate) async fn unmount(&self, node: &NodeShell<'_>) -> Result<()> {
        // The agent may be measuring the disk.
        let unmount = "for try in $(seq 300); do umount $place && exit 0; sleep 0.1; done; exit 1";
        self.sh(node, unmount).await
    }

    /// Mounts it again.
    pub(crate) async fn mount_again(&self, node: &NodeShell<'_>) -> Result<()> {
        self.sh(node, "mount -o loop $images/disk $place").await
    }

    /// Copies the disk in its state of one moment. The next boot of the node mounts the copy.
    pub(crate) async fn cut_power(&self, node: &NodeShell<'_>) -> Result<()> {
        let cut = "fsfreeze --freeze $images/below
            cp --sparse=always $images/below/disk $images/cut || failed=1
            fsfreeze --unfreeze $images/below; test -z \"$failed\"";
        self.sh(node, cut).await
    }

    /// Ends a test on the disk, also after a failure: deletes these containers, if they exist, and
    /// removes the disk. The test's own error comes first.
    pub(crate) async fn after<T>(
        self,
        tested: Result<T>,
        ns: &Namespace,
        node: &NodeShell<'_>,
        names: &[&str],
    ) -> Result<T> {
        // The node may have been rebooted.
        let mut tested = cleaned_up(tested, until_it_answers(node).await);
        // Data cannot be removed from a failing disk.
        tested = cleaned_up(tested, self.repair(node).await);
        for name in names {
            tested = cleaned_up(tested, forget(ns, name).await);
        }
        cleaned_up(tested, self.remove(node).await)
    }

    /// The agent may be measuring the disk, so the mount may be busy: it is detached immediately,
    /// and unmounted soon after.
    async fn remove(&self, node: &NodeShell<'_>) -> Result<()> {
        let remove = "[ ! -e $table ] || sed -i \"\\|^$images/|d\" $table
            for mount in $place $images/below; do
                while mountpoint -q $mount; do umount -l $mount; done
            done
            rm -rf $images; [ ! -d $place ] || rmdir $place";
        self.sh(node, remove).await
    }

    /// Creates a disk at the place, after removing remains of earlier tests.
    async fn make(node: &NodeShell<'_>, script: &str) -> Result<Self> {
        let disk = Self {
            place: disk_directory()?,
            table: node_file_systems()?,
        };
        disk.remove(node).await?;
        let made = disk.sh(node, &format!("mkdir -p $place $images; {script}")).await;
        match made {
            Ok(()) => Ok(disk),
            Err(error) => cleaned_up(Err(error), disk.remove(node).await),
        }
    }

    async fn sh(&self, node: &NodeShell<'_>, script: &str) -> Result<()> {
        let all = format!(
            "place={0}; images={0}-images; table={1}
             format() {{ truncate --size $2M $1; mkfs.ext4 -q -F -m 0 -J size=4 $1; }}
             {script}",
            self.place, self.table
        );
        node.sh(&all).await.map(drop)
    }
}
