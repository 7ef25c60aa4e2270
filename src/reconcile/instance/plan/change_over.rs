/*!
The change-over from the placeholder to the consumer, at the first start.

The controller creates the consumer while the placeholder still reserves the room on the node; a
scheduling gate keeps the consumer waiting. The controller then nominates the node for the consumer,
deletes the placeholder, and removes the gate. The scheduler counts a nominated pod on its node when
it places others of the same or a lower priority (`RunFilterPluginsWithNominatedPods` in Kubernetes'
`pkg/scheduler/framework/runtime`), also while the pod has a gate. Otherwise a pod that waits for
the same room would always take it: the scheduler tries it again at the deletion, which is faster
than the creation of the consumer.
*/

use std::sync::Arc;

use stoppablecontainer_api::names::GATE_PLACEHOLDER;

use crate::reconcile::instance::plan::Action;
use crate::reconcile::instance::state::Observed;
use crate::reconcile::pods::{gates, is_terminating, nominated};

/// Reserves the room for the consumer, before the placeholder is deleted.
///
/// A consumer that has to wait for others than us, for example for a queue, does not reserve
/// anything.
pub(super) fn nominate(observed: &Observed) -> Option<Action> {
    let pod = observed.consumer.pod().filter(|pod| !is_terminating(pod))?;
    let node = observed.status().node_name?;
    let is_ready = gates(pod).eq([GATE_PLACEHOLDER]) && nominated(pod).is_none();
    is_ready.then(|| Action::Nominate(Arc::clone(pod), node))
}

/// Lets the consumer go to its node, once there is no placeholder.
pub(super) fn admit(observed: &Observed) -> Option<Action> {
    let pod = observed.consumer.pod().filter(|pod| !is_terminating(pod))?;
    let waits = gates(pod).any(|gate| gate == GATE_PLACEHOLDER);
    waits.then(|| Action::Admit(Arc::clone(pod)))
}
