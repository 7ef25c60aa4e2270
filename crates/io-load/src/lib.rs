/*!
Input and output in a container, timed. The program of this crate is in the images of `cargo xtask
bench io`, and runs one [`Case`] at a time. The library also has the layout of those images, for the
command that makes them, and the list of cases, for the command that compares containers.

Only the operations of a case are timed. Preparations are not: they make files, fill or empty the
page cache, and write dirty pages to the disk.
*/

#![forbid(unsafe_code)]

mod case;
mod error;
pub mod image;
mod run;

pub use case::{Amount, Case};
pub use error::Error;
pub use run::{Place, Timed, run};
