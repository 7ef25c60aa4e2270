/*!
The node below running containers: the agent as a CSI plugin, runtimes with and without CDI, faults
of the kubelet, the runtime and the network, processes that outlive their pod, and metrics.
*/

mod cdi;
mod csi;
mod faults;
mod in_use;
mod metrics;
