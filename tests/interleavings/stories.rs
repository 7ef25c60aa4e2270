//! What the runs have found: each story is the run that showed it, and stays for ever.

use crate::api::kind::Kind;
use crate::cases::{CASES, Case};
use crate::fault::{EventMishap, Fault, WakeAt};
use crate::run::Order;

/// The runs of a scenario with these faults come to the same end as the undisturbed one.
fn replay(name: &str, faults: impl Fn(&Case) -> Vec<Fault>) {
    let mut cases = CASES.iter().filter(|case| case.order == Order::ControllerFirst);
    let case = cases.find(|case| case.scenario.name == name).unwrap();
    assert_eq!(case.mistakes(), Vec::<String>::new());
    let faults = faults(case);
    assert!(!faults.is_empty(), "the run has no such moment any more");
    for fault in faults {
        assert_eq!(
            case.findings(case.order, fault),
            Vec::<String>::new(),
            "{fault:?}"
        );
    }
}

/// The positions of the requests with this text.
fn requests(case: &Case, text: &str) -> Vec<usize> {
    let requests = case.record.requests.iter().enumerate();
    requests
        .filter(|(_, request)| request.text == text)
        .map(|(at, _)| at)
        .collect()
}

/// Story: the watch of pods did not report the end of a placeholder for a while. In every pass the
/// controller recorded the pod that its cache still showed, deleted it, was answered that it did
/// not exist, and took the record back. Each of the two writes started the next pass, as fast as
/// the API server answered.
#[test]
fn i18_f14_a_pod_that_the_cache_alone_has_is_not_recorded_again_and_again() {
    for name in ["create stopped", "create", "quota of two pods"] {
        replay(name, |case| {
            let events = case.record.events.iter().enumerate();
            let ends = events.filter(|(_, event)| event.key.name == "web-placeholder");
            let of =
                |(at, _)| [EventMishap::Delayed, EventMishap::Lost].map(|mishap| Fault::Event { at, mishap });
            ends.flat_map(of).collect()
        });
    }
}

/// Story: a process began with a list of nodes that was older than the node. It held the node for
/// gone, gave it up before the first start, and deleted the instance.
#[test]
fn i17_a_node_that_the_cache_does_not_have_yet_is_not_given_up() {
    for name in ["create stopped", "quota that is raised"] {
        replay(name, |case| {
            let requests = case.requests(false);
            requests
                .map(|at| Fault::Restart {
                    at,
                    kind: Kind::Node,
                    revision: 0,
                })
                .collect()
        });
    }
}

/// Story: a process began with a list of pods that was older than their end, and did not record
/// them. It reported in every pass that it deleted them, and then that they were gone.
#[test]
fn i18_f12_pods_of_an_old_list_are_not_deleted_again_and_again() {
    for name in ["consumer deleted by force", "provider deleted by force"] {
        replay(name, |case| {
            let history = case.record.world.store.history().iter().enumerate();
            let pods: Vec<_> = history
                .filter(|(_, change)| change.key.kind == Kind::Pod)
                .map(|(at, _)| at)
                .collect();
            let of = |at| {
                pods.iter().map(move |revision| Fault::Restart {
                    at,
                    kind: Kind::Pod,
                    revision: *revision,
                })
            };
            case.requests(false).step_by(3).flat_map(of).collect()
        });
    }
}

/// Story: the machine of a node was gone. Its pods vanished one after the other, and in between the
/// controller created the next consumer, which waited for that node for ever, although the user had
/// moved the disk to another one.
#[test]
fn h23_a_consumer_does_not_wait_for_the_old_node_of_a_moved_disk() {
    replay("node that is gone, disk moved", |_| vec![Fault::None]);
}

/// Story: a leader slept before it nominated the node for the consumer. When it woke, the consumer
/// had run for long, and was nominated for a node.
#[test]
fn f15_a_consumer_that_runs_is_not_nominated() {
    for name in ["create", "recreate"] {
        replay(name, |case| {
            let nominations = requests(case, "Patch Pod web status");
            let of = |at| [WakeAt::Quiet, WakeAt::End].map(|until| Fault::Sleep { at, until });
            nominations.into_iter().flat_map(of).collect()
        });
    }
}
