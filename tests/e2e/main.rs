/*!
End-to-end tests on the cluster of `KUBECONFIG`, with StoppableContainer installed and the test
images in its registry (`cargo xtask test` installs both).

Each test has its own namespace. Tests that disturb the whole cluster run alone. A failed test
prints the objects in its namespace; with `E2E_KEEP=1` it does not delete them.

A room is a module with a directory. The comment at its top describes its scope. Rooms do not import
each other; code that two of them need is in `support`.
*/

// A test is one future, so its size does not matter.
#![allow(missing_docs, clippy::large_futures)]

mod admission;
mod availability;
mod devices;
mod durability;
mod images;
mod injectors;
mod installation;
mod lifecycle;
mod many_nodes;
mod node;
mod parity;
mod plugin;
mod security;
mod storage;
mod support;
