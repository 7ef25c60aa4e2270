/*!
The controllers against a scripted API server: every request of a pass, in order, with what it must
carry; and what a crash or a refusal between two of them leads to.
*/

#![forbid(unsafe_code)]
// A helper of a test that cannot go on ends the test.
#![allow(clippy::unwrap_used)]

mod container;
mod create;
mod delete;
mod ends;
mod first_node;
mod lease;
mod newest;
mod objects;
mod refusal;
mod reset;
mod resize;
mod restart;
mod stop;
mod template;
mod world;
