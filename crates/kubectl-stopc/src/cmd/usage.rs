//! `du` and `top`: the disk usage of the kept files, as the agents measured it. `du` of directories
//! is in `files`.

use clap::Args;
use kube::ResourceExt;
use stoppablecontainer_api::{FilesystemUsage, StoppableContainer, whole_quantity};

use crate::failure::Failure;
use crate::select::{Selection, display_name, fetch};
use crate::session::Session;
use crate::table::{Row, Tone, render};
use crate::units;

use super::files;
use super::status::percent;

/// Arguments of `du`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  kubectl stopc du web\n  kubectl stopc du --bytes | sort -n\n  kubectl stopc du web \
                  --depth 2\n  kubectl stopc du web /var --depth 1 --bytes | sort -n"
)]
pub struct DuArgs {
    /// Which containers. Default: all of the namespace.
    #[command(flatten)]
    pub selection: Selection,
    /// Lists this number of directories below a path, each with all below it: `du NAME --depth
    /// NUMBER [PATH]`. The path is absolute. [default: / for PATH, and 0 with a PATH]
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["selector", "all", "all_namespaces"])]
    pub depth: Option<u32>,
    /// Prints bytes instead of KiB, MiB and GiB.
    #[arg(short, long)]
    pub bytes: bool,
}

/// Arguments of `top`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:\n  kubectl stopc top -A")]
pub struct TopArgs {
    /// Which containers. Default: all of the namespace.
    #[command(flatten)]
    pub selection: Selection,
}

/// `du`
///
/// # Errors
/// If the objects cannot be read.
pub async fn du(session: &mut Session, args: &DuArgs) -> Result<(), Failure> {
    if let Some((name, path, depth)) = directories(args)? {
        return files::du(session, name, path, depth, args.bytes).await;
    }
    let chosen = args.selection.chosen_or_all()?;
    let (objects, failures) = fetch(session, &chosen, "read").await?;
    let text = lines(&objects, args.bytes, &session.namespace);
    session.screen.print_raw(&text);
    Failure::all(failures)
}

/// `top`
///
/// # Errors
/// If the objects cannot be read.
pub async fn top(session: &mut Session, args: &TopArgs) -> Result<(), Failure> {
    let chosen = args.selection.chosen_or_all()?;
    let (objects, failures) = fetch(session, &chosen, "read").await?;
    if objects.is_empty() && failures.is_empty() {
        session.screen.note("No containers.");
    } else {
        let text = table(objects, args.selection.all_namespaces);
        session.screen.print(&text);
    }
    Failure::all(failures)
}

/// The container, the path and the depth, if directories are asked for. A word that begins with a
/// slash is a path, as no name does.
fn directories(args: &DuArgs) -> Result<Option<(&str, &str, u32)>, Failure> {
    let words = &args.selection.names;
    let (paths, names): (Vec<_>, Vec<_>) = words.iter().partition(|word| word.starts_with('/'));
    if args.depth.is_none() && paths.is_empty() {
        return Ok(None);
    }
    match (&names[..], &paths[..]) {
        ([name], []) => Ok(Some((name, "/", args.depth.unwrap_or_default()))),
        ([name], [path]) => Ok(Some((name, path, args.depth.unwrap_or_default()))),
        _ => Err(Failure::usage(
            "the directories of one container at a time: kubectl stopc du NAME --depth NUMBER [PATH]",
        )),
    }
}

fn usage(object: &StoppableContainer) -> Option<FilesystemUsage> {
    object.status.as_ref()?.filesystem?.usage
}

/// A line for each container in the form of du(1).
fn lines(objects: &[StoppableContainer], bytes: bool, namespace: &str) -> String {
    let line = |object: &StoppableContainer| {
        let size = match usage(object) {
            None => "?".to_owned(),
            Some(usage) if bytes => usage.bytes.to_string(),
            Some(usage) => units::bytes_in_column(usage.bytes),
        };
        format!("{size}\t{}\n", display_name(object, namespace))
    };
    objects.iter().map(line).collect()
}

fn table(mut objects: Vec<StoppableContainer>, namespaces: bool) -> String {
    objects.sort_by_key(|object| std::cmp::Reverse(usage(object).map(|usage| usage.bytes)));
    let mut header = vec!["NAME", "USED", "ENTRIES", "LIMIT", "LIMIT%", "NODE"];
    if namespaces {
        header.insert(0, "NAMESPACE");
    }
    let unknown = || "<unknown>".to_owned();
    let row = |object: &StoppableContainer| {
        let usage = usage(object);
        let limit = object.spec.template.main().storage_limit.clone();
        let most = limit.as_deref().and_then(whole_quantity);
        let share = usage.zip(most).map(|(usage, most)| percent(usage.bytes, most));
        let mut cells = vec![
            object.name_any(),
            usage.map_or_else(unknown, |usage| units::bytes_in_column(usage.bytes)),
            usage.map_or_else(unknown, |usage| usage.inodes.to_string()),
            limit.unwrap_or_else(|| "<none>".to_owned()),
            share.map_or_else(String::new, |share| format!("{share}%")),
            object
                .status
                .as_ref()
                .and_then(|status| status.node_name.clone())
                .unwrap_or_else(|| "<none>".to_owned()),
        ];
        if namespaces {
            cells.insert(0, object.namespace().unwrap_or_default());
        }
        Row {
            cells,
            tone: match share {
                Some(100..) => Tone::Bad,
                Some(90..) => Tone::Attention,
                _ => Tone::Plain,
            },
        }
    };
    let rows: Vec<_> = objects.iter().map(row).collect();
    render(&header, &rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::view::fixtures::{running, stopped, value};

    #[test]
    fn du_prints_a_line_each() {
        let mut unmeasured = stopped();
        unmeasured.status = None;
        let objects = [running(), unmeasured];
        assert_eq!(lines(&objects, false, "team"), "1.5KiB\tweb\n?\tweb\n");
        assert_eq!(lines(&objects[..1], true, "other"), "1536\tteam/web\n");
    }

    #[test]
    fn a_path_or_a_depth_asks_for_directories_of_one_container() {
        let args = |words: &[&str], depth| DuArgs {
            selection: Selection {
                names: words.iter().map(|word| (*word).to_owned()).collect(),
                ..Selection::default()
            },
            depth,
            bytes: false,
        };
        let found = |words: &[&str], depth| {
            let args = args(words, depth);
            let found = directories(&args).unwrap();
            found.map(|(name, path, depth)| format!("{name} {path} {depth}"))
        };
        assert_eq!(found(&["web", "db"], None), None);
        assert_eq!(found(&["web"], Some(2)).unwrap(), "web / 2");
        assert_eq!(found(&["web", "/var"], Some(1)).unwrap(), "web /var 1");
        assert_eq!(found(&["stopc/web", "/var"], None).unwrap(), "stopc/web /var 0");
        for (words, depth) in [
            (&["web", "db"][..], Some(1)),
            (&["/var"], None),
            (&["web", "/a", "/b"], None),
        ] {
            assert_eq!(
                directories(&args(words, depth)).unwrap_err().exit_code(),
                2,
                "{words:?}"
            );
        }
    }

    #[test]
    fn top_has_the_largest_first_with_their_shares() {
        let mut large = value(true, "Running", &[]);
        large["metadata"]["name"] = json!("db");
        large["status"]["filesystem"]["usage"] = json!({ "bytes": 3072, "inodes": 40 });
        large["spec"]["template"]["spec"]["containers"][0]["resources"] =
            json!({ "limits": { "ephemeral-storage": "2Ki" } });
        let large = serde_json::from_value(large).unwrap();
        let text = table(vec![running(), large], false);
        assert_eq!(
            anstream::adapter::strip_str(&text).to_string(),
            "\
NAME   USED     ENTRIES   LIMIT    LIMIT%   NODE
db     3.0KiB   40        2Ki      150%     node1
web    1.5KiB   12        <none>            node1"
        );
    }
}
