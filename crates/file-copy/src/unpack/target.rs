//! The place of a copy.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use kept_files::path::escape;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use super::UnpackError;
use crate::base_name;

/// Where the copy goes.
#[derive(Debug)]
pub struct Target {
    pub(super) directory: OwnedFd,
    /// Its name there. Without one the entries of the copied directory go into `directory`.
    pub(super) name: Option<Vec<u8>>,
    pub(super) path: Vec<u8>,
}

// === impl Target ===

impl Target {
    /// As cp(1): into a directory that exists, under `base`; else the path itself, in a directory
    /// that exists.
    ///
    /// # Errors
    /// If the directory does not exist.
    pub fn open(path: &Path, base: Option<&[u8]>) -> Result<Self, UnpackError> {
        let bytes = path.as_os_str().as_bytes();
        let failed = |path: &[u8], error: String| UnpackError::Write {
            path: escape(path),
            error,
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match openat(CWD, bytes, flags, Mode::empty()) {
            Ok(directory) => {
                let mut path = bytes.to_vec();
                if let Some(base) = base {
                    if !path.ends_with(b"/") {
                        path.push(b'/');
                    }
                    path.extend_from_slice(base);
                }
                let name = base.map(<[u8]>::to_vec);
                return Ok(Self {
                    directory,
                    name,
                    path,
                });
            }
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(error) => return Err(failed(bytes, io::Error::from(error).to_string())),
        }
        let Some(name) = base_name(bytes).filter(|_| !bytes.ends_with(b"/")) else {
            return Err(failed(bytes, "it is not a directory; make it first".to_owned()));
        };
        let above = &bytes[..bytes.len() - name.len()];
        let above = if above.is_empty() { b"." } else { above };
        let directory = openat(CWD, above, flags, Mode::empty()).map_err(|error| {
            let error = io::Error::from(error);
            failed(
                bytes,
                format!("the directory {} cannot be used: {error}", escape(above)),
            )
        })?;
        Ok(Self {
            directory,
            name: Some(name.to_vec()),
            path: bytes.to_vec(),
        })
    }
}
