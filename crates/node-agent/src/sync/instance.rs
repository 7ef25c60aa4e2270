/*!
One task for each instance, from when the agent first sees it until it is gone. After every change
the task resolves the user, compares the size with the limit, deletes the data of a deleted
instance, and reports blocked consumers and failed writes.
*/

use std::sync::Arc;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::filesystem::{Filesystems, blocked, identity, removal, usage, writeback};
use crate::instance::{Instance, status};

/// First and longest pause between tries.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_mins(1));

/// Begins the task of an instance, unless it has one. It ends when the instance is gone.
pub(super) fn spawn(filesystems: Arc<Filesystems>, instance: Arc<Instance>) {
    if instance.claim_task() {
        tokio::spawn(sync_instance(filesystems, instance));
    }
}

async fn sync_instance(filesystems: Arc<Filesystems>, instance: Arc<Instance>) {
    let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
    let mut changes = instance.subscribe();
    let client = &filesystems.client;
    while changes.borrow_and_update().object.is_some() {
        let work = async {
            // A step that fails does not prevent those after it.
            let results = [
                status::repair(client, &instance).await,
                identity::refresh(&filesystems, &instance).await,
                usage::offer_reset(client, &instance).await,
                writeback::report(client, &instance).await,
                blocked::check_recorded(&filesystems, &instance).await,
                removal::remove(&filesystems, &instance).await,
            ];
            let again = blocked::report(client, &instance).await?;
            results.into_iter().collect::<Result<(), _>>()?;
            anyhow::Ok(again)
        };
        match work.await {
            Ok(again) => {
                backoff.reset();
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
                tracing::warn!(instance = %instance.id, "cannot sync the instance: {error:#}");
                // Its own changes are not a reason to try again at once.
                changes.mark_unchanged();
                tokio::select! {
                    () = tokio::time::sleep(backoff.peek()) => { backoff.next(); }
                    changed = changes.changed() => if changed.is_err() { return },
                }
            }
        }
    }
}
