/*!
A shell in a pseudo-terminal: types commands as a user does, and records what the screen shows.

The shell's prompt contains the marks that terminals use to find prompts (OSC 133), with the exit
code of the last command. The screen does not show them.
*/

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::num::NonZeroU16;
use std::os::fd::AsFd;
use std::process::Child;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use pty_process::blocking::{Command, Pty};
use vt100::{Callbacks, Parser, Screen};

use super::line::lines;
use super::timeline::Frame;

/// The prompt, with its marks around it. bash counts what is between `\[` and `\]` as no column.
const PROMPT: &str = r"\[\e]133;D;$?\a\e[1;32m\]$\[\e[0m\] \[\e]133;B\a\]";
/// Between two letters, and before Enter.
const KEY: Duration = Duration::from_millis(45);
const BEFORE_ENTER: Duration = Duration::from_millis(350);
/// How long a command may take.
const PATIENCE: Duration = Duration::from_mins(4);

/// Size of the screen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    /// Number of rows.
    pub rows: NonZeroU16,
    /// Number of columns.
    pub columns: NonZeroU16,
}

/// A shell and its screen. The shell is killed when this is dropped.
pub(super) struct Terminal {
    shell: Child,
    pty: Pty,
    output: Receiver<Vec<u8>>,
    parser: Parser<Marks>,
    begun: Instant,
    frames: Vec<Frame>,
}

/// What the shell's prompts said.
#[derive(Debug, Default)]
struct Marks {
    /// Number of prompts.
    prompts: usize,
    /// Exit code of the last command.
    code: Option<i32>,
}

// === impl Terminal ===

impl Terminal {
    /// Starts bash with only these variables, and waits for its prompt.
    pub(super) fn open(size: Size, variables: &[(&str, &str)]) -> Result<Self> {
        let (pty, pts) = pty_process::blocking::open().context("opening a pseudo-terminal")?;
        let (rows, columns) = (size.rows, size.columns);
        pty.resize(pty_process::Size::new(rows.get(), columns.get()))
            .context("setting the size of a pseudo-terminal")?;
        let shell = Command::new("bash")
            .args(["--norc", "--noprofile", "--noediting", "-i"])
            .env_clear()
            .envs(variables.iter().copied())
            .env("TERM", "xterm-256color")
            .env("PS1", PROMPT)
            .spawn(pts)
            .context("starting bash")?;
        let reader = pty.as_fd().try_clone_to_owned().context("copying a descriptor")?;
        let (sender, output) = mpsc::channel();
        // It ends with the last program on the terminal.
        thread::spawn(move || {
            let mut reader = File::from(reader);
            let mut buffer = vec![0; 8192];
            loop {
                match reader.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(count) if sender.send(buffer[..count].to_vec()).is_err() => return,
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => return,
                }
            }
        });
        let mut terminal = Self {
            shell,
            pty,
            output,
            parser: Parser::new_with_callbacks(rows, columns, 0, Marks::default()),
            begun: Instant::now(),
            frames: Vec::new(),
        };
        terminal.prompt(0)?;
        Ok(terminal)
    }

    /// Types a command, runs it to its end, and lets its output be read for a while.
    ///
    /// # Errors
    /// If it fails. The error has what the screen shows.
    pub(super) fn run(&mut self, command: &str, reading: Duration) -> Result<()> {
        let earlier = self.parser.callbacks().prompts;
        for letter in command.chars() {
            self.key(letter)?;
            self.watch(KEY)?;
        }
        self.watch(BEFORE_ENTER)?;
        self.key('\r')?;
        self.prompt(earlier)?;
        let code = self.parser.callbacks().code;
        ensure!(
            code == Some(0),
            "`{command}` ended with exit code {}:\n{}",
            code.map_or_else(|| "?".to_owned(), |code| code.to_string()),
            self.shown()
        );
        self.watch(reading)
    }

    /// What the screen showed since the first prompt.
    pub(super) fn into_frames(mut self) -> Vec<Frame> {
        std::mem::take(&mut self.frames)
    }

    fn key(&self, letter: char) -> Result<()> {
        let mut bytes = [0; 4];
        let bytes = letter.encode_utf8(&mut bytes).as_bytes();
        (&self.pty)
            .write_all(bytes)
            .context("writing to the pseudo-terminal")
    }

    /// Waits for another prompt than the first `earlier` ones.
    fn prompt(&mut self, earlier: usize) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.parser.callbacks().prompts <= earlier {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!(
                    "the shell did not come back within {} s; it shows:\n{}",
                    PATIENCE.as_secs(),
                    self.shown()
                );
            }
            self.read(left)?;
        }
        Ok(())
    }

    /// Records the screen for a while.
    fn watch(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.read(left)?;
        }
    }

    /// Records the next output, if there is one within this time.
    fn read(&mut self, time: Duration) -> Result<()> {
        match self.output.recv_timeout(time) {
            Ok(bytes) => {
                self.parser.process(&bytes);
                self.frames.push(Frame {
                    at: self.begun.elapsed(),
                    lines: lines(self.parser.screen()),
                });
                Ok(())
            }
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => bail!("the shell ended; it showed:\n{}", self.shown()),
        }
    }

    fn shown(&self) -> String {
        self.parser.screen().contents().trim_end().to_owned()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has ended already if this fails.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

// === impl Marks ===

impl Callbacks for Marks {
    fn unhandled_osc(&mut self, _: &mut Screen, parts: &[&[u8]]) {
        match parts {
            [b"133", b"D", code] => {
                self.code = std::str::from_utf8(code).ok().and_then(|code| code.parse().ok());
            }
            [b"133", b"B", ..] => self.prompts += 1,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::Line;
    use super::super::timeline::Timeline;
    use super::*;

    fn open() -> Terminal {
        let size = |number| NonZeroU16::new(number).unwrap();
        let size = Size {
            rows: size(4),
            columns: size(40),
        };
        let path = std::env::var("PATH").unwrap();
        Terminal::open(size, &[("PATH", &path), ("LANG", "C.UTF-8")]).unwrap()
    }

    fn text(line: &Line) -> String {
        line.0.iter().map(|run| run.text.as_str()).collect()
    }

    #[test]
    fn commands_run_on_a_terminal_and_are_typed_letter_by_letter() {
        let mut terminal = open();
        terminal
            .run("test -t 1 && tput cols", Duration::from_millis(100))
            .unwrap();
        let timeline = Timeline::of(terminal.into_frames());
        let rows = timeline.rows();
        let typed: Vec<_> = rows[0]
            .iter()
            .map(|change| text(change.line).trim_end().to_owned())
            .collect();
        assert!(typed.contains(&"$ test -t".to_owned()), "{typed:?}");
        assert_eq!(typed.last().unwrap(), "$ test -t 1 && tput cols");
        assert_eq!(text(rows[1].last().unwrap().line), "40");
        assert!(text(rows[2].last().unwrap().line).starts_with('$'));
    }

    #[test]
    fn a_command_that_fails_ends_the_recording_with_the_screen() {
        let mut terminal = open();
        let error = terminal
            .run("echo the reason; false", Duration::ZERO)
            .unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains("exit code 1"), "{error}");
        assert!(error.contains("\nthe reason\n"), "{error}");
        let ended = terminal.run("exit 0", Duration::ZERO).unwrap_err();
        assert!(ended.to_string().starts_with("the shell ended"), "{ended}");
    }
}
