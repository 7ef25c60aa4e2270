//! The webhook's router in this process: no port, no cluster, caches filled by hand.

// Helpers of tests may fail like tests; clippy only knows the functions with the attribute.
#![allow(clippy::unwrap_used)]

#[path = "webhook/consumer.rs"]
mod consumer;
#[path = "webhook/generated.rs"]
mod generated;
#[path = "webhook/injectors.rs"]
mod injectors;
#[path = "webhook/objects.rs"]
mod objects;
#[path = "webhook/properties.rs"]
mod properties;
#[path = "webhook/protocol.rs"]
mod protocol;
#[path = "webhook/support.rs"]
mod support;
#[path = "webhook/templates.rs"]
mod templates;
