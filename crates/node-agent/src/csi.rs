/*!
The CSI plugin of this node: inline ephemeral volumes, and the plugin's registration with the kubelet.

Here are the gRPC services and the checks of their requests. What a call does to a volume, a
socket or a kept filesystem is in the rooms below.
*/

pub(crate) mod authorize;
pub(crate) mod http2_authority;
pub(crate) mod identity;
pub(crate) mod node;
pub(crate) mod registration;
