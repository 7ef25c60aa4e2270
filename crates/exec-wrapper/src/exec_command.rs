/*!
Executes the command: working directory, PATH, execve.

Looks a command up as the runtime does (Go's os/exec LookPath, which runc uses), so that the same
names work and the same fail.
*/

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;

use crate::Failure;
use crate::signals::restore_sigpipe;

/// A working directory by its path, to be entered again below another root.
#[derive(Debug)]
pub(crate) struct WorkingDirectory(PathBuf);

/// Why a name is not a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unusable {
    NotFound,
    NotExecutable(&'static str),
    /// Found by a relative entry of PATH, which Go refuses.
    Relative,
}

// === impl WorkingDirectory ===

impl WorkingDirectory {
    /// Where this process is.
    pub(crate) fn here() -> Result<Self, Failure> {
        let path = std::env::current_dir();
        path.map(Self)
            .map_err(|error| Failure::wrapper(format_args!("cannot read the working directory: {error}")))
    }

    /// Enters the directory of the same path in the present root.
    pub(crate) fn restore(self) -> Result<(), Failure> {
        std::env::set_current_dir(&self.0).map_err(|error| {
            Failure::wrapper(format_args!(
                "cannot enter the working directory {}: {error}",
                self.0.display()
            ))
        })?;
        // A link to /proc/self/fd/N or /proc/self/cwd leads to what is below no root of ours: a
        // descriptor that the runtime leaked, or the root of before. Such a place has no path.
        std::env::current_dir().map(drop).map_err(|_| {
            Failure::wrapper(format_args!(
                "the working directory {} leads out of the filesystem",
                self.0.display()
            ))
        })
    }
}

/// Executes the command with this process's environment, HOME replaced if given. Returns only if
/// that failed.
pub(crate) fn execute(command: &[OsString], home: Option<&OsStr>) -> Failure {
    match try_execute(command, home) {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

fn try_execute(command: &[OsString], home: Option<&OsStr>) -> Result<Infallible, Failure> {
    let Some(name) = command.first() else {
        return Err(Failure::wrapper("no command"));
    };
    let path = find(name, std::env::var_os("PATH").as_deref()).map_err(|unusable| {
        let name = name.display();
        match unusable {
            Unusable::NotFound if name.to_string().contains('/') => {
                Failure::NotFound(format!("{name}: no such file or directory"))
            }
            Unusable::NotFound => Failure::NotFound(format!("{name}: executable file not found in $PATH")),
            Unusable::NotExecutable(why) => Failure::NotExecutable(format!("{name}: {why}")),
            Unusable::Relative => Failure::NotExecutable(format!(
                "{name}: found only through a relative entry of $PATH, which is not used"
            )),
        }
    })?;
    let inherited = std::env::vars_os().filter(|(key, _)| home.is_none() || key != "HOME");
    let environment: Vec<_> = inherited
        .chain(home.map(|home| ("HOME".into(), home.to_owned())))
        .filter_map(entry)
        .collect();
    let arguments: Vec<_> = command
        .iter()
        .filter_map(|a| CString::new(a.as_bytes()).ok())
        .collect();
    let Ok(program) = CString::new(path.as_os_str().as_bytes()) else {
        return Err(Failure::NotFound(format!(
            "{}: no such file or directory",
            path.display()
        )));
    };
    restore_sigpipe().map_err(|error| Failure::wrapper(format_args!("cannot restore SIGPIPE: {error}")))?;
    // Not `Command::exec`: that gives a file of unknown format to /bin/sh, which no runtime does.
    let Err(error) = nix::unistd::execve(&program, &arguments, &environment);
    let message = format!("{}: {}", path.display(), error.desc());
    Err(if error == nix::errno::Errno::ENOENT {
        Failure::NotFound(message)
    } else {
        Failure::NotExecutable(message)
    })
}

fn entry((key, value): (OsString, OsString)) -> Option<CString> {
    let mut entry = key.into_vec();
    entry.push(b'=');
    entry.extend_from_slice(value.as_bytes());
    CString::new(entry).ok()
}

fn find(name: &OsStr, path: Option<&OsStr>) -> Result<PathBuf, Unusable> {
    if name.as_bytes().contains(&b'/') {
        return check(Path::new(name)).map(|()| PathBuf::from(name));
    }
    if name.is_empty() {
        return Err(Unusable::NotFound);
    }
    let mut denied = None;
    for directory in path.unwrap_or_default().as_bytes().split(|b| *b == b':') {
        let directory = if directory.is_empty() { b"." } else { directory };
        let candidate = Path::new(OsStr::from_bytes(directory)).join(name);
        match check(&candidate) {
            Ok(()) if path.is_none_or(OsStr::is_empty) => break,
            Ok(()) if !candidate.is_absolute() => return Err(Unusable::Relative),
            Ok(()) => return Ok(candidate),
            Err(Unusable::NotFound) => {}
            Err(unusable) => denied = Some(unusable),
        }
    }
    // Go says "not found" for all of these; that something was there is the more useful message.
    Err(denied.unwrap_or(Unusable::NotFound))
}

fn check(path: &Path) -> Result<(), Unusable> {
    let metadata = std::fs::metadata(path).map_err(|error| {
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::ACCESS) => Unusable::NotExecutable("permission denied"),
            _ => Unusable::NotFound,
        }
    })?;
    if metadata.is_dir() {
        return Err(Unusable::NotExecutable("is a directory"));
    }
    match accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
        Ok(()) => Ok(()),
        // A filter that does not know the call; the mode has to do.
        Err(Errno::NOSYS | Errno::PERM)
            if std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o111 != 0 =>
        {
            Ok(())
        }
        Err(_) => Err(Unusable::NotExecutable("permission denied")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn file(&self, name: &str, mode: u32) -> PathBuf {
            let path = self.0.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        }

        fn path(&self, directories: &[&str]) -> OsString {
            std::env::join_paths(directories.iter().map(|d| self.0.path().join(d))).unwrap()
        }
    }

    #[test]
    fn i5_the_first_executable_on_path_counts() {
        let tree = Tree::new();
        tree.file("a/tool", 0o644);
        let tool = tree.file("b/tool", 0o755);
        tree.file("c/tool", 0o755);
        let path = tree.path(&["missing", "a", "b", "c"]);
        assert_eq!(find("tool".as_ref(), Some(&path)), Ok(tool));
        assert_eq!(find("other".as_ref(), Some(&path)), Err(Unusable::NotFound));
        assert_eq!(find("".as_ref(), Some(&path)), Err(Unusable::NotFound));
    }

    #[test]
    fn i5_a_name_with_a_slash_is_not_looked_up() {
        let tree = Tree::new();
        let tool = tree.file("b/tool", 0o755);
        assert_eq!(find(tool.as_os_str(), None), Ok(tool.clone()));
        let plain = tree.file("plain", 0o644);
        assert_eq!(
            find(plain.as_os_str(), None),
            Err(Unusable::NotExecutable("permission denied"))
        );
        assert_eq!(
            find(tree.0.path().as_os_str(), None),
            Err(Unusable::NotExecutable("is a directory"))
        );
        assert_eq!(find(tool.join("x").as_os_str(), None), Err(Unusable::NotFound));
    }

    #[test]
    fn i5_without_path_nothing_is_found() {
        assert_eq!(find("sh".as_ref(), None), Err(Unusable::NotFound));
        assert_eq!(find("sh".as_ref(), Some("".as_ref())), Err(Unusable::NotFound));
    }
}
