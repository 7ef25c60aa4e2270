/*!
The kubelet's `$(VAR)` syntax, from the other side: how to write a text so that the kubelet gives it
back unchanged, and how to keep single references from being resolved.

The grammar is that of `third_party/forked/golang/expansion` in Kubernetes: `$$` is a literal `$`,
`$(NAME)` a reference, an unresolved reference and everything else stays as written.
*/

/// The text that the kubelet expands to exactly `literal`, whatever variables exist.
pub(super) fn escape(literal: &str) -> String {
    let mut escaped = String::with_capacity(literal.len());
    let mut characters = literal.chars().peekable();
    while let Some(character) = characters.next() {
        escaped.push(character);
        // A dollar before anything else stands for itself; most texts stay as they are.
        if character == '$' && matches!(characters.peek(), Some('$' | '(')) {
            escaped.push('$');
        }
    }
    escaped
}

/// `text` with those references escaped for whose name `keep_literal` is true. Escaping twice
/// changes nothing.
pub(super) fn escape_references(text: &str, keep_literal: impl Fn(&str) -> bool) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        result.push_str(&rest[..dollar]);
        let token = &rest[dollar..];
        let length = token_length(token);
        if reference(&token[..length]).is_some_and(&keep_literal) {
            result.push('$');
        }
        result.push_str(&token[..length]);
        rest = &token[length..];
    }
    result.push_str(rest);
    result
}

/// Length in bytes of the token that starts with the `$` at the beginning of `text`.
fn token_length(text: &str) -> usize {
    match text[1..].chars().next() {
        None => 1,
        Some('(') => text.find(')').map_or(2, |end| end + 1),
        Some(other) => 1 + other.len_utf8(),
    }
}

/// The name in a token that is a reference.
fn reference(token: &str) -> Option<&str> {
    token.strip_prefix("$(")?.strip_suffix(')')
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the kubelet does (see the module's header), for the properties below and in
    /// `rewrite::tests`.
    pub(in crate::rewrite) fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
        let mut result = String::new();
        let mut rest = text;
        while let Some(dollar) = rest.find('$') {
            result.push_str(&rest[..dollar]);
            let token = &rest[dollar..];
            let length = token_length(token);
            match (&token[..length], reference(&token[..length])) {
                ("$$", _) => result.push('$'),
                (_, Some(name)) => result.push_str(&lookup(name).unwrap_or_else(|| format!("$({name})"))),
                (other, None) => result.push_str(other),
            }
            rest = &token[length..];
        }
        result + rest
    }

    #[rstest::rstest]
    #[case("plain", "plain")]
    #[case("$PATH", "$PATH")]
    #[case("$(PATH)", "$$(PATH)")]
    #[case("$$", "$$$")]
    #[case("$$(X)", "$$$$(X)")]
    #[case("$(", "$$(")]
    #[case("a$", "a$")]
    fn escape_doubles_only_what_the_kubelet_reads(#[case] literal: &str, #[case] escaped: &str) {
        assert_eq!(escape(literal), escaped);
    }

    #[rstest::rstest]
    #[case("$(A) $(B)", "$$(A) $(B)")]
    #[case("$$(A)", "$$(A)")]
    #[case("$$$(A)", "$$$$(A)")]
    #[case("$(A", "$(A")]
    #[case("$é$(A)$", "$é$$(A)$")]
    #[case("$(B $(A))", "$(B $(A))")]
    fn only_named_references_are_escaped(#[case] text: &str, #[case] escaped: &str) {
        assert_eq!(escape_references(text, |name| name == "A"), escaped);
    }

    proptest! {
        #[test]
        fn i5_escaped_text_expands_to_itself(text in "[$()Aé ]{0,12}") {
            prop_assert_eq!(expand(&escape(&text), |_| Some("value".to_owned())), text);
        }

        #[test]
        fn i5_escaped_references_stay_literal_and_others_resolve(text in "[$()ABé]{0,16}") {
            let escaped = escape_references(&text, |name| name == "A");
            let plain = expand(&text, |name| (name == "B").then(|| "b".to_owned()));
            let ours = expand(&escaped, |name| matches!(name, "A" | "B").then(|| name.to_lowercase()));
            prop_assert_eq!(ours, plain);
            prop_assert_eq!(escape_references(&escaped, |name| name == "A"), escaped);
        }
    }
}
