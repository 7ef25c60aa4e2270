/*!
The status of an instance, from what was observed: phase and conditions as a whole, and the UIDs and
the node that the agent relies on. Pure, like the plan.

`status.filesystem` is the agent's. It is read here and never written.
*/

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use stoppablecontainer_api::conditions::{
    CONSUMER_READY, CONSUMER_SCHEDULED, FILESYSTEM_READY, PROVIDER_READY, READY, RESTART_REQUIRED,
    STOPPED_CONDITION,
};
use stoppablecontainer_api::{StoppableContainerInstanceStatus, storage_limit};

use crate::reconcile::conditions::{ConditionState, conditions};
use crate::reconcile::instance::plan::placement;
use crate::reconcile::instance::state::{Observed, first_node};
use crate::reconcile::instance::template_check;

mod consumer;
mod filesystem;
mod next_step;
mod node;
mod pinned;
mod pod;
mod provider;
mod ready;
mod recovery;
mod restart_required;
mod scheduled;
mod steps;
mod stopped;

/// The status of `observed`. Equal to the present one when nothing changed.
pub(super) fn status(observed: &Observed, now: Timestamp) -> StoppableContainerInstanceStatus {
    let old = observed.status();
    let provider = provider::provider_state(observed);
    let filesystem = filesystem::filesystem_state(observed);
    let consumer = consumer::consumer_state(observed);
    let phase = ready::phase(observed, &provider, &filesystem);
    let [provider, consumer] = [provider, consumer]
        .map(|part| node::unless_cordoned(observed, part))
        .map(|part| node::unless_not_ready(observed, part))
        .map(|part| next_step::with_next_step(&observed.instance, part));
    let [provider, filesystem, consumer] =
        node::unless_unreachable(observed, [provider, filesystem, consumer]);
    let mut ready = ready::ready_state(observed, phase, [&provider, &filesystem, &consumer]);
    let restart = restart_required::why(observed);
    if let Some(why) = &restart {
        ready.cause.message = format!("{}; {RESTART_REQUIRED}: {}", ready.cause.message, why.message);
    }
    let generation = observed.instance.metadata.generation;
    let states = [
        (READY, ready),
        (PROVIDER_READY, provider),
        (FILESYSTEM_READY, filesystem),
        (CONSUMER_READY, consumer),
        (
            CONSUMER_SCHEDULED,
            node::unless_cordoned(observed, scheduled::scheduled_state(observed)),
        ),
        (STOPPED_CONDITION, stopped::stopped_state(observed)),
    ];
    let conditions = [
        conditions(&old.conditions, states, generation, now),
        restart.map_or_else(Vec::new, |why| {
            let required = ConditionState::true_with(&why.reason, why.message);
            conditions(&old.conditions, [(RESTART_REQUIRED, required)], generation, now)
        }),
    ]
    .concat();
    let (last_start, last_stop) = steps::steps(observed, &old, &conditions, now);
    StoppableContainerInstanceStatus {
        phase: Some(phase),
        node_name: observed.home().map(str::to_owned),
        observed_generation: generation,
        provider_pod_uid: observed.provider.pod().and_then(|pod| pod.uid()),
        consumer_pod_uid: observed.consumer.pod().and_then(|pod| pod.uid()),
        placeholder_pod_uid: observed.placeholder.pod().and_then(|pod| pod.uid()),
        never_started: first_node::never_started(observed, &old),
        given_up: old.given_up.clone().or_else(|| observed.given_up.clone()),
        placement: placement::next(observed, &old),
        image: pinned::pinned(observed, &old),
        storage_limit: consumer_limit(observed, &old),
        template_check: template_check::known(observed),
        last_start,
        last_stop,
        conditions,
        filesystem: old.filesystem,
    }
}

/// As the consumer has it; a LimitRange may have set it. Without a consumer, as the last one had
/// it.
fn consumer_limit(observed: &Observed, old: &StoppableContainerInstanceStatus) -> Option<String> {
    let Some(pod) = observed.consumer.pod() else {
        return old.storage_limit.clone();
    };
    let limit = storage_limit(pod.spec.as_ref()?, observed.instance.spec.main_container());
    limit.map(str::to_owned)
}

#[cfg(test)]
mod tests;
