/*!
The connection to the node agent, with retries without a limit.

The agent may not run yet, may restart, or may have reasons to wait. The wrapper logs each reason
once. inotify reports when the socket appears. A user has few inotify watches on a node, and another
pod with the same uid may have taken them all, and in a sandbox inotify does not report what the
agent does. So the wrapper also polls for the socket, with growing pauses. In a sandbox that no
connection leaves, the agent's reason is in a file of the volume.
*/

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use exec_wrapper::protocol::{Answer, MAX_LINE, NOTICE, SOCKET, VOLUME_MOUNT_PATH, Verb};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, inotify};
use rustix::io::Errno;

use crate::Failure;
use crate::container_log;
use crate::signals::Signals;

/// First and longest pause before an agent that hung up is asked again, should no new socket appear
/// earlier, and between two looks for a socket that nothing announces.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// An answer `ok`, and the connection that it came on.
#[derive(Debug)]
pub(crate) struct Granted {
    stream: UnixStream,
}

/// What a connection came to.
enum Attempt {
    Granted(Granted),
    Refused(String),
    /// The socket does not exist, or no process listens.
    NotListening,
    /// The agent hung up.
    HungUp,
}

/// One agent, asked again and again.
#[derive(Debug)]
pub(crate) struct Agent<'a> {
    /// Readable when something appears in the volume. None while this user has no more watches.
    directory: Option<OwnedFd>,
    signals: Option<&'a Signals>,
    last_reason: String,
}

/// What ended a wait.
enum Woken {
    Ready,
    TimedOut,
}

/// What the agent left for a container that cannot connect.
fn notice() -> Option<String> {
    // A pod that may mount can put anything there: a FIFO must not stop the wrapper.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(format!("{VOLUME_MOUNT_PATH}/{NOTICE}"), flags, Mode::empty()).ok()?;
    let mut line = Vec::new();
    let mut reader = BufReader::new(File::from(file)).take(MAX_LINE as u64);
    reader.read_until(b'\n', &mut line).ok()?;
    let line = String::from_utf8_lossy(&line).trim_end().to_owned();
    (!line.is_empty()).then_some(line)
}

// === impl Agent ===

impl<'a> Agent<'a> {
    /// Prepares to ask. Signals end every wait.
    pub(crate) fn new(signals: Option<&'a Signals>) -> Result<Self, Failure> {
        match watch() {
            Ok(directory) => Ok(Self {
                directory,
                signals,
                last_reason: String::new(),
            }),
            Err(error) => Err(Failure::wrapper(format_args!(
                "cannot watch {VOLUME_MOUNT_PATH}, the volume of the node agent: {error}"
            ))),
        }
    }

    /// Asks until the answer is `ok`, or final.
    pub(crate) fn ask(&mut self, verb: Verb) -> Result<Granted, Failure> {
        let mut pause = PAUSES.0;
        loop {
            // What appears from here on will be noticed even if it is too late for this attempt.
            self.drain();
            match self.attempt(verb)? {
                Attempt::Granted(granted) => return Ok(granted),
                Attempt::Refused(message) => return Err(Failure::Wrapper(message)),
                Attempt::NotListening => {
                    let reason = notice().unwrap_or_else(|| "the node agent is not running".to_owned());
                    self.explain(&format!("waiting for the filesystem: {reason}"));
                    self.wait_for_socket(&mut pause)?;
                }
                Attempt::HungUp => {
                    self.wait_for_socket(&mut pause)?;
                    self.explain("waiting for the filesystem: the node agent restarted");
                }
            }
        }
    }

    /// Waits until something appears in the volume, and no longer than the pause. The next pause is
    /// twice as long, or the first one again.
    fn wait_for_socket(&self, pause: &mut Duration) -> Result<(), Failure> {
        let watched: &[&dyn AsFd] = match &self.directory {
            Some(directory) => &[directory],
            None => &[],
        };
        *pause = match self.wait(watched, Some(*pause))? {
            Woken::Ready => PAUSES.0,
            Woken::TimedOut => (*pause * 2).min(PAUSES.1),
        };
        Ok(())
    }

    /// Waits until the agent ends a connection.
    pub(crate) fn wait_for_end(&self, granted: &Granted) -> Result<(), Failure> {
        loop {
            self.wait(&[&granted.stream], None)?;
            match (&granted.stream).read(&mut [0; 64]) {
                Ok(0) => return Ok(()),
                // The protocol has nothing after `ok`.
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Ok(()),
            }
        }
    }

    fn attempt(&mut self, verb: Verb) -> Result<Attempt, Failure> {
        let path = format!("{VOLUME_MOUNT_PATH}/{SOCKET}");
        let mut stream = match UnixStream::connect(&path) {
            Ok(stream) => stream,
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                return Ok(Attempt::NotListening);
            }
            Err(error) => {
                return Err(Failure::wrapper(format_args!(
                    "cannot connect to the node agent at {path}: {error}"
                )));
            }
        };
        if stream.write_all(verb.to_line().as_bytes()).is_err() {
            return Ok(Attempt::HungUp);
        }
        let mut reader = BufReader::with_capacity(MAX_LINE, stream);
        let mut line = Vec::new();
        loop {
            if reader.buffer().is_empty() {
                self.wait(&[reader.get_ref()], None)?;
            }
            let limit = (MAX_LINE - line.len()) as u64;
            match reader.by_ref().take(limit).read_until(b'\n', &mut line) {
                Ok(0) if line.len() < MAX_LINE => return Ok(Attempt::HungUp),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Ok(Attempt::HungUp),
            }
            if line.last() != Some(&b'\n') {
                if line.len() < MAX_LINE {
                    continue;
                }
                return Ok(Attempt::Refused(
                    "the node agent does not speak the wrapper protocol: a line has no end".to_owned(),
                ));
            }
            line.pop();
            match Answer::parse(&String::from_utf8_lossy(&line)) {
                Ok(Answer::Done) => {
                    return Ok(Attempt::Granted(Granted {
                        stream: reader.into_inner(),
                    }));
                }
                Ok(Answer::Error(message)) => return Ok(Attempt::Refused(message)),
                Ok(Answer::Wait(message)) => self.explain(&message),
                Err(error) => {
                    return Ok(Attempt::Refused(format!(
                        "the node agent does not speak the wrapper protocol: {error}"
                    )));
                }
            }
            line.clear();
        }
    }

    /// Logs why the wrapper waits, unless that is the last logged reason.
    fn explain(&mut self, reason: &str) {
        if self.last_reason != reason {
            container_log::print(reason);
            reason.clone_into(&mut self.last_reason);
        }
    }

    /// Waits for one of the descriptors, a signal or the time.
    fn wait(&self, others: &[&dyn AsFd], timeout: Option<Duration>) -> Result<Woken, Failure> {
        let timeout = timeout.and_then(|t| Timespec::try_from(t).ok());
        loop {
            if let Some(number) = self.signals.and_then(Signals::received) {
                return Err(Failure::Signal(number));
            }
            let signals = self.signals.map(|signals| signals.as_fd());
            let fds = others.iter().map(|fd| fd.as_fd()).chain(signals);
            let mut fds: Vec<_> = fds
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
                .collect();
            match poll(&mut fds, timeout.as_ref()) {
                Ok(0) => return Ok(Woken::TimedOut),
                Ok(_) if fds.iter().take(others.len()).any(|fd| !fd.revents().is_empty()) => {
                    return Ok(Woken::Ready);
                }
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    return Err(Failure::wrapper(format_args!(
                        "cannot wait for the node agent: {error}"
                    )));
                }
            }
        }
    }

    /// Forgets what happened in the directory so far.
    fn drain(&mut self) {
        let Some(directory) = &self.directory else {
            // There may be watches again.
            self.directory = watch().unwrap_or(None);
            return;
        };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(directory, &mut buffer);
        while events.next().is_ok() {}
    }
}

/// Begins to watch the volume. `None` if there are too many watches already.
fn watch() -> Result<Option<OwnedFd>, Errno> {
    let begin = || {
        let directory = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let events = inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&directory, VOLUME_MOUNT_PATH, events)?;
        Ok(directory)
    };
    match begin() {
        Ok(directory) => Ok(Some(directory)),
        // inotify_init(2) and inotify_add_watch(2), "ERRORS": all limits of the user or the node.
        Err(Errno::MFILE | Errno::NFILE | Errno::NOSPC | Errno::NOMEM) => Ok(None),
        Err(e) => Err(e),
    }
}
