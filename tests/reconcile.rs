/*!
The controllers against a scripted API server: every request of a pass, in order,
with what it must carry; and what a crash or a refusal between two of them leads to.
*/

#![forbid(unsafe_code)]
// A helper of a test that cannot go on ends the test.
#![allow(clippy::unwrap_used)]

#[path = "reconcile/create.rs"]
mod create;
#[path = "reconcile/delete.rs"]
mod delete;
#[path = "reconcile/ends.rs"]
mod ends;
#[path = "reconcile/lease.rs"]
mod lease;
#[path = "reconcile/newest.rs"]
mod newest;
#[path = "reconcile/parent.rs"]
mod parent;
#[path = "reconcile/refusal.rs"]
mod refusal;
#[path = "reconcile/replacement.rs"]
mod replacement;
#[path = "reconcile/stop.rs"]
mod stop;
#[path = "reconcile/template.rs"]
mod template;
#[path = "reconcile/world.rs"]
mod world;
