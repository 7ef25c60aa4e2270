/*!
HTTP for whoever can reach a port: the webhook (TLS), health and metrics.

Whatever a client drags out is bounded: handshakes, the head of a request, idle
connections and their number. Where there is no room for one more connection,
the one that has waited longest gives way.
*/

#![forbid(unsafe_code)]

mod connections;
mod server;

pub use server::Server;
