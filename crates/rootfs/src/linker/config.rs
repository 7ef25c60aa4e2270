/*!
The directories of `/etc/ld.so.conf` in an untrusted root (ldconfig(8)).

Files that cannot be read are left out, as ldconfig(8) leaves them out with a warning; so are those
beyond the bounds.
*/

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::root::Root;
use crate::runtime_changes::LINKER_CONFIG;
use crate::store::list;

/// Most files.
const MAX_FILES: usize = 256;
/// Largest file, in bytes.
const MAX_FILE: u64 = 64 << 10;
/// Most directories.
const MAX_DIRECTORIES: usize = 512;
/// How deep a file may be included.
const MAX_DEPTH: usize = 8;
/// What is searched without being configured: on Debian and its like, and on all others.
const SYSTEM: [&str; 8] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
];

/// The directories with libraries, those that come first in the search before the others.
pub(crate) fn directories(root: &Root) -> Vec<PathBuf> {
    let mut found = Reader {
        root,
        files: 0,
        directories: Vec::new(),
    };
    found.file(&Path::new("/").join(LINKER_CONFIG), 0);
    found.directories.extend(SYSTEM.map(PathBuf::from));
    found.directories
}

/// The directories that a file names itself.
pub(crate) fn configured_directories(content: &[u8]) -> impl Iterator<Item = PathBuf> + '_ {
    lines(content).filter_map(directory)
}

/// A configuration file of a hook without the directories that are searched anyway: NVIDIA's hook
/// leaves them out, as they would come before those of the image, and finds none in the wrapper's
/// root.
pub(crate) fn without_directories(content: &[u8], known: &HashSet<PathBuf>) -> Vec<u8> {
    let lines = content.split_inclusive(|byte| *byte == b'\n');
    let is_new = |line: &&[u8]| !configured_directories(line).any(|directory| known.contains(&directory));
    lines.filter(is_new).flatten().copied().collect()
}

struct Reader<'a> {
    root: &'a Root,
    files: usize,
    directories: Vec<PathBuf>,
}

// === impl Reader ===

impl Reader<'_> {
    fn file(&mut self, path: &Path, depth: usize) {
        self.files += 1;
        if self.files > MAX_FILES || depth > MAX_DEPTH {
            return;
        }
        let content = match self.root.read(path, MAX_FILE) {
            Ok(content) => content.unwrap_or_default(),
            Err(error) => {
                tracing::debug!(%error, "a configuration file of the loader is left out");
                return;
            }
        };
        for line in lines(&content) {
            match include(line) {
                None if self.directories.len() < MAX_DIRECTORIES => {
                    self.directories.extend(directory(line));
                }
                None => return,
                Some(patterns) => {
                    for pattern in patterns {
                        self.include(&path.parent().unwrap_or(path).join(pattern), depth);
                    }
                }
            }
        }
    }

    /// Includes what a pattern matches. Only the last component may have wildcards.
    fn include(&mut self, pattern: &Path, depth: usize) {
        let (Some(above), Some(name)) = (pattern.parent(), pattern.file_name()) else {
            return;
        };
        let name = name.as_bytes();
        if !name.contains(&b'*') && !name.contains(&b'?') {
            return self.file(pattern, depth + 1);
        }
        let Ok(directory) = self.root.open(above, OFlags::RDONLY | OFlags::DIRECTORY) else {
            return;
        };
        let Ok(entries) = list(&directory, MAX_FILES) else {
            return;
        };
        let mut names: Vec<_> = entries.into_iter().map(|(name, _)| name).collect();
        names.retain(|entry| matches(name, entry.as_os_str().as_bytes()));
        names.sort();
        for name in names {
            self.file(&above.join(name), depth + 1);
        }
    }
}

fn lines(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    content.split(|byte| *byte == b'\n').map(|line| {
        let end = line.iter().position(|byte| *byte == b'#').unwrap_or(line.len());
        line[..end].trim_ascii()
    })
}

/// The patterns of a line that includes files.
fn include(line: &[u8]) -> Option<impl Iterator<Item = PathBuf>> {
    let rest = line.strip_prefix(b"include")?;
    rest.first().filter(|byte| byte.is_ascii_whitespace())?;
    let words = rest
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    Some(words.map(to_path))
}

/// The directory of a line. The type that may follow an equals sign has had no meaning since libc5.
fn directory(line: &[u8]) -> Option<PathBuf> {
    let end = line.iter().position(|byte| *byte == b'=').unwrap_or(line.len());
    let path = to_path(line[..end].trim_ascii());
    path.is_absolute().then_some(path)
}

fn to_path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// Whether a name matches a pattern with `*` and `?`. Takes time in proportion to the product of
/// their lengths.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut of) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    if name.first() == Some(&b'.') && pattern.first() != Some(&b'.') {
        return false;
    }
    while of < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, of));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[of] => {
                at += 1;
                of += 1;
            }
            _ => match star {
                None => return false,
                Some((star_at, star_of)) => {
                    star = Some((star_at, star_of + 1));
                    at = star_at + 1;
                    of = star_of + 1;
                }
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{configured_directories, matches, without_directories};

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("*.conf", "a.conf", true),
            ("*.conf", ".conf", false),
            ("*.conf", "a.conf.bak", false),
            ("a*b*c", "aXXbYYbc", true),
            ("?.conf", "ab.conf", false),
            ("*", "x", true),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), name.as_bytes()),
                expected,
                "{pattern} {name}"
            );
        }
    }

    #[test]
    fn lines_of_a_configuration_file() {
        let content = b"# comment\n/usr/local/lib \n/opt/x=libc6 # why\nrelative\n\ninclude /etc/y/*.conf\n";
        let found: Vec<_> = configured_directories(content).collect();
        assert_eq!(found, ["/usr/local/lib", "/opt/x"].map(PathBuf::from));
        let known = [PathBuf::from("/opt/x")].into();
        let rest = without_directories(content, &known);
        assert_eq!(
            String::from_utf8(rest).unwrap(),
            "# comment\n/usr/local/lib \nrelative\n\ninclude /etc/y/*.conf\n"
        );
    }
}
