/*!
Screens that can be compared: what differs from run to run is replaced by placeholders.
*/

/// Characters between the words of a screen.
const SEPARATORS: [char; 8] = [' ', ',', '(', ')', '/', '=', ';', '+'];
/// Units of sizes.
const SIZES: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
/// Units of ages and durations.
const TIMES: [char; 5] = ['s', 'm', 'h', 'd', 'y'];

/// The screen with `TIME`, `CLOCK`, `SIZE` and `COUNT` for times, times of the day, sizes and
/// numbers of entries, with `*` for the sign of a progress line, and with the second of each pair
/// of names for the first. Two spaces are between columns, whose width depends on what is
/// replaced.
pub fn comparable(screen: &str, names: &[(&str, &str)]) -> String {
    let lines = screen.lines().map(|line| replaced(line, names));
    lines.collect::<Vec<_>>().join("\n")
}

fn replaced(line: &str, names: &[(&str, &str)]) -> String {
    let pieces: Vec<_> = line.split_inclusive(SEPARATORS).collect();
    let mut result = String::new();
    let mut index = 0;
    while let Some(piece) = pieces.get(index) {
        index += 1;
        let separator = piece.chars().last().filter(|last| SEPARATORS.contains(last));
        let word = &piece[..piece.len() - separator.map_or(0, char::len_utf8)];
        let core = word.strip_suffix([':', '.']).unwrap_or(word);
        let end = &word[core.len()..];
        let next = pieces
            .get(index)
            .map_or("", |next| next.trim_end_matches(SEPARATORS));
        if core.is_empty() {
            result.push_str(end);
        } else if let Some((_, placeholder)) = names.iter().find(|(name, _)| *name == core) {
            result.push_str(placeholder);
            result.push_str(end);
        } else if is_number(core) && SIZES.contains(&next) {
            result.push_str("SIZE");
            // The separator behind the unit is that of the size.
            let unit = pieces[index];
            index += 1;
            result.push_str(&unit[next.len()..]);
            continue;
        } else if is_number(core) && next == "entries" {
            result.push_str("COUNT");
        } else {
            result.push_str(kind(core).unwrap_or(core));
            result.push_str(end);
        }
        result.extend(separator);
    }
    columns(&result)
}

/// The placeholder for a word, if it is of a kind that differs from run to run.
fn kind(word: &str) -> Option<&'static str> {
    let is_size = |unit: &str| word.strip_suffix(unit).is_some_and(is_number);
    if is_clock(word) {
        Some("CLOCK")
    } else if is_time(word) {
        Some("TIME")
    } else if SIZES.iter().any(|unit| is_size(unit)) {
        Some("SIZE")
    } else if !word.is_empty() && word.chars().all(|c| ('\u{2800}'..='\u{28ff}').contains(&c)) {
        Some("*")
    } else {
        None
    }
}

fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit()) && text.parse::<f64>().is_ok()
}

/// `21:07:45`
fn is_clock(text: &str) -> bool {
    let parts: Vec<_> = text.split(':').collect();
    parts.len() == 3 && parts.iter().all(|part| part.len() == 2 && is_number(part))
}

/// `2.1s`, `42s`, `3m20s`
fn is_time(text: &str) -> bool {
    let numbers: Vec<_> = text.split_inclusive(TIMES).collect();
    numbers
        .iter()
        .all(|part| part.strip_suffix(TIMES).is_some_and(is_number))
}

/// The line with two spaces for each longer row of them, except at its beginning.
fn columns(line: &str) -> String {
    let content = line.trim_start();
    let mut result = line[..line.len() - content.len()].to_owned();
    let mut spaces = 0;
    for c in content.chars() {
        if c == ' ' {
            spaces += 1;
        } else {
            result.push_str(&" ".repeat(spaces.min(2)));
            result.push(c);
            spaces = 0;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_run_to_run_is_replaced() {
        let names = [("node-1", "NODE"), ("e2e-x", "NAMESPACE")];
        for (line, expected) in [
            (
                "stoppablecontainer/dev created, running (2.1s)",
                "stoppablecontainer/dev created, running (TIME)",
            ),
            (
                "dev    Running   True    node-1   68.0KiB   3m20s",
                "dev  Running  True  NODE  SIZE  TIME",
            ),
            (
                "  Files:    68.0 KiB in 12 entries",
                "  Files:  SIZE in COUNT entries",
            ),
            (
                "    21:07:45   +0s    pod created",
                "    CLOCK  +TIME  pod created",
            ),
            ("e2e-x/dev", "NAMESPACE/dev"),
            (
                "  State:    Running on node-1, ready",
                "  State:  Running on NODE, ready",
            ),
            ("Delete dev (1.5 KiB)? All", "Delete dev (SIZE)? All"),
            (
                "⠁ dev: starting the pod          0s",
                "* dev: starting the pod  TIME",
            ),
            (
                "look: kubectl -n e2e-x --for=running",
                "look: kubectl -n NAMESPACE --for=running",
            ),
            (
                "Stop 1 container (dev)? [y/N] n",
                "Stop 1 container (dev)? [y/N] n",
            ),
            ("error: dev: days and s, B", "error: dev: days and s, B"),
            ("ubuntu:22.04 is 4 B", "ubuntu:22.04 is SIZE"),
            ("in namespace e2e-x. Create", "in namespace NAMESPACE. Create"),
            ("", ""),
        ] {
            assert_eq!(comparable(line, &names), expected);
        }
        assert_eq!(comparable("a\n\n5s", &[]), "a\n\nTIME");
    }
}
