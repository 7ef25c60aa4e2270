/*!
`diff`, and `du` of directories: what the node agent finds in the kept files.

The plugin has kubectl execute the wrapper in the provider pod, which exists while the container is
stopped, too. So the cluster decides by its own permissions for `pods/exec` who may do this.
*/

mod agent;
mod tables;
mod usage;

use clap::Args;
use kept_files::Request;
use kept_files::listing::Change;
use kept_files::path::escape;
use kept_files::request::Place;
use kube::ResourceExt;
use serde_json::json;

use crate::failure::Failure;
use crate::names;
use crate::output::{self, Format};
use crate::session::Session;

use super::inside;

pub(super) use self::usage::du;

/// Arguments of `diff`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  kubectl stopc diff web\n  kubectl stopc diff web /etc\n  kubectl stopc diff web --depth 2 \
                  -o wide\n  kubectl stopc diff web -o jsonpath='{.changes[?(@.change==\"deleted\")].path}'"
)]
pub struct DiffArgs {
    /// Name of the container.
    #[arg(value_name = "NAME", add = names::completer())]
    pub name: String,
    /// Only this absolute path and what is below it.
    #[arg(value_name = "PATH", default_value = "/")]
    pub path: String,
    /// Lists this number of directories below the path, and sums up deeper changes.
    #[arg(long, value_name = "NUMBER")]
    pub depth: Option<u32>,
    /// Format: wide, json, yaml, name (only paths), jsonpath=TEMPLATE or
    /// custom-columns=HEADER:PATH,...
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<Format>,
}

/// `diff`
///
/// # Errors
/// If the files cannot be read, or not all of them.
pub async fn diff(session: &mut Session, args: &DiffArgs) -> Result<(), Failure> {
    let request = Request::Diff(place(&args.path, args.depth)?);
    let object = inside::get(session, &args.name).await?;
    let answer = agent::ask(session, &object, &request)?;
    let (mut changes, failure) = answer.lines(Change::parse)?;
    changes.sort_by(|one, other| one.path.cmp(&other.path));
    let changes = merged(changes);
    let format = args.output.clone().unwrap_or_default();
    let text = match &format {
        Format::Table | Format::Wide if changes.is_empty() => {
            if failure.is_none() {
                session.screen.note("No changes.");
            }
            String::new()
        }
        Format::Table => tables::changes(&changes),
        Format::Wide => tables::wide_changes(&changes),
        format => {
            let items = changes.iter().map(|change| {
                json!({
                    "change": change.kind.as_str(), "type": change.file_type.as_str(), "count": change.count,
                    "path": escape(&change.path),
                })
            });
            let whole = json!({
                "name": object.name_any(), "namespace": object.namespace(),
                "complete": failure.is_none(), "changes": items.collect::<Vec<_>>(),
            });
            output::listing(format, &whole, "changes", "path")?
        }
    };
    session.screen.print_raw(&text);
    failure.map_or(Ok(()), Err)
}

fn place(path: &str, depth: Option<u32>) -> Result<Place, Failure> {
    Place::new(path.as_bytes(), depth).map_err(|error| Failure::usage(format!("{path}: {error}")))
}

/// A path has one line, also if the agent found changes of it in two places.
fn merged(changes: Vec<Change>) -> Vec<Change> {
    let mut merged: Vec<Change> = Vec::with_capacity(changes.len());
    for change in changes {
        match merged.last_mut() {
            Some(last) if last.path == change.path => last.count += change.count,
            _ => merged.push(change),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_line() {
        let change = |line| Change::parse(line).unwrap();
        let found = merged(vec![
            change("added directory 2 /opt"),
            change("changed directory 1 /opt"),
            change("deleted file 1 /x"),
        ]);
        assert_eq!(
            found,
            [change("added directory 3 /opt"), change("deleted file 1 /x")]
        );
    }

    #[test]
    fn a_path_that_is_not_absolute_is_an_error_of_usage() {
        for path in ["etc", "/etc/../x", ""] {
            assert_eq!(place(path, None).unwrap_err().exit_code(), 2, "{path}");
        }
    }
}
