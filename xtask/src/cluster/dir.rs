/*!
The one directory that the local cluster lives in. Its place is the same for every clone on the
machine, because ports, bridges and cgroups are the machine's as well: there is one cluster, and the
directory says whose. The second cluster of a test run has a directory beside it.
*/

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::second_cluster;
use crate::tools::{Release, Runtime};

/// Where the cluster lives.
const PLACE: &str = "/var/lib/stoppablecontainer-cluster";

/// The cluster's directory.
#[derive(Clone, Debug)]
pub(crate) struct ClusterDir {
    root: PathBuf,
}

/// Whose cluster it is and what was changed on the machine to make it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Owner {
    /// The clone that brought the cluster up.
    pub clone: PathBuf,
    /// The release of Kubernetes that it is.
    #[serde(default)]
    pub release: Release,
    /// The container runtime of its nodes.
    #[serde(default)]
    pub runtime: Runtime,
    /// [`crate::tools::Tools::fingerprint`] of the programs that the state was made by.
    pub tools: String,
    /// Settings of the kernel before the cluster changed them: path below `/proc/sys`, value.
    pub sysctls: Vec<(String, String)>,
    /// Directories made outside the cluster's own as mount points, parents first.
    pub mount_points: Vec<PathBuf>,
}

/// Held while a command changes the cluster, so that two do not at once.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

// === impl ClusterDir ===

impl ClusterDir {
    /// The machine's, of the cluster that this process works with.
    pub(crate) fn machine() -> Self {
        Self {
            root: PathBuf::from(second_cluster::own(PLACE)),
        }
    }

    /// That of the second cluster, unless this process works with it.
    pub(crate) fn beside() -> Option<Self> {
        let root = PathBuf::from(second_cluster::beside(PLACE)?);
        Some(Self { root })
    }

    /// Another place, of a control plane that is not the local cluster's.
    pub(crate) fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// The directory itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A path in it.
    pub(crate) fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    /// Kubeconfig of the cluster's administrator.
    pub(crate) fn admin_kubeconfig(&self) -> PathBuf {
        self.join("kubeconfig/admin.conf")
    }

    /// The log of a process.
    pub(crate) fn log(&self, process: &str) -> PathBuf {
        self.join("logs").join(format!("{process}.log"))
    }

    /// The owner's record, if there is a cluster.
    pub(crate) fn owner(&self) -> Result<Option<Owner>> {
        let path = self.join("owner.json");
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(
                serde_json::from_slice(&bytes).with_context(|| format!("reading {}", path.display()))?,
            )),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// Writes the owner's record, whole or not at all.
    pub(crate) fn set_owner(&self, owner: &Owner) -> Result<()> {
        self.write("owner.json", &serde_json::to_vec_pretty(owner)?, 0o644)?;
        Ok(())
    }

    /// Makes a directory in it, with its parents.
    pub(crate) fn make(&self, path: impl AsRef<Path>, mode: u32) -> Result<PathBuf> {
        let path = self.join(path);
        let mut builder = fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(mode)
            .create(&path)
            .with_context(|| format!("making {}", path.display()))?;
        Ok(path)
    }

    /// Writes a file in it, whole or not at all.
    pub(crate) fn write(&self, path: impl AsRef<Path>, content: &[u8], mode: u32) -> Result<PathBuf> {
        let path = self.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
        }
        let partial = path.with_added_extension("partial");
        let write = || -> std::io::Result<()> {
            let mut file = File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(mode)
                .open(&partial)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&partial, &path)
        };
        write().with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// Waits until no other command changes the cluster. Makes the directory where there is none.
    pub(crate) fn lock(&self) -> Result<Lock> {
        loop {
            self.make("", 0o755)?;
            let path = self.join("lock");
            let file = File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path);
            let file = file.with_context(|| format!("making {}", path.display()))?;
            file.lock()
                .with_context(|| format!("locking {}", path.display()))?;
            // `down` removes the file while it holds the lock: a lock on a file that is gone
            // protects nothing.
            let ours = file
                .metadata()
                .with_context(|| format!("looking at {}", path.display()))?
                .ino();
            if fs::metadata(&path).is_ok_and(|now| now.ino() == ours) {
                return Ok(Lock { _file: file });
            }
        }
    }

    /// Removes the directory with everything in it.
    pub(crate) fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.root) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", self.root.display()))
            }
            _ => Ok(()),
        }
    }
}
