/*!
`fuzz`: the fuzz targets, by cargo-fuzz and libFuzzer.

Without AddressSanitizer, so that the stable compiler will do: there is no unsafe code behind these targets, what is
looked for are panics, assertions that do not hold, and inputs that take for ever.
*/

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::progress::Progress;
use crate::tools::Tools;
use crate::workspace::Workspace;

/// Steps that [`run`] takes besides one per target.
const STEPS: usize = 2;
/// Seconds that one input may take.
const INPUT_SECONDS: u32 = 10;

/// A fuzz target and what is said to libFuzzer for it.
#[derive(Clone, Copy, Debug)]
struct Target {
    name: &'static str,
    max_len: u32,
    dictionary: Option<&'static str>,
}

const TARGETS: &[Target] = &[
    Target {
        name: "admission_review",
        max_len: 16384,
        dictionary: Some("fuzz/json.dict"),
    },
    Target {
        name: "image_config",
        max_len: 16384,
        dictionary: None,
    },
    Target {
        name: "mountinfo",
        max_len: 16384,
        dictionary: None,
    },
    Target {
        name: "pod_rewrite",
        max_len: 64,
        dictionary: None,
    },
    Target {
        name: "users",
        max_len: 16384,
        dictionary: None,
    },
    Target {
        name: "wrapper_protocol",
        max_len: 16384,
        dictionary: None,
    },
];

/// How long each target is run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    /// This many seconds.
    Seconds(u32),
    /// This many inputs.
    Runs(u32),
    /// This many inputs, the same every time.
    Same(u32),
}

/// Inputs of each target that `test` tries.
pub(crate) const SOME_INPUTS: u32 = 20_000;
/// Generated pods that `test --all` tries.
pub(crate) const ALL_PODS: u32 = 100_000;

/// What `test` does: the same inputs every time, so that it says something about the change and not about luck.
pub(crate) fn test(workspace: &Workspace, progress: &Progress, all: bool) -> Result<()> {
    let limit = |target: &Target| match target.name {
        "pod_rewrite" if all => Limit::Same(ALL_PODS),
        _ => Limit::Same(SOME_INPUTS),
    };
    run(workspace, progress, TARGETS, limit)
}

/// What `fuzz` does: the targets with these names, or all.
pub(crate) fn command(
    workspace: &Workspace,
    progress: &Progress,
    names: &[String],
    limit: Limit,
) -> Result<()> {
    let known = |name: &String| TARGETS.iter().copied().find(|target| target.name == name);
    if let Some(unknown) = names.iter().find(|name| known(name).is_none()) {
        let list: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        bail!(
            "there is no fuzz target {unknown:?}; there are {}",
            list.join(", ")
        );
    }
    let chosen: Vec<_> = names.iter().filter_map(known).collect();
    let targets = if chosen.is_empty() { TARGETS } else { &chosen[..] };
    run(workspace, progress, targets, |_| limit)
}

fn run(
    workspace: &Workspace,
    progress: &Progress,
    targets: &[Target],
    limit: impl Fn(&Target) -> Limit,
) -> Result<()> {
    progress.expect(STEPS + targets.len());
    let tools = Tools::of(workspace);
    tools.prepare_cargo_fuzz(progress)?;
    let dir = workspace.target().join("fuzz");
    progress.step("Compile the fuzz targets (some minutes the first time)", |step| {
        let mut command = tools.cargo_fuzz();
        command.current_dir(workspace.root());
        command
            .args(["fuzz", "build", "--dev", "--sanitizer=none", "--target-dir"])
            .arg(&dir);
        step.run(&mut command)
    })?;
    for target in targets {
        progress.step(&format!("Fuzz {}", target.name), |step| {
            step.run(&mut target.fuzzer(workspace, &dir, limit(target))?)
        })?;
    }
    Ok(())
}

// === impl Target ===

impl Target {
    /// The command that fuzzes it: from what earlier runs found and from the seeds of the repository.
    fn fuzzer(&self, workspace: &Workspace, dir: &Path, limit: Limit) -> Result<Command> {
        let program = dir.join("x86_64-unknown-linux-gnu/debug").join(self.name);
        let mut command = Command::new(program);
        // Where it leaves an input that fails.
        command.current_dir(dir);
        match limit {
            Limit::Seconds(seconds) => command.arg(format!("-max_total_time={seconds}")),
            Limit::Runs(runs) => {
                // Two at a time, each half of them.
                command
                    .args(["-jobs=2", "-workers=2"])
                    .arg(format!("-runs={}", runs.div_ceil(2)))
            }
            Limit::Same(runs) => command.arg("-seed=1").arg(format!("-runs={runs}")),
        };
        command.arg(format!("-timeout={INPUT_SECONDS}"));
        command.arg(format!("-max_len={}", self.max_len));
        if let Some(dictionary) = self.dictionary {
            command.arg(format!("-dict={}", workspace.join(dictionary).display()));
        }
        // What is found goes into the first directory that is named.
        let corpus = if matches!(limit, Limit::Same(_)) {
            let fresh = dir.join("same").join(self.name);
            if fresh.exists() {
                std::fs::remove_dir_all(&fresh)?;
            }
            fresh
        } else {
            dir.join("corpus").join(self.name)
        };
        std::fs::create_dir_all(&corpus)?;
        command.arg(corpus);
        let seeds = workspace.join("fuzz/seeds").join(self.name);
        if seeds.is_dir() {
            command.arg(seeds);
        }
        Ok(command)
    }
}
