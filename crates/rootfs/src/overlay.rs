/*!
Makes overlay file systems, detached: they are in no mount table until a caller attaches them.

Layers are passed as descriptors. So the kernel parses no name of a directory (names may contain
commas, colons and backslashes), and no process can exchange a directory between check and mount.
The options make any content of an upper directory safe to interpret: a planted redirect is not
followed, and metacopy takes no content from elsewhere.

Older kernels: before 6.13 layers are passed as `/proc/self/fd/N`. Before 6.7 there is no option to
add layers one by one, and the list must fit into 255 bytes, enough for about sixty layers; an image
with more uses the container's root as its only layer.
*/

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_fd, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use crate::namespace::NamespaceThread;

/// What an overlay is made of.
#[derive(Debug)]
pub struct Overlay<'a> {
    /// Directories of the read-only layers, the topmost first. At least one; two without `upper`.
    pub lower: Vec<BorrowedFd<'a>>,
    /// Where changes go. Without it the overlay is read-only.
    pub upper: Option<Upper<'a>>,
    /// Whether the kernel is to refuse layers that another overlay uses as upper directory. That
    /// takes an `upper`, without which the kernel does not do it, and makes the overlay read-only
    /// all the same: a writable one that goes writes back the whole file system of its upper
    /// directory first.
    pub exclusive: bool,
    /// Whether nothing of the upper directory has to be durable when the overlay goes. Otherwise
    /// the kernel writes back the whole file system of the upper directory.
    pub volatile: bool,
    /// The SELinux context of all files, on a node that labels containers.
    pub context: Option<&'a str>,
}

/// The writable layer. The directories are named by path below an open directory that only root can
/// change, so that the mount table of older kernels tells whose upper directory an overlay has.
#[derive(Debug)]
pub struct Upper<'a> {
    /// The directory of the paths.
    pub base: BorrowedFd<'a>,
    /// Path of the upper directory.
    pub upper: &'a str,
    /// Path of the work directory, on the same file system.
    pub work: &'a str,
}

/// How the kernel gets the layers' directories. A kernel that has only older APIs refuses to have
/// the option set. Before 6.5 it refuses descriptors in this way; it reads strings when the overlay
/// is created, and then refuses an unknown option like anything else (`EINVAL`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LowerdirApi {
    /// By descriptor: 6.13 and later.
    Descriptors = 0,
    /// By the path of a descriptor, one by one: 6.7 and later.
    Paths = 1,
    /// By the paths of descriptors, all in one.
    Joined = 2,
}

/// An overlay that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// The kernel has no overlay file system.
    #[error("this kernel has no overlay file system")]
    Unsupported,
    /// Another overlay has one of the directories as upper or work directory.
    #[error("a directory is in use by another overlay")]
    InUse,
    /// More layers than the kernel accepts.
    #[error("the image has {0} layers, more than this kernel supports")]
    TooManyLayers(usize),
    /// The kernel refused the overlay; what it logged about that.
    #[error("the kernel refuses the overlay: {log}")]
    Refused {
        /// The kernel's words, or where they are.
        log: String,
        /// What it returned.
        #[source]
        source: Errno,
    },
    /// What failed, and how.
    #[error("overlay: {0}")]
    System(&'static str, #[source] Errno),
}

/// The newest API that this kernel was seen to support.
static LOWERDIR_API: AtomicU8 = AtomicU8::new(LowerdirApi::Descriptors as u8);

// === impl Overlay ===

impl Overlay<'_> {
    /// Makes the overlay. All layers must be in the mount namespace that the thread is in (the
    /// kernel demands it before 6.15); the thread's working directory may have changed afterwards.
    pub fn mount(&self, thread: &NamespaceThread) -> Result<OwnedFd, OverlayError> {
        let best = LowerdirApi::from_number(LOWERDIR_API.load(Ordering::Relaxed));
        let (mount, api) = first_supported(best, |api| self.mount_with_api(thread, api))?;
        LOWERDIR_API.store(api as u8, Ordering::Relaxed);
        Ok(mount)
    }

    /// Like [`Overlay::mount`] with the given API.
    pub fn mount_with_api(
        &self,
        _thread: &NamespaceThread,
        api: LowerdirApi,
    ) -> Result<OwnedFd, OverlayError> {
        let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| match e {
            Errno::NODEV => OverlayError::Unsupported,
            e => OverlayError::System("fsopen", e),
        })?;
        let option = |key: &'static str, value: &str| {
            fsconfig_set_string(&fs, key, value).map_err(|e| OverlayError::System(key, e))
        };
        option("source", crate::SOURCE)?;
        option("redirect_dir", "nofollow")?;
        option("metacopy", "off")?;
        // `on` would tie the upper directory to these very inodes of the lower ones; an image that
        // is unpacked again has others.
        option("index", if self.exclusive { "on" } else { "off" })?;
        if self.exclusive {
            fsconfig_set_flag(&fs, "ro").map_err(|e| OverlayError::System("ro", e))?;
        }
        if self.volatile {
            fsconfig_set_flag(&fs, "volatile").map_err(|e| OverlayError::System("volatile", e))?;
        }
        if let Some(context) = self.context {
            option("context", context)?;
        }
        match api {
            LowerdirApi::Descriptors => {
                for layer in &self.lower {
                    fsconfig_set_fd(&fs, "lowerdir+", layer)
                        .map_err(|e| OverlayError::System("lowerdir+", e))?;
                }
            }
            LowerdirApi::Paths => {
                for layer in &self.lower {
                    option("lowerdir+", &by_descriptor(*layer))?;
                }
            }
            LowerdirApi::Joined => {
                // Relative to this directory the path of a descriptor is its number, which saves
                // room.
                rustix::process::chdir("/proc/self/fd")
                    .map_err(|e| OverlayError::System("enter /proc/self/fd", e))?;
                let numbers: Vec<_> = self.lower.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
                let list = numbers.join(":");
                if list.len() > 255 {
                    return Err(OverlayError::TooManyLayers(self.lower.len()));
                }
                option("lowerdir", &list)?;
            }
        }
        if let Some(upper) = &self.upper {
            for (key, path) in [("upperdir", upper.upper), ("workdir", upper.work)] {
                // Opened with every API: it is the real directory, which only root can exchange.
                // The kernel follows links in a path, and empties what it finds in a work
                // directory.
                let dir = upper.open(path).map_err(|e| OverlayError::System(key, e))?;
                if api == LowerdirApi::Descriptors {
                    fsconfig_set_fd(&fs, key, &dir).map_err(|e| OverlayError::System(key, e))?;
                } else {
                    option(key, &format!("{}/{path}", by_descriptor(upper.base)))?;
                }
            }
        }
        fsconfig_create(&fs).map_err(|e| refusal(e, api, takes_any_option, log_of(&fs)))?;
        fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
            .map_err(|e| OverlayError::System("fsmount", e))
    }
}

// === impl Upper ===

impl Upper<'_> {
    fn open(&self, path: &str) -> Result<OwnedFd, Errno> {
        use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat2(
            self.base,
            path,
            flags,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        )
    }
}

// === impl LowerdirApi ===

impl LowerdirApi {
    fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Descriptors,
            1 => Self::Paths,
            _ => Self::Joined,
        }
    }

    fn older(self) -> Option<Self> {
        match self {
            Self::Descriptors => Some(Self::Paths),
            Self::Paths => Some(Self::Joined),
            Self::Joined => None,
        }
    }
}

/// The first result that is about the overlay and not about the API, with the API that led to it.
fn first_supported<T>(
    best: LowerdirApi,
    attempt: impl Fn(LowerdirApi) -> Result<T, OverlayError>,
) -> Result<(T, LowerdirApi), OverlayError> {
    let mut api = best;
    loop {
        match (attempt(api), api.older()) {
            (Err(OverlayError::System("lowerdir+", errno)), Some(older)) if is_not_known(errno) => {
                api = older;
            }
            (result, _) => return result.map(|mount| (mount, api)),
        }
    }
}

/// Whether this error of `lowerdir+` means that the kernel does not know the option, or not such a
/// value for it.
fn is_not_known(errno: Errno) -> bool {
    matches!(
        errno,
        // The option is not known, or it takes no descriptor.
        Errno::INVAL
            // 6.5 to 6.12: the descriptor was opened with O_PATH.
            | Errno::BADF
            // Before 6.5: no option of an overlay takes a descriptor.
            | Errno::OPNOTSUPP
    )
}

/// Why the kernel did not create an overlay. One that reads options only now may mean that it does
/// not know one, and then says no more about the overlay than a kernel that refuses to have the
/// option set.
fn refusal(
    source: Errno,
    api: LowerdirApi,
    takes_any_option: impl FnOnce() -> bool,
    log: String,
) -> OverlayError {
    match source {
        Errno::BUSY => OverlayError::InUse,
        Errno::INVAL if api == LowerdirApi::Paths && takes_any_option() => {
            OverlayError::System("lowerdir+", source)
        }
        source => OverlayError::Refused { log, source },
    }
}

/// Whether this kernel takes every option when it is set, known or not: before 6.5, or what a
/// distribution made of such a kernel.
fn takes_any_option() -> bool {
    fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .and_then(|fs| fsconfig_set_string(&fs, crate::SOURCE, ""))
        .is_ok()
}

fn by_descriptor(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// What the kernel logged about a file system that it refuses. Every read gives one message.
fn log_of(fs: &OwnedFd) -> String {
    let mut log = Vec::new();
    let mut message = [0; 1024];
    while let Ok(length @ 1..) = rustix::io::read(fs, &mut message) {
        // `e `, `w ` or `i ` comes first.
        let text = String::from_utf8_lossy(&message[..length]);
        log.push(text.get(2..).unwrap_or_default().trim_end().to_owned());
        if log.len() == 8 {
            break;
        }
    }
    if log.is_empty() {
        // Of some things it speaks there alone.
        return "see the kernel's log on the node".to_owned();
    }
    log.join("; ")
}

#[cfg(test)]
mod tests;
