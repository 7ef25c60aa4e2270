//! The webhook's router in this process: no port, no cluster, caches filled by hand.

#[path = "webhook/consumer.rs"]
mod consumer;
#[path = "webhook/objects.rs"]
mod objects;
#[path = "webhook/protocol.rs"]
mod protocol;
#[path = "webhook/support.rs"]
mod support;
