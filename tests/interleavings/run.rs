/*!
One run: a scenario, a fault, and the order in which watches, passes and actors take their turns.

Nothing here waits for real time: the clock of the runtime is paused and goes forward when there is
nothing else to do. So the same scenario with the same fault is the same run, request for request.
*/

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::actors;
use crate::api::Api;
use crate::api::gate::{Interrupt, Mishap, RequestKind};
use crate::api::kind::Kind;
use crate::api::store::Change;
use crate::fault::{EventMishap, Fault, WakeAt};
use crate::process::{Pass, Passed, Process, Target};
use crate::rng::Rng;
use crate::scenario::{Scenario, Step};
use crate::world::World;

/// A run that changes nothing for this long has come to its end: the longest back-off is five
/// minutes.
const QUIET: Duration = Duration::from_mins(11);
/// Turns after which a run does not come to an end.
const MOST_TURNS: usize = 4_000;

/// Turns after which a cache that is behind gets on.
const LONGEST_LAG: usize = 500;

/// In which order things happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// The watches first, then the controller, then the rest of the cluster.
    ControllerFirst,
    /// The rest of the cluster first: the controller sees only where things have come to.
    ClusterFirst,
    /// By chance, with this seed.
    Random(u64),
}

/// What is left of a run.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) world: World,
    pub(crate) requests: Vec<RequestKind>,
    /// Events that arrived at the first process.
    pub(crate) events: Vec<Change>,
}

struct Run {
    api: Api,
    process: Process,
    order: Order,
    chance: Rng,
    fault: Fault,
    events: Vec<Change>,
    /// A pass that waits in the middle of a request.
    held: Option<Held>,
    /// An event that arrives once more.
    repeated: Option<Change>,
    /// The caches are not what the API server has, and no event will tell.
    is_blind: bool,
    turns: usize,
}

struct Held {
    /// The process that it belongs to, if that does not lead any more.
    old: Option<Process>,
    target: Target,
    pass: Pass,
    go_on: tokio::sync::oneshot::Sender<()>,
}

/// Runs the steps in a world.
pub(crate) fn run(world: World, steps: &[Step], order: Order, fault: Fault) -> Record {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let api = Api::new(world);
        api.lock().gate.mishap = fault.mishap();
        let process = Process::start(&api, 0, None);
        let seed = if let Order::Random(seed) = order { seed } else { 0 };
        let mut run = Run {
            api,
            process,
            order,
            chance: Rng::new(seed),
            fault,
            events: Vec::new(),
            held: None,
            repeated: None,
            is_blind: false,
            turns: 0,
        };
        for step in steps {
            (step.act)(&mut run.api.lock().world);
            run.settle().await;
        }
        run.settle().await;
        run.wake_sleeper().await;
        run.settle().await;
        run.check_idle().await;
        let shared = run.api.lock();
        Record {
            world: shared.world.clone(),
            requests: shared.gate.requests.clone(),
            events: run.events.clone(),
        }
    })
}

/// The world in which the disturbed part of a scenario begins.
pub(crate) fn prepared(scenario: &Scenario) -> World {
    let world = World::with_nodes(scenario.nodes);
    let mut world = run(world, scenario.given, Order::ControllerFirst, Fault::None).world;
    assert_eq!(
        world.monitor.violations,
        Vec::<String>::new(),
        "{}",
        scenario.name
    );
    world.store.forget_history();
    world
}

// === impl Run ===

impl Run {
    /// Lets everything happen until nothing does.
    async fn settle(&mut self) {
        let mut since = Instant::now();
        let mut changes = self.changes();
        loop {
            if self.turns > MOST_TURNS {
                self.api
                    .lock()
                    .world
                    .monitor
                    .break_rule("F16: the run does not come to an end".to_owned());
                return;
            }
            let did = self.turn().await || self.let_go().await;
            if self.changes() != changes {
                (since, changes) = (Instant::now(), self.changes());
            }
            if did {
                continue;
            }
            match self.process.next_timer() {
                Some(at) if at <= since + QUIET => {
                    sleep_until(at).await;
                    self.process.queue_due();
                }
                _ => return,
            }
        }
    }

    fn changes(&self) -> usize {
        self.api.lock().world.store.changes()
    }

    /// Lets one thing happen. False if there is nothing that does not need time.
    async fn turn(&mut self) -> bool {
        self.turns += 1;
        if self.turns.is_multiple_of(LONGEST_LAG) {
            // No watch is behind for ever, even if something happens all the time.
            self.process.frozen.clear();
        }
        let mut turns: [usize; 3] = match self.order {
            Order::ClusterFirst => [2, 0, 1],
            Order::ControllerFirst | Order::Random(_) => [0, 1, 2],
        };
        if matches!(self.order, Order::Random(_)) {
            self.chance.shuffle(&mut turns);
        }
        for turn in turns {
            let did = match turn {
                0 => self.deliver(),
                1 => self.reconcile().await,
                _ => self.act(),
            };
            if did {
                return true;
            }
        }
        false
    }

    fn act(&mut self) -> bool {
        let mut shared = self.api.lock();
        if let Order::Random(_) = self.order {
            let mut actors = actors::ACTORS;
            self.chance.shuffle(&mut actors);
            return actors.iter().any(|actor| actor(&mut shared.world));
        }
        actors::act(&mut shared.world)
    }

    /// Delivers the next event of a watch, or does to it what the fault says.
    fn deliver(&mut self) -> bool {
        let shared = self.api.lock();
        let store = &shared.world.store;
        let open = Kind::CACHED
            .into_iter()
            .filter(|kind| !self.process.frozen.contains(kind));
        let mut next: Vec<_> = open
            .filter_map(|kind| Some((self.process.next_event(store, kind)?, kind)))
            .collect();
        if next.is_empty() {
            return false;
        }
        next.sort_unstable();
        // Within a kind events keep their order; between kinds they have none.
        let chosen = if matches!(self.order, Order::Random(_)) {
            self.chance.below(next.len())
        } else {
            0
        };
        let (at, kind) = next[chosen];
        let change = store.history()[at].clone();
        drop(shared);
        let number = self.events.len();
        let mishap = match self.fault {
            Fault::Event { at, mishap } if at == number && self.process.id == 0 => Some(mishap),
            _ => None,
        };
        self.events.push(change.clone());
        match mishap {
            Some(EventMishap::Delayed) => {
                self.process.frozen.insert(kind);
                return true;
            }
            Some(EventMishap::Lost) => self.is_blind = true,
            Some(EventMishap::Repeated) => {
                self.repeated = Some(change.clone());
                self.process.take(&change);
            }
            None => {
                self.process.take(&change);
                if self.repeated.as_ref().is_some_and(|old| old.key.kind == kind)
                    && let Some(old) = self.repeated.take()
                {
                    // The watch went on at another API server, which is behind.
                    self.process.take(&old);
                    self.is_blind = true;
                }
            }
        }
        self.process.pass_over(kind, at);
        true
    }

    async fn reconcile(&mut self) -> bool {
        let blocked = self
            .held
            .as_ref()
            .filter(|held| held.old.is_none())
            .map(|held| &held.target);
        let Some(at) = self
            .process
            .queue
            .iter()
            .position(|target| Some(target) != blocked)
        else {
            return false;
        };
        let Some(target) = self.process.queue.remove(at) else {
            return false;
        };
        if let Some(pass) = self.process.pass(&target) {
            self.carry_on(target, pass).await;
        }
        true
    }

    /// Goes on with a pass of the process that leads.
    async fn carry_on(&mut self, target: Target, mut pass: Pass) {
        let interrupt = tokio::select! {
            biased;
            outcome = &mut pass => {
                self.passed(target, &outcome);
                return;
            }
            interrupt = self.api.interrupted() => interrupt,
        };
        match interrupt {
            Interrupt::Ended => {
                drop(pass);
                self.restart();
            }
            Interrupt::Held(go_on) => {
                let mut old = None;
                if let Fault::Sleep { .. } = self.fault {
                    let next = Process::start(&self.api, self.process.id + 1, None);
                    old = Some(std::mem::replace(&mut self.process, next));
                }
                self.held = Some(Held {
                    old,
                    target,
                    pass,
                    go_on,
                });
            }
        }
    }

    fn passed(&mut self, target: Target, outcome: &Passed) {
        if let Err(error) = outcome
            && !(error.is_conflict() || error.is_not_found())
            && self.fault == Fault::None
        {
            let what = format!("{target:?} fails in an undisturbed run: {error}");
            self.api.lock().world.monitor.break_rule(what);
        }
        self.process.passed(target, outcome);
    }

    fn restart(&mut self) {
        let stale = match self.fault {
            Fault::Restart { kind, revision, .. } => Some((kind, revision)),
            _ => None,
        };
        self.process = Process::start(&self.api, self.process.id + 1, stale);
    }

    /// What is held back is let go when nothing else happens.
    async fn let_go(&mut self) -> bool {
        let paused = self.held.as_ref().is_some_and(|held| held.old.is_none());
        if paused && let Some(held) = self.held.take() {
            let _ = held.go_on.send(());
            self.carry_on(held.target, held.pass).await;
            return true;
        }
        if matches!(
            self.fault,
            Fault::Sleep {
                until: WakeAt::Quiet,
                ..
            }
        ) && self.wake_sleeper().await
        {
            return true;
        }
        if !self.process.frozen.is_empty() {
            self.process.frozen.clear();
            return true;
        }
        if let Some(old) = self.repeated.take() {
            self.process.take(&old);
            self.is_blind = true;
            return true;
        }
        if std::mem::take(&mut self.is_blind) {
            self.resync();
            return true;
        }
        false
    }

    /// A leader that slept wakes: its request arrives, and it learns that it does not lead.
    async fn wake_sleeper(&mut self) -> bool {
        let Some(Held {
            old: Some(old),
            pass,
            go_on,
            ..
        }) = self.held.take()
        else {
            return false;
        };
        self.api.lock().gate.last_words = Some((old.id, 0));
        let _ = go_on.send(());
        tokio::select! {
            biased;
            _ = pass => {}
            _ = self.api.interrupted() => {}
        }
        self.api.lock().gate.dead.insert(old.id);
        true
    }

    /// The slow resync of the watches (`crates/apiserver`).
    fn resync(&mut self) {
        let store = self.api.lock().world.store.clone();
        self.process.relist(&store);
    }

    /// When nothing happens any more, passes over everything write nothing.
    async fn check_idle(&mut self) {
        let before = self.api.lock().gate.requests.len();
        self.resync();
        self.settle().await;
        let mut shared = self.api.lock();
        let writes: Vec<_> = shared.gate.requests[before..]
            .iter()
            .filter(|request| request.is_write)
            .collect();
        if !writes.is_empty() {
            let what = format!("I18: the controller writes although nothing changed: {writes:?}");
            shared.world.monitor.break_rule(what);
        }
    }
}

impl Fault {
    /// What happens to a request.
    fn mishap(self) -> Option<(usize, Mishap)> {
        match self {
            Self::None | Self::Event { .. } => None,
            Self::Request { at, mishap } => Some((at, mishap)),
            Self::Pause { at } | Self::Sleep { at, .. } => Some((at, Mishap::Held)),
            Self::Restart { at, .. } => Some((at, Mishap::EndsBefore)),
        }
    }
}
