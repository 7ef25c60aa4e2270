//! What happens to single requests: the place where faults are injected.

use std::collections::BTreeSet;

use tokio::sync::oneshot;

use super::kind::Kind;
use super::request::Call;
use super::store::Refusal;

/// Number of a process of the controller.
pub(crate) type ProcessId = usize;

/// What may happen to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// The process ends before the request has an effect.
    EndsBefore,
    /// The process ends after the request had its effect and before it has the answer.
    EndsAfter,
    /// The API server answers this, and nothing changes.
    Answers(u16),
    /// Nothing changes, and no answer comes within the time limit.
    Silent,
    /// The request has its effect, and no answer comes within the time limit.
    AnswerLost,
    /// The request waits until the driver lets it go on.
    Held,
}

/// What the driver of a run has to do about a request.
#[derive(Debug)]
pub(crate) enum Interrupt {
    /// The process is gone.
    Ended,
    /// The pass waits; sending lets it go on.
    Held(oneshot::Sender<()>),
}

/// The decision about one request.
#[derive(Debug)]
pub(super) enum Decision {
    Serve,
    Refuse(Refusal),
    /// Serve it, but the answer never comes.
    ServeSilently,
    /// Neither serve nor answer it.
    Ignore,
    /// Serve it when the driver says so.
    Wait(oneshot::Receiver<()>),
}

/// Counts the requests and knows which one meets with what.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// Requests so far.
    pub(crate) requests: Vec<RequestKind>,
    pub(crate) mishap: Option<(usize, Mishap)>,
    /// Processes that do not live any more: their requests do not arrive.
    pub(crate) dead: BTreeSet<ProcessId>,
    /// A process that may send this many requests before it dies.
    pub(crate) last_words: Option<(ProcessId, usize)>,
    pub(crate) interrupt: Option<Interrupt>,
}

/// What is known of a request for the enumeration of faults.
#[derive(Clone, Debug)]
pub(crate) struct RequestKind {
    pub(crate) is_write: bool,
    /// It reports to people, and nothing is decided on it.
    pub(crate) is_event: bool,
    /// Length of the history before it.
    pub(crate) revision: usize,
    /// Verb, kind and name.
    pub(crate) text: String,
}

// === impl Gate ===

impl Gate {
    /// Decides about the next request.
    pub(super) fn decide(&mut self, process: ProcessId, call: &Call, revision: usize) -> Decision {
        if self.dead.contains(&process) {
            return Decision::Ignore;
        }
        if let Some((of, left)) = &mut self.last_words
            && *of == process
        {
            if *left == 0 {
                self.dead.insert(process);
                self.interrupt = Some(Interrupt::Ended);
                return Decision::Ignore;
            }
            *left -= 1;
        }
        let number = self.requests.len();
        let text = format!(
            "{:?} {}{}",
            call.verb,
            call.key,
            if call.status { " status" } else { "" }
        );
        self.requests.push(RequestKind {
            is_write: call.is_write(),
            is_event: call.key.kind == Kind::Event,
            revision,
            text,
        });
        match self
            .mishap
            .filter(|(at, _)| *at == number)
            .map(|(_, mishap)| mishap)
        {
            None => Decision::Serve,
            Some(Mishap::EndsBefore) => {
                self.end(process);
                Decision::Ignore
            }
            Some(Mishap::EndsAfter) => {
                self.end(process);
                Decision::ServeSilently
            }
            Some(Mishap::Answers(code)) => Decision::Refuse(refusal(code, call)),
            Some(Mishap::Silent) => Decision::Ignore,
            Some(Mishap::AnswerLost) => Decision::ServeSilently,
            Some(Mishap::Held) => {
                let (go_on, wait) = oneshot::channel();
                self.interrupt = Some(Interrupt::Held(go_on));
                Decision::Wait(wait)
            }
        }
    }

    fn end(&mut self, process: ProcessId) {
        self.dead.insert(process);
        self.interrupt = Some(Interrupt::Ended);
    }
}

/// A refusal in the words of the API server.
fn refusal(code: u16, call: &Call) -> Refusal {
    let reason = match code {
        409 => return Refusal::conflict(&call.key, "the object has been modified"),
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    Refusal::new(code, reason, "the server is not well")
}
