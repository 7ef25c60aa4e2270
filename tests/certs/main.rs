//! Certificates and the TLS server, with real handshakes over loopback and an API server in memory.

// Helpers of tests may fail like tests; clippy only knows the functions with the attribute.
#![allow(clippy::unwrap_used)]

mod api;
mod clock;
mod hooks;
mod keeper;
mod rotation;
mod server;
mod tls;
