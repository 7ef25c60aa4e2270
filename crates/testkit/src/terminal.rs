/*!
Terminals in which a test types, and whose screens it reads as a user sees them. tmux is the
terminal: it interprets what programs write, and answers their questions about it.

tmux does not report a change of a screen. A wait therefore reads the screen again after a short
pause, and ends as soon as it shows what the test waits for.
*/

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::Instant;

use crate::namespace::{PATIENCE, patience};

/// The shell's prompt.
const PROMPT: &str = "$";
/// Pause between two looks at a screen. What is shown for less time may not be seen.
const PAUSE: Duration = Duration::from_millis(50);
/// Name of the only session.
const SESSION: &str = "test";

/// A terminal with a shell. Both end when this is dropped.
#[derive(Debug)]
pub struct Terminal {
    /// Directory of the socket, which nothing else uses.
    dir: TempDir,
    /// Number of commands that were typed.
    typed: usize,
}

/// Columns and rows of a terminal.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Number of columns.
    pub columns: u16,
    /// Number of rows.
    pub rows: u16,
}

// === impl Terminal ===

impl Terminal {
    /// Opens a terminal. Its shell has these variables and no others, and is at its prompt.
    ///
    /// # Errors
    /// If tmux cannot be started.
    pub async fn open(size: Size, variables: &[(&str, &OsStr)]) -> Result<Self> {
        let dir = tempfile::tempdir().context("making a directory for tmux")?;
        let terminal = Self { dir, typed: 0 };
        let (columns, rows) = (size.columns.to_string(), size.rows.to_string());
        let mut command = Command::new("tmux");
        // The server inherits the variables, and gives them to the shell.
        command.env_clear().envs(variables.iter().copied());
        command
            .env("PS1", format!("{PROMPT} "))
            .env("LC_ALL", "C.UTF-8")
            .env("TERM", "xterm-256color");
        command.arg("-S").arg(terminal.socket());
        command.args(["-f", "/dev/null", "-u", "new-session", "-d", "-s", SESSION]);
        command.args(["-x", &columns, "-y", &rows, "/bin/sh", "-i"]);
        run(command).await.context("starting tmux")?;
        terminal
            .wait("the shell is at its prompt", |screen| screen == PROMPT)
            .await?;
        Ok(terminal)
    }

    /// Types a line. Commands count, and answers to questions do not.
    ///
    /// # Errors
    /// If the terminal has ended.
    pub async fn command(&mut self, line: &str) -> Result<()> {
        self.answer(line).await?;
        self.typed += 1;
        Ok(())
    }

    /// Types an answer to the question of a command.
    ///
    /// # Errors
    /// If the terminal has ended.
    pub async fn answer(&self, line: &str) -> Result<()> {
        self.tmux(&["send-keys", "-t", SESSION, "-l", "--", line]).await?;
        self.press("Enter").await
    }

    /// Presses a key, by tmux's name of it: `C-c`.
    ///
    /// # Errors
    /// If the terminal has ended.
    pub async fn press(&self, key: &str) -> Result<()> {
        self.tmux(&["send-keys", "-t", SESSION, key]).await.map(drop)
    }

    /// Everything that is on the screen or has left it at its top. Lines that the screen wraps are
    /// whole.
    ///
    /// # Errors
    /// If the terminal has ended.
    pub async fn screen(&self) -> Result<String> {
        self.captured(&["-J", "-S", "-"]).await
    }

    /// The same with the escape sequences of colours.
    ///
    /// # Errors
    /// If the terminal has ended.
    pub async fn coloured_screen(&self) -> Result<String> {
        self.captured(&["-e", "-J", "-S", "-"]).await
    }

    /// What the screen shows, row by row.
    ///
    /// # Errors
    /// If the terminal has ended.
    pub async fn rows(&self) -> Result<Vec<String>> {
        let captured = self.captured(&[]).await?;
        Ok(captured.lines().map(str::to_owned).collect())
    }

    /// Waits until the screen is as the test expects, and returns it.
    ///
    /// # Errors
    /// If it is not, with the screen.
    pub async fn wait(&self, what: &str, met: impl Fn(&str) -> bool) -> Result<String> {
        let limit = patience(PATIENCE);
        let deadline = Instant::now() + limit;
        loop {
            let screen = self.screen().await?;
            if met(&screen) {
                return Ok(screen);
            }
            if Instant::now() > deadline {
                bail!("waited {limit:?} until {what}; the screen:\n{screen}");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until the last command has ended, and returns the screen. Calls `meanwhile` with each
    /// screen before that.
    ///
    /// # Errors
    /// If the command does not end, with the screen.
    pub async fn ended(&self, mut meanwhile: impl FnMut(&str)) -> Result<String> {
        let limit = patience(PATIENCE);
        let deadline = Instant::now() + limit;
        loop {
            let screen = self.screen().await?;
            if self.is_at_prompt(&screen) {
                return Ok(screen);
            }
            meanwhile(&screen);
            if Instant::now() > deadline {
                bail!("waited {limit:?} until the command ends; the screen:\n{screen}");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Whether the shell waits for another command.
    fn is_at_prompt(&self, screen: &str) -> bool {
        let begin = format!("{PROMPT} ");
        let commands = screen.lines().filter(|line| line.starts_with(&begin)).count();
        commands == self.typed && screen.lines().last() == Some(PROMPT)
    }

    async fn captured(&self, options: &[&str]) -> Result<String> {
        let capture = [&["capture-pane", "-p", "-t", SESSION], options].concat();
        let text = self.tmux(&capture).await?;
        let lines: Vec<_> = text.lines().map(str::trim_end).collect();
        Ok(lines.join("\n").trim_end().to_owned())
    }

    async fn tmux(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(self.socket()).args(args);
        run(command).await
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Err(error) = end_server(&self.socket()) {
            eprintln!("tmux could not be ended: {error}");
        }
    }
}

/// Ends the server, its shell and what the shell has started.
fn end_server(socket: &Path) -> std::io::Result<()> {
    let mut command = std::process::Command::new("tmux");
    command.arg("-S").arg(socket).arg("kill-server");
    // A server that has ended is no error.
    command.stdin(Stdio::null()).stderr(Stdio::null()).status()?;
    Ok(())
}

/// Runs tmux, and returns what it prints.
async fn run(mut command: Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("tmux cannot be started: install the package tmux")?;
    ensure!(
        output.status.success(),
        "tmux ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Size = Size { columns: 30, rows: 5 };

    async fn small() -> Terminal {
        let path = std::env::var_os("PATH").unwrap_or_default();
        Terminal::open(SMALL, &[("PATH", &path)]).await.unwrap()
    }

    #[tokio::test]
    async fn a_command_is_typed_answered_and_ends() {
        let mut terminal = small().await;
        terminal
            .command("printf 'Sure? '; read a; echo \"said $a\"")
            .await
            .unwrap();
        let asked = terminal
            .wait("it asks", |screen| screen.ends_with("\nSure?"))
            .await;
        asked.unwrap();
        terminal.answer("y").await.unwrap();
        let screen = terminal.ended(|_| {}).await.unwrap();
        assert_eq!(
            screen,
            "$ printf 'Sure? '; read a; echo \"said $a\"\nSure? y\nsaid y\n$"
        );
        terminal.command("sleep infinity").await.unwrap();
        terminal
            .wait("it runs", |screen| screen.ends_with("infinity"))
            .await
            .unwrap();
        terminal.press("C-c").await.unwrap();
        let mut screens = 0;
        let screen = terminal.ended(|_| screens += 1).await.unwrap();
        assert!(screen.ends_with("$ sleep infinity\n^C\n$"), "{screen}");
    }

    #[tokio::test]
    async fn what_left_the_screen_is_read_and_colours_are_too() {
        let mut terminal = small().await;
        terminal
            .command("printf '\\033[31mred\\033[0m\\n'; seq 9; echo \"$TERM $PS1|$HOME|\"")
            .await
            .unwrap();
        let screen = terminal.ended(|_| {}).await.unwrap();
        assert!(screen.contains("\nred\n1\n2\n"), "{screen}");
        assert!(screen.ends_with("$ ||\n$"), "it has other variables: {screen}");
        let coloured = terminal.coloured_screen().await.unwrap();
        assert!(coloured.contains("\n\u{1b}[31mred\n"), "{coloured:?}");
        assert_eq!(terminal.rows().await.unwrap().len(), 5);
    }

    #[tokio::test]
    async fn the_shell_ends_with_the_terminal() {
        let mut terminal = small().await;
        terminal.command("echo pid=$$").await.unwrap();
        let screen = terminal.ended(|_| {}).await.unwrap();
        let pid = screen.lines().find_map(|line| line.strip_prefix("pid=")).unwrap();
        let command_line = Path::new("/proc").join(pid).join("cmdline");
        // A process that has ended and is still listed has none.
        let runs = || std::fs::read(&command_line).is_ok_and(|line| !line.is_empty());
        assert!(runs(), "{screen}");
        drop(terminal);
        // tmux ends the shell after it has answered.
        let deadline = Instant::now() + PATIENCE;
        while runs() && Instant::now() < deadline {
            tokio::time::sleep(PAUSE).await;
        }
        assert!(!runs(), "the shell {pid} still runs");
    }
}
