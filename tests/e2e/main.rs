/*!
End-to-end tests on the cluster that `KUBECONFIG` names, with StoppableContainer
installed and the test images in its registry (`cargo xtask test` sees to both).

Each test has a namespace of its own; those that disturb the whole cluster run
alone. A failed test prints what is in its namespace; `E2E_KEEP=1` leaves it.
*/

// A test is one future; that it is large costs nothing.
#![allow(missing_docs, clippy::large_futures)]

mod admission;
mod agent_token;
mod agents;
mod availability;
mod csi;
mod deletion;
mod disk;
mod durability;
mod edits;
mod ends;
mod excluded;
mod faults;
mod full_disk;
mod generated;
mod hostile;
mod image_pin;
mod images;
mod injectors;
mod let_go;
mod metrics;
mod node;
mod node_faults;
mod orphans;
mod outage;
mod ownership;
mod parity;
mod pinned;
mod retagged;
mod samples;
mod stopped;
mod storage;
mod support;
mod survival;
mod templates;
mod tenants;
mod unmounted_disk;
mod volumes;
