/*!
Asking the node agent, over however many restarts of it.

While there is no agent the wrapper sleeps on inotify until a socket appears; a
timer that backs off stands behind it for the moment between bind(2) and
listen(2), which no event marks.
*/

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use exec_wrapper::protocol::{Answer, MAX_LINE, SOCKET, VOLUME_MOUNT_PATH, Verb};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::io::Errno;

use crate::Failure;
use crate::signals::Ending;

/// First and longest pause between two tries while the agent is away.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// An open conversation after `ok`.
pub(crate) struct Granted {
    stream: UnixStream,
}

/// Why a conversation ended without an answer; all of these are a reason to try again.
enum Interrupted {
    /// No socket yet, or nobody behind it.
    Away(std::io::Error),
    /// The agent ended the conversation.
    Closed,
}

/// Asks until the agent says `ok` or `error`, or a signal ends the wait. What the agent says meanwhile goes to
/// standard error, each new sentence once.
pub(crate) fn ask(verb: Verb, signals: &Ending) -> Result<Granted, Failure> {
    let arrivals = arrivals()?;
    let mut told = String::new();
    let mut pause = FIRST_PAUSE;
    loop {
        match converse(verb, signals, &mut told)? {
            Ok(granted) => return Ok(granted),
            Err(Interrupted::Closed) => pause = FIRST_PAUSE,
            Err(interrupted @ Interrupted::Away(_)) => {
                tell(&mut told, &format!("waiting for the node agent: {interrupted}"));
            }
        }
        wait_for(&[arrivals.as_fd()], signals, Some(pause))?;
        drain(&arrivals);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// One conversation. The outer error is final.
fn converse(
    verb: Verb,
    signals: &Ending,
    told: &mut String,
) -> Result<Result<Granted, Interrupted>, Failure> {
    let path = Path::new(VOLUME_MOUNT_PATH).join(SOCKET);
    let mut stream = match UnixStream::connect(&path) {
        Ok(stream) => stream,
        Err(error) => return Ok(Err(Interrupted::Away(error))),
    };
    if stream.write_all(verb.to_line().as_bytes()).is_err() {
        return Ok(Err(Interrupted::Closed));
    }
    let mut received = Vec::new();
    loop {
        while let Some(end) = received.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = received.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line[..end]);
            match Answer::parse(&line) {
                Ok(Answer::Done) => return Ok(Ok(Granted { stream })),
                Ok(Answer::Wait(message)) => tell(told, &format!("waiting for the {message}")),
                Ok(Answer::Error(message)) => return Err(Failure::wrapper(message)),
                Err(malformed) => {
                    return Err(Failure::wrapper(format!(
                        "the node agent said {line:?}: {malformed}"
                    )));
                }
            }
        }
        if received.len() > MAX_LINE {
            return Err(Failure::wrapper("the node agent sent a line that is too long"));
        }
        wait_for(&[stream.as_fd()], signals, None)?;
        let mut buffer = [0; 512];
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(Err(Interrupted::Closed)),
            Ok(count) => received.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Ok(Err(Interrupted::Closed)),
        }
    }
}

/// Sleeps until one of `descriptors` is readable or the time is over; fails if a signal came.
fn wait_for(
    descriptors: &[BorrowedFd<'_>],
    signals: &Ending,
    limit: Option<Duration>,
) -> Result<(), Failure> {
    let signal = signals.as_fd();
    let mut watched: Vec<PollFd<'_>> = descriptors
        .iter()
        .chain([&signal])
        .map(|fd| PollFd::new(fd, PollFlags::IN))
        .collect();
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    match poll(&mut watched, limit.as_ref()) {
        Ok(_) | Err(Errno::INTR) => signals.check(),
        Err(error) => Err(Failure::wrapper(format!("poll: {error}"))),
    }
}

fn arrivals() -> Result<OwnedFd, Failure> {
    let watch = || {
        let queue = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(
            &queue,
            VOLUME_MOUNT_PATH,
            inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO,
        )?;
        Ok(queue)
    };
    watch().map_err(|error: Errno| {
        Failure::wrapper(format!(
            "{VOLUME_MOUNT_PATH} cannot be watched ({error}): is the volume mounted there?"
        ))
    })
}

fn drain(queue: &OwnedFd) {
    let mut buffer = [MaybeUninit::uninit(); 1024];
    let mut events = inotify::Reader::new(queue, &mut buffer);
    while events.next().is_ok() {}
}

fn tell(told: &mut String, message: &str) {
    if told != message {
        eprintln!("exec-wrapper: {message}");
        message.clone_into(told);
    }
}

// === impl Granted ===

impl Granted {
    /// Sleeps until the agent ends the conversation; fails if a signal came.
    pub(crate) fn wait_for_end(self, signals: &Ending) -> Result<(), Failure> {
        loop {
            wait_for(&[self.stream.as_fd()], signals, None)?;
            match (&self.stream).read(&mut [0; 64]) {
                Ok(count) if count > 0 => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => return Ok(()),
            }
        }
    }
}

// === impl Interrupted ===

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away(error) => write!(f, "{error}"),
            Self::Closed => f.write_str("it ended the connection"),
        }
    }
}
