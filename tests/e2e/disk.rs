/*!
A disk for kept filesystems on a node: an ext4 image on a loop device, where `E2E_DISK` says.

One whose power is to be cut lies on a file system of its own, which can be frozen: all that the disk ever wrote is in its
image then, and what is still in the node's memory is not. A copy of that is what a power cut leaves. The node mounts it in
the disk's place when it starts (`E2E_FSTAB`).
*/

use std::time::{Duration, Instant};

use anyhow::Result;
use testkit::{NodeShell, cluster_fact, disk_directory};

const PATIENCE: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(200);

/// A disk that is mounted.
pub(super) struct Disk {
    place: String,
    table: String,
}

// === impl Disk ===

impl Disk {
    /// A disk of so many MiB.
    pub(super) async fn plain(node: &NodeShell<'_>, megabytes: u32) -> Result<Self> {
        let disk = Self::none(node).await?;
        disk.sh(
            node,
            &format!("format $images/disk {megabytes}; mount -o loop $images/disk $place"),
        )
        .await?;
        Ok(disk)
    }

    /// The same on a file system that can be stopped in a moment, for [`Disk::cut_power`].
    pub(super) async fn with_a_moment(node: &NodeShell<'_>, megabytes: u32) -> Result<Self> {
        let disk = Self::none(node).await?;
        let make = format!(
            "format $images/hardware {}; mkdir $images/below; mount -o loop $images/hardware $images/below
             format $images/below/disk {megabytes}; mount -o loop $images/below/disk $place
             echo \"$images/cut $place ext4 loop 0 0\" > {}",
            megabytes * 2,
            disk.table
        );
        disk.sh(node, &make).await?;
        Ok(disk)
    }

    /// Copies the disk as it is at one moment. The node has to be rebooted next, and then has the copy.
    pub(super) async fn cut_power(&self, node: &NodeShell<'_>) -> Result<()> {
        let cut = "fsfreeze --freeze $images/below
            cp --sparse=always $images/below/disk $images/cut || failed=1
            fsfreeze --unfreeze $images/below; test -z \"$failed\"";
        self.sh(node, cut).await
    }

    /// Removes it, once the node answers.
    pub(super) async fn remove(&self, node: &NodeShell<'_>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while node.sh("true").await.is_err() && Instant::now() < deadline {
            tokio::time::sleep(PAUSE).await;
        }
        let remove = format!(
            "rm -f {}; umount -l $place $images/below 2>/dev/null || true; rm -rf $images; rmdir $place 2>/dev/null || true",
            self.table
        );
        self.sh(node, &remove).await
    }

    /// The disk's place, with nothing there, whatever a test before this has left.
    async fn none(node: &NodeShell<'_>) -> Result<Self> {
        let place = disk_directory()?;
        let table = cluster_fact(
            "E2E_FSTAB",
            "a file whose file systems a node mounts when it starts",
        )?;
        let disk = Self { place, table };
        disk.remove(node).await?;
        disk.sh(node, "mkdir -p $place $images").await?;
        Ok(disk)
    }

    async fn sh(&self, node: &NodeShell<'_>, script: &str) -> Result<()> {
        let place = &self.place;
        let all = format!(
            "place={place}; images={place}-images
             format() {{ truncate --size $2M $1; mkfs.ext4 -q -F -m 0 -J size=4 $1; }}
             {script}"
        );
        node.sh(&all).await.map(drop)
    }
}
