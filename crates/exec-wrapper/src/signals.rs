/*!
Signals that ask to stop, while the wrapper waits.

As process 1 of a container the wrapper gets only the signals that it handles, and which of them
means "stop" is the image's choice (STOPSIGNAL). So it handles every one that can mean that.
Handlers end with the execve: the command starts with the default for each.
*/

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::consts::signal::{
    SIGBUS, SIGCHLD, SIGCONT, SIGFPE, SIGILL, SIGIO, SIGKILL, SIGPIPE, SIGSEGV, SIGSTOP, SIGSYS, SIGTRAP,
    SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH, SIGXCPU, SIGXFSZ,
};

/// Signals that never mean "stop": errors of the program, job control, and those that cannot be
/// caught.
const OTHERS: [i32; 18] = [
    SIGBUS, SIGCHLD, SIGCONT, SIGFPE, SIGILL, SIGIO, SIGKILL, SIGPIPE, SIGSEGV, SIGSTOP, SIGSYS, SIGTRAP,
    SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGXCPU, SIGXFSZ,
];
/// Number of the last real-time signal.
const LAST: i32 = 64;

/// The signals that arrived.
#[derive(Debug)]
pub(crate) struct Signals {
    wake: UnixStream,
    last: Arc<AtomicUsize>,
}

// === impl Signals ===

impl Signals {
    /// Handles them from now on.
    pub(crate) fn catch() -> io::Result<Self> {
        let (wake, write) = UnixStream::pair()?;
        let last = Arc::new(AtomicUsize::new(0));
        // A terminal that is resized sends SIGWINCH to its foreground processes; without a terminal
        // it is what Apache's image stops with.
        let resized = std::io::IsTerminal::is_terminal(&io::stdin());
        for signal in (1..=LAST).filter(|s| !OTHERS.contains(s) && (*s != SIGWINCH || !resized)) {
            let number = usize::try_from(signal).unwrap_or_default();
            // The C library keeps two real-time signals for itself and refuses these.
            if signal_hook::flag::register_usize(signal, Arc::clone(&last), number).is_ok() {
                signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
            }
        }
        Ok(Self { wake, last })
    }

    /// The last signal that arrived.
    pub(crate) fn received(&self) -> Option<u8> {
        u8::try_from(self.last.load(Ordering::SeqCst))
            .ok()
            .filter(|number| *number != 0)
    }
}

impl AsFd for Signals {
    /// Readable once a signal arrived.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// Undoes what Rust's runtime does to SIGPIPE: it ignores it, which the command would inherit. A
/// handler does not survive the execve, so afterwards it is the default.
pub(crate) fn restore_sigpipe() -> io::Result<()> {
    signal_hook::flag::register(SIGPIPE, Arc::default()).map(drop)
}
