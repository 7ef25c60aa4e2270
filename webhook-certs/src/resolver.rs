//! What rustls asks for a certificate at every handshake.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::leaf::Leaf;

/// Holds the serving certificate and lets it be replaced between two handshakes. Without one, or
/// with one that is not valid by the clock, handshakes are refused.
#[derive(Debug)]
pub struct Resolver {
    leaf: ArcSwapOption<Leaf>,
    clock: fn() -> SystemTime,
}

// === impl Resolver ===

impl Resolver {
    /// A resolver without a certificate.
    pub fn new(clock: fn() -> SystemTime) -> Self {
        Self {
            leaf: ArcSwapOption::empty(),
            clock,
        }
    }

    /// Serves with `leaf` from the next handshake on.
    pub fn set(&self, leaf: Leaf) {
        self.leaf.store(Some(Arc::new(leaf)));
    }

    /// The certificate that is served now.
    pub fn leaf(&self) -> Option<Arc<Leaf>> {
        self.leaf.load_full()
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let leaf = self.leaf.load();
        leaf.as_ref()
            .filter(|leaf| leaf.validity.contains((self.clock)()))
            .map(|leaf| leaf.key.clone())
    }
}
