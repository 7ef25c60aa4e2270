//! What every reconciliation works with.

pub mod attempts;
pub(crate) mod events;
pub(crate) mod nodes;
pub(crate) mod requests;
