/*!
Looks for one overlay in a mount table without keeping the table.

The tables of all processes are searched, and a user who may mount can make a table of any size:
very many mounts, and lines of megabytes. So a table is read as a stream, and only a bounded part of
one option is kept. Every table is read up to a length above any ordinary one. The rest is read
until the time budget of all tables is used up; then only the kernel's own answer is left
([`super::probe`]). Where the kernel has listmount(2), that is used instead ([`super::listing`]).
*/

use std::io::{BufRead, BufReader, Read};

use super::TimeBudget;
use crate::table::{ends_with, unescape};

/// Bytes of every table that are read in any case. A node with 500 pods has some hundred KiB.
const ANY_CASE: u64 = 8 << 20;
/// How much of a table is in memory.
const BUFFER: usize = 64 << 10;
/// How much of the path of an upper directory is looked at, from its end. More than any key takes.
const MAX_PATH: usize = 4 << 10;

/// What a table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The overlay is in it.
    Yes,
    /// It is not.
    No,
    /// It is not in what was read.
    Unknown,
}

/// A table that is read no further than the time budget allows.
struct Limited<'a, R> {
    table: R,
    read: u64,
    budget: &'a mut TimeBudget,
    cut: bool,
}

/// The beginning of a field.
struct Field {
    text: Vec<u8>,
    /// Whether it is the last one of its line.
    ends_line: bool,
}

/// An option, as far as it may be the upper directory's.
#[derive(Default)]
struct UpperDir {
    /// How many bytes of the option's name were compared.
    named: usize,
    /// Whether it has another name.
    other: bool,
    /// The end of its value, still escaped.
    path: Vec<u8>,
}

/// Whether an open `mountinfo` has an overlay whose upper directory has a path that ends in these
/// components.
pub(super) fn find(table: impl Read, upper: &str, budget: &mut TimeBudget) -> std::io::Result<Found> {
    let limited = Limited {
        table,
        read: 0,
        budget,
        cut: false,
    };
    let mut table = BufReader::with_capacity(BUFFER, limited);
    Ok(if is_in(&mut table, upper)? {
        Found::Yes
    } else if table.get_ref().cut {
        Found::Unknown
    } else {
        Found::No
    })
}

// === impl Limited ===

impl<R: Read> Read for Limited<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.read < ANY_CASE {
            let length = self.table.read(buffer)?;
            self.read += length as u64;
            return Ok(length);
        }
        if self.budget.is_over() {
            self.cut = true;
            return Ok(0);
        }
        self.budget.spend(|| self.table.read(buffer))
    }
}

/// See `proc_pid_mountinfo(5)` for the format. The kernel escapes blanks and line feeds in names,
/// so a chosen name cannot begin a field or a line.
fn is_in(table: &mut impl BufRead, upper: &str) -> std::io::Result<bool> {
    'lines: loop {
        // Ids, device, what part is mounted, where, and how: of any length, and of no interest.
        for _ in 0..6 {
            if table.skip_until(b' ')? == 0 {
                return Ok(false);
            }
        }
        loop {
            let field = Field::read(table)?;
            if field.ends_line {
                continue 'lines;
            }
            if field.text == b"-" {
                break;
            }
        }
        let fs_type = Field::read(table)?;
        if fs_type.ends_line {
            continue;
        }
        if fs_type.text != b"overlay" {
            table.skip_until(b'\n')?;
            continue;
        }
        let _source = table.skip_until(b' ')?;
        if options_name(table, upper)? {
            return Ok(true);
        }
    }
}

/// Whether options of an overlay name this upper directory.
pub(super) fn names_upper(mut options: &[u8], upper: &str) -> bool {
    // Memory can be read.
    options_name(&mut options, upper).unwrap_or(false)
}

/// Whether the rest of a line, which is options of an overlay, names this upper directory.
fn options_name(table: &mut impl BufRead, upper: &str) -> std::io::Result<bool> {
    let mut option = UpperDir::default();
    loop {
        match next(table)? {
            Some(b',') => {
                if option.is(upper) {
                    return Ok(true);
                }
                option = UpperDir::default();
            }
            None | Some(b'\n') => return Ok(option.is(upper)),
            Some(byte) => option.push(byte),
        }
    }
}

fn next(table: &mut impl BufRead) -> std::io::Result<Option<u8>> {
    loop {
        match table.fill_buf() {
            Ok(buffer) => {
                let byte = buffer.first().copied();
                if byte.is_some() {
                    table.consume(1);
                }
                return Ok(byte);
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

// === impl Field ===

impl Field {
    /// Longer than anything that is looked for.
    const KEPT: usize = 16;

    fn read(table: &mut impl BufRead) -> std::io::Result<Self> {
        let mut text = Vec::new();
        loop {
            match next(table)? {
                Some(b' ') => break,
                None | Some(b'\n') => {
                    return Ok(Self {
                        text,
                        ends_line: true,
                    });
                }
                Some(byte) if text.len() < Self::KEPT => text.push(byte),
                Some(_) => {}
            }
        }
        Ok(Self {
            text,
            ends_line: false,
        })
    }
}

// === impl UpperDir ===

impl UpperDir {
    const NAME: &[u8] = b"upperdir=";

    fn push(&mut self, byte: u8) {
        if let Some(expected) = Self::NAME.get(self.named) {
            self.other |= *expected != byte;
            self.named += 1;
        } else if !self.other {
            if self.path.len() == 2 * MAX_PATH {
                self.path.drain(..MAX_PATH);
            }
            self.path.push(byte);
        }
    }

    fn is(&self, upper: &str) -> bool {
        self.named == Self::NAME.len() && !self.other && ends_with(&unescape(&self.path), upper)
    }
}

#[cfg(test)]
mod tests;
