//! Where the files are: on this machine or in a container.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::failure::Failure;
use crate::select::plain_name;

/// One end of a copy.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    Local(PathBuf),
    Inside {
        namespace: Option<String>,
        name: String,
        path: Vec<u8>,
    },
}

// === impl Place ===

impl Place {
    /// Reads `NAME:PATH`, `NAMESPACE/NAME:PATH` or a local path. A path with a slash or dot at its
    /// beginning is local, whatever follows.
    pub(super) fn parse(text: &OsStr) -> Result<Self, Failure> {
        let bytes = text.as_bytes();
        let is_local = matches!(bytes, [b'/' | b'.', ..]);
        let colon = bytes.iter().position(|byte| *byte == b':').filter(|_| !is_local);
        let Some(colon) = colon else {
            return match bytes {
                [] => Err(Failure::usage("a path is empty")),
                _ => Ok(Self::Local(text.into())),
            };
        };
        let before = String::from_utf8_lossy(&bytes[..colon]);
        let path = bytes[colon + 1..].to_vec();
        let wrong = || {
            Failure::usage(format!(
                "{}: write NAME:PATH or NAMESPACE/NAME:PATH, or ./ before a local path with a colon",
                text.display()
            ))
        };
        let (namespace, name) = match before.split_once('/') {
            None => (None, before.into_owned()),
            Some(_) if plain_name(&before).is_ok() => (None, plain_name(&before)?),
            Some((namespace, name)) => (Some(namespace.to_owned()), name.to_owned()),
        };
        let is_name = |name: &str| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'))
        };
        if path.is_empty() || !is_name(&name) || !namespace.as_deref().is_none_or(is_name) {
            return Err(wrong());
        }
        Ok(Self::Inside {
            namespace,
            name,
            path,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inside(namespace: Option<&str>, path: &str) -> Place {
        Place::Inside {
            namespace: namespace.map(str::to_owned),
            name: "web".to_owned(),
            path: path.into(),
        }
    }

    #[test]
    fn a_colon_names_a_container() {
        for (text, expected) in [
            ("web:/srv", inside(None, "/srv")),
            ("web:srv:x", inside(None, "srv:x")),
            ("stopc/web:/", inside(None, "/")),
            ("team/web:/a", inside(Some("team"), "/a")),
            ("web", Place::Local("web".into())),
            ("./web:/srv", Place::Local("./web:/srv".into())),
            ("/a:b", Place::Local("/a:b".into())),
        ] {
            assert_eq!(Place::parse(text.as_ref()), Ok(expected), "{text}");
        }
        for text in ["", "web:", ":/srv", "a/b/web:/x", "Web:/x", "a b:/x"] {
            let error = Place::parse(text.as_ref()).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{text}");
        }
    }
}
