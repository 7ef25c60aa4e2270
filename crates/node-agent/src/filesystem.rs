/*!
The kept filesystem of an instance: what is done to its data, and what the agent writes about that
into `status.filesystem`.

Each file here is one subject: prepare, recover, remove, sync, measure, and so on. When that is due
is decided above, in `csi`, `sync` and `wrapper`.
*/

pub(crate) mod announce;
pub(crate) mod blocked;
pub(crate) mod data;
pub(crate) mod disk_low;
mod failure;
pub(crate) mod files;
pub(crate) mod identity;
mod image_match;
mod known_images;
pub(crate) mod orphans;
pub(crate) mod prepare;
mod record;
pub(crate) mod recovery;
pub(crate) mod removal;
mod report;
pub(crate) mod usage;
pub(crate) mod users;
pub(crate) mod writeback;

use kube::Client;
use tokio::sync::Mutex as AsyncMutex;

use crate::counters::Counters;
use crate::instance::Instances;
use crate::node::Node;
use crate::volumes::Volumes;

pub(crate) use self::failure::Failure;
use self::known_images::KnownImages;
pub(crate) use self::report::Reporter;

/// The kept filesystems of this node, with all that working on them takes.
pub(crate) struct Filesystems {
    pub(crate) node: Node,
    pub(crate) client: Client,
    pub(crate) volumes: Volumes,
    pub(crate) instances: Instances,
    pub(crate) counters: Counters,
    /// See [`announce`].
    known_images: KnownImages,
    /// Held while a filesystem is measured: one at a time.
    measuring: AsyncMutex<()>,
}

// === impl Filesystems ===

impl Filesystems {
    pub(crate) fn new(node: Node, client: Client, volumes: Volumes, counters: Counters) -> Self {
        Self {
            node,
            client,
            volumes,
            instances: Instances::default(),
            counters,
            known_images: KnownImages::default(),
            measuring: AsyncMutex::default(),
        }
    }
}
