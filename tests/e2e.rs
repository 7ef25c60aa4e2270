/*!
End-to-end tests on the cluster that `KUBECONFIG` names, with StoppableContainer
installed and the test images in its registry (`cargo xtask test` sees to both).

Each test has a namespace of its own; those that disturb the whole cluster run
alone. A failed test prints what is in its namespace; `E2E_KEEP=1` leaves it.
*/

// A test is one future; that it is large costs nothing.
#![allow(missing_docs, clippy::large_futures)]

#[path = "e2e/admission.rs"]
mod admission;
#[path = "e2e/agent_token.rs"]
mod agent_token;
#[path = "e2e/agents.rs"]
mod agents;
#[path = "e2e/availability.rs"]
mod availability;
#[path = "e2e/csi.rs"]
mod csi;
#[path = "e2e/deletion.rs"]
mod deletion;
#[path = "e2e/disk.rs"]
mod disk;
#[path = "e2e/durability.rs"]
mod durability;
#[path = "e2e/edits.rs"]
mod edits;
#[path = "e2e/ends.rs"]
mod ends;
#[path = "e2e/excluded.rs"]
mod excluded;
#[path = "e2e/faults.rs"]
mod faults;
#[path = "e2e/full_disk.rs"]
mod full_disk;
#[path = "e2e/generated.rs"]
mod generated;
#[path = "e2e/hostile.rs"]
mod hostile;
#[path = "e2e/image_pin.rs"]
mod image_pin;
#[path = "e2e/images.rs"]
mod images;
#[path = "e2e/injectors.rs"]
mod injectors;
#[path = "e2e/let_go.rs"]
mod let_go;
#[path = "e2e/metrics.rs"]
mod metrics;
#[path = "e2e/node.rs"]
mod node;
#[path = "e2e/node_faults.rs"]
mod node_faults;
#[path = "e2e/orphans.rs"]
mod orphans;
#[path = "e2e/outage.rs"]
mod outage;
#[path = "e2e/ownership.rs"]
mod ownership;
#[path = "e2e/parity.rs"]
mod parity;
#[path = "e2e/pinned.rs"]
mod pinned;
#[path = "e2e/retagged.rs"]
mod retagged;
#[path = "e2e/samples.rs"]
mod samples;
#[path = "e2e/stopped.rs"]
mod stopped;
#[path = "e2e/storage.rs"]
mod storage;
#[path = "e2e/support.rs"]
mod support;
#[path = "e2e/survival.rs"]
mod survival;
#[path = "e2e/templates.rs"]
mod templates;
#[path = "e2e/tenants.rs"]
mod tenants;
#[path = "e2e/unmounted_disk.rs"]
mod unmounted_disk;
#[path = "e2e/volumes.rs"]
mod volumes;
