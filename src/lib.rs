/*!
The StoppableContainer operator: the admission webhook, which every replica
serves, and the reconcilers, which the leader runs. See `docs/ARCHITECTURE.md`.
*/

#![forbid(unsafe_code)]

pub mod admin;
pub mod args;
pub mod config;
mod draft;
pub mod lease;
pub mod metrics;
pub mod operator;
pub mod problem;
pub mod progress;
pub mod reconcile;
pub mod rewrite;
pub mod runtime;
pub mod selections;
pub mod telemetry;
mod trial;
pub mod webhook;
