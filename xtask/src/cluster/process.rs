/*!
The cluster's processes: started so that they outlive the command, remembered so that no other is
ever killed.

A process id alone says little: it is used again. The record keeps the process's start time and the
boot's id too, and signals go through a descriptor of the process that was checked after it was
opened.
*/

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use super::cgroups;
use super::dir::ClusterDir;
use crate::second_cluster;

/// Enters the control groups whose `cgroup.procs` files come before `--`, then becomes the program
/// after it. Closes what was inherited: with the descriptor of flock(1), the processes of a cluster
/// that was started under a lock would keep the lock until the cluster is down.
const ENTER_GROUP: &str = r#"exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-
while [ "$1" != -- ]; do echo $$ > "$1" || exit 1; shift; done; shift; exec "$@""#;

/// How long a killed process may take to be gone. The first of a node waits for all others of it.
const PATIENCE: Duration = Duration::from_mins(1);

/// A process of the cluster, running or not.
#[derive(Clone, Debug)]
pub(super) struct Daemon {
    name: String,
    record: PathBuf,
    log: PathBuf,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    pid: i32,
    /// Clock ticks since boot (field 22 of `/proc/PID/stat`).
    start: u64,
    boot: String,
}

// === impl Daemon ===

impl Daemon {
    /// The process with this name.
    pub(super) fn new(dir: &ClusterDir, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            record: dir.join("processes").join(name),
            log: dir.log(name),
        }
    }

    /// Every process that the directory remembers.
    pub(super) fn all(dir: &ClusterDir) -> Result<Vec<Self>> {
        let processes = dir.join("processes");
        if !processes.is_dir() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for entry in fs::read_dir(&processes).with_context(|| format!("reading {}", processes.display()))? {
            found.push(Self::new(dir, &entry?.file_name().to_string_lossy()));
        }
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    /// Where its output goes.
    pub(super) fn log(&self) -> &std::path::Path {
        &self.log
    }

    /// Its process id while it runs.
    pub(super) fn pid(&self) -> Option<i32> {
        self.open().map(|(pid, _)| pid)
    }

    /// Starts it in a session and a control group of its own unless it runs. Only `PATH` and `HOME`
    /// are handed on.
    ///
    /// # Errors
    /// When it cannot be started or recorded. That it fails later is for the caller to see, by
    /// [`Daemon::require_alive`].
    pub(super) fn start(&self, program: &Command, group: &str, path: &str) -> Result<()> {
        if self.pid().is_some() {
            return Ok(());
        }
        for parent in [&self.record, &self.log]
            .into_iter()
            .filter_map(|path| path.parent())
        {
            fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
        }
        let log = File::options().append(true).create(true).open(&self.log);
        let log = log.with_context(|| format!("opening {}", self.log.display()))?;
        // setsid(1) and the shell execute in place, so the id of the child is the id of the
        // program.
        let mut command = Command::new("setsid");
        command.args(["sh", "-c", ENTER_GROUP, "sh"]);
        command
            .args(cgroups::prepare(group)?)
            .arg("--")
            .arg(program.get_program())
            .args(program.get_args());
        command
            .env_clear()
            .env("PATH", path)
            .env("HOME", "/root")
            .current_dir("/");
        second_cluster::hand_on(&mut command);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("copying a descriptor")?)
            .stderr(log);
        let mut child = command
            .spawn()
            .with_context(|| format!("starting {}", self.name))?;
        let pid = i32::try_from(child.id()).context("reading a process id")?;
        let Some(start) = start_time(pid) else {
            let status = child
                .wait()
                .with_context(|| format!("waiting for {}", self.name))?;
            bail!(
                "{} ended at once with {status}; see {}",
                self.name,
                self.log.display()
            );
        };
        self.remember(pid, start)
    }

    /// Writes down which process it is.
    pub(super) fn remember(&self, pid: i32, start: u64) -> Result<()> {
        let record = Record {
            pid,
            start,
            boot: boot_id()?,
        };
        fs::write(&self.record, serde_json::to_vec(&record)?)
            .with_context(|| format!("writing {}", self.record.display()))
    }

    /// Says why a process that should run does not.
    ///
    /// # Errors
    /// When it does not run; the error quotes the end of its log.
    pub(super) fn require_alive(&self) -> Result<()> {
        if self.pid().is_some() {
            return Ok(());
        }
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(6)..].join("\n    ");
        bail!(
            "{} ended:\n    {tail}\n  its whole log is {}",
            self.name,
            self.log.display()
        )
    }

    /// Kills it, waits until it is gone, and forgets it. Does nothing when it does not run.
    pub(super) fn kill(&self) -> Result<()> {
        if let Some((_, process)) = self.open() {
            kill(&process).with_context(|| format!("killing {}", self.name))?;
        }
        match fs::remove_file(&self.record) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", self.record.display()))
            }
            _ => Ok(()),
        }
    }

    /// A descriptor of the recorded process, if that one still runs.
    fn open(&self) -> Option<(i32, OwnedFd)> {
        let record: Record = serde_json::from_slice(&fs::read(&self.record).ok()?).ok()?;
        if boot_id().ok()? != record.boot {
            return None;
        }
        let process = pidfd_open(Pid::from_raw(record.pid)?, PidfdFlags::empty()).ok()?;
        // Checked after the descriptor is open: from here on it can only be this process.
        (start_time(record.pid)? == record.start).then_some((record.pid, process))
    }
}

/// Kills a process that is known by a process of ours: the first child of `parent`.
pub(super) fn kill_first_child(parent: i32) -> Result<()> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let children = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let child = children
        .split_whitespace()
        .next()
        .and_then(|pid| pid.parse().ok())
        .and_then(Pid::from_raw);
    let child = child.with_context(|| format!("process {parent} has no child"))?;
    let process = pidfd_open(child, PidfdFlags::empty()).context("opening the process")?;
    kill(&process).context("killing the process")
}

/// Kills a process and waits until it is gone. A process is readable once it has ended, reaped or
/// not.
fn kill(process: &OwnedFd) -> Result<()> {
    match pidfd_send_signal(process, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => return Err(error.into()),
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).context("computing a time-out")?;
        match poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => bail!("it has not ended {} s later", PATIENCE.as_secs()),
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for a process"),
        }
    }
}

/// When a process that has not ended was started.
pub(super) fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in brackets and may hold anything, brackets and spaces
    // too.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    (state != "Z" && state != "X")
        .then(|| fields.nth(18).and_then(|text| text.parse().ok()))
        .flatten()
}

fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    Ok(fs::read_to_string(path)
        .with_context(|| format!("reading {path}"))?
        .trim()
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The nodes of a cluster that a test had brought up under a lock kept the lock after the test
    /// had ended, and the next command waited for it.
    #[test]
    fn a_process_of_the_cluster_inherits_no_lock() {
        let holds = r#"exec 3</dev/null; exec sh -c "$0" sh -- readlink /proc/self/fd/3"#;
        let output = Command::new("sh").args(["-c", holds, ENTER_GROUP]).output();
        let output = output.expect("running a shell");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "");
        let without = holds.replace("sh -c \"$0\" sh -- ", "");
        let output = Command::new("sh").args(["-c", &without]).output();
        assert_eq!(output.expect("running a shell").stdout, b"/dev/null\n");
    }
}
