/*!
What a command prints. Results go to standard output, everything else to standard error.

On a terminal, the current step of a wait is one line with its time that is overwritten. Otherwise
every step is a line.
*/

use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Output of a command, and the user's answers.
pub struct Screen {
    out: Box<dyn Write + Send + Sync>,
    err: Box<dyn Write + Send + Sync>,
    input: Box<dyn BufRead + Send + Sync>,
    /// Whether the user can be asked.
    interactive: bool,
    /// Whether steps are one line that is overwritten.
    overwrites: bool,
    /// That line, while it is displayed.
    line: Option<ProgressBar>,
    /// The step that was displayed last.
    step: String,
}

// === impl Screen ===

impl Screen {
    /// Standard output and error of this process. Colours are removed unless the output is a
    /// terminal and `NO_COLOR` is not set.
    pub fn of_process() -> Self {
        let interactive = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        Self {
            out: Box::new(anstream::AutoStream::auto(std::io::stdout())),
            err: Box::new(anstream::AutoStream::auto(std::io::stderr())),
            input: Box::new(BufReader::new(std::io::stdin())),
            interactive,
            overwrites: std::io::stderr().is_terminal(),
            line: None,
            step: String::new(),
        }
    }

    /// A screen for tests, without colours: plain lines to these writers, and answers from `input`
    /// if the user can be asked.
    pub fn new(
        out: impl Write + Send + Sync + 'static,
        err: impl Write + Send + Sync + 'static,
        input: Option<&'static str>,
    ) -> Self {
        Self {
            out: Box::new(anstream::StripStream::new(writer(out))),
            err: Box::new(anstream::StripStream::new(writer(err))),
            input: Box::new(input.unwrap_or_default().as_bytes()),
            interactive: input.is_some(),
            overwrites: false,
            line: None,
            step: String::new(),
        }
    }

    /// Prints a result.
    pub fn print(&mut self, text: &str) {
        self.clear();
        // If the reader of a pipe is gone, there is no one to report that to.
        let _ = writeln!(self.out, "{text}");
        let _ = self.out.flush();
    }

    /// Prints a text as it is.
    pub fn print_raw(&mut self, text: &str) {
        self.clear();
        let _ = write!(self.out, "{text}");
        let _ = self.out.flush();
    }

    /// Prints a line that is not a result.
    pub fn note(&mut self, text: &str) {
        self.clear();
        let _ = writeln!(self.err, "{text}");
    }

    /// Displays the current step: its text, and how long it has taken.
    pub fn step(&mut self, text: &str) {
        if self.step == text {
            return;
        }
        text.clone_into(&mut self.step);
        if self.overwrites {
            let line = self.line.get_or_insert_with(spinner);
            line.set_message(text.to_owned());
            line.reset_elapsed();
        } else {
            let _ = writeln!(self.err, "{text}");
        }
    }

    /// Adds a cause to a step: behind it on a terminal, else as a line of its own.
    pub fn cause(&mut self, step: &str, cause: &str) {
        if self.overwrites {
            self.step(step);
            if let Some(line) = &self.line {
                line.set_message(format!("{step}: {cause}"));
            }
        } else {
            let _ = writeln!(self.err, "{step}: {cause}");
        }
    }

    /// Displays how far a command is, on a terminal. Elsewhere its result has to do.
    pub fn progress(&mut self, text: &str) {
        if self.overwrites {
            let line = self.line.get_or_insert_with(spinner);
            line.set_message(text.to_owned());
        }
    }

    /// Removes the line with the step.
    pub fn clear(&mut self) {
        self.step.clear();
        if let Some(line) = self.line.take() {
            line.finish_and_clear();
        }
    }

    /// Whether the user can be asked.
    pub fn can_ask(&self) -> bool {
        self.interactive
    }

    /// Asks a question. Everything but `y` and `yes` is a no.
    pub fn ask(&mut self, question: &str) -> bool {
        self.clear();
        let _ = write!(self.err, "{question} [y/N] ");
        let _ = self.err.flush();
        let mut answer = String::new();
        let read = self.input.read_line(&mut answer).unwrap_or_default();
        if read == 0 {
            let _ = writeln!(self.err);
        }
        matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
    }
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen")
            .field("interactive", &self.interactive)
            .finish_non_exhaustive()
    }
}

/// Moves the cursor to the beginning of the line. For indicatif, a carriage return would have a
/// width.
const LINE_BEGIN: &str = "\u{1b}[G";

/// The line with the current step.
fn spinner() -> ProgressBar {
    let line = ProgressBar::new_spinner();
    // The line is as wide as the terminal. With the cursor at its beginning, the `^C` that a
    // terminal displays is on the line and goes away with it, instead of pushing it up.
    let template = format!("{{spinner}} {{wide_msg}} {{elapsed}}{LINE_BEGIN}");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        line.set_style(style);
    }
    line.enable_steady_tick(Duration::from_millis(100));
    line
}

fn writer(to: impl Write + Send + Sync + 'static) -> Box<dyn Write + Send + Sync> {
    Box::new(to)
}
