/*!
Prose in the repository: lines of Markdown and of comments have at most [`WIDTH`] columns, and prose
and string literals do not use the phrases in [`PHRASES`].

Code fences and tables in Markdown and generated code are not checked for width, and neither are
lines that consist of one link. Code spans may contain any phrase.
*/

mod rust;

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::workspace::Workspace;
use rust::{Kind, Piece};

/// Maximum number of columns of a line of prose.
const WIDTH: usize = 100;
/// Mark of generated code, in its first line.
const GENERATED: &str = "@generated";
/// This file contains the phrases as literals.
const NOT_CHECKED: &str = "xtask/src/lint/prose.rs";

/// Phrases that do not name their subject or are not common English, and what to write instead.
const PHRASES: &[(&str, &str)] = &[
    ("somebody", SUBJECT),
    ("someone", SUBJECT),
    ("nobody", SUBJECT),
    ("anybody", SUBJECT),
    ("anyone", SUBJECT),
    ("whoever", SUBJECT),
    ("is told", REPORT),
    ("are told", REPORT),
    ("be told", REPORT),
    ("was told", REPORT),
    ("were told", REPORT),
    ("tell of", REPORT),
    ("tells of", REPORT),
    ("says of", "write \"reports\" or \"describes\""),
    ("speaks of", "write \"describes\" or \"names\""),
    ("made good", "write \"repeated\", \"repaired\" or \"corrected\""),
    ("has still to", "write \"must still\" or \"is not yet\""),
    ("have still to", "write \"must still\" or \"are not yet\""),
    ("has not got", "write \"does not have\" or \"is waiting for\""),
    ("have not got", "write \"do not have\" or \"are waiting for\""),
    ("goes well", "write \"succeeds\""),
    ("went well", "write \"succeeded\""),
    ("look after", "write \"check\""),
];
const SUBJECT: &str = "name the subject: \"the user\", \"the agent\", \"another process\"";
const REPORT: &str = "write who reports what: \"the agent reports\", \"the condition has\"";

/// Something to change, with its line.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    line: usize,
    message: String,
}

/// A word of prose with its line, in lower case and without punctuation.
type Word = (usize, String);

/// Checks all Markdown files and Rust sources.
///
/// # Errors
/// With every line that is too long and every phrase.
pub(super) fn check(workspace: &Workspace) -> Result<()> {
    let mut found = Vec::new();
    for path in workspace.sources(&["md", "rs"])? {
        let text = std::fs::read_to_string(workspace.join(&path))
            .with_context(|| format!("reading {}", path.display()))?;
        for Finding { line, message } in findings(&path, &text) {
            found.push(format!("{}:{line}: {message}", path.display()));
        }
    }
    ensure!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}

fn findings(path: &Path, text: &str) -> Vec<Finding> {
    let first = text.lines().next().unwrap_or_default();
    if path == Path::new(NOT_CHECKED) || first.contains(GENERATED) {
        return Vec::new();
    }
    let mut found = if path.extension().is_some_and(|extension| extension == "rs") {
        in_rust(text)
    } else {
        in_markdown(text)
    };
    found.sort_by_key(|finding| finding.line);
    found
}

// === Markdown ===

fn in_markdown(text: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut paragraph = Vec::new();
    let mut fenced = false;
    for (at, line) in text.lines().enumerate() {
        let start = line.trim_start();
        let fence = start.starts_with("```") || start.starts_with("~~~");
        fenced ^= fence;
        if fence || fenced || start.is_empty() {
            found.extend(phrases(&std::mem::take(&mut paragraph)));
            continue;
        }
        if !start.starts_with('|') {
            found.extend(too_long(at + 1, line));
        }
        paragraph.extend(words(at + 1, line));
    }
    found.extend(phrases(&paragraph));
    found
}

// === Rust ===

fn in_rust(text: &str) -> Vec<Finding> {
    let lines: Vec<_> = text.lines().collect();
    let mut found = Vec::new();
    let mut comment: Vec<Word> = Vec::new();
    let mut next = 0;
    for Piece { kind, line, text } in rust::pieces(text) {
        match kind {
            Kind::Comment => {
                if line != next {
                    found.extend(phrases(&std::mem::take(&mut comment)));
                }
                for (at, part) in (line..).zip(text.lines()) {
                    next = at + 1;
                    comment.extend(words(at, content(part)));
                    found.extend(lines.get(at - 1).and_then(|line| too_long(at, line)));
                }
            }
            Kind::Literal => found.extend(phrases(&words_of_literal(line, text))),
        }
    }
    found.extend(phrases(&comment));
    found
}

/// The text of a line of a comment, without the characters that mark it.
fn content(line: &str) -> &str {
    line.trim().trim_start_matches(['/', '!', '*']).trim_start()
}

/// The words of a literal. A literal without spaces is a name and not prose.
fn words_of_literal(line: usize, text: &str) -> Vec<Word> {
    if !text.contains(' ') {
        return Vec::new();
    }
    let text = text.replace("\\n", " ");
    (line..)
        .zip(text.lines())
        .flat_map(|(at, part)| words(at, part.trim_end_matches('\\')))
        .collect()
}

// === What is wrong ===

fn too_long(line: usize, text: &str) -> Option<Finding> {
    let columns = text.chars().count();
    (columns > WIDTH && !is_link(text)).then(|| Finding {
        line,
        message: format!("{columns} columns of prose: break the line, at most {WIDTH} are allowed"),
    })
}

/// Whether a line is one link and cannot be broken.
fn is_link(line: &str) -> bool {
    let text = content(line);
    let text = text.strip_prefix("- ").unwrap_or(text);
    let target = match text.split_once("]: ") {
        Some((label, target)) if label.starts_with('[') => target,
        _ => text,
    };
    target.contains("://") && !target.contains(char::is_whitespace)
}

fn words(line: usize, text: &str) -> Vec<Word> {
    let word = |word: &str| {
        let word = word.trim_matches(|c: char| c.is_ascii_punctuation() && c != '`');
        word.trim_end_matches("'s").to_lowercase()
    };
    text.split_whitespace().map(|text| (line, word(text))).collect()
}

fn phrases(words: &[Word]) -> Vec<Finding> {
    let mut found = Vec::new();
    for (phrase, advice) in PHRASES {
        let phrase_words: Vec<_> = phrase.split(' ').collect();
        for window in words.windows(phrase_words.len()) {
            if window.iter().map(|(_, word)| word).eq(&phrase_words) {
                found.push(Finding {
                    line: window[0].0,
                    message: format!("{phrase:?}: {advice}"),
                });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<(usize, String)> {
        findings(Path::new(path), text)
            .into_iter()
            .map(|Finding { line, message }| (line, message.split(':').next().unwrap_or_default().to_owned()))
            .collect()
    }

    fn long(columns: usize) -> String {
        "word ".repeat(columns / 5)
    }

    #[test]
    fn long_lines_are_found_in_prose_only() {
        let long = long(105);
        let text = format!("{long}\n\n```sh\n{long}\n```\n| {long} |\nshort\n{long}\n");
        let message = "105 columns of prose".to_owned();
        assert_eq!(lines("a.md", &text), [(1, message.clone()), (8, message)]);
    }

    #[test]
    fn links_that_cannot_be_broken_may_be_long() {
        let url = format!("https://example.com/{}", "x".repeat(100));
        for link in [url.clone(), format!("[name]: {url}"), format!("- [a]({url})")] {
            assert_eq!(lines("a.md", &link), [], "{link}");
        }
        assert_eq!(lines("a.rs", &format!("/// <{url}>\n")), []);
        assert_eq!(lines("a.md", &format!("see {url}")).len(), 1);
    }

    #[test]
    fn long_comments_are_found_and_long_code_is_not() {
        let long = long(100);
        let text = format!("let a = \"{long}\";\n/// {long}\nfn f() {{}} // {long}\n/*!\n{long} more\n*/\n");
        let found: Vec<_> = lines("a.rs", &text).into_iter().map(|(line, _)| line).collect();
        assert_eq!(found, [2, 3, 5]);
    }

    #[test]
    fn generated_code_is_not_checked() {
        let text = format!(
            "// This file is @generated by a program.\n// {} somebody\n",
            long(105)
        );
        assert_eq!(lines("gen/a.rs", &text), []);
    }

    #[test]
    fn phrases_are_found_across_lines_and_in_any_case() {
        let text =
            "Somebody's file. The user is\ntold.\n\nHe is\n\ntold: `nobody`, nobody:x:65534, asomeone.\n";
        let expected = [(1, "\"somebody\""), (1, "\"is told\"")];
        let found = lines("a.md", text);
        let mut found: Vec<_> = found.iter().map(|(line, m)| (*line, m.as_str())).collect();
        found.sort_by_key(|(line, _)| *line);
        assert_eq!(found, expected);
    }

    #[test]
    fn phrases_are_found_in_comments_and_in_literals_with_spaces() {
        let text = "// It is\n// told.\nlet somebody = \"somebody\";\nlet a = \"what nobody \\\n    sees\\nsomeone\";\n";
        let found = lines("a.rs", text);
        let mut found: Vec<_> = found.iter().map(|(line, m)| (*line, m.as_str())).collect();
        found.sort_unstable();
        assert_eq!(found, [(1, "\"is told\""), (4, "\"nobody\""), (5, "\"someone\"")]);
    }

    #[test]
    fn the_advice_is_part_of_the_message() {
        let found = findings(Path::new("a.md"), "It goes well.");
        assert_eq!(found[0].message, "\"goes well\": write \"succeeds\"");
    }
}
