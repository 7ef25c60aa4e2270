/*!
What the agent knows of the API server's objects (instances of this node, and their pods), and the
one way to write an instance's status. Nothing here touches the node.
*/

pub(crate) mod left_behind;
pub(crate) mod pod;
pub(crate) mod state;
pub(crate) mod status;
