//! `list`: a table of containers.

use std::collections::BTreeMap;

use clap::Args;
use futures::{StreamExt, pin_mut};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use serde::Deserialize;
use serde_json::Value;
use stoppablecontainer_api::conditions::READY;
use stoppablecontainer_api::names::{LABEL_ROLE, ROLE_CONSUMER};
use stoppablecontainer_api::{Phase, StoppableContainer};

use crate::explain;
use crate::failure::Failure;
use crate::jsonpath::{cell, column};
use crate::output::{self, Format};
use crate::select::{Chosen, Selection, fetch_values};
use crate::session::Session;
use crate::table::{Row, Tone, render};
use crate::{units, view};

/// Arguments of `list`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  kubectl stopc list\n  kubectl stopc list -A --phase failed\n  kubectl stopc list \
                        -l app=web -o wide\n  kubectl stopc list --sort-by used -w"
)]
pub struct ListArgs {
    /// Which containers. Default: all of the namespace.
    #[command(flatten)]
    pub selection: Selection,
    /// Format: wide, json, yaml, name, jsonpath=TEMPLATE or custom-columns=HEADER:PATH,...
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<Format>,
    /// Only containers in this phase: running, stopped, pending, providerready, failed, deleting.
    #[arg(long, value_name = "PHASE", value_parser = phase_name)]
    pub phase: Option<String>,
    /// Sorts by a column (name, phase, node, used, age) or a path (.metadata.creationTimestamp).
    #[arg(long, value_name = "COLUMN", default_value = "name")]
    pub sort_by: SortBy,
    /// Prints a line for each change, until it is interrupted.
    #[arg(short, long)]
    pub watch: bool,
    /// Leaves the header out.
    #[arg(long)]
    pub no_headers: bool,
}

/// What to sort by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SortBy {
    /// By namespace and name.
    Name,
    /// By the phase.
    Phase,
    /// By the node.
    Node,
    /// By the disk usage, the largest first.
    Used,
    /// By the age, the oldest first.
    Age,
    /// By the text at a path.
    Path(String),
}

/// Start times of the pods, by namespace and name.
type Starts = BTreeMap<(String, String), Timestamp>;

/// An object as the API server sent it, and decoded.
struct Item {
    value: Value,
    object: StoppableContainer,
}

/// `list`
///
/// # Errors
/// If the objects cannot be read.
pub async fn run(session: &mut Session, args: &ListArgs) -> Result<(), Failure> {
    let chosen = args.selection.chosen_or_all()?;
    let format = args.output.clone().unwrap_or_default();
    if args.watch {
        return watch(session, args, &chosen, &format).await;
    }
    let (values, mut failures) = fetch_values(session, &chosen, "list").await?;
    let mut items = Vec::new();
    for value in values {
        match Item::of(value) {
            Ok(item) => items.push(item),
            Err(failure) => failures.push(failure),
        }
    }
    select(&mut items, args);
    if !format.is_table() {
        let single = matches!(&chosen, Chosen::Names(names) if names.len() == 1);
        let values = items.into_iter().map(|item| item.value).collect();
        let text = output::objects(&format, values, single)?;
        session.screen.print_raw(&text);
        return Failure::all(failures);
    }
    if items.is_empty() {
        if failures.is_empty() {
            let text = nothing(args, &session.namespace);
            session.screen.note(&text);
        }
        return Failure::all(failures);
    }
    let starts = if format == Format::Wide {
        starts(session, &chosen).await
    } else {
        Starts::new()
    };
    let view = TableView {
        wide: format == Format::Wide,
        namespaces: args.selection.all_namespaces,
        now: Timestamp::now(),
    };
    let objects: Vec<_> = items.into_iter().map(|item| item.object).collect();
    let text = view.table(&objects, &starts);
    session.screen.print(if args.no_headers {
        without_header(&text)
    } else {
        &text
    });
    Failure::all(failures)
}

/// The sentence instead of an empty table.
fn nothing(args: &ListArgs, namespace: &str) -> String {
    let place = if args.selection.all_namespaces {
        "in any namespace".to_owned()
    } else {
        format!("in namespace {namespace}")
    };
    let kind = if args.phase.is_some() || args.selection.selector.is_some() {
        "No such containers"
    } else {
        "No containers"
    };
    format!("{kind} {place}. Create one with: kubectl stopc create NAME --image IMAGE")
}

/// Filters and sorts.
fn select(items: &mut Vec<Item>, args: &ListArgs) {
    if let Some(phase) = &args.phase {
        items.retain(|item| view::phase_text(&item.object).eq_ignore_ascii_case(phase));
    }
    items.sort_by_key(|item| (item.object.namespace(), item.object.name_any()));
    match &args.sort_by {
        SortBy::Name => {}
        SortBy::Phase => items.sort_by_key(|item| view::phase_text(&item.object)),
        SortBy::Node => items.sort_by_key(|item| node(&item.object).to_owned()),
        SortBy::Used => items.sort_by_key(|item| std::cmp::Reverse(view::used(&item.object))),
        SortBy::Age => items.sort_by_key(|item| created(&item.object)),
        SortBy::Path(path) => items.sort_by_key(|item| cell(path, &item.value)),
    }
}

fn node(object: &StoppableContainer) -> &str {
    object
        .status
        .as_ref()
        .and_then(|status| status.node_name.as_deref())
        .unwrap_or("<none>")
}

fn created(object: &StoppableContainer) -> Option<Timestamp> {
    object.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

/// Start times of the pods; empty if they cannot be read.
async fn starts(session: &Session, chosen: &Chosen) -> Starts {
    let everywhere = matches!(
        chosen,
        Chosen::Query {
            all_namespaces: true,
            ..
        }
    );
    let pods: Api<Pod> = if everywhere {
        Api::all(session.client.clone())
    } else {
        session.api(&session.namespace)
    };
    let params = ListParams::default().labels(&format!("{LABEL_ROLE}={ROLE_CONSUMER}"));
    let Ok(pods) = pods.list(&params).await else {
        return Starts::new();
    };
    let start = |pod: Pod| {
        let time = pod.status.as_ref()?.start_time.as_ref()?.0;
        Some(((pod.namespace().unwrap_or_default(), pod.name_any()), time))
    };
    pods.items.into_iter().filter_map(start).collect()
}

async fn watch(
    session: &mut Session,
    args: &ListArgs,
    chosen: &Chosen,
    format: &Format,
) -> Result<(), Failure> {
    let (config, everywhere) = match chosen {
        Chosen::Names(names) => match names.as_slice() {
            [name] => (
                watcher::Config::default().fields(&format!("metadata.name={name}")),
                false,
            ),
            _ => (watcher::Config::default(), false),
        },
        Chosen::Query {
            selector,
            all_namespaces,
        } => {
            let labels = selector.as_deref().unwrap_or_default();
            (watcher::Config::default().labels(labels), *all_namespaces)
        }
    };
    let api: Api<StoppableContainer> = if everywhere {
        Api::all(session.client.clone())
    } else {
        session.containers(&session.namespace)
    };
    let mut known = Known::default();
    let changes = watcher::watcher(api, config).default_backoff();
    pin_mut!(changes);
    loop {
        let change = tokio::select! {
            change = changes.next() => change,
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        let event = match change {
            Some(Ok(event)) => event,
            Some(Err(error)) if known.listed => {
                session.screen.note(&explain::watch("watch", &error).to_string());
                continue;
            }
            Some(Err(error)) => return Err(explain::watch("watch", &error)),
            None => return Ok(()),
        };
        let view = TableView {
            wide: *format == Format::Wide,
            namespaces: everywhere,
            now: Timestamp::now(),
        };
        if let Some(printed) = known.take(event, |object| is_selected(object, args, chosen)) {
            let text = match printed {
                _ if !format.is_table() => {
                    let objects = printed.objects().iter().map(serde_json::to_value);
                    output::objects(format, objects.filter_map(Result::ok).collect(), true)?
                }
                Printed::All(objects) if args.no_headers => {
                    without_header(&view.table(&objects, &Starts::new())).to_owned()
                }
                Printed::All(objects) => view.table(&objects, &Starts::new()),
                Printed::Last(objects) => {
                    let table = view.table(&objects, &Starts::new());
                    table.lines().last().unwrap_or_default().to_owned()
                }
            };
            session.screen.print(text.trim_end());
        }
    }
}

fn is_selected(object: &StoppableContainer, args: &ListArgs, chosen: &Chosen) -> bool {
    let named = match chosen {
        Chosen::Names(names) => names.contains(&object.name_any()),
        Chosen::Query { .. } => true,
    };
    let phase = args.phase.as_ref();
    named && phase.is_none_or(|phase| view::phase_text(object).eq_ignore_ascii_case(phase))
}

/// The objects of a watch: columns are as wide as all of them need.
#[derive(Default)]
struct Known {
    objects: BTreeMap<(String, String), StoppableContainer>,
    listed: bool,
}

/// What to print of them.
enum Printed {
    /// The table.
    All(Vec<StoppableContainer>),
    /// The row of the last one, as wide as in the table of all.
    Last(Vec<StoppableContainer>),
}

// === impl Item ===

impl Item {
    fn of(value: Value) -> Result<Self, Failure> {
        match StoppableContainer::deserialize(&value) {
            Ok(object) => Ok(Self { value, object }),
            Err(error) => {
                let name = value["metadata"]["name"].as_str().unwrap_or_default();
                Err(Failure::failed(format!(
                    "{name}: this version of the plugin cannot read the object ({error}); kubectl get stopc {name} -o \
                     yaml"
                )))
            }
        }
    }
}

// === impl Known ===

impl Known {
    fn take(
        &mut self,
        event: watcher::Event<StoppableContainer>,
        is_selected: impl Fn(&StoppableContainer) -> bool,
    ) -> Option<Printed> {
        use watcher::Event;
        let key = |object: &StoppableContainer| (object.namespace().unwrap_or_default(), object.name_any());
        match event {
            Event::Init => None,
            Event::InitDone if self.listed => None,
            Event::InitDone => {
                self.listed = true;
                let objects: Vec<_> = self.objects.values().cloned().collect();
                (!objects.is_empty()).then_some(Printed::All(objects))
            }
            Event::Delete(object) => {
                self.objects.remove(&key(&object));
                None
            }
            Event::InitApply(object) | Event::Apply(object) if !is_selected(&object) => {
                self.objects.remove(&key(&object));
                None
            }
            Event::InitApply(object) if !self.listed => {
                self.objects.insert(key(&object), object);
                None
            }
            Event::InitApply(object) | Event::Apply(object) => {
                self.objects.remove(&key(&object));
                let others = self.objects.values().cloned();
                let all = others.chain([object.clone()]).collect();
                let is_first = self.objects.is_empty();
                self.objects.insert(key(&object), object);
                Some(if is_first {
                    Printed::All(all)
                } else {
                    Printed::Last(all)
                })
            }
        }
    }
}

// === impl Printed ===

impl Printed {
    /// The objects without those that only widen the columns.
    fn objects(&self) -> &[StoppableContainer] {
        match self {
            Self::All(objects) => objects,
            Self::Last(objects) => &objects[objects.len().saturating_sub(1)..],
        }
    }
}

fn without_header(table: &str) -> &str {
    table.split_once('\n').map_or("", |(_, rows)| rows)
}

/// How the table looks.
#[derive(Clone, Copy, Debug)]
struct TableView {
    wide: bool,
    namespaces: bool,
    now: Timestamp,
}

// === impl TableView ===

impl TableView {
    fn table(self, objects: &[StoppableContainer], starts: &Starts) -> String {
        let mut header = Vec::new();
        if self.namespaces {
            header.push("NAMESPACE");
        }
        header.extend(["NAME", "PHASE", "READY", "NODE", "USED", "AGE"]);
        if self.wide {
            header.extend(["IMAGE", "LIMIT", "LAST-START"]);
        }
        header.push("REASON");
        let rows: Vec<_> = objects.iter().map(|object| self.row(object, starts)).collect();
        render(&header, &rows)
    }

    fn row(self, object: &StoppableContainer, starts: &Starts) -> Row {
        let age = |time: Option<Timestamp>| {
            time.map_or_else(|| "<unknown>".to_owned(), |t| units::age(t, self.now))
        };
        let mut cells = Vec::new();
        if self.namespaces {
            cells.push(object.namespace().unwrap_or_default());
        }
        let ready = view::condition(object, READY).map_or("Unknown", |condition| &condition.status);
        cells.extend([
            object.name_any(),
            view::phase_text(object).to_owned(),
            ready.to_owned(),
            node(object).to_owned(),
            view::used(object).map_or_else(|| "<unknown>".to_owned(), units::bytes_in_column),
            age(created(object)),
        ]);
        if self.wide {
            let main = object.spec.template.main();
            let key = (object.namespace().unwrap_or_default(), object.name_any());
            cells.extend([
                main.image.clone(),
                main.storage_limit.clone().unwrap_or_else(|| "<none>".to_owned()),
                starts
                    .get(&key)
                    .map_or_else(|| "<none>".to_owned(), |time| units::age(*time, self.now)),
            ]);
        }
        cells.push(view::reason_text(object).to_owned());
        Row {
            cells,
            tone: tone(object),
        }
    }
}

fn tone(object: &StoppableContainer) -> Tone {
    if view::phase(object) == Some(Phase::Failed) {
        Tone::Bad
    } else if view::is_as_requested(object) && view::cause(object).is_none() {
        Tone::Plain
    } else {
        Tone::Attention
    }
}

fn phase_name(text: &str) -> Result<String, String> {
    let known = [
        "Pending",
        "ProviderReady",
        "Running",
        "Stopped",
        "Failed",
        "Deleting",
        "Unknown",
    ];
    let found = known.into_iter().find(|phase| phase.eq_ignore_ascii_case(text));
    found
        .map(str::to_owned)
        .ok_or_else(|| format!("possible phases: {}", known.join(", ")))
}

impl std::str::FromStr for SortBy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "name" => Self::Name,
            "phase" => Self::Phase,
            "node" => Self::Node,
            "used" => Self::Used,
            "age" => Self::Age,
            path if path.starts_with(['.', '{']) => Self::Path(column(path)?),
            _ => {
                return Err(
                    "possible columns: name, phase, node, used, age, or a path such as .spec.running"
                        .to_owned(),
                );
            }
        })
    }
}

#[cfg(test)]
mod tests;
