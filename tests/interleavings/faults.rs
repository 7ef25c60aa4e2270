//! The families of faults, each in every scenario.

use crate::api::gate::{Mishap, RequestKind};
use crate::api::kind::Kind;
use crate::cases::{CASES, check, check_all, everything, say};
use crate::fault::{EventMishap, Fault, WakeAt};
use crate::run::Order;

#[test]
fn every_scenario_ends_as_its_name_says() {
    let mistakes: Vec<_> = CASES.iter().flat_map(super::cases::Case::mistakes).collect();
    let requests: usize = CASES.iter().map(|case| case.record.requests.len()).sum();
    let writes: usize = CASES.iter().map(|case| case.requests(true).count()).sum();
    let events: usize = CASES.iter().map(|case| case.record.events.len()).sum();
    say(&format!(
        "undisturbed: {} runs with {requests} requests ({writes} writes) and {events} events",
        CASES.len()
    ));
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
}

/// All writes of the controller for one start and one stop, events included. Both objects have a
/// status, and each step that a user sees has an event of its own.
#[test]
fn i18_a_start_and_a_stop_take_few_writes() {
    for (name, most) in [("start", 6), ("stop", 7)] {
        for case in CASES.iter().filter(|case| case.scenario.name == name) {
            let writes = case.record.requests.iter().filter(|request| request.is_write);
            let writes: Vec<_> = writes.map(|request| request.text.as_str()).collect();
            say(&format!("{name}, {:?}: {} writes", case.order, writes.len()));
            assert!(writes.len() <= most, "{name}, {:?}: {writes:#?}", case.order);
        }
    }
}

/// The process ends before every write, and after it before the answer.
#[test]
fn f13_the_process_ends_at_every_write() {
    check("the process ends", 600, |case| {
        let of = |mishap| case.requests(true).map(move |at| Fault::Request { at, mishap });
        of(Mishap::EndsAfter).chain(of(Mishap::EndsBefore)).collect()
    });
}

/// The API server refuses, fails, or does not answer; the request has its effect or has none.
#[test]
fn f16_every_request_is_refused_or_not_answered() {
    check("refused or not answered", 600, |case| {
        let all = [409, 429, 500]
            .map(Mishap::Answers)
            .into_iter()
            .chain([Mishap::Silent]);
        let of = |mishap| case.requests(false).map(move |at| Fault::Request { at, mishap });
        let lost = case.requests(true).map(|at| Fault::Request {
            at,
            mishap: Mishap::AnswerLost,
        });
        all.flat_map(of).chain(lost).collect()
    });
}

/// Everything else is faster than one pass.
#[test]
fn i17_every_pass_is_overtaken_at_every_request() {
    check("overtaken", 400, |case| {
        case.requests(false).map(|at| Fault::Pause { at }).collect()
    });
}

/// The leader sleeps before every request, another one leads, and then the request arrives.
#[test]
fn f15_a_leader_sleeps_before_every_request() {
    check("two leaders", 400, |case| {
        let of = |until| case.requests(false).map(move |at| Fault::Sleep { at, until });
        of(WakeAt::Quiet).chain(of(WakeAt::End)).collect()
    });
}

/// Every event is lost, late, or comes again when it is old.
#[test]
fn f14_every_event_is_lost_late_or_repeated() {
    check("events", 600, |case| {
        let all = [EventMishap::Lost, EventMishap::Delayed, EventMishap::Repeated];
        let of = |mishap| (0..case.record.events.len()).map(move |at| Fault::Event { at, mishap });
        all.into_iter().flat_map(of).collect()
    });
}

/// The process ends before every request, and the next one begins with a list of every older
/// revision.
#[test]
fn f12_the_next_process_begins_with_every_older_state() {
    check("older lists", 400, |case| {
        let history = case.record.world.store.history();
        let requests = case.record.requests.iter().enumerate();
        let of = |(at, request): (usize, &RequestKind)| {
            let changes = history.iter().enumerate().take(request.revision);
            let changes = changes.filter(|(_, change)| Kind::CACHED.contains(&change.key.kind));
            changes.map(move |(revision, change)| Fault::Restart {
                at,
                kind: change.key.kind,
                revision,
            })
        };
        requests.flat_map(of).collect()
    });
}

/// Events, passes and the rest of the cluster take turns by chance, with and without a fault.
#[test]
fn i17_any_order_of_events_and_passes_comes_to_the_same_end() {
    let seeds = if everything() { 100 } else { 4 };
    let first = super::cases::seed().wrapping_mul(1_000_000);
    let cases = CASES.iter().filter(|case| case.order == Order::ControllerFirst);
    let all =
        cases.flat_map(|case| (0..seeds).map(move |seed| (case, Order::Random(first + seed), Fault::None)));
    check_all("any order", 200, all.collect());
}
