/*!
A disk for kept filesystems on a node, where `E2E_DISK` says. That is one place: who uses it runs alone.

It is an ext4 image on a loop device. One whose power is to be cut lies on a file system of its own, which can be frozen: all
that the disk ever wrote is in its image then, and what is still in the node's memory is not. A copy of that is what a power
cut leaves. The node mounts it in the disk's place when it starts (`E2E_FSTAB`).
*/

use anyhow::Result;
use testkit::{Exclusive, Namespace, NodeShell};

use crate::support::node::until_it_answers;
use crate::support::{cleaned_up, disk_directory, forget, node_file_systems};

/// How much of a disk that can fail there is in truth.
const HARDWARE: &str = "8m";

/// A disk that is mounted.
pub(crate) struct Disk {
    /// Where; a prefix that the administrator allows.
    pub(crate) place: String,
    table: String,
}

// === impl Disk ===

impl Disk {
    /// A disk of so many MiB.
    pub(crate) async fn plain(node: &NodeShell<'_>, megabytes: u32, _: &Exclusive) -> Result<Self> {
        let make = format!("format $images/disk {megabytes}; mount -o loop $images/disk $place");
        Self::make(node, &make).await
    }

    /// The same on a file system that can be stopped in a moment, for [`Disk::cut_power`].
    pub(crate) async fn with_a_moment(node: &NodeShell<'_>, megabytes: u32, _: &Exclusive) -> Result<Self> {
        let make = format!(
            "format $images/hardware {}; mkdir $images/below; mount -o loop $images/hardware $images/below
             format $images/below/disk {megabytes}; mount -o loop $images/below/disk $place
             echo \"$images/cut $place ext4 loop 0 0\" >> $table",
            megabytes * 2
        );
        Self::make(node, &make).await
    }

    /// One that takes no new blocks after [`Disk::fail`]: those that were never written have no place in its image once
    /// that file's own disk is full. Without a journal, which would end all writing at the first such block.
    pub(crate) async fn that_can_fail(node: &NodeShell<'_>, megabytes: u32, _: &Exclusive) -> Result<Self> {
        let make = format!(
            "mkdir $images/below; mount -t tmpfs -o size={HARDWARE} none $images/below
             truncate --size {megabytes}M $images/below/disk
             mkfs.ext4 -q -F -m 0 -O ^has_journal $images/below/disk
             mount -o loop,errors=continue $images/below/disk $place"
        );
        Self::make(node, &make).await
    }

    /// One that cannot hold kept filesystems: its directories do not say what their entries are.
    pub(crate) async fn unsuitable(node: &NodeShell<'_>, megabytes: u32, _: &Exclusive) -> Result<Self> {
        let make = format!(
            "truncate --size {megabytes}M $images/disk; mkfs.ext4 -q -F -m 0 -O ^filetype $images/disk
             mount -o loop $images/disk $place"
        );
        Self::make(node, &make).await
    }

    /// Lets it fail.
    pub(crate) async fn fail(&self, node: &NodeShell<'_>) -> Result<()> {
        self.sh(node, "dd if=/dev/zero of=$images/below/filler bs=64k || true")
            .await
    }

    /// Takes that back.
    pub(crate) async fn repair(&self, node: &NodeShell<'_>) -> Result<()> {
        self.sh(node, "rm -f $images/below/filler").await
    }

    /// Takes a plain one off, as if it had not been mounted when the node started.
    pub(crate) async fn unmount(&self, node: &NodeShell<'_>) -> Result<()> {
        // The agent may be measuring it.
        let unmount = "for try in $(seq 300); do umount $place && exit 0; sleep 0.1; done; exit 1";
        self.sh(node, unmount).await
    }

    /// Takes that back.
    pub(crate) async fn mount_again(&self, node: &NodeShell<'_>) -> Result<()> {
        self.sh(node, "mount -o loop $images/disk $place").await
    }

    /// Copies the disk as it is at one moment. The node has to be rebooted next, and then has the copy.
    pub(crate) async fn cut_power(&self, node: &NodeShell<'_>) -> Result<()> {
        let cut = "fsfreeze --freeze $images/below
            cp --sparse=always $images/below/disk $images/cut || failed=1
            fsfreeze --unfreeze $images/below; test -z \"$failed\"";
        self.sh(node, cut).await
    }

    /// Ends a test on the disk, however it went: deletes these containers, if they are there, and removes the disk. The
    /// test's own error comes first.
    pub(crate) async fn after<T>(
        self,
        tested: Result<T>,
        ns: &Namespace,
        node: &NodeShell<'_>,
        names: &[&str],
    ) -> Result<T> {
        // It may have been rebooted.
        let mut tested = cleaned_up(tested, until_it_answers(node).await);
        // Nobody can remove data from a disk that fails.
        tested = cleaned_up(tested, self.repair(node).await);
        for name in names {
            tested = cleaned_up(tested, forget(ns, name).await);
        }
        cleaned_up(tested, self.remove(node).await)
    }

    /// The agent measures it at any time, so that it may be busy: it is out of sight at once, and gone soon.
    async fn remove(&self, node: &NodeShell<'_>) -> Result<()> {
        let remove = "[ ! -e $table ] || sed -i \"\\|^$images/|d\" $table
            for mount in $place $images/below; do
                while mountpoint -q $mount; do umount -l $mount; done
            done
            rm -rf $images; [ ! -d $place ] || rmdir $place";
        self.sh(node, remove).await
    }

    /// Makes one in the disk's place, where nothing is, whatever a test before this has left.
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
