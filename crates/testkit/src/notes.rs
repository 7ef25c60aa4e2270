/*!
Lines that tests leave for `cargo xtask test` in files that variables name. The test harness hides
what a test prints if the test passes.
*/

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;

/// The variable with the file of facts. It has a line `TOPIC<tab>WHAT` for each call of [`fact`].
const FACTS: &str = "E2E_FACTS";

/// Notes what a test saw of the release of Kubernetes and of the container runtime, for the table
/// "What differs by version" of `docs/portability.md`. The topic is the row, in Markdown.
pub fn fact(topic: &str, what: &str) {
    let (topic, what) = (one_line(topic), one_line(what));
    println!("this release: {topic}: {what}");
    append(std::env::var_os(FACTS), &format!("{topic}\t{what}"));
}

/// Appends a line to the file that a variable names, if it is set.
pub(crate) fn append(path: Option<OsString>, line: &str) {
    let Some(path) = path else {
        return;
    };
    // Several tests append at the same time, so a line is one write.
    let file = OpenOptions::new().create(true).append(true).open(&path);
    if let Err(error) = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes())) {
        eprintln!("{}: cannot append {line:?}: {error}", path.display());
    }
}

/// The text with single spaces for tabs and line breaks.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::{append, one_line};

    #[test]
    fn lines_are_appended_one_after_the_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("facts");
        for line in ["a\tb", "c\td"] {
            append(Some(path.clone().into()), line);
        }
        append(None, "nowhere");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "a\tb\nc\td\n");
    }

    #[test]
    fn a_fact_does_not_break_its_line() {
        assert_eq!(one_line("a\tb\n  c"), "a b c");
    }
}
