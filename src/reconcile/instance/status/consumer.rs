//! The condition ConsumerReady.

use kube::ResourceExt;
use stoppablecontainer_api::conditions::reason;

use crate::reconcile::conditions::{Trouble, Verdict};
use crate::reconcile::instance::state::{Observed, Slot};
use crate::reconcile::instance::status::recovery;
use crate::reconcile::pods::{leaving, ready, running, trouble};

pub(super) fn consumer_verdict(observed: &Observed) -> Verdict {
    let name = observed.instance.name_any();
    let wanted = observed.instance.spec.running && !observed.deleting();
    match &observed.consumer {
        // Only a start is in anybody's way.
        Slot::Taken(whose) if wanted => Verdict::no(reason::NAME_CONFLICT, whose.clone()),
        Slot::Ours(pod) if leaving(pod) => {
            let then = if wanted { "; it will be started again" } else { "" };
            Verdict::no(
                reason::STOPPING,
                format!("pod {name} is ending within its grace period{then}"),
            )
        }
        Slot::Ours(_) if !wanted => {
            Verdict::no(reason::STOPPING, format!("pod {name} is about to be deleted"))
        }
        // The kubelet knows no more than that the container runs, or ends again and again.
        Slot::Ours(_) if let Some(what) = observed.blocked() => Verdict::no(
            reason::WAITING_FOR_FILESYSTEM,
            format!("pod {name} has not got its filesystem: {what}"),
        ),
        Slot::Ours(_) if let Some(last) = observed.doubt() => Verdict::because(last),
        Slot::Ours(pod) if ready(pod) => Verdict::yes(reason::AS_REQUESTED, format!("pod {name} is ready")),
        Slot::Ours(pod) => Verdict::because(
            trouble(pod)
                .or_else(|| super::pod::agent_trouble(observed, pod))
                .unwrap_or_else(|| {
                    let how = if running(pod) {
                        "runs and is not ready yet"
                    } else {
                        "is starting"
                    };
                    Trouble::new(reason::STARTING, format!("pod {name} {how}"))
                }),
        ),
        Slot::Stray(_) if wanted => observed.consumer_hold.as_ref().map_or_else(
            || Verdict::no(reason::STARTING, super::pod::stray(&name)),
            |hold| Verdict::because(hold.trouble.clone()),
        ),
        Slot::Stray(_) | Slot::Taken(_) | Slot::Free if !wanted => {
            Verdict::no(reason::STOPPED, "running is false")
        }
        _ if let Some(why) = observed.template_trouble() => Verdict::because(why),
        _ => {
            if let Some(excess) = observed.start_excess() {
                return Verdict::because(recovery::refusal(&observed.instance, &excess));
            }
            observed.consumer_hold.as_ref().map_or_else(
                || Verdict::no(reason::STARTING, "waits for the provider pod and the filesystem"),
                |hold| Verdict::because(hold.trouble.clone()),
            )
        }
    }
}
