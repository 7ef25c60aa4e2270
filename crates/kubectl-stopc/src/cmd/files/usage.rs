//! `du` of the directories of a container.

use kept_files::Request;
use kept_files::listing::DirectoryUsage;
use kept_files::path::escape;

use super::{agent, place};
use crate::cmd::inside;
use crate::failure::Failure;
use crate::session::Session;
use crate::units;

/// Prints a line for the path and for each directory down to `depth` below it.
///
/// # Errors
/// If the files cannot be read, or not all of them.
pub(crate) async fn du(
    session: &mut Session,
    name: &str,
    path: &str,
    depth: u32,
    bytes: bool,
) -> Result<(), Failure> {
    let request = Request::Usage(place(path, Some(depth))?);
    let object = inside::get(session, name).await?;
    let answer = agent::ask(session, &object, &request)?;
    let (mut directories, failure) = answer.lines(DirectoryUsage::parse)?;
    directories.sort_by(|one, other| one.path.cmp(&other.path));
    session.screen.print_raw(&lines(&directories, bytes));
    failure.map_or(Ok(()), Err)
}

/// In the form of du(1).
fn lines(directories: &[DirectoryUsage], bytes: bool) -> String {
    let line = |directory: &DirectoryUsage| {
        let size = if bytes {
            directory.bytes.to_string()
        } else {
            units::bytes_in_column(i64::try_from(directory.bytes).unwrap_or(i64::MAX))
        };
        format!("{size}\t{}\n", escape(&directory.path))
    };
    directories.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_size_and_path() {
        let all = ["1536 2 /", "0 1 /a\\x1b"].map(|line| DirectoryUsage::parse(line).unwrap());
        assert_eq!(lines(&all, false), "1.5KiB\t/\n0B\t/a\\x1b\n");
        assert_eq!(lines(&all, true), "1536\t/\n0\t/a\\x1b\n");
    }
}
