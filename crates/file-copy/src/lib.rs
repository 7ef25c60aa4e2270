/*!
Copies a tree of files as a stream: [`pack`] writes it, [`unpack`] reads it. The wrapper does the
one in the container, and the plugin of kubectl the other one on the user's machine.

The stream is a tar archive in frames ([`kept_files::frame`]), so an interrupted transfer is never
taken for a complete one. All names in the archive begin with the component `top`: the unpacking
side knows the name of the copy, and the archive does not choose it.
*/

#![forbid(unsafe_code)]

pub mod pack;
pub mod unpack;

mod sparse;

/// First component of every name in the archive.
const TOP: &[u8] = b"top";
/// Most directories below each other. Each of them takes a descriptor.
const MAX_DEPTH: usize = 512;

/// How much was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Everything but directories.
    pub files: u64,
    /// Content of files in bytes.
    pub bytes: u64,
}

/// Follows a copy.
pub trait Watch {
    /// So much has been copied.
    fn progress(&mut self, tally: Tally);
    /// Something is not copied, or not with all that belongs to it. One sentence.
    fn note(&mut self, text: String);
    /// Whether to end the copy now.
    fn is_stopped(&self) -> bool;
}

/// The last component of a path. `None` if the path names a directory by something else than its
/// name: it is the root, or ends with `.` or `..`.
pub fn base_name(path: &[u8]) -> Option<&[u8]> {
    let end = path.iter().rposition(|byte| *byte != b'/')? + 1;
    let name = path[..end].rsplit(|byte| *byte == b'/').next()?;
    (!matches!(name, b"." | b"..")).then_some(name)
}

#[cfg(test)]
mod tests;
