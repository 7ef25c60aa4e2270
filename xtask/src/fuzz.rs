/*!
`fuzz`: runs the fuzz targets with cargo-fuzz and libFuzzer.

AddressSanitizer is disabled, so that the stable compiler can be used. The code behind the targets
does not contain unsafe code. The targets find panics, failed assertions and inputs that take too
long.
*/

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::progress::Progress;
use crate::tools::Tools;
use crate::workspace::Workspace;

/// Number of steps of [`run`], in addition to one per target.
const STEPS: usize = 2;
/// Time limit for one input, in seconds.
const INPUT_SECONDS: u32 = 10;

/// A fuzz target and its libFuzzer options.
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

/// Limit for each target.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    /// A number of seconds.
    Seconds(u32),
    /// A number of inputs.
    Runs(u32),
    /// A number of inputs from a fixed seed.
    Same(u32),
}

/// Number of inputs of each target in `test --all`.
pub(crate) const INPUTS: u32 = 20_000;
/// Number of generated pods in `test --all`.
pub(crate) const PODS: u32 = 100_000;

/// The fuzz step of `test --all`. The inputs are the same every time, so that the result depends
/// only on the change.
pub(crate) fn test(workspace: &Workspace, progress: &Progress) -> Result<()> {
    let limit = |target: &Target| match target.name {
        "pod_rewrite" => Limit::Same(PODS),
        _ => Limit::Same(INPUTS),
    };
    run(workspace, progress, TARGETS, limit)
}

/// Checks that the fuzz targets compile, without building or running them.
pub(crate) fn check(workspace: &Workspace, progress: &Progress) -> Result<()> {
    progress.expect(1);
    progress.step("Check the fuzz targets", |step| {
        let mut command = Command::new("cargo");
        command.current_dir(workspace.root());
        command.args(["check", "--manifest-path", "fuzz/Cargo.toml", "--target-dir"]);
        step.run(command.arg(workspace.target().join("fuzz")))
    })
}

/// The command `fuzz`: runs the targets with these names, or all.
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
            "unknown fuzz target {unknown:?}: the targets are {}",
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
    /// The command that fuzzes the target, starting from the corpus of earlier runs and the seeds
    /// of the repository.
    fn fuzzer(&self, workspace: &Workspace, dir: &Path, limit: Limit) -> Result<Command> {
        let program = dir.join("x86_64-unknown-linux-gnu/debug").join(self.name);
        let mut command = Command::new(program);
        // Directory of failing inputs.
        command.current_dir(dir);
        match limit {
            Limit::Seconds(seconds) => command.arg(format!("-max_total_time={seconds}")),
            Limit::Runs(runs) => {
                // Two processes, each with half of the inputs.
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
        // libFuzzer stores new inputs in the first directory.
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
