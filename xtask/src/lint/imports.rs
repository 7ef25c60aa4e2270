/*!
Modules import in one direction: a room (a module with its files) uses the rooms below it and never
one above, so that there is no circle and each room can be read with only those below in mind. The
order of the rooms is in [`TREES`].
*/

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::workspace::Workspace;

/// Sources whose rooms have an order.
struct Tree {
    /// Directory of the files.
    directory: &'static str,
    /// Path of the module that they belong to, below the crate. It is the root: what it defines
    /// itself is above all rooms.
    module: &'static [&'static str],
    /// The rooms from top to bottom, by their paths below that module. Those of one line may use
    /// each other.
    rooms: &'static [&'static [&'static str]],
}

/// Every tree that is checked. A file that belongs to no room is an error, so that the table stays
/// complete.
const TREES: &[Tree] = &[
    Tree {
        directory: "crates/node-agent/src",
        module: &[],
        rooms: &[
            &[
                "main", "lib", "args", "run", "agent", "metrics", "orphans", "probe",
            ],
            &["csi"],
            &["sync"],
            &["wrapper"],
            &["filesystem"],
            &["volumes"],
            &["node"],
            &["instance"],
            &["backoff", "counters", "rate_limit"],
        ],
    },
    Tree {
        directory: "crates/kubectl-stopc/src",
        module: &[],
        rooms: &[
            &["main", "lib"],
            &["completion"],
            &["args"],
            &["cmd"],
            &["wait"],
            &["confirm"],
            &["select"],
            &["session"],
            &["explain", "output", "view"],
            &["jsonpath", "names", "screen", "table", "units"],
            &["failure"],
        ],
    },
    Tree {
        directory: "src/reconcile",
        module: &["reconcile"],
        rooms: &[
            &["watch"],
            &["container"],
            &["instance"],
            &["instance::apply"],
            &["instance::status"],
            &["instance::template_check"],
            &["instance::plan"],
            &["instance::observe"],
            &["instance::state"],
            &["context"],
            &["pods"],
            &["conditions"],
        ],
    },
];

/// A path of a source file's text that begins at the crate's root, with its line.
#[derive(Debug, PartialEq, Eq)]
struct Import {
    line: usize,
    path: Vec<String>,
}

/// Looks for imports that go upwards.
///
/// # Errors
/// With every one of them.
pub(super) fn check(workspace: &Workspace) -> Result<()> {
    let mut found = Vec::new();
    for path in workspace.sources(&["rs"])? {
        let Some(tree) = TREES.iter().find(|tree| path.starts_with(tree.directory)) else {
            continue;
        };
        if is_test(&path) {
            continue;
        }
        let text = std::fs::read_to_string(workspace.join(&path))
            .with_context(|| format!("reading {}", path.display()))?;
        let upward = tree.upward(path.strip_prefix(tree.directory)?, &text);
        found.extend(
            upward
                .into_iter()
                .map(|(line, problem)| format!("{}:{line}: {problem}", path.display())),
        );
    }
    ensure!(
        found.is_empty(),
        "the order of rooms is in {}:\n{}",
        file!(),
        found.join("\n")
    );
    Ok(())
}

// === impl Tree ===

impl Tree {
    /// What is wrong in a file of the tree, with its lines.
    fn upward(&self, file: &Path, text: &str) -> Vec<(usize, String)> {
        let below = module_of(file);
        let own = match below.as_slice() {
            [] => Some(0),
            below => self.level(below),
        };
        let Some(own) = own else {
            return vec![(1, "the file belongs to no room of the table".to_owned())];
        };
        let module: Vec<_> = self.module.iter().map(|part| (*part).to_owned()).collect();
        let module = [module, below].concat();
        let outside = |import: &Import| !import.path.iter().zip(self.module).all(|(a, b)| a == b);
        let mut found = Vec::new();
        for import in imports(text, &module) {
            if import.path.len() < self.module.len() || outside(&import) {
                continue;
            }
            // An item of the root belongs to no room: it is at the top.
            let level = self.level(&import.path[self.module.len()..]).unwrap_or(0);
            // Itself, by whatever way.
            let own_room = import.path.starts_with(&module) || module.starts_with(&import.path);
            if level < own && !(own_room && import.path.len() > self.module.len()) {
                let name = import.path.join("::");
                found.push((import.line, format!("crate::{name} is in a room above")));
            }
        }
        found
    }

    /// The place of a module's room in the order: that of the longest path in the table that it
    /// begins with.
    fn level(&self, module: &[String]) -> Option<usize> {
        let length = |room: &str| {
            let parts: Vec<_> = room.split("::").collect();
            let begins = module.len() >= parts.len() && parts.iter().zip(module).all(|(a, b)| a == b);
            begins.then_some(parts.len())
        };
        let rooms = self.rooms.iter().enumerate();
        let matching = rooms
            .flat_map(|(level, rooms)| rooms.iter().filter_map(move |room| Some((length(room)?, level))));
        matching.max().map(|(_, level)| level)
    }
}

/// Tests look at what the rooms above make of what is below.
fn is_test(path: &Path) -> bool {
    let mut parts = path.components().filter_map(|part| part.as_os_str().to_str());
    parts.any(|part| matches!(part, "tests" | "tests.rs" | "fixtures.rs"))
}

/// The module that a file is, below the module of its tree. Empty for the root.
fn module_of(file: &Path) -> Vec<String> {
    let mut parts: Vec<_> = file
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    if let [only] = parts.as_slice()
        && (only == "lib" || only == "main")
    {
        parts.clear();
    }
    parts
}

/// Every path of a file that begins with `crate`, `self` or `super`: in `use` lines, groups in
/// them, and inline.
fn imports(text: &str, module: &[String]) -> Vec<Import> {
    let tokens = tokens(text);
    let mut found = Vec::new();
    // Modules within the file, each with the depth of braces that it ends at.
    let mut inner: Vec<(String, usize)> = Vec::new();
    let mut depth = 0;
    let mut at = 0;
    while at < tokens.len() {
        let word = |offset: usize| tokens.get(at + offset).map_or("", |(_, word)| *word);
        match word(0) {
            "mod" if word(2) == "{" => {
                inner.push((word(1).to_owned(), depth));
                depth += 1;
                at += 3;
                continue;
            }
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                if inner.last().is_some_and(|(_, end)| *end == depth) {
                    inner.pop();
                }
            }
            start @ ("crate" | "self" | "super") if word(1) == "::" => {
                let here = inner.iter().map(|(name, _)| name.clone());
                let here: Vec<_> = module.iter().cloned().chain(here).collect();
                let begin = match start {
                    "crate" => Vec::new(),
                    "self" => here,
                    _ => here[..here.len().saturating_sub(1)].to_vec(),
                };
                at = tree(&tokens, at + 2, &begin, &mut found);
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// Reads a path from where its next part begins, with the groups in it. Returns where it ends.
fn tree(tokens: &[(usize, &str)], mut at: usize, begin: &[String], found: &mut Vec<Import>) -> usize {
    let mut path = begin.to_vec();
    loop {
        let Some((line, word)) = tokens.get(at) else {
            return at;
        };
        let line = *line;
        match *word {
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|(_, word)| *word != "}") {
                    at = tree(tokens, at, &path, found);
                    while tokens
                        .get(at)
                        .is_some_and(|(_, word)| !matches!(*word, "," | "}"))
                    {
                        // `as name`
                        at += 1;
                    }
                    if tokens.get(at).is_some_and(|(_, word)| *word == ",") {
                        at += 1;
                    }
                }
                return at + 1;
            }
            "super" => _ = path.pop(),
            "self" => {}
            word => path.push(word.to_owned()),
        }
        at += 1;
        if tokens.get(at).is_none_or(|(_, word)| *word != "::") {
            found.push(Import { line, path });
            return at;
        }
        at += 1;
    }
}

/// The words and signs of a source file with their lines, without comments and what is quoted.
fn tokens(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = quoted(rest) {
            length
        } else if first.is_alphanumeric() || first == '_' {
            let is_part = |c: char| c.is_alphanumeric() || c == '_';
            let length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
            found.push((line, &rest[..length]));
            length
        } else if rest.starts_with("::") {
            found.push((line, "::"));
            2
        } else {
            if !first.is_whitespace() {
                found.push((line, &rest[..first.len_utf8()]));
            }
            first.len_utf8()
        };
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    found
}

/// Length of the string or character that `text` begins with.
fn quoted(text: &str) -> Option<usize> {
    let raw = text.strip_prefix("br").or_else(|| text.strip_prefix('r'));
    if let Some(raw) = raw {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let begin = text.len() - raw.len() + hashes + 1;
            return Some(
                text[begin..]
                    .find(&end)
                    .map_or(text.len(), |at| begin + at + end.len()),
            );
        }
        return None;
    }
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    if quote == '\'' && !text[1..].starts_with('\\') && text[1..].chars().nth(1) != Some('\'') {
        // A lifetime.
        return None;
    }
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    Some(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: Tree = Tree {
        directory: "src/house",
        module: &["house"],
        rooms: &[
            &["attic"],
            &["kitchen", "kitchen_door"],
            &["kitchen::cupboard"],
            &["cellar", "well"],
        ],
    };

    fn upward(file: &str, text: &str) -> Vec<(usize, String)> {
        TREE.upward(Path::new(file), text)
    }

    #[track_caller]
    fn lines(file: &str, text: &str, expected: &[usize]) {
        let lines: Vec<_> = upward(file, text).into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, expected, "{text}");
    }

    #[test]
    fn downwards_and_outside_is_fine() {
        lines(
            "attic.rs",
            "use crate::house::{cellar, kitchen::Table};\nuse std::io;",
            &[],
        );
        lines(
            "kitchen/sink.rs",
            "use super::cupboard;\nuse crate::other::attic;\nuse self::x;",
            &[],
        );
        lines(
            "cellar.rs",
            "use crate::house::well;\nuse super::cellar::Wine;",
            &[],
        );
        lines(
            "kitchen.rs",
            "use crate::house::kitchen_door::Key;\npub(crate) fn f() {}",
            &[],
        );
    }

    #[test]
    fn upwards_is_found_however_it_is_written() {
        lines("cellar.rs", "use crate::house::attic::Trunk;", &[1]);
        lines(
            "cellar.rs",
            "use crate::{\n    a,\n    house::{well, attic::{self, X}},\n};",
            &[3, 3],
        );
        lines("cellar.rs", "use super::kitchen;", &[1]);
        lines("cellar/shelf.rs", "use super::super::kitchen::Table as T;", &[1]);
        lines("cellar.rs", "fn f() {\n    crate::house::attic::open();\n}", &[2]);
        lines("kitchen/cupboard.rs", "use super::Table;", &[1]);
        assert_eq!(
            upward("cellar.rs", "use super::attic;")[0].1,
            "crate::house::attic is in a room above"
        );
    }

    #[test]
    fn the_root_is_above_all_rooms() {
        lines(
            "attic.rs",
            "use super::Context;\nuse crate::house::attic::X;",
            &[],
        );
        lines("kitchen.rs", "use super::Context;", &[1]);
        lines("kitchen.rs", "use crate::house;", &[1]);
    }

    #[test]
    fn modules_within_a_file_are_part_of_the_path() {
        let text =
            "fn f() {}\nmod tests {\n    use super::*;\n    use super::super::attic;\n}\nuse super::attic;";
        lines("cellar.rs", text, &[4, 6]);
    }

    #[test]
    fn what_is_no_code_does_not_count() {
        let text = "// use super::attic;\n/* use super::attic; */\nlet x = \"\\\"super::attic\";\nlet y = r#\"super::attic\"#;\n\
                    fn f<'a>(c: char) -> bool { c == '\"' }\nuse super::kitchen;";
        lines("cellar.rs", text, &[6]);
    }

    #[test]
    fn a_file_of_no_room_is_found() {
        assert_eq!(upward("garage.rs", "").len(), 1);
        assert_eq!(upward("../house/kitchen/mod.rs", "").len(), 1);
    }

    #[test]
    fn the_rooms_of_this_repository_are_in_order() {
        check(&Workspace::current()).unwrap();
    }
}
