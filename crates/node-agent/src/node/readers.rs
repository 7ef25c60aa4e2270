/*!
How many requests of users read kept files of a disk at the same time.

Each takes a thread, some memory and the disk's time, and its user decides how fast the answer is
taken. So a namespace has few of them, and cannot take those of the others.
*/

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Most requests of a disk.
const OF_DISK: usize = 8;
/// Most requests of a namespace on a disk.
const OF_NAMESPACE: usize = 2;

/// The requests that read files of a disk now, by namespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readers(Arc<Mutex<HashMap<String, usize>>>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Reader {
    all: Readers,
    namespace: String,
}

/// There are too many already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TooManyReaders {
    /// Of the namespace.
    #[error(
        "{OF_NAMESPACE} other requests of the namespace read kept files on the node; try again when one has ended"
    )]
    OfNamespace,
    /// Of all namespaces.
    #[error("{OF_DISK} other requests read kept files on the node; try again when one has ended")]
    OfDisk,
}

// === impl Readers ===

impl Readers {
    /// Begins one.
    ///
    /// # Errors
    /// If there are too many.
    pub(crate) fn begin(&self, namespace: &str) -> Result<Reader, TooManyReaders> {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.get(namespace).is_some_and(|count| *count >= OF_NAMESPACE) {
            return Err(TooManyReaders::OfNamespace);
        }
        if now.values().sum::<usize>() >= OF_DISK {
            return Err(TooManyReaders::OfDisk);
        }
        *now.entry(namespace.to_owned()).or_default() += 1;
        Ok(Reader {
            all: self.clone(),
            namespace: namespace.to_owned(),
        })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut now = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = now.get_mut(&self.namespace) {
            *count -= 1;
            if *count == 0 {
                now.remove(&self.namespace);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i18_a_namespace_cannot_take_the_requests_of_others() {
        let readers = Readers::default();
        let mut begun = vec![readers.begin("a").unwrap(), readers.begin("a").unwrap()];
        assert_eq!(readers.begin("a").unwrap_err(), TooManyReaders::OfNamespace);
        for namespace in ["b", "c", "d"] {
            begun.extend([
                readers.begin(namespace).unwrap(),
                readers.begin(namespace).unwrap(),
            ]);
        }
        assert_eq!(readers.begin("e").unwrap_err(), TooManyReaders::OfDisk);
        begun.remove(0);
        begun.push(readers.begin("a").unwrap());
        drop(begun);
        assert!(readers.0.lock().unwrap().is_empty(), "nothing is remembered");
    }
}
