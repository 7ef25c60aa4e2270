/*!
What an instance needs when it changes: another user resolved, its size compared
with its limit, its data deleted, or a word on who waits for it or what the disk did
not take. One task for each instance, from when it is first seen until it is gone.
*/

use std::sync::Arc;
use std::time::Duration;

use crate::agent::Agent;
use crate::filesystem::blocked;
use crate::filesystem::prepare;
use crate::filesystem::removal;
use crate::filesystem::usage;
use crate::filesystem::writeback;
use crate::instance::state::Instance;
use crate::instance::status;

/// First and longest pause between tries.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_mins(1));

/// Attends to an instance until it is gone, unless somebody does already.
pub(crate) fn spawn(agent: Arc<Agent>, instance: Arc<Instance>) {
    if instance.claim_attendance() {
        tokio::spawn(attend(agent, instance));
    }
}

async fn attend(agent: Arc<Agent>, instance: Arc<Instance>) {
    let mut pause = PAUSES.0;
    let mut changes = instance.subscribe();
    while changes.borrow_and_update().object.is_some() {
        let work = async {
            // What fails keeps nothing behind it from being done.
            let results = [
                status::repair(&agent.client, &instance).await,
                prepare::refresh_identity(&agent, &instance).await,
                usage::judge(&agent, &instance).await,
                writeback::report(&agent, &instance).await,
                blocked::check_recorded(&agent, &instance).await,
                removal::remove(&agent, &instance).await,
            ];
            let again = blocked::report(&agent, &instance).await?;
            results.into_iter().collect::<Result<(), _>>()?;
            anyhow::Ok(again)
        };
        match work.await {
            Ok(again) => {
                pause = PAUSES.0;
                let again = async {
                    match again {
                        Some(rest) => tokio::time::sleep(rest).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = again => {},
                    changed = changes.changed() => if changed.is_err() { return },
                }
            }
            Err(error) => {
                tracing::warn!(instance = %instance.id, "cannot attend to the instance: {error:#}");
                // What it changed itself is no reason to try again at once.
                changes.mark_unchanged();
                tokio::select! {
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSES.1),
                    changed = changes.changed() => if changed.is_err() { return },
                }
            }
        }
    }
}
