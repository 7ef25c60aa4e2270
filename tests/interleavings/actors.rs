/*!
Fakes of everything that works on a cluster besides the controller: scheduler, kubelets, node
agents, garbage collector, pod garbage collector and namespace controller. Each is the least that
the controller can rely on, and does one small thing at a time.
*/

mod agent;
mod garbage;
mod kubelet;
mod scheduler;

use crate::world::World;

/// Does one thing if there is one to do.
pub(crate) type Actor = fn(&mut World) -> bool;

/// All actors, in the order in which they are asked for something to do.
pub(crate) const ACTORS: [Actor; 7] = [
    scheduler::schedule,
    kubelet::end_pods,
    agent::announce,
    kubelet::start_pods,
    agent::prepare,
    agent::remove,
    garbage::collect,
];

/// Lets the first actor act that has something to do.
pub(crate) fn act(world: &mut World) -> bool {
    ACTORS.iter().any(|actor| actor(world))
}
