/*!
What the plugin asks for, as a line of words.

```text
diff 1 DEPTH PATH
du 1 DEPTH PATH
```

`DEPTH` is a number or `-` for none, and `PATH` is absolute and escaped ([`crate::path`]).
*/

use crate::path::{escape, unescape};

/// Version of requests and answers.
pub const VERSION: &str = "1";
/// Longest path in bytes, before it is escaped: the kernel's limit.
pub const MAX_PATH: usize = 4095;
/// Longest request in bytes.
pub const MAX_REQUEST: usize = 4 * MAX_PATH + 64;

/// A request about the kept files of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// What changed against the image, as [`crate::listing::Change`]s.
    Diff(Place),
    /// What the directories take on the disk, as [`crate::listing::DirectoryUsage`]s.
    Usage(Place),
}

/// The part of the filesystem that a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The absolute path, without `.` and `..`.
    pub path: Vec<u8>,
    /// How many directories below the path are listed one by one. Deeper ones are summed up.
    pub depth: Option<u32>,
}

/// A request that cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// Another version, or no request at all.
    #[error("the request is not known; plugin and node agent have different versions")]
    Unknown,
    /// The path is relative, too long, or has `..` in it.
    #[error("the path must be absolute, without . and .., and have at most {MAX_PATH} bytes")]
    Path,
}

// === impl Request ===

impl Request {
    /// The request as a line, without a line feed.
    pub fn to_line(&self) -> String {
        let (Self::Diff(place) | Self::Usage(place)) = self;
        let verb = self.verb();
        let depth = place
            .depth
            .map_or_else(|| "-".to_owned(), |depth| depth.to_string());
        format!("{verb} {VERSION} {depth} {}", escape(&place.path))
    }

    /// Reads a line without its line feed.
    ///
    /// # Errors
    /// If it is not a request of this version.
    pub fn parse(line: &str) -> Result<Self, BadRequest> {
        let mut words = line.splitn(4, ' ');
        let mut word = || words.next().ok_or(BadRequest::Unknown);
        let (verb, version, depth, path) = (word()?, word()?, word()?, word()?);
        if version != VERSION {
            return Err(BadRequest::Unknown);
        }
        let depth = match depth {
            "-" => None,
            depth => Some(depth.parse().map_err(|_| BadRequest::Unknown)?),
        };
        let path = unescape(path).map_err(|_| BadRequest::Path)?;
        let place = Place::new(&path, depth)?;
        match verb {
            "diff" => Ok(Self::Diff(place)),
            "du" => Ok(Self::Usage(place)),
            _ => Err(BadRequest::Unknown),
        }
    }

    /// The first word of the request.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Diff(_) => "diff",
            Self::Usage(_) => "du",
        }
    }
}

// === impl Place ===

impl Place {
    /// A place whose path is in its simplest form.
    ///
    /// # Errors
    /// If the path is relative, too long, or has a component `.` or `..` or a NUL.
    pub fn new(path: &[u8], depth: Option<u32>) -> Result<Self, BadRequest> {
        let absolute = path.strip_prefix(b"/").ok_or(BadRequest::Path)?;
        let mut components = absolute
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty());
        if path.len() > MAX_PATH
            || path.contains(&0)
            || components.clone().any(|name| matches!(name, b"." | b".."))
        {
            return Err(BadRequest::Path);
        }
        let mut simplest = Vec::with_capacity(path.len());
        for name in &mut components {
            simplest.push(b'/');
            simplest.extend_from_slice(name);
        }
        if simplest.is_empty() {
            simplest.push(b'/');
        }
        Ok(Self {
            path: simplest,
            depth,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str, depth: Option<u32>) -> Place {
        Place::new(path.as_bytes(), depth).unwrap()
    }

    #[test]
    fn requests_are_read_as_they_were_written() {
        for request in [
            Request::Diff(place("/", None)),
            Request::Usage(place("/var", Some(1))),
            Request::Diff(place("/a b/\n", Some(0))),
            Request::Diff(Place::new(b"/\xff", Some(7)).unwrap()),
        ] {
            let line = request.to_line();
            assert!(!line.contains('\n') && line.len() <= MAX_REQUEST);
            assert_eq!(Request::parse(&line), Ok(request));
        }
        let longest = Place::new(
            &[b"/", &b"\xff".repeat(MAX_PATH - 1)[..]].concat(),
            Some(u32::MAX),
        )
        .unwrap();
        assert!(Request::Diff(longest).to_line().len() <= MAX_REQUEST);
    }

    #[test]
    fn a_path_has_one_form() {
        assert_eq!(place("//etc///ssl/", None), place("/etc/ssl", None));
        assert_eq!(place("//", None).path, b"/");
    }

    #[test]
    fn h9_anything_else_is_refused() {
        for (line, expected) in [
            ("", BadRequest::Unknown),
            ("diff", BadRequest::Unknown),
            ("diff 2 - /", BadRequest::Unknown),
            ("diff 1 -1 /", BadRequest::Unknown),
            ("fetch 1 - /", BadRequest::Unknown),
            ("diff 1 - etc", BadRequest::Path),
            ("diff 1 - /a/../b", BadRequest::Path),
            ("diff 1 - /a/.", BadRequest::Path),
            ("diff 1 - /\\x00", BadRequest::Path),
            ("diff 1 - /\\", BadRequest::Path),
        ] {
            assert_eq!(Request::parse(line), Err(expected), "{line:?}");
        }
        let long = format!("diff 1 - /{}", "a".repeat(MAX_PATH));
        assert_eq!(Request::parse(&long), Err(BadRequest::Path));
    }
}
