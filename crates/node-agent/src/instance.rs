/*!
What the agent knows from the API server: the instances of this node and their pods. Here is also
the lock of an instance's data, and the one way to write an instance's status.

Nothing here touches the node.
*/

mod abandoned_threads;
mod data_guard;
mod object_ref;
pub(crate) mod pod;
mod state;
pub(crate) mod status;

pub(crate) use self::data_guard::DataGuard;
pub(crate) use self::object_ref::ObjectRef;
pub(crate) use self::state::{Blocked, Instance, Instances, Provider, State, WritebackOutcome};
