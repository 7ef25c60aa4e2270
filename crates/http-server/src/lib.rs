/*!
HTTP for every client that can reach a port: the webhook (TLS), health and metrics.

The server bounds what a client can drag out: handshakes, the head of a request, idle connections
and their number. When it has too many connections, it closes the one that has waited longest.
*/

#![forbid(unsafe_code)]

mod connections;
mod server;

pub use server::Server;
