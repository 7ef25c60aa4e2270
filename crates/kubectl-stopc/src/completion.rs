/*!
Completion of the command line.

kubectl runs `kubectl_complete-stopc WORDS...` when the user presses TAB behind `kubectl stopc`, and
reads candidates with their descriptions, one per line, and a directive.
*/

use std::ffi::{OsStr, OsString};
use std::sync::OnceLock;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches};
use clap_complete::engine::CompletionCandidate;
use kube::ResourceExt;
use kube::api::ListParams;
use stoppablecontainer_api::StoppableContainer;

use crate::args::Args;
use crate::names::look_up_with;
use crate::screen::Screen;
use crate::session::Connection;

/// The directive of the cobra library for "do not complete files".
const NO_FILES: &str = ":4";
/// The directive for "complete as usual", which are files.
const DEFAULT: &str = ":0";
/// Time limit for the names of containers: a shell must not hang.
const PATIENCE: Duration = Duration::from_secs(2);

/// The words of the command line that is completed, without the program's name.
static WORDS: OnceLock<Vec<OsString>> = OnceLock::new();

/// What kubectl expects for these words; the last one is being typed.
pub fn complete(words: Vec<OsString>) -> String {
    let words = WORDS.get_or_init(|| words);
    look_up_with(names);
    let mut line = vec![OsString::from("kubectl-stopc")];
    line.extend(words.iter().cloned());
    if words.is_empty() {
        line.push(OsString::new());
    }
    let index = line.len() - 1;
    let typed = line[index].clone();
    let mut command = Args::command();
    let found = clap_complete::engine::complete(&mut command, line, index, None).unwrap_or_default();
    answer(&found, &typed)
}

/// The candidates in the format of kubectl. Options are only offered when one is being typed.
fn answer(found: &[CompletionCandidate], typed: &OsStr) -> String {
    let is_option = |text: &OsStr| text.to_string_lossy().starts_with('-');
    let shown = found
        .iter()
        .filter(|candidate| !candidate.is_hide_set())
        .filter(|candidate| is_option(typed) || !is_option(candidate.get_value()));
    let mut lines: Vec<_> = shown
        .map(|candidate| {
            let value = candidate.get_value().to_string_lossy();
            match candidate.get_help() {
                Some(help) => format!("{value}\t{}", help.to_string().lines().next().unwrap_or_default()),
                None => value.into_owned(),
            }
        })
        .collect();
    lines.push(if found.is_empty() { DEFAULT } else { NO_FILES }.to_owned());
    lines.join("\n")
}

/// Names of containers in the cluster and namespace of the command line, with their phases.
fn names(typed: &str) -> Vec<CompletionCandidate> {
    let Some(connection) = WORDS.get().and_then(|words| connection(words)) else {
        return Vec::new();
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    // Without an answer there is nothing to complete.
    let listed = runtime
        .ok()
        .and_then(|runtime| runtime.block_on(list(&connection)));
    let names = listed.into_iter().flatten().map(|object| {
        let phase = crate::view::phase_text(&object);
        CompletionCandidate::new(object.name_any()).help(Some(phase.into()))
    });
    names
        .filter(|candidate| candidate.get_value().to_string_lossy().starts_with(typed))
        .collect()
}

async fn list(connection: &Connection) -> Option<Vec<StoppableContainer>> {
    let listed = tokio::time::timeout(PATIENCE, async {
        let screen = Screen::new(std::io::sink(), std::io::sink(), None);
        let session = connection.open(screen).await.ok()?;
        let containers = session.containers(&session.namespace);
        containers.list(&ListParams::default()).await.ok()
    });
    Some(listed.await.ok()??.items)
}

/// The flags that name the cluster, from a command line that is not complete yet.
fn connection(words: &[OsString]) -> Option<Connection> {
    let (_, whole) = words.split_last()?;
    let line = std::iter::once(OsString::from("kubectl-stopc")).chain(whole.iter().cloned());
    let matches = Args::command()
        .ignore_errors(true)
        .try_get_matches_from(line)
        .ok()?;
    Connection::from_arg_matches(&matches).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(words: &[&str]) -> Vec<String> {
        let mut line = vec![OsString::from("kubectl-stopc")];
        line.extend(words.iter().map(OsString::from));
        let index = line.len() - 1;
        let typed = line[index].clone();
        let found = clap_complete::engine::complete(&mut Args::command(), line, index, None).unwrap();
        answer(&found, &typed).lines().map(str::to_owned).collect()
    }

    #[test]
    fn commands_are_completed_with_their_descriptions() {
        let found = candidates(&["st"]);
        assert_eq!(found.last().map(String::as_str), Some(":4"));
        for command in ["start\t", "stop\t", "status\t"] {
            assert!(
                found.iter().any(|line| line.starts_with(command)),
                "{command} {found:?}"
            );
        }
    }

    #[test]
    fn options_and_their_values_are_completed() {
        let found = candidates(&["wait", "--for", ""]);
        assert!(found.iter().any(|line| line.starts_with("ready")), "{found:?}");
        let found = candidates(&["stop", "--gr"]);
        assert!(
            found.iter().any(|line| line.starts_with("--grace-period")),
            "{found:?}"
        );
        let found = candidates(&["stop", ""]);
        assert!(!found.iter().any(|line| line.starts_with("--")), "{found:?}");
    }

    #[test]
    fn names_are_looked_up_where_the_flags_say() {
        let words = ["stop", "-n", "team", "--context=prod", "we"].map(OsString::from);
        let connection = connection(&words).unwrap();
        assert_eq!(connection.namespace.as_deref(), Some("team"));
        assert_eq!(connection.context.as_deref(), Some("prod"));
    }
}
