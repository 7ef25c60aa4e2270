/*!
Progress display of long commands: the number of the step, the elapsed time, and the last line of
its log.

On a terminal, a step is one line that is rewritten. Elsewhere (CI), it is a line at its start and
one at its end. The output of commands goes to a log file per step. The error of a failed step names
the log.
*/

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// Number of lines of a log in an error.
const QUOTED_LINES: usize = 12;
/// Interval for redrawing the elapsed time.
const REDRAW: Duration = Duration::from_millis(120);

/// The steps of one command line.
#[derive(Debug)]
pub(crate) struct Progress {
    logs: PathBuf,
    total: AtomicUsize,
    begun: AtomicUsize,
    terminal: bool,
    /// Steps that take minutes: the prefix of the title, and the number of minutes.
    slow: Mutex<Vec<(&'static str, u32)>>,
}

/// A running step.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    progress: &'a Progress,
    title: String,
    log: PathBuf,
    bar: ProgressBar,
    last: Mutex<String>,
}

// === impl Progress ===

impl Progress {
    /// A display with logs in the directory `logs`.
    pub(crate) fn new(logs: PathBuf) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self {
            logs,
            total: AtomicUsize::new(0),
            begun: AtomicUsize::new(0),
            terminal,
            slow: Mutex::default(),
        }
    }

    /// Adds `count` steps to the total of the counter.
    pub(crate) fn expect(&self, count: usize) {
        self.total.fetch_add(count, Ordering::Relaxed);
    }

    /// Prints the minutes of these steps, and after each of them the remaining minutes. A step is
    /// identified by a prefix of its title.
    pub(crate) fn estimate(&self, steps: Vec<(&'static str, u32)>) {
        let minutes = steps.iter().map(|(_, minutes)| minutes).sum();
        if let Ok(mut slow) = self.slow.lock() {
            *slow = steps;
        }
        if minutes > 0 {
            self.say(left(minutes));
        }
    }

    /// Prints a line between steps.
    #[expect(
        clippy::unused_self,
        reason = "what is printed belongs to the display, also where it has no state"
    )]
    pub(crate) fn say(&self, line: impl AsRef<str>) {
        let _ = writeln!(std::io::stderr(), "{}", line.as_ref());
    }

    /// Runs and displays a step. If the step wrote a log, its error names the log.
    pub(crate) fn step<T>(&self, title: &str, work: impl FnOnce(&Step<'_>) -> Result<T>) -> Result<T> {
        let number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        let total = self.total.load(Ordering::Relaxed).max(number);
        let label = format!("[{number}/{total}] {title}");
        std::fs::create_dir_all(&self.logs).with_context(|| format!("making {}", self.logs.display()))?;
        let log = self.logs.join(format!("{}.log", slug(title)));
        drop(File::create(&log).with_context(|| format!("making {}", log.display()))?);

        let bar = if self.terminal {
            ProgressBar::new_spinner()
        } else {
            ProgressBar::hidden()
        };
        if self.terminal {
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {elapsed} {wide_msg:.dim}") {
                bar.set_style(style);
            }
            bar.set_prefix(label.clone());
            bar.enable_steady_tick(REDRAW);
        } else {
            self.say(format!("      {label} ..."));
        }
        let started = Instant::now();
        let step = Step {
            progress: self,
            title: title.to_owned(),
            log: log.clone(),
            bar,
            last: Mutex::default(),
        };
        let result = work(&step);
        step.bar.finish_and_clear();
        let seconds = started.elapsed().as_secs_f32();
        match &result {
            Ok(_) => self.say(format!("  ok  {label} ({seconds:.1} s)")),
            Err(_) => self.say(format!("FAIL  {label} ({seconds:.1} s)")),
        }
        if let Some(minutes) = self.minutes_after(title).filter(|_| result.is_ok()) {
            self.say(left(minutes));
        }
        result.with_context(|| title.to_owned())
    }

    /// The remaining minutes after a step, if it is one of the long steps and others follow.
    fn minutes_after(&self, title: &str) -> Option<u32> {
        let mut slow = self.slow.lock().ok()?;
        let done = slow.iter().position(|(begin, _)| title.starts_with(begin))?;
        slow.remove(done);
        Some(slow.iter().map(|(_, minutes)| minutes).sum()).filter(|minutes| *minutes > 0)
    }
}

// === impl Step ===

impl Step<'_> {
    /// The log of this step.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// Displays the current activity of the step.
    pub(crate) fn note(&self, text: impl AsRef<str>) {
        let text = text.as_ref();
        self.bar.set_message(text.to_owned());
        self.append(text);
    }

    /// Prints a line above the step.
    pub(crate) fn say(&self, line: impl AsRef<str>) {
        self.bar.suspend(|| self.progress.say(line));
    }

    /// Runs a command. Its output goes to the log, and its last line is displayed.
    ///
    /// # Errors
    /// If the command cannot be started or does not end with status 0. The error has the end of the
    /// log and its name.
    pub(crate) fn run(&self, command: &mut Command) -> Result<()> {
        self.require_success(command, |_| {})
    }

    /// As [`Step::run`], but returns whatever status the command ends with.
    pub(crate) fn status(&self, command: &mut Command) -> Result<ExitStatus> {
        self.stream(command, |_| {})
    }

    /// Like [`Step::run`], but every line of output counts as one of `total` units of work.
    pub(crate) fn run_counting(&self, command: &mut Command, total: usize) -> Result<()> {
        let mut count = 0;
        self.require_success(command, |line| {
            count += 1;
            self.bar
                .set_message(format!("{count} of {} {line}", total.max(count)));
        })
    }

    /// Like [`Step::run`], but returns the standard output. Only standard error is logged.
    pub(crate) fn output(&self, command: &mut Command) -> Result<String> {
        self.append(&format!("$ {}", describe(command)));
        let output = command
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("starting {}", describe(command)))?;
        self.append(&String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            bail!(
                "{} ended with {}\n{}",
                program(command),
                output.status,
                self.quote()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The end of the log and its name, for an error message.
    pub(crate) fn quote(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let tail = lines[lines.len().saturating_sub(QUOTED_LINES)..].join("\n    ");
        format!("    {tail}\n  the whole log is in {}", self.log.display())
    }

    fn require_success(&self, command: &mut Command, line_seen: impl FnMut(&str)) -> Result<()> {
        let status = self.stream(command, line_seen)?;
        if status.success() {
            return Ok(());
        }
        bail!(
            "{} ended with {status} ({})\n{}",
            program(command),
            self.title,
            self.quote()
        )
    }

    fn stream(&self, command: &mut Command, mut line_seen: impl FnMut(&str)) -> Result<ExitStatus> {
        self.append(&format!("$ {}", describe(command)));
        let (reader, writer) = std::io::pipe().context("making a pipe")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(writer.try_clone().context("copying a pipe")?)
            .stderr(writer)
            .spawn()
            .with_context(|| format!("starting {}", describe(command)));
        // The `Command` keeps the write end of the pipe until it gets other outputs. Without this,
        // the reader would never end.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = child?;
        for_each_line(reader, |line| {
            self.append(line);
            self.bar.set_message(line.trim().to_owned());
            line_seen(line);
        })?;
        child
            .wait()
            .with_context(|| format!("waiting for {}", program(command)))
    }

    fn append(&self, text: &str) {
        if let Ok(mut last) = self.last.lock() {
            text.clone_into(&mut last);
        }
        if let Ok(mut file) = File::options().append(true).open(&self.log) {
            let _ = writeln!(file, "{}", text.trim_end());
        }
    }
}

fn left(minutes: u32) -> String {
    let unit = if minutes == 1 { "minute" } else { "minutes" };
    format!("      about {minutes} {unit} left on a machine with two cores")
}

/// The command as a user would type it.
pub(crate) fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| quoted(&word.to_string_lossy()))
        .collect::<Vec<_>>()
        .join(" ")
}

/// A word, quoted for a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn program(command: &Command) -> String {
    let path = Path::new(command.get_program());
    path.file_name()
        .unwrap_or(command.get_program())
        .to_string_lossy()
        .into_owned()
}

/// Lines end with a line feed, or with a carriage return as in progress meters of other programs.
fn for_each_line(reader: impl Read, mut seen: impl FnMut(&str)) -> Result<()> {
    let mut reader = BufReader::new(reader);
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        if reader
            .read_until(b'\n', &mut buffer)
            .context("reading a command's output")?
            == 0
        {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&buffer);
        let text = text.trim_end();
        seen(text.rsplit('\r').next().unwrap_or(text));
    }
}

/// A file name from a title, without the part in brackets.
fn slug(title: &str) -> String {
    let title = title.split(" (").next().unwrap_or(title);
    let word = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    let text: String = title.chars().map(word).collect();
    text.split('-')
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_names_its_log_and_quotes_its_end() {
        let logs = std::env::temp_dir().join(format!("xtask-progress-{}", std::process::id()));
        let progress = Progress::new(logs.clone());
        let result = progress.step("Break it", |step| {
            step.run(Command::new("sh").args(["-c", "echo out; echo the reason >&2; exit 3"]))
        });
        let message = format!("{:#}", result.unwrap_err());
        std::fs::remove_dir_all(&logs).unwrap();
        assert!(message.contains("the reason"), "{message}");
        assert!(message.contains("break-it.log"), "{message}");
    }

    #[test]
    fn the_minutes_left_are_those_of_the_slow_steps_to_come() {
        let progress = Progress::new(std::env::temp_dir());
        progress.estimate(vec![("Build A", 8), ("Build B", 3)]);
        assert_eq!(progress.minutes_after("Something else"), None);
        assert_eq!(progress.minutes_after("Build A (some minutes)"), Some(3));
        assert_eq!(progress.minutes_after("Build A (some minutes)"), None);
        assert_eq!(progress.minutes_after("Build B"), None);
    }

    #[test]
    fn slugs_are_file_names() {
        assert_eq!(slug("Test image nginx:1.25 (cached)"), "test-image-nginx-1-25");
    }
}
