/*!
What an instance needs when it changes: another user resolved, or its data
deleted.
*/

use std::sync::Arc;
use std::time::Duration;

use crate::agent::Agent;
use crate::instances::Instance;
use crate::{filesystem, removal};

/// First and longest pause between tries.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_mins(1));

/// Does what the present state of the instance asks for; tries again until that worked or the instance is gone.
pub(crate) fn spawn(agent: Arc<Agent>, instance: Arc<Instance>) {
    tokio::spawn(async move {
        let mut pause = PAUSES.0;
        let mut changes = instance.subscribe();
        loop {
            changes.borrow_and_update();
            if instance.state().object.is_none() {
                return;
            }
            let done = async {
                filesystem::refresh_identity(&agent, &instance).await?;
                removal::remove(&agent, &instance).await
            };
            match done.await {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(instance = %instance.id, "cannot attend to the instance: {error:#}");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSES.1),
                // A newer object has its own attendance; this one ends.
                changed = changes.wait_for(|state| state.object.is_none()) => {
                    if changed.is_ok() { return }
                }
            }
        }
    });
}
