//! A part of a page that a program writes. A line that differs for each part is before it, and
//! [`END`] is after it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// The line after a part.
const END: &str = "<!-- end -->";

/// Replaces the part of the page that begins with this line.
///
/// # Errors
/// If the page does not have the line, or none at the end of the part, or cannot be written.
pub(crate) fn write(page: &Path, begin: &str, content: &str) -> Result<()> {
    let text = fs::read_to_string(page).with_context(|| format!("reading {}", page.display()))?;
    let parts = text
        .split_once(begin)
        .and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) =
        parts.with_context(|| format!("{} does not contain the lines {begin} and {END}", page.display()))?;
    let content = content.trim_end();
    fs::write(page, format!("{before}{begin}\n\n{content}\n\n{END}{after}"))
        .with_context(|| format!("writing {}", page.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_replaced_alone() {
        let directory = tempfile::tempdir().unwrap();
        let page = directory.path().join("page.md");
        fs::write(
            &page,
            format!("a\n<!-- 1 -->\nold\n{END}\nb\n<!-- 2 -->\nold\n{END}\nc\n"),
        )
        .unwrap();
        write(&page, "<!-- 2 -->", "new\n").unwrap();
        let text = fs::read_to_string(&page).unwrap();
        assert_eq!(
            text,
            format!("a\n<!-- 1 -->\nold\n{END}\nb\n<!-- 2 -->\n\nnew\n\n{END}\nc\n")
        );
        write(&page, "<!-- 3 -->", "new").unwrap_err();
    }
}
