//! Waits for the end of processes.

use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Waits until the process of a pidfd has ended.
// The safe constructors are deprecated because a type may hand out another descriptor later; an
// `OwnedFd` does not.
#[allow(deprecated)]
pub(super) async fn wait(pidfd: OwnedFd) -> std::io::Result<()> {
    let pidfd = AsyncFd::with_interest(pidfd, Interest::READABLE)?;
    let _ended = pidfd.readable().await?;
    Ok(())
}
