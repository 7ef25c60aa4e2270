/*!
Files that a container wrote still exist after a stop, a kill, an eviction, a reboot, a power cut or
a full disk.

`events` counts losses, and `cargo xtask durability` repeats its rows. `trial` and `writing`
implement the rows, also for `devices`. `survival` compares whole trees of files.
*/

mod events;
mod survival;
pub(crate) mod trial;
pub(crate) mod writing;
