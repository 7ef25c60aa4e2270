//! The webhook stays callable, whatever happens to its replicas, its certificates and the network.

#[path = "availability/certificates.rs"]
mod certificates;
#[path = "availability/cold_start.rs"]
mod cold_start;
#[path = "availability/egress.rs"]
mod egress;
#[path = "availability/lives.rs"]
mod lives;
#[path = "availability/load.rs"]
mod load;
#[path = "availability/network.rs"]
mod network;
#[path = "availability/release.rs"]
pub(crate) mod release;
#[path = "availability/replicas.rs"]
mod replicas;
#[path = "availability/rotation.rs"]
mod rotation;
