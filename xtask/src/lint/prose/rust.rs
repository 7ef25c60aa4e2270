//! The comments and string literals of Rust source: a lexer that knows just enough to find them.

/// What a piece of the source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A comment with its marks; a line comment ends before the line feed.
    Comment,
    /// The text between the quotes of a string literal, as written.
    Literal,
}

/// A comment or a string literal.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    /// What it is.
    pub kind: Kind,
    /// The line that it begins in, from 1.
    pub line: usize,
    /// Its text.
    pub text: &'a str,
}

/// All comments and string literals, in order.
pub(super) fn pieces(source: &str) -> Vec<Piece<'_>> {
    let mut found = Vec::new();
    let mut rest = source;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let (kind, length, skip) = token(rest, first);
        // What is cut off is ASCII: quotes, hashes and prefixes.
        let text = rest.get(skip.0..length - skip.1).unwrap_or_default();
        found.extend(kind.map(|kind| Piece { kind, line, text }));
        let (token, after) = rest.split_at(length);
        line += token.matches('\n').count();
        rest = after;
    }
    found
}

/// The token at the start of `rest`: its kind, its length, and how much of its start and end is not
/// part of the text.
fn token(rest: &str, first: char) -> (Option<Kind>, usize, (usize, usize)) {
    if rest.starts_with("//") {
        let length = rest.find('\n').unwrap_or(rest.len());
        return (Some(Kind::Comment), length, (0, 0));
    }
    if rest.starts_with("/*") {
        return (Some(Kind::Comment), block_comment(rest), (0, 0));
    }
    match first {
        '"' => (Some(Kind::Literal), quoted(rest, '"'), (1, 1)),
        '\'' => (None, char_or_lifetime(rest), (0, 0)),
        c if in_word(c) => {
            let word = rest.find(|c| !in_word(c)).unwrap_or(rest.len());
            let raw = matches!(&rest[..word], "r" | "br" | "cr");
            match raw_string(&rest[word..]).filter(|_| raw) {
                Some((length, hashes)) => (
                    Some(Kind::Literal),
                    word + length,
                    (word + hashes + 1, hashes + 1),
                ),
                None => (None, word, (0, 0)),
            }
        }
        c => (None, c.len_utf8(), (0, 0)),
    }
}

fn in_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Length of a block comment. Block comments nest.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        let step = match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => {
                depth += 1;
                2
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        at += step;
        if depth == 0 {
            break;
        }
    }
    at
}

/// Length of a literal with escapes, with both quotes.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

/// Length of a char literal, or of the quote of a lifetime.
fn char_or_lifetime(rest: &str) -> usize {
    let mut chars = rest.chars().skip(1);
    match (chars.next(), chars.next()) {
        (Some('\\'), _) => quoted(rest, '\''),
        (Some(c), Some('\'')) => c.len_utf8() + 2,
        _ => 1,
    }
}

/// Length of a raw string after its prefix, and the number of its hashes.
fn raw_string(rest: &str) -> Option<(usize, usize)> {
    let hashes = rest.find(|c| c != '#')?;
    let body = rest[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", &rest[..hashes]);
    let length = body.find(&end).map_or(body.len(), |at| at + end.len());
    Some((hashes + 1 + length, hashes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_told_apart_from_code() {
        let source = concat!(
            "/* a /* b */ c */ let x: &'a str = \"// no \\\" comment\"; // é\n",
            "let c = ['\"', '\\'', '/', b'\"']; 'l: loop {}\n",
            "let r = (r#\"raw \" //\"#, br\"x\", r#type, b\"y\");\n/// doc",
        );
        let found: Vec<_> = pieces(source)
            .into_iter()
            .map(|Piece { kind, line, text }| (kind == Kind::Comment, line, text))
            .collect();
        assert_eq!(
            found,
            [
                (true, 1, "/* a /* b */ c */"),
                (false, 1, "// no \\\" comment"),
                (true, 1, "// é"),
                (false, 3, "raw \" //"),
                (false, 3, "x"),
                (false, 3, "y"),
                (true, 4, "/// doc"),
            ]
        );
    }

    #[test]
    fn source_that_ends_early_is_read_to_its_end() {
        for source in ["\"abc", "/* abc", "r#\"abc", "'", "'\\", "\"abc\\", "\""] {
            pieces(source);
        }
    }
}
