/*!
The StoppableContainer operator: the admission webhook, which every replica serves, and the
reconcilers, which the leader runs. See `docs/ARCHITECTURE.md`.
*/

#![forbid(unsafe_code)]

pub mod admin;
pub mod args;
pub mod config;
mod dry_run;
pub mod field_error;
pub mod lease;
pub mod liveness;
pub mod metrics;
pub mod operator;
mod partial_template;
pub mod reconcile;
pub mod rewrite;
pub mod runtime;
pub mod selections;
mod user_namespaces;
pub mod webhook;
