/*!
The directories that kept filesystems may lie in, each with its own concurrency limits. So a disk
that does not answer delays only the filesystems on it.
*/

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::{Mutex, Semaphore};

use super::Host;
use super::readers::Readers;
use super::space::{self, Space};

/// Starts that are carried out at the same time. Each takes milliseconds, so this bounds what a
/// burst costs.
const STARTS: usize = 8;
/// How long a start counts among those.
const TURN: Duration = Duration::from_secs(1);
/// Filesystems that are prepared at the same time. Each may need the memory for an image's user
/// files and config.
const PREPARATIONS: usize = 4;
/// How long a question for free space may take.
const TIME: Duration = Duration::from_secs(5);

/// The directories that the administrator allows.
#[derive(Debug)]
pub(crate) struct Disks(Vec<Disk>);

/// One directory, with the disk that it is on.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) path: PathBuf,
    starts: Semaphore,
    pub(crate) preparations: Semaphore,
    pub(crate) readers: Readers,
    /// Held by the thread that asks for free space, however long that takes.
    asked: Arc<Mutex<()>>,
}

// === impl Disks ===

impl Disks {
    pub(crate) fn new(allowed: &[PathBuf]) -> Self {
        let disk = |path: &PathBuf| Disk {
            path: path.clone(),
            starts: Semaphore::new(STARTS),
            preparations: Semaphore::new(PREPARATIONS),
            readers: Readers::default(),
            asked: Arc::default(),
        };
        Self(allowed.iter().map(disk).collect())
    }

    /// The disk of a prefix. `None` if no data may be kept there: a directory below an allowed one
    /// may be in a kept filesystem.
    pub(crate) fn get(&self, prefix: &Path) -> Option<&Disk> {
        self.0.iter().find(|disk| disk.path == prefix)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Disk> {
        self.0.iter()
    }

    /// The directories, for a message.
    pub(crate) fn names(&self) -> String {
        let names: Vec<_> = self
            .0
            .iter()
            .map(|disk| disk.path.display().to_string())
            .collect();
        names.join(", ")
    }
}

// === impl Disk ===

impl Disk {
    /// Carries out a start when it is its turn. One that takes long gives its turn to others, and
    /// goes on.
    pub(crate) async fn start<T>(&self, start: impl Future<Output = T>) -> Result<T> {
        let turn = self
            .starts
            .acquire()
            .await
            .context("the agent is shutting down")?;
        let mut start = std::pin::pin!(start);
        if let Ok(done) = tokio::time::timeout(TURN, &mut start).await {
            return Ok(done);
        }
        drop(turn);
        Ok(start.await)
    }

    /// What the disk has. One thread asks at a time, so that a disk which does not answer has no
    /// more than that.
    pub(crate) async fn space(&self, host: &Arc<Host>) -> Result<Space> {
        let ask = async {
            let asking = Arc::clone(&self.asked).lock_owned().await;
            let (host, path) = (Arc::clone(host), self.path.clone());
            let ask = move || {
                let _asking = asking;
                space::look(&host, &path)
            };
            tokio::task::spawn_blocking(ask)
                .await
                .context("ask for free space")?
        };
        tokio::time::timeout(TIME, ask)
            .await
            .with_context(|| format!("the disk of {} does not answer", self.path.display()))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many of them hang: in a disk, or in mounts of their containers.
    #[tokio::test(start_paused = true)]
    async fn i18_starts_that_hang_keep_no_other_from_its_turn() {
        let disks = Disks::new(&["/data".into()]);
        let disk = disks.get(Path::new("/data")).unwrap();
        let hanging = (0..3 * STARTS).map(|_| disk.start(std::future::pending::<()>()));
        tokio::select! {
            biased;
            _ = futures::future::select_all(hanging.map(Box::pin)) => panic!("it ended"),
            done = disk.start(std::future::ready("done")) => assert_eq!(done.unwrap(), "done"),
        }
    }

    #[test]
    fn i7_only_the_very_prefixes_that_are_allowed() {
        let disks = Disks::new(&["/var/lib/stoppablecontainer".into(), "/data/".into()]);
        for good in [
            "/var/lib/stoppablecontainer",
            "/var/lib/stoppablecontainer/",
            "/data",
        ] {
            assert!(disks.get(Path::new(good)).is_some(), "{good}");
        }
        for bad in [
            "/",
            "/var/lib",
            "/var/lib/stoppablecontainer/uid/upper",
            "/var/lib/stoppablecontainer2",
            "/data/a",
            "/data/../data",
            "data",
            "",
        ] {
            assert!(disks.get(Path::new(bad)).is_none(), "{bad:?}");
        }
    }
}
