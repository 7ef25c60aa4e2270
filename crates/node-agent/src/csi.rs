/*!
The CSI plugin: inline ephemeral volumes of a node, nothing else.
*/

pub(crate) mod authority;
pub(crate) mod identity;
pub(crate) mod node;
pub(crate) mod registration;
