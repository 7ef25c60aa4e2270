//! The transfer: kubectl with the wrapper on one side, a thread with the local files on the other.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use file_copy::pack::{PackError, Source, pack};
use file_copy::unpack::{Keep, Target, UnpackError, unpack};
use file_copy::{Tally, Watch};
use kept_files::copy::{NOTE, is_done};
use kube::ResourceExt;
use stoppablecontainer_api::StoppableContainer;
use stoppablecontainer_api::names::{WRAPPER_IN_VOLUME, WRAPPER_LINE_PREFIX};
use tokio::sync::mpsc;

use crate::cmd::inside::kubectl;
use crate::failure::Failure;
use crate::session::Session;
use crate::units;

/// Time between two displays of the progress.
const PAUSE: Duration = Duration::from_millis(100);
/// Most bytes of what kubectl and the wrapper say.
const MAX_WORDS: u64 = 256 << 10;
/// Notes that are printed. The others are counted.
const MAX_NOTES: usize = 10;

/// What this side does.
pub(super) enum Work {
    Send(Source),
    Receive(Target, Keep),
}

/// How it ended.
struct Ended {
    tally: Tally,
    /// Why this side did not come to its end.
    problem: Option<Problem>,
    /// What kubectl and the wrapper said.
    words: String,
    /// Whether the other side has everything.
    is_done: bool,
}

enum Problem {
    /// Of this side.
    Local(String),
    /// Of the other side or the connection.
    Remote(String),
}

enum Event {
    Progress(Tally),
    Note(String),
}

/// What the threads of a copy to the container tell.
enum Told {
    /// Everything is sent.
    Sent,
    /// Nothing is sent any more: one of the sides has a reason.
    Broken,
    /// kubectl has closed its output.
    Ended,
}

struct Events {
    send: mpsc::UnboundedSender<Event>,
    /// The user ends the copy.
    stop: Arc<AtomicBool>,
    /// The container gave a reason why it does not take the copy.
    refused: Arc<AtomicBool>,
    last: Instant,
    tally: Tally,
}

impl Watch for Events {
    fn progress(&mut self, tally: Tally) {
        self.tally = tally;
        if self.last.elapsed() >= PAUSE {
            self.last = Instant::now();
            let _ = self.send.send(Event::Progress(tally));
        }
    }

    fn note(&mut self, text: String) {
        let _ = self.send.send(Event::Note(text));
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.refused.load(Ordering::Relaxed)
    }
}

/// Whether owners can be set here.
pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Copies, and displays the progress.
pub(super) async fn run(
    session: &mut Session,
    object: &StoppableContainer,
    line: &[String],
    work: Work,
) -> Result<(), Failure> {
    let mut command = kubectl::program(session, object);
    let main = &object.spec.template.main().name;
    command.args(["exec", &object.name_any()]);
    if !main.is_empty() {
        command.arg(format!("--container={main}"));
    }
    let sends = matches!(work, Work::Send(_));
    if sends {
        command.arg("--stdin");
    }
    command.args(["--", WRAPPER_IN_VOLUME]).args(line);
    command.stdin(if sends { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|error| kubectl::not_started(&error))?;

    let (send, mut events) = mpsc::unbounded_channel();
    let stop = Arc::new(AtomicBool::new(false));
    let watch = Events {
        send,
        stop: Arc::clone(&stop),
        refused: Arc::default(),
        last: Instant::now(),
        tally: Tally::default(),
    };
    let mut thread = tokio::task::spawn_blocking(move || transfer(child, work, watch));
    let mut interrupted = false;
    let mut notes = 0;
    let ended = loop {
        tokio::select! {
            biased;
            Some(event) = events.recv() => match event {
                Event::Progress(tally) => session.screen.progress(&copied(tally)),
                Event::Note(text) => note(session, &mut notes, &text),
            },
            ended = &mut thread => break ended,
            _ = tokio::signal::ctrl_c(), if !interrupted => {
                // kubectl gets the signal as well, so the other side ends too.
                interrupted = true;
                stop.store(true, Ordering::Relaxed);
            }
        }
    };
    session.screen.clear();
    let ended = ended.map_err(|error| Failure::failed(error.to_string()))?;
    for line in wrapper_lines(&ended.words).filter_map(|line| line.strip_prefix(NOTE)) {
        note(session, &mut notes, line);
    }
    if notes > MAX_NOTES {
        session.screen.note(&format!("and {} more", notes - MAX_NOTES));
    }
    if interrupted {
        return Err(Failure::Interrupted(
            "interrupted; the files that were complete are there, and no part of another; repeat the command to copy \
             all of them"
                .to_owned(),
        ));
    }
    outcome(&ended, &object.name_any())?;
    session.screen.print(&copied(ended.tally));
    Ok(())
}

fn note(session: &mut Session, notes: &mut usize, text: &str) {
    *notes += 1;
    if *notes <= MAX_NOTES {
        session.screen.note(text);
    }
}

fn copied(tally: Tally) -> String {
    let files = if tally.files == 1 { "file" } else { "files" };
    let bytes = units::bytes(i64::try_from(tally.bytes).unwrap_or(i64::MAX));
    format!("copied {} {files}, {bytes}", tally.files)
}

/// How one direction ended: its problem, whether the other side has everything, what was copied.
type Moved = (Option<Problem>, bool, Tally);

fn transfer(mut child: Child, work: Work, mut watch: Events) -> Ended {
    let (tell, told) = std::sync::mpsc::channel();
    let words = child.stderr.take().map(|stderr| {
        let (refused, tell) = (Arc::clone(&watch.refused), tell.clone());
        std::thread::spawn(move || {
            read(stderr, |line| {
                if is_reason(line) {
                    refused.store(true, Ordering::Relaxed);
                    let _ = tell.send(Told::Broken);
                }
            })
        })
    });
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let (problem, is_done, tally) = match (work, input, output) {
        (Work::Send(source), Some(input), Some(output)) => {
            send(&mut child, source, (input, output), (tell, &told), watch)
        }
        (Work::Receive(target, keep), _, Some(output)) => {
            receive(&mut child, target, keep, output, &mut watch)
        }
        _ => {
            let cause = "kubectl was started without its output".to_owned();
            (Some(Problem::Local(cause)), false, Tally::default())
        }
    };
    // Its exit code says nothing that the streams do not say.
    let _ = child.wait();
    Ended {
        tally,
        problem,
        words: words.and_then(|words| words.join().ok()).unwrap_or_default(),
        is_done,
    }
}

/// Packs into kubectl's input. kubectl is ended when it cannot end by itself.
fn send(
    child: &mut Child,
    source: Source,
    (input, output): (ChildStdin, ChildStdout),
    (tell, told): (Sender<Told>, &Receiver<Told>),
    mut watch: Events,
) -> Moved {
    let packed_to = tell.clone();
    let report = std::thread::spawn(move || {
        let report = read(output, |_| {});
        let _ = tell.send(Told::Ended);
        report
    });
    let stop = Arc::clone(&watch.stop);
    // A thread of its own: it may wait for a kubectl that reads nothing any more.
    let packing = std::thread::spawn(move || {
        let packed = pack(source, input, &mut watch);
        let _ = packed_to.send(if packed.is_ok() { Told::Sent } else { Told::Broken });
        (packed, watch.tally, watch.refused.load(Ordering::Relaxed))
    });
    // Until kubectl has ended, or has to be ended.
    while let Ok(told) = told.recv() {
        match told {
            Told::Sent => {}
            Told::Ended => break,
            Told::Broken => {
                end(child, &stop);
                break;
            }
        }
    }
    let Ok((packed, sent, refused)) = packing.join() else {
        let cause = "the copy ended unexpectedly".to_owned();
        return (Some(Problem::Local(cause)), false, Tally::default());
    };
    let problem = packed.err().map(|error| match error {
        PackError::Write(error) => Problem::Remote(error.to_string()),
        PackError::Stopped if refused => Problem::Remote("the container ended the copy".to_owned()),
        error => Problem::Local(error.to_string()),
    });
    (problem, is_done(&report.join().unwrap_or_default()), sent)
}

/// Unpacks from kubectl's output.
fn receive(child: &mut Child, target: Target, keep: Keep, output: ChildStdout, watch: &mut Events) -> Moved {
    let outcome = unpack(target, BufReader::new(output), keep, watch);
    let is_done = outcome.is_ok();
    if !is_done {
        end(child, &watch.stop);
    }
    let problem = outcome.err().map(|error| match error {
        UnpackError::Incomplete(cause) => Problem::Remote(cause),
        error => Problem::Local(error.to_string()),
    });
    (problem, is_done, watch.tally)
}

/// Ends a kubectl that may wait for data. One that ends by itself has words to say.
fn end(child: &mut Child, stop: &AtomicBool) {
    for _ in 0..20 {
        if stop.load(Ordering::Relaxed) || !matches!(child.try_wait(), Ok(None)) {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    let _ = child.kill();
}

/// Reads to the end, and calls `seen` with every line.
fn read(from: impl Read, mut seen: impl FnMut(&str)) -> String {
    let mut from = BufReader::new(from).take(MAX_WORDS);
    let (mut words, mut line) = (String::new(), Vec::new());
    while let Ok(1..) = from.read_until(b'\n', &mut line) {
        let text = String::from_utf8_lossy(&line);
        seen(&text);
        words.push_str(&text);
        line.clear();
    }
    // What is beyond that is not kept, but kubectl must not wait.
    let _ = std::io::copy(&mut from.into_inner(), &mut std::io::sink());
    words
}

/// Whether the wrapper says with this line why it ends the copy.
fn is_reason(line: &str) -> bool {
    wrapper_lines(line).any(|line| !line.starts_with(NOTE))
}

fn wrapper_lines(words: &str) -> impl DoubleEndedIterator<Item = &str> {
    words
        .lines()
        .filter_map(|line| line.trim().strip_prefix(WRAPPER_LINE_PREFIX))
}

/// Whether everything is there.
fn outcome(ended: &Ended, name: &str) -> Result<(), Failure> {
    let cause = match &ended.problem {
        None if ended.is_done => return Ok(()),
        None => "the connection ended before the container confirmed the copy",
        Some(Problem::Local(cause)) => return Err(Failure::failed(cause)),
        Some(Problem::Remote(cause)) => cause,
    };
    let words = &ended.words;
    if words.contains("usage: exec-wrapper") {
        return Err(Failure::failed(format!(
            "{name}: the pod was started by an earlier version, which does not know this command; restart it: kubectl \
             stopc restart {name}"
        )));
    }
    if let Some(cause) = wrapper_lines(words).rfind(|line| !line.starts_with(NOTE)) {
        return Err(Failure::failed(format!("{name}: {cause}")));
    }
    let words = words.lines().rev().map(str::trim).find(|line| !line.is_empty());
    let words = words.map(|words| format!(" ({words})")).unwrap_or_default();
    Err(Failure::failed(format!(
        "{name}: {cause}{words}; repeat the command"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(problem: Option<Problem>, words: &str, is_done: bool) -> Ended {
        Ended {
            tally: Tally::default(),
            problem,
            words: words.to_owned(),
            is_done,
        }
    }

    #[test]
    fn only_a_confirmed_copy_is_a_success() {
        assert_eq!(outcome(&ended(None, "", true), "web"), Ok(()));
        let remote = || Some(Problem::Remote("broken pipe".to_owned()));
        for (ended, expected) in [
            (ended(None, "", false), "confirmed the copy; repeat the command"),
            (
                ended(
                    remote(),
                    "stoppablecontainer: note: a socket\nstoppablecontainer: cannot write /x: no space\ncommand \
                     terminated with exit code 125\n",
                    false,
                ),
                "web: cannot write /x: no space",
            ),
            (
                ended(remote(), "stoppablecontainer: usage: exec-wrapper hold", false),
                "kubectl stopc restart web",
            ),
            (
                ended(remote(), "error: unable to upgrade connection\n", false),
                "web: broken pipe (error: unable to upgrade connection); repeat the command",
            ),
            (
                ended(Some(Problem::Local("cannot read x".to_owned())), "", true),
                "cannot read x",
            ),
        ] {
            let failure = outcome(&ended, "web").unwrap_err();
            assert!(failure.to_string().contains(expected), "{failure}");
            assert_eq!(failure.exit_code(), 1);
        }
    }

    fn sent(script: &str, bytes: usize) -> Ended {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, vec![7; bytes]).unwrap();
        let mut kubectl = std::process::Command::new("/bin/sh");
        kubectl.args(["-c", script]).stdin(Stdio::piped());
        let child = kubectl
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let watch = Events {
            send: mpsc::unbounded_channel().0,
            stop: Arc::default(),
            refused: Arc::default(),
            last: Instant::now(),
            tally: Tally::default(),
        };
        transfer(child, Work::Send(Source::open(&file).unwrap()), watch)
    }

    /// The wrapper ended at a full disk and left a part of the stream unread. The kubelet did not
    /// report its end then, and the plugin waited for ever.
    #[test]
    fn a_reason_ends_the_copy_although_kubectl_does_not_end() {
        let reason = "echo 'stoppablecontainer: cannot write /x: no space is left' >&2; exec sleep 600";
        for bytes in [1, 4 << 20] {
            let failure = outcome(&sent(reason, bytes), "web").unwrap_err();
            assert!(failure.to_string().contains("web: cannot write /x"), "{failure}");
        }
    }

    #[test]
    fn a_note_does_not_end_the_copy() {
        let script = format!("echo 'stoppablecontainer: {NOTE}a socket' >&2; cat >/dev/null; echo nothing");
        let ended = sent(&script, 4 << 20);
        assert!(ended.problem.is_none() && !ended.is_done && ended.tally.files == 1);
    }

    #[test]
    fn the_result_is_a_line() {
        let line = |files, bytes| copied(Tally { files, bytes });
        assert_eq!(line(1, 5), "copied 1 file, 5 B");
        assert_eq!(line(12, 3 << 20), "copied 12 files, 3.0 MiB");
    }
}
