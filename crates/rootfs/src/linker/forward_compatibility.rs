/*!
The libraries of CUDA's forward compatibility, which an image may have for a newer CUDA than the
driver's (NVIDIA's "CUDA Compatibility").

A hook of the runtime (`nvidia-cdi-hook enable-cuda-compat`) looks for them in the container's root
and puts their directory before all others of the loader. In the wrapper's root it finds none, so
the same look is done here, in the kept root.
*/

use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, readlinkat};

use crate::process::Proc;
use crate::root::Root;
use crate::store::list;

/// Where images have them.
const DIRECTORY: &str = "/usr/local/cuda/compat";
/// How the library begins whose name has the version.
const LIBRARY: &[u8] = b"libcuda.so.";
/// Most names in the directory.
const MAX_NAMES: usize = 4096;

/// The directory, without links, if its libraries are newer than this major version of the driver.
pub(crate) fn directory(proc: &Proc, root: &Root, driver: u32) -> Option<PathBuf> {
    let opened = root
        .open(Path::new(DIRECTORY), OFlags::RDONLY | OFlags::DIRECTORY)
        .ok()?;
    let names = list(&opened, MAX_NAMES).ok()?;
    let versions: Vec<_> = names
        .iter()
        .filter_map(|(name, _)| version(name.as_os_str().as_bytes()))
        .collect();
    // As NVIDIA's hook: with several it cannot tell which one counts.
    let [version] = versions[..] else { return None };
    let major: u32 = std::str::from_utf8(version).ok()?.parse().ok()?;
    if major <= driver {
        return None;
    }
    let link = format!("thread-self/fd/{}", opened.as_raw_fd());
    let path = readlinkat(proc, link, Vec::new()).ok()?;
    Some(PathBuf::from(std::ffi::OsString::from_vec(path.into_bytes())))
}

/// `MAJOR` of the name `libcuda.so.MAJOR.REST`.
fn version(name: &[u8]) -> Option<&[u8]> {
    let version = name.strip_prefix(LIBRARY)?;
    let end = version.iter().position(|byte| *byte == b'.')?;
    Some(&version[..end])
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn only_names_with_a_version_count() {
        assert_eq!(version(b"libcuda.so.565.57.01"), Some(&b"565"[..]));
        for other in ["libcuda.so.1", "libcuda.so", "libnvidia-nvvm.so.565.57.01"] {
            assert_eq!(version(other.as_bytes()), None, "{other}");
        }
    }
}
