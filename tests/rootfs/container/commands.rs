//! What a container does for a test.

use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, chown};

use rustix::fs::{XattrFlags, getxattr, setxattr};

use crate::special_files::{CAPABILITY, CAPABILITY_2};

/// Carries out a command, of which only some have a `rest`.
pub(super) fn carry_out(verb: &str, path: &str, rest: &str) -> std::io::Result<String> {
    match verb {
        "read" => fs::read_to_string(path),
        "write" => fs::write(path, rest).map(|()| String::new()),
        "write-durable" => write_durable(path, rest).map(|()| String::new()),
        "remove" => fs::remove_file(path).map(|()| String::new()),
        "remove-tree" => fs::remove_dir_all(path).map(|()| String::new()),
        "make-directory" => fs::create_dir(path).map(|()| String::new()),
        "list" => list(path),
        "stat" => stat(path),
        "chown" => {
            let id = Some(rest.parse().unwrap());
            chown(path, id, id).map(|()| String::new())
        }
        "set-capability" => set_capability(path).map(|()| String::new()),
        "capability" => capability(path),
        "mounts" => fs::read_to_string("/proc/self/mountinfo").map(|table| mountpoints(&table)),
        "enter" => std::env::set_current_dir(path).map(|()| String::new()),
        "where" => std::env::current_dir().map(|path| path.display().to_string()),
        _ => panic!("{verb:?}"),
    }
}

fn set_capability(path: &str) -> std::io::Result<()> {
    Ok(setxattr(path, CAPABILITY, &CAPABILITY_2, XattrFlags::empty())?)
}

fn capability(path: &str) -> std::io::Result<String> {
    let mut value = [0; 64];
    let length = getxattr(path, CAPABILITY, &mut value)?;
    Ok(format!("{:?}", &value[..length]))
}

fn write_durable(path: &str, content: &str) -> std::io::Result<()> {
    let mut file = fs::File::create(path)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()
}

fn list(path: &str) -> std::io::Result<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        names.push(entry?.file_name().into_string().unwrap());
    }
    names.sort();
    Ok(names.join(" "))
}

fn stat(path: &str) -> std::io::Result<String> {
    let metadata = fs::symlink_metadata(path)?;
    let kind = if metadata.is_dir() {
        "directory"
    } else if metadata.is_symlink() {
        "link"
    } else {
        "file"
    };
    Ok(format!(
        "{kind} {:o} {}:{}",
        metadata.mode() & 0o7777,
        metadata.uid(),
        metadata.gid()
    ))
}

fn mountpoints(table: &str) -> String {
    let mut points = String::new();
    for line in table.lines() {
        let _ = writeln!(points, "{}", line.split(' ').nth(4).unwrap());
    }
    points
}
