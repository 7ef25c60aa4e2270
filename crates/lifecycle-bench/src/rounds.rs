//! The operations, in turn with those of plain pods, so that the machine's speed changes both.

use std::future::Future;

use anyhow::{Context, Result};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::journal::{Journal, Role, State};
use crate::measured::Recorder;
use crate::meters::Meters;

/// What the rounds measure with.
pub(crate) struct Bench {
    pub(crate) cluster: Cluster,
    /// The same cluster, with pods that have a volume of the CSI driver that does nothing.
    pub(crate) with_volume: Cluster,
    pub(crate) journal: Journal,
    pub(crate) meters: Meters,
}

/// What takes turns in a round.
#[derive(Clone, Copy)]
enum Turn {
    Plain,
    WithVolume,
    Ours,
}

/// All orders, so that none of them always follows the same other one.
const ORDERS: [[Turn; 3]; 6] = [
    [Turn::Ours, Turn::Plain, Turn::WithVolume],
    [Turn::Plain, Turn::WithVolume, Turn::Ours],
    [Turn::WithVolume, Turn::Ours, Turn::Plain],
    [Turn::Plain, Turn::Ours, Turn::WithVolume],
    [Turn::Ours, Turn::WithVolume, Turn::Plain],
    [Turn::WithVolume, Turn::Plain, Turn::Ours],
];

/// Names of the series.
pub(crate) mod series {
    /// How the names of all series of bursts begin.
    pub(crate) const BURST: &str = "burst, ";
    pub(crate) const PLAIN_START: &str = "plain pod: start";
    pub(crate) const PLAIN_STOP: &str = "plain pod: delete";
    pub(crate) const VOLUME_START: &str = "plain pod with a no-op CSI volume: start";
    pub(crate) const VOLUME_STOP: &str = "plain pod with a no-op CSI volume: delete";
    pub(crate) const FIRST: &str = "StoppableContainer: first start";
    pub(crate) const FIRST_QUICK: &str = "StoppableContainer: first start, its provider limited to 1 CPU";
    pub(crate) const STOP: &str = "StoppableContainer: stop";
    pub(crate) const STOPPED: &str = "StoppableContainer: stop, until the status shows it";
    pub(crate) const AGAIN: &str = "StoppableContainer: start again";
    pub(crate) const BURST_PLAIN_START: &str = "burst, plain pods: start";
    pub(crate) const BURST_PLAIN_STOP: &str = "burst, plain pods: delete";
    pub(crate) const BURST_FIRST: &str = "burst, StoppableContainers: first start";
    pub(crate) const BURST_STOP: &str = "burst, StoppableContainers: stop";
    pub(crate) const BURST_AGAIN: &str = "burst, StoppableContainers: start again";
}

/// What is counted.
pub(crate) mod counts {
    pub(crate) const PODS: &str = "pods created in a start again";
    pub(crate) const START: &str = "changes of the two objects in a start again";
    pub(crate) const STOP: &str = "changes of the two objects in a stop";
}

/// One after the other: plain pods without and with a volume, and an object that is created,
/// stopped and started.
pub(crate) async fn single(bench: &Bench, recorder: &mut Recorder, round: u32) -> Result<()> {
    for turn in ORDERS[round as usize % ORDERS.len()] {
        match turn {
            Turn::Plain => {
                let names = [series::PLAIN_START, series::PLAIN_STOP];
                plain(
                    &bench.cluster,
                    &bench.journal,
                    recorder,
                    &format!("plain-{round}"),
                    names,
                )
                .await?;
            }
            Turn::WithVolume => {
                let names = [series::VOLUME_START, series::VOLUME_STOP];
                let (cluster, journal) = (&bench.with_volume, &bench.journal);
                plain(cluster, journal, recorder, &format!("volume-{round}"), names).await?;
            }
            Turn::Ours => ours(&bench.cluster, &bench.journal, recorder, round).await?,
        }
    }
    Ok(())
}

/// Starts and deletes a plain pod. The names are those of the series of the two.
async fn plain(
    cluster: &Cluster,
    journal: &Journal,
    recorder: &mut Recorder,
    name: &str,
    [start, stop]: [&str; 2],
) -> Result<()> {
    let reference = |name, of| (name != of).then_some(of);
    let asked = cluster.create_plain(name).await?;
    let ready = journal.reached(name, Role::PlainPod, State::Ready, asked).await?;
    recorder.add(
        start,
        reference(start, series::PLAIN_START),
        seconds(asked, ready),
    );
    let asked = cluster.delete_plain(name).await?;
    let gone = journal.reached(name, Role::PlainPod, State::Gone, asked).await?;
    recorder.add(stop, reference(stop, series::PLAIN_STOP), seconds(asked, gone));
    journal.forget(name);
    Ok(())
}

async fn ours(cluster: &Cluster, journal: &Journal, recorder: &mut Recorder, round: u32) -> Result<()> {
    let name = format!("ours-{round}");
    let asked = cluster.create(&name).await?;
    let ready = journal.reached(&name, Role::Object, State::Ready, asked).await?;
    recorder.add(series::FIRST, Some(series::PLAIN_START), seconds(asked, ready));
    // The provider may be ready later, and the placeholder goes. Their writes belong to this start.
    for (role, state) in [(Role::Object, State::Settled), (Role::Placeholder, State::Gone)] {
        journal.reached(&name, role, state, asked).await?;
    }
    recorder.add_steps(journal.steps(&name, asked));

    let before = changes(journal, &name);
    let asked = cluster.set_running(&name, false).await?;
    let gone = journal.reached(&name, Role::Consumer, State::Gone, asked).await?;
    recorder.add(series::STOP, Some(series::PLAIN_STOP), seconds(asked, gone));
    let stopped = journal
        .reached(&name, Role::Object, State::Stopped, asked)
        .await?;
    recorder.add(series::STOPPED, Some(series::PLAIN_STOP), seconds(asked, stopped));
    let after = changes(journal, &name);
    recorder.count(counts::STOP, after - before);

    let asked = cluster.set_running(&name, true).await?;
    let ready = journal.reached(&name, Role::Object, State::Ready, asked).await?;
    recorder.add(series::AGAIN, Some(series::PLAIN_START), seconds(asked, ready));
    recorder.count(counts::START, changes(journal, &name) - after);
    let pods = [Role::Placeholder, Role::Provider, Role::Consumer];
    let steps = journal.steps(&name, asked);
    let created = pods
        .iter()
        .filter(|role| steps.contains_key(&(**role, State::Created)));
    recorder.count(counts::PODS, u32::try_from(created.count())?);

    deleted(cluster, journal, &name).await?;
    let name = format!("quick-{round}");
    let asked = cluster.create_with_quick_provider(&name).await?;
    let ready = journal.reached(&name, Role::Object, State::Ready, asked).await?;
    recorder.add(
        series::FIRST_QUICK,
        Some(series::PLAIN_START),
        seconds(asked, ready),
    );
    deleted(cluster, journal, &name).await
}

async fn deleted(cluster: &Cluster, journal: &Journal, name: &str) -> Result<()> {
    let asked = cluster.delete(name).await?;
    journal.reached(name, Role::Object, State::Gone, asked).await?;
    journal.forget(name);
    Ok(())
}

/// Many at once: plain pods, and objects that are created, stopped and started.
pub(crate) async fn burst(bench: &Bench, recorder: &mut Recorder, round: u32, count: u32) -> Result<()> {
    let (cluster, journal) = (&bench.cluster, &bench.journal);
    let names: Vec<_> = (0..count)
        .map(|index| format!("plain-burst-{round}-{index}"))
        .collect();
    for (name, create) in [
        (series::BURST_PLAIN_START, true),
        (series::BURST_PLAIN_STOP, false),
    ] {
        let state = if create { State::Ready } else { State::Gone };
        let asked = at_once(cluster, &names, move |cluster, name| async move {
            if create {
                cluster.create_plain(&name).await
            } else {
                cluster.delete_plain(&name).await
            }
        });
        for (of, since) in asked.await? {
            let at = journal.reached(&of, Role::PlainPod, state, since).await?;
            recorder.add(name, None, seconds(since, at));
            recorder.add_burst_steps(name, journal.steps(&of, since));
        }
    }
    for name in &names {
        journal.forget(name);
    }

    let names: Vec<_> = (0..count)
        .map(|index| format!("ours-burst-{round}-{index}"))
        .collect();
    for operation in [Operation::First, Operation::Stop, Operation::Again] {
        ours_at_once(bench, recorder, &names, operation).await?;
    }
    let asked = at_once(cluster, &names, |cluster, name| async move {
        cluster.delete(&name).await
    });
    for (of, since) in asked.await? {
        journal.reached(&of, Role::Object, State::Gone, since).await?;
        journal.forget(&of);
    }
    Ok(())
}

/// What is done to all objects of a burst.
#[derive(Clone, Copy)]
enum Operation {
    First,
    Stop,
    Again,
}

async fn ours_at_once(
    bench: &Bench,
    recorder: &mut Recorder,
    names: &[String],
    operation: Operation,
) -> Result<()> {
    let (name, reference) = operation.series();
    let before = bench.meters.read().await?;
    let asked = at_once(&bench.cluster, names, move |cluster, name| async move {
        match operation {
            Operation::First => cluster.create(&name).await,
            Operation::Stop => cluster.set_running(&name, false).await,
            Operation::Again => cluster.set_running(&name, true).await,
        }
    });
    let asked = asked.await?;
    let (role, state) = operation.end();
    for (of, since) in &asked {
        let at = bench.journal.reached(of, role, state, *since).await?;
        recorder.add(name, Some(reference), seconds(*since, at));
    }
    for (of, since) in &asked {
        for (role, state) in operation.settled() {
            bench.journal.reached(of, *role, *state, *since).await?;
        }
        recorder.add_burst_steps(name, bench.journal.steps(of, *since));
    }
    let spent = bench.meters.read().await?.since(&before);
    recorder.add_work(name, u32::try_from(names.len())?, spent);
    Ok(())
}

// === impl Operation ===

impl Operation {
    /// The names of its series and of the reference.
    fn series(self) -> (&'static str, &'static str) {
        match self {
            Self::First => (series::BURST_FIRST, series::BURST_PLAIN_START),
            Self::Stop => (series::BURST_STOP, series::BURST_PLAIN_STOP),
            Self::Again => (series::BURST_AGAIN, series::BURST_PLAIN_START),
        }
    }

    /// When it is done.
    fn end(self) -> (Role, State) {
        match self {
            Self::First | Self::Again => (Role::Object, State::Ready),
            Self::Stop => (Role::Consumer, State::Gone),
        }
    }

    /// What follows, and belongs to it.
    fn settled(self) -> &'static [(Role, State)] {
        match self {
            Self::First => &[(Role::Object, State::Settled), (Role::Placeholder, State::Gone)],
            Self::Stop => &[(Role::Object, State::Stopped)],
            Self::Again => &[],
        }
    }
}

/// Sends a request for each name at the same time. Returns the names and the times before their
/// requests.
async fn at_once<F>(
    cluster: &Cluster,
    names: &[String],
    request: impl Fn(Cluster, String) -> F,
) -> Result<Vec<(String, Instant)>>
where
    F: Future<Output = Result<Instant>> + Send + 'static,
{
    let mut requests = JoinSet::new();
    for name in names {
        let name = name.clone();
        let request = request(cluster.clone(), name.clone());
        requests.spawn(async move { request.await.map(|asked| (name, asked)) });
    }
    let mut asked = Vec::new();
    while let Some(request) = requests.join_next().await {
        asked.push(request.context("a request panicked")??);
    }
    Ok(asked)
}

/// Changes of the StoppableContainer and its instance so far.
fn changes(journal: &Journal, name: &str) -> u32 {
    journal.changes(name, Role::Instance) + journal.changes(name, Role::Object)
}

fn seconds(from: Instant, to: Instant) -> f64 {
    to.duration_since(from).as_secs_f64()
}
