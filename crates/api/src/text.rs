//! Bounds on texts that others wrote.

/// The longest part of `text`, from its beginning, that has at most `max_bytes` bytes and ends
/// between two characters.
pub fn truncate_utf8(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_ends_between_two_characters() {
        for (text, max, expected) in [
            ("abc", 5, "abc"),
            ("abc", 2, "ab"),
            ("aé", 2, "a"),
            ("aé", 3, "aé"),
            ("é", 0, ""),
        ] {
            assert_eq!(truncate_utf8(text, max), expected, "{text} {max}");
        }
    }
}
