/*!
End-to-end tests on the cluster that `KUBECONFIG` names, with StoppableContainer
installed and the test images in its registry (`cargo xtask test` sees to both).

Each test has a namespace of its own; those that disturb the whole cluster run
alone. A failed test prints what is in its namespace; `E2E_KEEP=1` leaves it.

A room is a module with a directory, and its head says what its tests are about.
Rooms do not import each other; what two of them need is in `support`.
*/

// A test is one future; that it is large costs nothing.
#![allow(missing_docs, clippy::large_futures)]

mod admission;
mod availability;
mod durability;
mod images;
mod injectors;
mod lifecycle;
mod many_nodes;
mod node;
mod parity;
mod security;
mod storage;
mod support;
