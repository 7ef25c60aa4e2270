//! `hold`: keeps the provider's container alive, and the node agent aware of it.

use exec_wrapper::protocol::Verb;

use crate::Failure;
use crate::connection::Agent;
use crate::signals::Signals;

/// Holds until a signal asks to stop, which is a success: nothing here has to be finished.
pub(crate) fn hold() -> Result<(), Failure> {
    let signals =
        Signals::catch().map_err(|error| Failure::wrapper(format_args!("cannot handle signals: {error}")))?;
    let held = || -> Result<(), Failure> {
        let mut agent = Agent::new(Some(&signals))?;
        loop {
            let granted = agent.ask(Verb::Hold)?;
            agent.wait_for_end(&granted)?;
        }
    };
    match held() {
        Err(Failure::Signal(_)) => Ok(()),
        outcome => outcome,
    }
}
