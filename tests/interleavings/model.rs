/*!
An explicit-state check of the protocol between controller, agent and the rest of the cluster:
breadth-first over everything that can happen next, from several beginnings, to a bound.

The model is not written down a second time: a state is the simulated cluster with the caches and
the memory of the controller, and a step of the controller is a pass of the product's own
reconcilers, with their observations, plans and writes. So the check finds what the plan and the
writes do together. For the same reason the search is a breadth-first search of our own and not that
of a model checker such as stateright: those want states and steps without clients, which would be a
copy.

Steps are: an event reaches the cache of a kind, a pass over an object, a pass of a process that
ends at one of its writes, one thing that an actor does, and a wish of the user. Time is not a
state: a wait may be over at any moment. Two states are the same if they differ only in the names of
UIDs and resourceVersions.

In every state the rules of the [`Monitor`](crate::monitor::Monitor) hold (I1, I2, I11, I14), and no
consumer that was not rewritten is bound (I3). In every state in which nothing can happen without
the user, the last wish is fulfilled.
*/

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde_json::Value;
use stoppablecontainer_api::names::{GATE, LABEL_ROLE, ROLE_CONSUMER};
use tokio::runtime::Runtime;

use crate::actors::ACTORS;
use crate::api::Api;
use crate::api::gate::Mishap;
use crate::api::kind::{Key, Kind};
use crate::api::store::Change;
use crate::cases::{everything, say};
use crate::process::{Process, Target};
use crate::run::prepared;
use crate::scenario::{Scenario, Step, WEB, nothing_left, phase};
use crate::scenarios;
use crate::world::{World, uid};

/// The kinds whose events take their time.
const KINDS: [Kind; 3] = [Kind::Container, Kind::Instance, Kind::Pod];

/// Everything that decides what can happen next.
#[derive(Clone)]
struct State {
    world: World,
    /// The controller's caches, and the events that have not reached them.
    cached: BTreeMap<Key, Arc<Value>>,
    pending: BTreeMap<Kind, VecDeque<Change>>,
    /// Pods that the controller's process created, by the UID of their instance and their role.
    created: BTreeMap<(String, &'static str), String>,
    /// What the user wished last, and how often the user may still wish.
    wish: Wish,
    wishes: u32,
}

/// What the user wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Wish {
    Run,
    Stop,
    Delete,
}

/// What a wish that is fulfilled looks like.
impl Wish {
    fn is_fulfilled(self, world: &World) -> bool {
        match self {
            Self::Run => phase(world) == "Running",
            Self::Stop => phase(world) == "Stopped",
            Self::Delete => nothing_left(world),
        }
    }
}

/// The result of a search.
#[derive(Debug, Default)]
struct Found {
    states: usize,
    steps: usize,
    quiet: usize,
    depth: usize,
    failures: Vec<String>,
}

struct Search {
    runtime: Runtime,
    /// Hashes of the states.
    known: HashSet<u128>,
    /// The state before, and what led here, by number of the state.
    origins: Vec<(usize, String)>,
    found: Found,
}

// === impl State ===

impl State {
    fn new(mut world: World, wish: Wish, wishes: u32) -> Self {
        world.store.take_history();
        let cached = world
            .store
            .all()
            .map(|(key, object)| (key.clone(), Arc::clone(object)))
            .collect();
        Self {
            world,
            cached,
            pending: BTreeMap::new(),
            created: BTreeMap::new(),
            wish,
            wishes,
        }
    }

    /// After a step: what changed is on its way to the caches.
    fn settled(mut self) -> Self {
        for change in self.world.store.take_history() {
            if KINDS.contains(&change.key.kind) {
                self.pending.entry(change.key.kind).or_default().push_back(change);
            }
        }
        self
    }

    /// A new process has listed everything and remembers nothing.
    fn restarted(mut self) -> Self {
        let fresh = Self::new(self.world.clone(), self.wish, self.wishes);
        self.cached = fresh.cached;
        self.pending = fresh.pending;
        self.created = fresh.created;
        self
    }

    /// The same number for states that differ only in names and times.
    fn key(&self) -> u128 {
        let mut text = String::new();
        for (key, object) in self
            .world
            .store
            .all()
            .filter(|(key, _)| KINDS.contains(&key.kind))
        {
            write!(text, "{key}{object}").unwrap();
        }
        for (key, object) in self.cached.iter().filter(|(key, _)| KINDS.contains(&key.kind)) {
            write!(text, "c{key}{object}").unwrap();
        }
        for change in self.pending.values().flatten() {
            write!(text, "p{}{}{}", change.key, change.deleted, change.object).unwrap();
        }
        write!(
            text,
            "{:?}{:?}{:?}{}",
            self.created, self.world.machines, self.wish, self.wishes
        )
        .unwrap();
        let text = canonical(&text);
        let half = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            (salt, &text).hash(&mut hasher);
            u128::from(hasher.finish())
        };
        half(0) << 64 | half(1)
    }
}

/// The text with UIDs and resourceVersions numbered in the order in which they appear, and without
/// times.
fn canonical(text: &str) -> String {
    const UID: &str = "-0000-4000-8000-";
    const VERSION: &str = "\"resourceVersion\":\"";
    const SINCE: &str = "\"lastTransitionTime\":\"";
    let mut names = HashMap::new();
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = [UID, VERSION, SINCE]
        .iter()
        .filter_map(|mark| rest.find(mark))
        .min()
    {
        let tail = &rest[at..];
        let (from, to) = if tail.starts_with(UID) {
            (at - 8, at + UID.len() + 12)
        } else {
            let mark = if tail.starts_with(VERSION) { VERSION } else { SINCE };
            let from = at + mark.len();
            (from, from + rest[from..].find('"').unwrap_or_default())
        };
        result += &rest[..from];
        if !tail.starts_with(SINCE) {
            let next = names.len();
            result += &names.entry(rest[from..to].to_owned()).or_insert(next).to_string();
        }
        rest = &rest[to..];
    }
    result + rest
}

// === impl Search ===

impl Search {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        Self {
            runtime,
            known: HashSet::new(),
            origins: Vec::new(),
            found: Found::default(),
        }
    }

    /// Breadth-first from `begin`, until so many states are known.
    fn explore(mut self, begin: State, bound: usize) -> Found {
        self.known.insert(begin.key());
        self.origins.push((0, "begin".to_owned()));
        let mut queue = VecDeque::from([(0, 0, begin)]);
        while let Some((number, depth, state)) = queue.pop_front() {
            self.found.depth = depth;
            let mut is_quiet = true;
            for (what, by_user, next) in self.steps(&state) {
                self.found.steps += 1;
                let key = next.key();
                is_quiet &= by_user || key == state.key();
                if self.known.len() >= bound || !self.known.insert(key) {
                    continue;
                }
                self.origins.push((number, what));
                let at = self.origins.len() - 1;
                self.judge(at, &next);
                queue.push_back((at, depth + 1, next));
            }
            if is_quiet {
                self.found.quiet += 1;
                if !state.wish.is_fulfilled(&state.world) {
                    let why = format!(
                        "nothing more happens, and {:?} is not fulfilled: {}",
                        state.wish,
                        phase(&state.world)
                    );
                    self.fail(number, &why);
                }
            }
            if self.found.failures.len() > 3 || self.known.len() >= bound {
                break;
            }
        }
        self.found.states = self.known.len();
        self.found
    }

    fn judge(&mut self, number: usize, state: &State) {
        for broken in state.world.monitor.violations.clone() {
            self.fail(number, &broken);
        }
        for pod in state.world.store.of_kind(Kind::Pod) {
            let consumer = pod["metadata"]["labels"][LABEL_ROLE] == ROLE_CONSUMER;
            let gates = pod["spec"]["schedulingGates"].to_string();
            if consumer && gates.contains(GATE) && !pod["spec"]["nodeName"].is_null() {
                self.fail(number, "I3: a consumer that was not rewritten is bound");
            }
        }
    }

    fn fail(&mut self, number: usize, why: &str) {
        let mut path = Vec::new();
        let mut at = number;
        while at != 0 {
            let (before, what) = &self.origins[at];
            path.push(what.clone());
            at = *before;
        }
        path.reverse();
        self.found.failures.push(format!("{why}, after {path:#?}"));
    }

    /// Everything that can happen next, and whether it is the user's.
    fn steps(&self, state: &State) -> Vec<(String, bool, State)> {
        let mut steps = Vec::new();
        for kind in KINDS {
            let mut next = state.clone();
            let Some(change) = next.pending.get_mut(&kind).and_then(VecDeque::pop_front) else {
                continue;
            };
            let what = format!(
                "the cache sees {} {}",
                change.key,
                if change.deleted { "go" } else { "change" }
            );
            if change.deleted {
                next.cached.remove(&change.key);
            } else {
                next.cached.insert(change.key, change.object);
            }
            steps.push((what, false, next));
        }
        for target in [
            Target::Container(WEB.to_owned()),
            Target::Instance(WEB.to_owned()),
        ] {
            let (whole, writes) = self.pass(state, &target, None);
            steps.push((format!("a pass over {target:?}"), false, whole));
            for at in writes {
                let (cut, _) = self.pass(state, &target, Some(at));
                steps.push((
                    format!("the process ends in a pass over {target:?} after request {at}"),
                    true,
                    cut,
                ));
            }
        }
        for (number, actor) in ACTORS.iter().enumerate() {
            let mut next = state.clone();
            if actor(&mut next.world) {
                steps.push((format!("actor {number} acts"), false, next.settled()));
            }
        }
        if state.wishes > 0 {
            steps.extend(
                wishes(state)
                    .into_iter()
                    .map(|(what, next)| (what.to_owned(), true, next)),
            );
        }
        steps
    }

    /// A pass over an object, and the numbers of its writes. With `end` the process ends after that
    /// request.
    fn pass(&self, state: &State, target: &Target, end: Option<usize>) -> (State, Vec<usize>) {
        let mut next = state.clone();
        let (world, created, writes) = self.runtime.block_on(async {
            let api = Api::new(std::mem::take(&mut next.world));
            api.lock().gate.mishap = end.map(|at| (at, Mishap::EndsAfter));
            let mut process = Process::restore(&api, &state.cached, &state.created);
            if let Some(pass) = process.pass(target) {
                tokio::select! {
                    biased;
                    _ = pass => {}
                    _ = api.interrupted() => {}
                }
            }
            let shared = api.lock();
            let requests = shared.gate.requests.iter().enumerate();
            let writes: Vec<_> = requests
                .filter(|(_, request)| request.is_write && !request.is_event)
                .map(|(at, _)| at)
                .collect();
            let instances = shared.world.store.of_kind(Kind::Instance);
            let created: BTreeMap<_, _> = instances
                .flat_map(|instance| {
                    let of = uid(instance).to_owned();
                    process
                        .created(&of)
                        .map(|(role, pod)| ((of.clone(), role), pod))
                        .collect::<Vec<_>>()
                })
                .collect();
            (shared.world.clone(), created, writes)
        });
        next.world = world;
        next.created = created;
        let next = next.settled();
        (if end.is_some() { next.restarted() } else { next }, writes)
    }
}

/// What the user may do.
fn wishes(state: &State) -> Vec<(&'static str, State)> {
    let Some(container) = state.world.store.get(&Key::container(WEB)) else {
        return Vec::new();
    };
    let deleting = !container["metadata"]["deletionTimestamp"].is_null();
    let wished = |wish: Wish, act: fn(&mut World)| {
        let mut next = state.clone();
        next.wish = wish;
        next.wishes -= 1;
        act(&mut next.world);
        next.settled()
    };
    let mut all = Vec::new();
    if !deleting {
        let running = container["spec"]["running"] == true;
        let (what, wish, act): (_, _, fn(&mut World)) = if running {
            ("the user stops it", Wish::Stop, scenarios::stop)
        } else {
            ("the user starts it", Wish::Run, scenarios::start)
        };
        all.push((what, wished(wish, act)));
        all.push(("the user deletes it", wished(Wish::Delete, scenarios::delete)));
    }
    let consumer = state.world.store.get(&Key::pod(WEB));
    if consumer.is_some_and(|pod| pod["metadata"]["deletionTimestamp"].is_null()) {
        let act: fn(&mut World) = |world| world.delete(&Key::pod(WEB), None, None);
        all.push(("the user deletes the consumer", wished(state.wish, act)));
    }
    all
}

/// The scenario with this name, at its end.
fn after(name: &str) -> World {
    let scenario = scenarios::all().find(|scenario| scenario.name == name).unwrap();
    let steps: Vec<Step> = scenario.given.iter().chain(scenario.when).copied().collect();
    let whole = Scenario {
        name: scenario.name,
        nodes: scenario.nodes,
        given: Box::leak(steps.into()),
        when: &[],
        then: scenario.then,
        or: None,
    };
    prepared(&whole)
}

fn explore(name: &str, begin: State) {
    let bound = if everything() { 50_000 } else { 300 };
    let found = Search::new().explore(begin, bound);
    say(&format!(
        "model, {name}: {} states of at most {bound}, {} steps, depth {}, {} quiet",
        found.states, found.steps, found.depth, found.quiet
    ));
    assert!(found.failures.is_empty(), "{}", found.failures.join("\n"));
}

#[test]
fn i2_i14_no_order_of_starts_and_stops_breaks_a_rule() {
    explore("from running", State::new(after("create"), Wish::Run, 2));
    explore("from stopped", State::new(after("create stopped"), Wish::Stop, 2));
}

#[test]
fn i1_i3_i11_no_order_from_the_creation_on_breaks_a_rule() {
    let mut world = World::with_nodes(&["n1"]);
    crate::scenario::create(&mut world, true, |_| {});
    explore("from the creation", State::new(world, Wish::Run, 1));
}
