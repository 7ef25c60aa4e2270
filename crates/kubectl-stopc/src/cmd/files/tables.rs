//! Listings as tables.

use kept_files::listing::{Change, ChangeKind, FileType};
use kept_files::path::escape;

use crate::table::{Row, Tone, render};

/// A line for each change: a sign, and the path. Directories end with a slash.
pub(super) fn changes(changes: &[Change]) -> String {
    let line = |change: &Change| {
        let (sign, tone) = match change.kind {
            ChangeKind::Added => ('A', Tone::Good),
            ChangeKind::Changed => ('C', Tone::Attention),
            ChangeKind::Deleted => ('D', Tone::Bad),
        };
        let more = match change.count {
            1 => String::new(),
            count => format!(" ({count} changes)"),
        };
        let text = tone.paint(&format!("{sign} {}{more}", path(change)));
        format!("{text}\n")
    };
    changes.iter().map(line).collect()
}

/// A table with all that is known of the changes.
pub(super) fn wide_changes(changes: &[Change]) -> String {
    let row = |change: &Change| {
        Row::plain([
            change.kind.as_str().to_owned(),
            change.file_type.as_str().to_owned(),
            change.count.to_string(),
            path(change),
        ])
    };
    let rows: Vec<_> = changes.iter().map(row).collect();
    format!("{}\n", render(&["CHANGE", "TYPE", "CHANGES", "PATH"], &rows))
}

fn path(change: &Change) -> String {
    let slash = if change.file_type == FileType::Directory && change.path != b"/" {
        "/"
    } else {
        ""
    };
    format!("{}{slash}", escape(&change.path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_a_sign_and_a_path() {
        let all = [
            "added directory 3 /srv",
            "changed file 1 /a\\x1b[2J",
            "deleted link 1 /bin",
        ];
        let all = all.map(|line| Change::parse(line).unwrap());
        let plain = |text: &str| anstream::adapter::strip_str(text).to_string();
        assert_eq!(
            plain(&changes(&all)),
            "A /srv/ (3 changes)\nC /a\\x1b[2J\nD /bin\n"
        );
        assert_eq!(
            plain(&wide_changes(&all)),
            "\
CHANGE    TYPE        CHANGES   PATH
added     directory   3         /srv/
changed   file        1         /a\\x1b[2J
deleted   link        1         /bin
"
        );
    }
}
