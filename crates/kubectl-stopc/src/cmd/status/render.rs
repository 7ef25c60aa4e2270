//! The text of `status`. Pure.

use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use stoppablecontainer_api::conditions::{READY, RESTART_REQUIRED};
use stoppablecontainer_api::{Phase, StoppableContainer, whole_quantity};

use super::facts::{Facts, Step, steps, time};
use crate::table::{Row, Tone, render};
use crate::{units, view};

/// The whole text about one object.
pub(super) fn status(object: &StoppableContainer, facts: &Facts, now: Timestamp) -> String {
    let name = object.name_any();
    let namespace = object.namespace().unwrap_or_default();
    let mut lines = vec![format!("{namespace}/{name}")];
    let mut field = |label: &str, text: String| {
        if !text.is_empty() {
            lines.push(format!("  {:<9} {text}", format!("{label}:")));
        }
    };
    field("State", state(object));
    if let Some(cause) = view::cause(object) {
        field("Cause", view::line(cause));
        field("Next", view::advice(object, &cause.reason).unwrap_or_default());
    } else if view::phase(object) == Some(Phase::Stopped) {
        field("Next", format!("start it: kubectl stopc start {name}"));
    }
    if let Some(edited) = view::condition(object, RESTART_REQUIRED).filter(|c| c.status == "True") {
        let is_cause = view::cause(object).is_some_and(|cause| cause.type_ == RESTART_REQUIRED);
        let text = format!("{}; kubectl stopc restart {name}", edited.message);
        field("Restart", if is_cause { String::new() } else { text });
    }
    field("Image", object.spec.template.main().image.clone());
    field("Files", files(object));
    let created = object.metadata.creation_timestamp.as_ref();
    field(
        "Age",
        created.map_or_else(String::new, |time| units::age(time.0, now)),
    );
    let steps = steps(object, facts.pod.as_ref(), facts.provider.as_ref());
    if !steps.is_empty() {
        lines.push("  Last start:".to_owned());
        lines.extend(indented(&step_table(&steps)));
    }
    if !facts.events.is_empty() {
        lines.push("  Events:".to_owned());
        lines.extend(indented(&event_table(&facts.events, now)));
    }
    for missing in &facts.missing {
        lines.push(format!("  Not shown: {missing}"));
    }
    lines.join("\n")
}

/// What it does, in words and with the colour of success.
fn state(object: &StoppableContainer) -> String {
    let phase = view::phase_text(object);
    let node = object
        .status
        .as_ref()
        .and_then(|status| status.node_name.as_deref());
    let place = node.map_or_else(String::new, |node| format!(" on {node}"));
    let wanted = if object.spec.running { "running" } else { "stopped" };
    if view::is_as_requested(object) {
        let text = match view::phase(object) {
            Some(Phase::Running) => format!("Running{place}, ready"),
            _ => format!("Stopped, files kept{place}"),
        };
        return Tone::Good.paint(&text);
    }
    let current = if view::is_current(object) {
        ""
    } else {
        ", the controller has not seen the last change yet"
    };
    let ready = if view::phase(object) == Some(Phase::Running) && !view::is_true(object, READY) {
        ", not ready"
    } else {
        ""
    };
    let tone = if view::phase(object) == Some(Phase::Failed) {
        Tone::Bad
    } else {
        Tone::Attention
    };
    tone.paint(&format!("{phase}{place}{ready} (requested: {wanted}){current}"))
}

fn files(object: &StoppableContainer) -> String {
    let usage = object.status.as_ref().and_then(|status| status.filesystem?.usage);
    let Some(usage) = usage else {
        return "not measured yet".to_owned();
    };
    let entries = format!("{} in {} entries", units::bytes(usage.bytes), usage.inodes);
    let limit = object.spec.template.main().storage_limit.as_deref();
    match limit.and_then(|limit| Some((limit, whole_quantity(limit).filter(|limit| *limit > 0)?))) {
        Some((limit, most)) => format!("{entries}, {}% of the limit {limit}", percent(usage.bytes, most)),
        None => entries,
    }
}

/// A share in percent, rounded down.
pub(crate) fn percent(part: i64, whole: i64) -> i128 {
    i128::from(part) * 100 / i128::from(whole.max(1))
}

fn step_table(steps: &[Step]) -> String {
    let mut before = steps.first().map(|step| step.at);
    let rows: Vec<_> = steps
        .iter()
        .map(|step| {
            let since = before.map_or(0, |before| before.duration_until(step.at).as_secs());
            before = Some(step.at);
            Row::plain([
                step.at.strftime("%H:%M:%S").to_string(),
                format!("+{since}s"),
                step.name.to_owned(),
            ])
        })
        .collect();
    render(&["UTC", "TIME", "STEP"], &rows)
}

fn event_table(events: &[Event], now: Timestamp) -> String {
    let rows: Vec<_> = events
        .iter()
        .map(|event| {
            let about = event.regarding.as_ref();
            let count = event
                .series
                .as_ref()
                .map(|series| series.count)
                .or(event.deprecated_count)
                .filter(|count| *count > 1)
                .map_or_else(String::new, |count| format!(" (x{count})"));
            let warning = event.type_.as_deref() == Some("Warning");
            Row {
                cells: vec![
                    time(event).map_or_else(|| "<unknown>".to_owned(), |time| units::age(time, now)),
                    event.type_.clone().unwrap_or_default(),
                    about.map_or_else(String::new, |about| {
                        let kind = about.kind.clone().unwrap_or_default();
                        format!("{kind}/{}", about.name.clone().unwrap_or_default())
                    }),
                    event.reason.clone().unwrap_or_default(),
                    format!("{}{count}", event.note.clone().unwrap_or_default()),
                ],
                tone: if warning { Tone::Attention } else { Tone::Plain },
            }
        })
        .collect();
    render(&["AGE", "TYPE", "OBJECT", "REASON", "MESSAGE"], &rows)
}

fn indented(text: &str) -> impl Iterator<Item = String> {
    text.lines().map(|line| format!("    {line}"))
}

#[cfg(test)]
mod tests;
