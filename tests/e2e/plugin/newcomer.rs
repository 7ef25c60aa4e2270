//! The commands of the README and of the quick start, word for word, as their reader types them.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use testkit::{Namespace, alone_in_namespace, cluster_fact};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::home::Home;

/// Pages in the order in which a newcomer reads them.
const PAGES: &[(&str, &str)] = &[
    ("README.md", include_str!("../../../README.md")),
    ("docs/quickstart.md", include_str!("../../../docs/quickstart.md")),
];
/// How commands begin that the run of these tests has executed before them: it builds, starts a
/// cluster and installs the chart.
const DONE_BEFORE: &[&str] = &["cargo ", "helm install "];
/// How commands begin that need a terminal, and what their user types there.
const ON_TERMINAL: &[(&str, &str)] = &[
    ("kubectl stopc shell ", "exit\n"),
    ("kubectl stopc delete dev", "yes\n"),
];
/// What the quick start says that a command prints.
const PRINTS: (&str, &str) = ("kubectl exec nginx -- cat ", "kept");

#[tokio::test]
async fn the_readme_and_the_quick_start_work_word_for_word() {
    alone_in_namespace("newcomer", async |ns, _alone| {
        let shell = Shell::open(&ns).await?;
        let mut printed = 0;
        for (page, text) in PAGES {
            let commands = commands(text);
            ensure!(!commands.is_empty(), "{page} has no commands");
            for command in commands {
                if DONE_BEFORE.iter().any(|begin| command.starts_with(begin)) {
                    eprintln!("{page}: LEFT OUT, the run of the tests did it: {command}");
                    continue;
                }
                eprintln!("{page}: {command}");
                let output = shell.run(&command).await.with_context(|| page.to_string())?;
                if command.starts_with(PRINTS.0) {
                    ensure!(output.trim() == PRINTS.1, "{page}: {command} printed {output:?}");
                    printed += 1;
                }
            }
        }
        ensure!(printed > 0, "no page has the command {}", PRINTS.0);
        Ok(())
    })
    .await;
}

/// The commands in the blocks of a page that are marked `sh`, without comments, each on one line.
fn commands(page: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut command = String::new();
    let mut inside = false;
    for line in page.lines() {
        if line.starts_with("```") {
            inside = line == "```sh";
            continue;
        }
        let line = line.split_once(" #").map_or(line, |(line, _)| line).trim();
        if !inside || line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(begin) = line.strip_suffix('\\') {
            command.push_str(begin);
            continue;
        }
        command.push_str(line);
        commands.push(std::mem::take(&mut command));
    }
    commands
}

/// A shell at the root of the repository, with the programs of a user in its `PATH`, and a
/// kubeconfig whose namespace is that of the test.
struct Shell {
    home: Home,
}

// === impl Shell ===

impl Shell {
    async fn open(ns: &Namespace) -> Result<Self> {
        let home = Home::make(ns).await?;
        home.link("helm", Path::new(&cluster_fact("HELM", "helm")?))?;
        Ok(Self { home })
    }

    /// Runs a command until its end, which must be a success, and returns what it printed.
    async fn run(&self, command: &str) -> Result<String> {
        let typed = ON_TERMINAL.iter().find(|(begin, _)| command.starts_with(begin));
        let mut process = if typed.is_some() {
            let mut process = Command::new("script");
            process.args(["--quiet", "--return", "--command", command, "/dev/null"]);
            process
        } else {
            let mut process = Command::new("/bin/sh");
            process.args(["-c", command]);
            process
        };
        let mut child = process
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("PATH", self.home.path()?)
            .env("KUBECONFIG", self.home.kubeconfig())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {command}"))?;
        let mut input = child.stdin.take().context("no standard input")?;
        input
            .write_all(typed.map_or("", |(_, typed)| typed).as_bytes())
            .await?;
        // A terminal hangs up when its input ends.
        let open = typed.map(|_| input);
        let output = child.wait_with_output().await?;
        drop(open);
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "{command} ended with {}: {stdout}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(stdout)
    }
}
