//! `status`: everything about a container on one screen.

mod facts;
mod render;

use clap::Args;
use futures::{StreamExt, pin_mut};
use jiff::Timestamp;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use serde::Deserialize;
use stoppablecontainer_api::StoppableContainer;

use crate::explain;
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::select::{Chosen, Selection, fetch, fetch_values};
use crate::session::Session;
use crate::view;

pub use facts::Facts;
pub(crate) use render::percent;

/// Moves the cursor to the top and clears the terminal. Removed where colours are.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// Arguments of `status`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  kubectl stopc status web\n  kubectl stopc status web -w\n  kubectl stopc status \
                        -l app=web -o jsonpath='{.items[*].status.phase}'"
)]
pub struct StatusArgs {
    /// Which containers. Default: all of the namespace.
    #[command(flatten)]
    pub selection: Selection,
    /// Prints the status again after each change, until it is interrupted.
    #[arg(short, long)]
    pub watch: bool,
    /// Format: json, yaml, name, jsonpath=TEMPLATE or custom-columns=HEADER:PATH,...
    #[arg(short, long, value_name = "FORMAT", conflicts_with = "watch")]
    pub output: Option<Format>,
}

/// `status`
///
/// # Errors
/// If a container is not as requested, or cannot be read.
pub async fn run(session: &mut Session, args: &StatusArgs) -> Result<(), Failure> {
    let chosen = args.selection.chosen_or_all()?;
    if args.watch {
        return watch(session, &chosen).await;
    }
    if let Some(format) = args.output.as_ref().filter(|format| !format.is_table()) {
        return formatted(session, &chosen, format).await;
    }
    let (objects, failures) = fetch(session, &chosen, "read").await?;
    if objects.is_empty() && failures.is_empty() {
        session.screen.note("No such containers.");
    }
    print(session, &objects).await;
    ended(&objects, failures)
}

/// The objects in a format of `-o`.
async fn formatted(session: &mut Session, chosen: &Chosen, format: &Format) -> Result<(), Failure> {
    let (values, failures) = fetch_values(session, chosen, "read").await?;
    let single = matches!(chosen, Chosen::Names(names) if names.len() == 1);
    let objects: Vec<_> = values
        .iter()
        .filter_map(|value| StoppableContainer::deserialize(value).ok())
        .collect();
    let text = output::objects(format, values, single)?;
    session.screen.print_raw(&text);
    ended(&objects, failures)
}

/// The exit code: not as requested is a failure, which the status explains already.
fn ended(objects: &[StoppableContainer], mut failures: Vec<Failure>) -> Result<(), Failure> {
    let others = objects.iter().filter(|object| !view::is_as_requested(object));
    failures.extend(others.map(|object| {
        let wanted = if view::is_deleting(object) {
            "being deleted"
        } else if object.spec.running {
            "not running as requested"
        } else {
            "not stopped as requested"
        };
        Failure::failed(format!("{} is {wanted}", object.name_any()))
    }));
    Failure::all(failures)
}

async fn print(session: &mut Session, objects: &[StoppableContainer]) {
    let now = Timestamp::now();
    let mut texts = Vec::new();
    for object in objects {
        let facts = Box::pin(Facts::read(session, object)).await;
        texts.push(render::status(object, &facts, now));
    }
    if !texts.is_empty() {
        session.screen.print(texts.join("\n\n").trim_end());
    }
}

async fn watch(session: &mut Session, chosen: &Chosen) -> Result<(), Failure> {
    let config = match chosen {
        Chosen::Names(names) if names.len() == 1 => {
            watcher::Config::default().fields(&format!("metadata.name={}", names[0]))
        }
        Chosen::Query {
            selector: Some(selector),
            ..
        } => watcher::Config::default().labels(selector),
        _ => watcher::Config::default(),
    };
    let everywhere = matches!(
        chosen,
        Chosen::Query {
            all_namespaces: true,
            ..
        }
    );
    let api: Api<StoppableContainer> = if everywhere {
        Api::all(session.client.clone())
    } else {
        session.containers(&session.namespace)
    };
    let events = watcher::watcher(api, config).default_backoff();
    pin_mut!(events);
    let mut listed = false;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        match event {
            Some(Ok(watcher::Event::Init | watcher::Event::InitApply(_))) => continue,
            Some(Ok(_)) => listed = true,
            Some(Err(error)) if listed => {
                session.screen.note(&explain::watch("watch", &error).to_string());
                continue;
            }
            Some(Err(error)) => return Err(explain::watch("watch", &error)),
            None => return Ok(()),
        }
        let (objects, failures) = fetch(session, chosen, "read").await?;
        session.screen.print_raw(CLEAR);
        print(session, &objects).await;
        Failure::all(failures)?;
    }
}
