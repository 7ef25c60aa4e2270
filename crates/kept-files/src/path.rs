/*!
Paths as text: one line, valid UTF-8, and harmless on a terminal.

A path of Linux is a string of bytes. What is not printable UTF-8 becomes `\xHH`, byte by byte, and
a backslash is doubled. Escaping loses nothing.
*/

use std::fmt::Write;

/// A text that is not an escaped path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a backslash in a path must begin \\\\ or \\xHH, and a path has no control characters")]
pub struct BadEscape;

/// The path as text.
pub fn escape(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                c if is_printable(c) => text.push(c),
                c => escape_bytes(&mut text, c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        escape_bytes(&mut text, chunk.invalid());
    }
    text
}

/// The path of an escaped text.
///
/// # Errors
/// If a backslash is followed by something else than a backslash or `x` and two hexadecimal digits,
/// and if there is a control character.
pub fn unescape(text: &str) -> Result<Vec<u8>, BadEscape> {
    let mut path = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if byte.is_ascii_control() {
            return Err(BadEscape);
        }
        if *byte != b'\\' {
            path.push(*byte);
            continue;
        }
        match rest {
            [b'\\', after @ ..] => {
                path.push(b'\\');
                rest = after;
            }
            [b'x', high, low, after @ ..] => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16).ok_or(BadEscape);
                let value = digit(high)? * 16 + digit(low)?;
                path.push(u8::try_from(value).map_err(|_| BadEscape)?);
                rest = after;
            }
            _ => return Err(BadEscape),
        }
    }
    Ok(path)
}

fn escape_bytes(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "\\x{byte:02x}");
    }
}

/// Whether a terminal shows the character as itself. It obeys control characters, and characters
/// for the direction of text or without a width let one path look like another.
fn is_printable(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_name_files_stays_readable() {
        for path in ["/etc/a b", "/größe/日本", "/it's \"x\"", ""] {
            assert_eq!(escape(path.as_bytes()), path);
        }
    }

    #[test]
    fn h9_everything_else_is_escaped_and_comes_back() {
        for (path, text) in [
            (&b"a\nb"[..], "a\\x0ab"),
            (b"\x1b[31m", "\\x1b[31m"),
            (b"\xff\xfe", "\\xff\\xfe"),
            (b"\\x41", "\\\\x41"),
            ("\u{202e}gpj".as_bytes(), "\\xe2\\x80\\xaegpj"),
            (b"\xe2\x80", "\\xe2\\x80"),
            (b"\x7f", "\\x7f"),
        ] {
            assert_eq!(escape(path), text);
        }
        let all: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
        assert_eq!(unescape(&escape(&all)).unwrap(), all);
    }

    #[test]
    fn a_text_that_is_not_escaped_is_refused() {
        for text in ["\\", "\\x", "\\x4", "\\xg0", "\\n", "\\x+1", "a\nb"] {
            assert_eq!(unescape(text), Err(BadEscape), "{text}");
        }
    }
}
