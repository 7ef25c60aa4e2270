/*!
What the tests share: a namespace of its own for every test on a real cluster, waits that watch,
commands in pods, `kubectl` as a user runs it, terminals, a look at the node, and (for tests without
a cluster) a scripted API server.

The cluster is the one that `KUBECONFIG` names. Nothing here creates one.
*/

#![forbid(unsafe_code)]
// A test helper that cannot continue ends the test.
#![allow(clippy::panic, clippy::missing_panics_doc)]

mod command;
mod dump;
mod injector;
mod kubectl;
mod namespace;
mod node;
mod notes;
mod pod;
mod screen;
pub mod scripted;
mod snapshot;
mod terminal;
pub mod tunnel;
mod turns;

pub use command::{Undone, cluster_command, cluster_fact};
pub use injector::{Hook, Injectors, Order};
pub use kubectl::{Output, kubectl, port_forward};
pub use namespace::{
    Exclusive, Namespace, alone_in_namespace, client, client_as, client_with_token, in_namespace, patience,
};
pub use node::NodeShell;
pub use notes::fact;
pub use screen::comparable;
pub use snapshot::Snapshot;
pub use terminal::{Size, Terminal};
