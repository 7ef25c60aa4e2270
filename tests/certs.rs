//! Certificates and the TLS server, with real handshakes over loopback and an API server in memory.

// Helpers of tests may fail like tests; clippy only knows the functions with the attribute.
#![allow(clippy::unwrap_used)]

#[path = "certs/api.rs"]
mod api;
#[path = "certs/clock.rs"]
mod clock;
#[path = "certs/keeper.rs"]
mod keeper;
#[path = "certs/rotation.rs"]
mod rotation;
#[path = "certs/server.rs"]
mod server;
#[path = "certs/tls.rs"]
mod tls;
