//! The provider's main process: there so that the kubelet keeps node, image and layers for us.

use exec_wrapper::protocol::Verb;

use crate::signals::Ending;
use crate::{Failure, agent};

/// Keeps a conversation with the agent open until a signal comes, which is success: stopping is all it is asked.
pub(crate) fn hold() -> Result<(), Failure> {
    let signals = Ending::catch()?;
    loop {
        let ended = agent::ask(Verb::Hold, &signals).and_then(|granted| granted.wait_for_end(&signals));
        match ended {
            // The agent restarts: tell the new one that we are here.
            Ok(()) => {}
            Err(failure) if failure.by_signal() => return Ok(()),
            Err(failure) => return Err(failure),
        }
    }
}
