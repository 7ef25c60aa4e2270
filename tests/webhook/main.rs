//! The webhook's router in this process: no port, no cluster, caches filled by hand.

// Helpers of tests may fail like tests; clippy only knows the functions with the attribute.
#![allow(clippy::unwrap_used)]

mod consumer;
mod injectors;
mod objects;
mod properties;
mod protocol;
mod templates;
mod traces;
