//! What can go wrong in a run, once.

use crate::api::gate::Mishap;
use crate::api::kind::Kind;

/// A fault. Requests and events are counted from the beginning of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Something happens to a request.
    Request {
        at: usize,
        mishap: Mishap,
    },
    /// A pass waits before a request while everything else goes on, as another pass of the same
    /// process, a kubelet or an agent may be faster.
    Pause {
        at: usize,
    },
    /// The leader sleeps before a request, and another process leads.
    Sleep {
        at: usize,
        until: WakeAt,
    },
    /// The process ends before a request, and the next one lists a kind as it was at an earlier
    /// revision.
    Restart {
        at: usize,
        kind: Kind,
        revision: usize,
    },
    /// Something happens to an event of a watch.
    Event {
        at: usize,
        mishap: EventMishap,
    },
}

/// When a leader that sleeps wakes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WakeAt {
    /// When nothing happens any more.
    Quiet,
    /// When everything that the user does has been done.
    End,
}

/// What happens to an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventMishap {
    /// It never arrives. The next list tells what it was.
    Lost,
    /// It and all later ones of its kind arrive when nothing else happens.
    Delayed,
    /// It arrives once more after its successor, as from an API server that is behind.
    Repeated,
}
