/*!
`test rootfs --kernel`: the tests of the mount engine under other kernels than this machine's, in
QEMU.

A virtual machine has one of Debian's kernels and this machine's files: its root is an overlay with
this machine's root as its lower layer (virtiofs, read-only) and an upper layer on a disk of its
own. So the test programs, and the programs that they start, are those of this machine, and only the
kernel differs. QEMU emulates the processor, so that neither KVM nor a virtual machine that nests is
needed.

The results of complete runs are recorded in `docs/portability.md`.
*/

mod download;
mod initramfs;
mod machine;
mod table;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fmt, fs};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use download::Kernel;

use crate::progress::{Progress, Step};
use crate::results;
use crate::test;
use crate::tools::Tools;
use crate::workspace::Workspace;

/// A series of kernels, one of each Debian release and the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Series {
    /// Debian 11; the oldest kernel that the README names.
    #[value(name = "5.10")]
    V5_10,
    /// Debian 12.
    #[value(name = "6.1")]
    V6_1,
    /// Debian 13.
    #[value(name = "6.12")]
    V6_12,
    /// Debian's next release.
    #[value(name = "7.2")]
    V7_2,
}

/// Packages with tests that depend on the kernel, and which of their targets.
pub(crate) const PACKAGES: &[(&str, &[&str])] = &[
    ("rootfs", &["--lib"]),
    ("stoppablecontainer", &["--test", "rootfs"]),
    ("exec-wrapper", &["--lib", "--test", "wrapper"]),
    ("node-agent", &["--lib"]),
];

/// How a line of a test's output begins that says what the kernel does.
const FACT: &str = "this kernel: ";
/// What the script prints first, at each try.
const BEGIN: &str = "     Begin of the tests";
/// Variables by which tests find programs.
const ENVIRONMENT: &[&str] = &[
    "PATH",
    "HOME",
    "CARGO_HOME",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "CARGO_TARGET_DIR",
];

/// A program of tests, and the directory that `cargo test` starts it in.
struct Program {
    path: PathBuf,
    directory: PathBuf,
}

// === impl Series ===

impl Series {
    /// All, the oldest first.
    pub(crate) const ALL: &'static [Self] = &[Self::V5_10, Self::V6_1, Self::V6_12, Self::V7_2];

    /// The first two numbers of its kernels' versions.
    fn number(self) -> &'static str {
        match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::V7_2 => "7.2",
        }
    }

    /// Where Debian has it.
    fn suite(self) -> &'static str {
        match self {
            Self::V5_10 => "bullseye",
            Self::V6_1 => "bookworm",
            Self::V6_12 => "trixie",
            Self::V7_2 => "sid",
        }
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.number())
    }
}

/// Virtual machines that only have to be started.
pub(crate) struct Prepared<'a> {
    workspace: &'a Workspace,
    kernels: Vec<(Series, Kernel)>,
    script: String,
    /// Whether the results are recorded.
    recorded: bool,
}

/// Steps that [`run`] takes.
pub(crate) fn steps(kernels: &[Series]) -> usize {
    2 + 2 * kernels.len()
}

/// Runs the tests under each of these kernels, see [`prepare`] and [`Prepared::run`]. Records the
/// results of all tests, unless the run is that of CI.
pub(crate) fn run(
    workspace: &Workspace,
    progress: &Progress,
    kernels: &[Series],
    names: &[String],
) -> Result<()> {
    let prepared = Prepared {
        recorded: results::is_recorded(names),
        ..prepare(workspace, progress, kernels, names)?
    };
    prepared.run(progress)
}

/// Builds and downloads what the virtual machines need: programs, kernels, and the tests whose
/// names contain one of `names`, all if it is empty.
pub(crate) fn prepare<'a>(
    workspace: &'a Workspace,
    progress: &Progress,
    kernels: &[Series],
    names: &[String],
) -> Result<Prepared<'a>> {
    Tools::prepare_virtual_machines(progress)?;
    let programs = progress.step("Build the tests for other kernels", |step| build(workspace, step))?;
    let provide = |series: &Series| {
        let dir = workspace.kernels().join(series.number());
        let kernel = progress.step(&format!("Kernel {series}: download"), |step| {
            download::provide(step, *series, &dir)
        })?;
        Ok((*series, kernel))
    };
    Ok(Prepared {
        workspace,
        kernels: kernels.iter().map(provide).collect::<Result<_>>()?,
        script: script(&programs, names),
        recorded: false,
    })
}

// === impl Prepared ===

impl Prepared<'_> {
    /// Runs the tests under each kernel. All kernels are tried before the failure of one is the
    /// command's.
    pub(crate) fn run(&self, progress: &Progress) -> Result<()> {
        let mut failed = Vec::new();
        for (series, kernel) in &self.kernels {
            let result = progress.step(&format!("Kernel {series}: tests"), |step| {
                self.run_one(step, *series, kernel)
            });
            if let Err(error) = result {
                progress.say(format!("{error:#}"));
                failed.push(series.to_string());
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        bail!("tests failed under kernel {}", failed.join(" and "))
    }

    fn run_one(&self, step: &Step<'_>, series: Series, kernel: &Kernel) -> Result<()> {
        step.say(format!("      {}", kernel.release));
        let kernels = self.workspace.kernels();
        let initramfs = initramfs::make(step, kernel, &kernels.join(series.number()))?;
        let result = machine::run(step, &kernel.image, &initramfs, &self.script, &kernels);
        let log = fs::read_to_string(step.log()).unwrap_or_default();
        let facts = facts(&log);
        for fact in &facts {
            step.say(format!("      {FACT}{fact}"));
        }
        test::report(step);
        if self.recorded {
            let outcome = table::Outcome {
                release: kernel.release.clone(),
                passed: result.is_ok(),
                counts: test::counts(last_try(&log)),
                date: results::today()?,
                facts,
            };
            table::record(self.workspace, series, outcome)?;
            step.say(format!("      {} is updated", results::DOCUMENT));
        }
        result
    }
}

/// What the tests said about the kernel.
fn facts(log: &str) -> Vec<String> {
    let facts = log.lines().filter_map(|line| line.strip_prefix(FACT));
    let mut facts: Vec<_> = facts.map(|fact| fact.trim_end().to_owned()).collect();
    facts.sort_unstable();
    facts.dedup();
    facts
}

/// What the log has of the last virtual machine.
fn last_try(log: &str) -> &str {
    log.rsplit_once(BEGIN).map_or(log, |(_, last)| last)
}

/// Compiles the tests, and says where their programs are.
fn build(workspace: &Workspace, step: &Step<'_>) -> Result<Vec<Program>> {
    let mut programs = Vec::new();
    for (package, targets) in PACKAGES {
        let mut command = Command::new("cargo");
        command
            .current_dir(workspace.root())
            .args(["test", "--no-run", "--message-format=json-render-diagnostics"])
            .args(["--package", package])
            .args(*targets);
        programs.extend(step.output(&mut command)?.lines().filter_map(Program::parse));
    }
    // What a test of the wrapper builds is there before the virtual machine asks for it.
    let mut command = Command::new("cargo");
    command
        .current_dir(workspace.root())
        .args(["test", "--package", "exec-wrapper", "--test", "wrapper", "--"])
        .args(["--exact", "shipped::the_shipped_program_is_static_and_small"]);
    step.run(&mut command)?;
    if programs.len() < PACKAGES.len() {
        bail!("cargo named {} test programs, too few", programs.len());
    }
    keep(programs, &workspace.kernels().join("programs"))
}

/// Links the programs to `dir`, so that a compile does not exchange them while they run.
fn keep(programs: Vec<Program>, dir: &Path) -> Result<Vec<Program>> {
    download::remove(dir)?;
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let kept = programs.into_iter().map(|program| {
        let link = dir.join(program.path.file_name().unwrap_or_default());
        fs::hard_link(&program.path, &link)
            .with_context(|| format!("linking {} to {}", link.display(), program.path.display()))?;
        Ok(Program {
            path: link,
            ..program
        })
    });
    kept.collect()
}

// === impl Program ===

impl Program {
    /// From a message of cargo, if it is about a program of tests.
    fn parse(message: &str) -> Option<Self> {
        let message: serde_json::Value = serde_json::from_str(message).ok()?;
        if message["profile"]["test"] != true {
            return None;
        }
        let manifest = Path::new(message["manifest_path"].as_str()?);
        Some(Self {
            path: message["executable"].as_str()?.into(),
            directory: manifest.parent()?.to_owned(),
        })
    }
}

/// What the virtual machine runs.
fn script(programs: &[Program], names: &[String]) -> String {
    let mut script = format!("echo '{BEGIN}'\n");
    script.push_str(
        "failed=0\n\
         run() { cd \"$1\" && shift && echo \"     Running $1\" && \"$@\" || failed=1; }\n",
    );
    for name in ENVIRONMENT {
        if let Some(value) = std::env::var_os(name) {
            let mut command = Command::new("export");
            command.arg(format!("{name}={}", value.to_string_lossy()));
            script += &crate::progress::describe(&command);
            script.push('\n');
        }
    }
    for program in programs {
        let mut command = Command::new("run");
        command.arg(&program.directory).arg(&program.path).args(names);
        script += &crate::progress::describe(&command);
        script.push('\n');
    }
    script + "[ $failed = 0 ] || dmesg | tail -n 100\nexit $failed\n"
}

#[cfg(test)]
mod tests {
    use super::{BEGIN, Program, facts, last_try, script};

    #[test]
    fn tests_of_the_last_try_count_and_facts_of_all() {
        let log = format!(
            "{BEGIN}\nthis kernel: b\nresult 1\n{BEGIN}\nthis kernel: b\r\nthis kernel: a\nresult 2\n"
        );
        assert_eq!(facts(&log), ["a", "b"]);
        let last = last_try(&log);
        assert!(last.contains("result 2") && !last.contains("result 1"), "{last}");
        assert_eq!(last_try("nothing began"), "nothing began");
    }

    #[test]
    fn only_programs_of_tests_are_run() {
        let message = |test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/w/a b/Cargo.toml","profile":{{"test":{test}}},"executable":{executable}}}"#
            )
        };
        assert!(Program::parse(&message(false, r#""/t/library""#)).is_none());
        assert!(Program::parse(&message(true, "null")).is_none());
        assert!(Program::parse(r#"{"reason":"build-finished","success":true}"#).is_none());
        let program = Program::parse(&message(true, r#""/t/tests-1""#)).unwrap();
        let script = script(&[program], &["one".to_owned()]);
        assert!(script.contains("\nrun '/w/a b' /t/tests-1 one\n"), "{script}");
    }
}
