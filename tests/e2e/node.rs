/*!
The node below running containers: the agent as a CSI plugin, faults of the kubelet, the runtime and
the network, and processes that outlive their pod.
*/

mod csi;
mod faults;
mod in_use;
