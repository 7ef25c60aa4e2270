/*!
The node below running containers: the agent as a CSI plugin, faults of the kubelet, the runtime and
the network, processes that outlive their pod, and metrics.
*/

mod csi;
mod faults;
mod in_use;
mod metrics;
