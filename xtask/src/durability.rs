/*!
`durability`: measures which files are lost in failures of a container, its node or the product.
Each row of the table in `docs/durability.md` has the results of a repeated end-to-end test
(`tests/e2e/durability/events.rs`).
*/

mod table;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::progress::Progress;
use crate::target::Target;
use crate::test;
use crate::tools::Tools;
use crate::workspace::Workspace;

/// The document, and the lines that enclose the table.
const DOCUMENT: &str = "docs/durability.md";
const BEGIN: &str = "<!-- begin: written by cargo xtask durability -->";
const END: &str = "<!-- end -->";

/// A row: its name, its test, and the description of the event.
struct Row {
    name: &'static str,
    test: &'static str,
    event: &'static str,
}

/// One trial, as recorded by the test.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Trial {
    synced: u32,
    lost: u32,
    unsynced: u32,
    unsynced_lost: u32,
    /// Seconds until the container ran again. `None` if it never stopped.
    seconds: Option<f64>,
}

/// Options of the command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options<'a> {
    /// Number of trials of each event.
    pub trials: u32,
    /// Whether to keep the trials of earlier runs.
    pub add: bool,
    /// Names of the rows. All rows if empty.
    pub rows: &'a [String],
}

const ROWS: &[Row] = &[
    row(
        "stop-and-start",
        "i1_durability_stop_and_start",
        "stopped and started",
    ),
    row(
        "out-of-memory",
        "i1_durability_out_of_memory",
        "out of memory: killed by the kernel",
    ),
    row("kill-9", "i1_durability_kill_9", "`kill -9` of its first process"),
    row("eviction", "i1_durability_eviction", "evicted through the API"),
    row(
        "provider-deleted",
        "i1_durability_provider_deleted",
        "its provider pod deleted",
    ),
    row(
        "agent-killed",
        "i9_f17_durability_agent_killed_during_the_start",
        "node agent killed during a start (1)",
    ),
    row(
        "agent-upgraded",
        "i9_durability_agent_upgraded",
        "node agent rolled out anew",
    ),
    row(
        "kubelet-killed",
        "i9_f19_durability_kubelet_killed",
        "kubelet killed and started again",
    ),
    row(
        "runtime-killed",
        "i9_f19_durability_runtime_killed",
        "containerd killed and started again",
    ),
    row(
        "node-reboot",
        "i1_durability_node_reboot",
        "node reset, its disks intact (2)",
    ),
    row(
        "power-cut",
        "i1_f20_durability_power_cut",
        "power cut: node and disk caches (3)",
    ),
    row(
        "disk-full",
        "i1_f22_durability_disk_full",
        "disk full, still so at the start",
    ),
    row(
        "node-cut-off",
        "i1_f28_durability_node_cut_off",
        "node cut off from the API server (4)",
    ),
];

/// Runs the trials of the rows, and writes the table if every row has results.
pub(crate) fn run(workspace: &Workspace, progress: &Progress, options: &Options<'_>) -> Result<()> {
    let mut rows = chosen(options.rows)?;
    if options.trials == 0 {
        rows.clear();
    }
    let target = Target::choose(workspace, progress, None, None, None)?;
    if target.local {
        Tools::prepare_tests(progress)?;
    }
    let results = results(workspace);
    fs::create_dir_all(&results).with_context(|| format!("making {}", results.display()))?;
    progress.expect(rows.len());
    let mut failures = Vec::new();
    for row in rows {
        if !options.add {
            let _ = fs::remove_file(results.join(format!("{}.json", row.name)));
        }
        let outcome = progress.step(&format!("Durability: {}", row.name), |step| {
            let mut command = Command::new("cargo");
            command
                .current_dir(workspace.root())
                .args(["test", "--test", "e2e"]);
            command.args(["--", "--nocapture", row.test]);
            command.env("E2E_TRIALS", options.trials.to_string());
            command.env("E2E_DURABILITY", &results);
            test::on_cluster(&mut command, &target)?;
            step.run(&mut command)
        });
        if let Err(error) = outcome {
            progress.say(format!("{error:#}"));
            failures.push(row.name);
        }
    }
    let table = table::render(ROWS, &|row| recorded(workspace, row))?;
    println!("{}", table.text);
    if table.complete && failures.is_empty() {
        write(
            workspace,
            &format!("{}\n{}", table.text, table::machine(&target)?),
        )?;
        progress.say(format!("{DOCUMENT} is updated"));
    } else {
        progress.say(format!(
            "{DOCUMENT} is unchanged: not every row has been measured"
        ));
    }
    if table.lost > 0 || !failures.is_empty() {
        bail!("{} synced files were lost; failed rows: {failures:?}", table.lost);
    }
    Ok(())
}

/// Tests of rows that `cargo xtask test` leaves out, because they take minutes and other tests
/// cover their events.
pub(crate) const LEFT_OUT: &[&str] = &["i1_f28_durability_node_cut_off"];

const fn row(name: &'static str, test: &'static str, event: &'static str) -> Row {
    Row { name, test, event }
}

fn chosen(names: &[String]) -> Result<Vec<&'static Row>> {
    if names.is_empty() {
        return Ok(ROWS.iter().collect());
    }
    let find = |name: &String| {
        ROWS.iter().find(|row| row.name == name).with_context(|| {
            let all: Vec<_> = ROWS.iter().map(|row| row.name).collect();
            format!("unknown row {name}: the rows are {}", all.join(", "))
        })
    };
    names.iter().map(find).collect()
}

fn results(workspace: &Workspace) -> PathBuf {
    workspace.target().join("durability")
}

fn recorded(workspace: &Workspace, row: &Row) -> Result<Vec<Trial>> {
    let file = results(workspace).join(format!("{}.json", row.name));
    if !file.exists() {
        return Ok(Vec::new());
    }
    let bytes = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("reading {}", file.display()))
}

fn write(workspace: &Workspace, table: &str) -> Result<()> {
    let path = workspace.join(DOCUMENT);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let parts = text
        .split_once(BEGIN)
        .and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) =
        parts.with_context(|| format!("{DOCUMENT} does not contain the lines {BEGIN} and {END}"))?;
    let text = format!("{before}{BEGIN}\n\n{table}\n{END}{after}");
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}
