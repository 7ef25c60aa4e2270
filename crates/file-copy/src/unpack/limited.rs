//! The stream as the archive's reader sees it.

use std::cell::{Cell, RefCell};
use std::io::{self, Read};
use std::rc::Rc;

/// Limits what may be read for a description, and remembers why the stream ended.
pub(super) struct Limited<R> {
    pub(super) from: R,
    pub(super) left: Rc<Cell<u64>>,
    pub(super) problem: Rc<RefCell<Option<String>>>,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 {
            return Err(io::Error::other("a description without end"));
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        match self.from.read(&mut buffer[..most]) {
            Ok(count) => {
                if left != u64::MAX {
                    self.left.set(left - count as u64);
                }
                Ok(count)
            }
            Err(error) => {
                if error.kind() != io::ErrorKind::Interrupted {
                    *self.problem.borrow_mut() = Some(error.to_string());
                }
                Err(error)
            }
        }
    }
}
