/*!
Becoming the command: its working directory, its HOME, its program found on PATH
the way container runtimes find it, and the last `execve`.
*/

use std::ffi::{CStr, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD};
use rustix::io::Errno;

use crate::{Failure, passwd};

/// What stands after the verb: `[--default-home] -- ARGV...`.
pub(crate) struct Command {
    /// Neither template nor image sets HOME, so what the environment has is the runtime's guess.
    default_home: bool,
    name: OsString,
    arguments: Vec<OsString>,
}

// === impl Command ===

impl Command {
    pub(crate) fn parse(arguments: Vec<OsString>) -> Option<Self> {
        let mut arguments = arguments.into_iter();
        let mut next = arguments.next()?;
        let default_home = next == "--default-home";
        if default_home {
            next = arguments.next()?;
        }
        if next != "--" {
            return None;
        }
        Some(Self {
            default_home,
            name: arguments.next()?,
            arguments: arguments.collect(),
        })
    }

    /// Executes the command in `directory` of the present root. Returns only if that fails.
    pub(crate) fn execute(self, directory: &CStr) -> Failure {
        let directory = Path::new(OsStr::from_bytes(directory.to_bytes()));
        if let Err(error) = std::env::set_current_dir(directory) {
            return Failure::wrapper(format!(
                "the working directory {} cannot be entered: {error}",
                directory.display()
            ));
        }
        let path = match program(&self.name, std::env::var_os("PATH").as_deref()) {
            Ok(path) => path,
            Err(failure) => return failure,
        };
        let mut command = std::process::Command::new(&path);
        command.arg0(&self.name).args(&self.arguments);
        if self.default_home && std::env::var_os("HOME").is_none_or(|home| home == "/") {
            let uid = rustix::process::getuid().as_raw();
            command.env(
                "HOME",
                passwd::home_directory(uid)
                    .filter(|home| !home.is_empty())
                    .unwrap_or_else(|| "/".into()),
            );
        }
        let error = command.exec();
        Failure::not_executable(format!("exec {}: {error}", path.display()))
    }
}

/// The file to execute for a name: itself if it has a slash, else the first executable of that name on `path`.
fn program(name: &OsStr, path: Option<&OsStr>) -> Result<PathBuf, Failure> {
    let shown = name.display();
    if name.as_bytes().contains(&b'/') {
        return match executable(Path::new(name)) {
            Ok(()) => Ok(PathBuf::from(name)),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(Failure::not_found(format!(
                "exec: \"{shown}\": no such file or directory"
            ))),
            Err(error) => Err(Failure::not_executable(format!("exec: \"{shown}\": {error}"))),
        };
    }
    let mut denied = None;
    for directory in std::env::split_paths(path.unwrap_or_default()) {
        let candidate = if directory.as_os_str().is_empty() {
            Path::new(".").join(name)
        } else {
            directory.join(name)
        };
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::ACCESS) => denied = Some(candidate),
            Err(_) => {}
        }
    }
    Err(match denied {
        Some(candidate) => {
            Failure::not_executable(format!("exec: \"{}\": permission denied", candidate.display()))
        }
        None => Failure::not_found(format!("exec: \"{shown}\": executable file not found in $PATH")),
    })
}

fn executable(path: &Path) -> Result<(), Errno> {
    let stat = rustix::fs::stat(path)?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() {
        return Err(Errno::ACCESS);
    }
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn everything_after_the_dashes_is_the_command() {
        let command = Command::parse(words(&["--", "--default-home", "--", "x"])).unwrap();
        assert!(!command.default_home);
        assert_eq!(
            (command.name, command.arguments),
            ("--default-home".into(), words(&["--", "x"]))
        );
        assert!(
            Command::parse(words(&["--default-home", "--", "sh"]))
                .unwrap()
                .default_home
        );
    }

    #[test]
    fn a_command_is_required() {
        for arguments in [
            &[][..],
            &["--"],
            &["sh"],
            &["--default-home"],
            &["--default-home", "--"],
        ] {
            assert!(Command::parse(words(arguments)).is_none(), "{arguments:?}");
        }
    }

    #[test]
    fn i5_programs_are_found_as_a_runtime_finds_them() {
        let on_path = |name: &str, path: &str| program(OsStr::new(name), Some(OsStr::new(path)));
        assert_eq!(on_path("sh", "/nowhere:/bin").unwrap(), Path::new("/bin/sh"));
        assert_eq!(on_path("/bin/sh", "").unwrap(), Path::new("/bin/sh"));
        assert_eq!(on_path("sh", "/nowhere").unwrap_err().code, 127);
        assert_eq!(program(OsStr::new("sh"), None).unwrap_err().code, 127);
        assert_eq!(on_path("/nowhere/sh", "").unwrap_err().code, 127);
        assert_eq!(on_path("/etc/passwd", "").unwrap_err().code, 126);
        assert_eq!(on_path("/etc", "").unwrap_err().code, 126);
        assert_eq!(on_path("passwd", "/etc").unwrap_err().code, 126);
    }
}
