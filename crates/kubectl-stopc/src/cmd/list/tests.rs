use clap::Parser;
use kube::ResourceExt;

use super::*;
use crate::view::fixtures::{object, running, stopped};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: ListArgs,
}

fn args(words: &[&str]) -> ListArgs {
    Line::parse_from([&["list"], words].concat()).args
}

fn view(wide: bool, namespaces: bool) -> TableView {
    TableView {
        wide,
        namespaces,
        now: "2026-01-01T00:03:20Z".parse().unwrap(),
    }
}

fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

fn failed() -> StoppableContainer {
    let mut object = object(
        true,
        "Failed",
        &[("Ready", "False", "FilesystemLost", "the data is not on node1")],
    );
    object.metadata.name = Some("api".to_owned());
    object.status.as_mut().unwrap().filesystem = None;
    object
}

#[test]
fn the_table_has_the_state_and_the_reason() {
    let table = view(false, false).table(&[failed(), running(), stopped()], &Starts::new());
    assert_eq!(
        plain(&table),
        "\
NAME   PHASE     READY   NODE    USED        AGE     REASON
api    Failed    False   node1   <unknown>   3m20s   FilesystemLost
web    Running   True    node1   1.5KiB      3m20s
web    Stopped   True    node1   1.5KiB      3m20s"
    );
    assert!(table.contains("\u{1b}[31mapi"), "a failed one is red");
}

#[test]
fn the_wide_table_has_image_limit_and_start() {
    let key = ("team".to_owned(), "web".to_owned());
    let starts = Starts::from([(key, "2026-01-01T00:03:00Z".parse().unwrap())]);
    let table = view(true, true).table(&[running()], &starts);
    assert_eq!(
        plain(&table),
        "\
NAMESPACE   NAME   PHASE     READY   NODE    USED     AGE     IMAGE        LIMIT    LAST-START   REASON
team        web    Running   True    node1   1.5KiB   3m20s   nginx:1.25   <none>   20s"
    );
}

#[test]
fn phases_filter_and_columns_sort() {
    let names = |words: &[&str]| {
        let mut items: Vec<_> = [stopped(), failed()]
            .map(|object| Item::of(serde_json::to_value(object).unwrap()).unwrap())
            .into();
        select(&mut items, &args(words));
        items
            .into_iter()
            .map(|item| item.object.name_any())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&[]), ["api", "web"]);
    assert_eq!(names(&["--phase", "failed"]), ["api"]);
    assert_eq!(names(&["--sort-by", "used"]), ["web", "api"]);
    assert_eq!(names(&["--sort-by", ".spec.running"]), ["web", "api"]);
    assert!(Line::try_parse_from(["list", "--phase", "asleep"]).is_err());
    assert!(Line::try_parse_from(["list", "--sort-by", "colour"]).is_err());
}

#[test]
fn an_object_that_cannot_be_read_is_named() {
    let mut value = serde_json::to_value(running()).unwrap();
    value["status"]["phase"] = serde_json::json!("Hibernated");
    let Err(failure) = Item::of(value) else {
        panic!("read")
    };
    assert!(
        failure
            .to_string()
            .starts_with("web: this version of the plugin cannot read"),
        "{failure}"
    );
}

#[test]
fn an_empty_list_says_where_it_looked() {
    assert_eq!(
        nothing(&args(&[]), "team"),
        "No containers in namespace team. Create one with: kubectl stopc create NAME --image IMAGE"
    );
    assert!(
        nothing(&args(&["-A", "--phase", "failed"]), "team")
            .starts_with("No such containers in any namespace")
    );
}

#[test]
fn a_watch_prints_the_table_once_and_then_the_rows_that_change() {
    use watcher::Event;
    let mut known = Known::default();
    let mut take = |event| match known.take(event, |_| true) {
        None => String::new(),
        Some(Printed::All(all)) => format!("all {}", all.len()),
        Some(Printed::Last(all)) => format!("last of {}: {}", all.len(), all[all.len() - 1].name_any()),
    };
    assert_eq!(take(Event::Init), "");
    assert_eq!(take(Event::InitApply(running())), "");
    assert_eq!(take(Event::InitApply(failed())), "");
    assert_eq!(take(Event::InitDone), "all 2");
    assert_eq!(take(Event::Apply(stopped())), "last of 2: web");
    assert_eq!(take(Event::Delete(failed())), "");
    assert_eq!(take(Event::InitDone), "", "a repeated list repeats nothing");
}
