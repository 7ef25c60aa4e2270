/*!
The CSI plugin of this node: inline ephemeral volumes, and the plugin's registration with the
kubelet.

Here are the gRPC services, the checks of their requests, and the decision which pod may have a
volume. What a call does to a volume, a socket or a kept filesystem is in the rooms below.
*/

mod authorize;
mod error;
mod http2_authority;
mod identity;
mod node;
mod registration;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use stoppablecontainer_api::names::CSI_DRIVER;

use self::error::CsiError;

pub use self::http2_authority::Connection;
pub(crate) use self::identity::IdentityService;
pub(crate) use self::node::NodeService;
pub(crate) use self::registration::RegistrationService;

/// Name of the plugin's socket.
pub(crate) const SOCKET: &str = "csi.sock";

/// What the services know of the kubelet.
#[derive(Debug)]
pub(crate) struct Plugin {
    pub(crate) kubelet_dir: PathBuf,
    registered: AtomicBool,
}

/// Directory of the plugin on the node.
pub(crate) fn plugin_directory(kubelet_dir: &Path) -> PathBuf {
    kubelet_dir.join("plugins").join(CSI_DRIVER)
}

// === impl Plugin ===

impl Plugin {
    pub(crate) fn new(kubelet_dir: PathBuf) -> Self {
        Self {
            kubelet_dir,
            registered: AtomicBool::new(false),
        }
    }

    /// Whether the kubelet knows the plugin.
    fn is_registered(&self) -> bool {
        self.registered.load(Ordering::Relaxed)
    }

    fn set_registered(&self, registered: bool) {
        self.registered.store(registered, Ordering::Relaxed);
    }
}
