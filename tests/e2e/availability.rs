//! The webhook stays available during faults of its replicas, its certificates and the network.

mod certificates;
mod cold_start;
mod egress;
mod lives;
mod load;
mod network;
mod outage;
mod priority;
mod replicas;
mod rotation;
