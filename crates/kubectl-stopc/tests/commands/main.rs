/*!
Commands against a scripted API server: every request in order, what it carries, and what is printed
for each answer.
*/

#![forbid(unsafe_code)]
// A helper of a test that cannot go on ends the test.
#![allow(clippy::unwrap_used, clippy::panic)]

mod binary;
mod create;
mod delete;
mod errors;
mod files;
mod krew;
mod power;
mod read;
mod recover;
mod waits;
mod world;
