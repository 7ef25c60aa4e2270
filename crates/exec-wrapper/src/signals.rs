/*!
Signals that end the wrapper while it waits. It is PID 1 of its container, for
which the kernel drops every signal that has no handler (pid_namespaces(7)), and
the provider runs the user's image, whose STOPSIGNAL may be any of these.
*/

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};

use crate::Failure;

/// Caught signals, readable as bytes. `execve` gives every caught signal its default action back (signal(7)).
pub(crate) struct Ending {
    caught: UnixStream,
}

// === impl Ending ===

impl Ending {
    pub(crate) fn catch() -> Result<Self, Failure> {
        Self::register().map_err(|error| Failure::wrapper(format!("signals cannot be caught: {error}")))
    }

    fn register() -> std::io::Result<Self> {
        let (caught, handler) = UnixStream::pair()?;
        caught.set_nonblocking(true)?;
        for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH] {
            signal_hook::low_level::pipe::register(signal, handler.try_clone()?)?;
        }
        Ok(Self { caught })
    }

    /// Readable once a signal came.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.caught.as_fd()
    }

    /// Fails if a signal came. Which one is not told apart: all of them mean stop.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match (&self.caught).read(&mut [0; 16]) {
            Ok(count) if count > 0 => Err(Failure::signal(SIGTERM)),
            _ => Ok(()),
        }
    }
}
