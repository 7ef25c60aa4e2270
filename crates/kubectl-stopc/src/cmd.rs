//! The commands, a module each.

pub mod completion;
pub mod copy;
pub mod create;
pub mod delete;
pub mod doctor;
pub mod files;
pub mod inside;
pub mod list;
pub mod power;
pub mod recover;
pub mod resize;
pub mod status;
pub mod usage;
pub mod version;
pub mod wait;

mod flags;
