/*!
What lies in the directory of a kept filesystem, and the lock that other processes respect.
*/

use std::path::Path;

use anyhow::{Context, Result, bail};
use rootfs::namespace::NamespaceThread;
use rootfs::store::KeptLock;
use rootfs::{AttachError, Kept, Root, Store, holders};

use super::record::{DataRecord, RecordDefect, is_newer};
use crate::node::Host;

/// The data that was found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Data {
    /// Nothing.
    Absent,
    /// Nothing, and the directory is not the one that held the data.
    OtherDirectory,
    /// Data without a record: nothing says whose it is and what it was made with.
    WithoutRecord,
    /// Data with a record that cannot be what was recorded here.
    Defective(RecordDefect),
    /// Data, or the order to delete it, with its record.
    Recorded(DataRecord),
}

/// The directory of this key. `None` if it is not there.
pub(crate) fn open(root: &Root, prefix: &Path, key: &str) -> Result<Option<Kept>> {
    let Some(store) = Store::open(root, prefix)? else {
        return Ok(None);
    };
    Ok(store.get(key)?)
}

/// Looks at the data without changing it; `root` is the node's. `store` identifies the directory
/// that holds the data, if that is known.
pub(crate) fn look(root: &Root, prefix: &Path, key: &str, store: Option<&str>) -> Result<Data> {
    let found = Store::open(root, prefix)?;
    let same = match (&found, store) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(found), Some(store)) => found.identity()?.as_deref() == Some(store),
    };
    // Data that is there is judged by its record, wherever it came from.
    Ok(match found.map(|found| look_into(&found, key)).transpose()? {
        None | Some(Data::Absent) if !same => Data::OtherDirectory,
        None => Data::Absent,
        Some(data) => data,
    })
}

fn look_into(store: &Store, key: &str) -> Result<Data> {
    let Some(kept) = store.get(key)? else {
        return Ok(Data::Absent);
    };
    let record = kept.record()?;
    if record.as_deref().is_some_and(is_newer) {
        return Ok(Data::Defective(RecordDefect::Newer));
    }
    let understood = record
        .as_ref()
        .and_then(|record| serde_json::from_slice::<DataRecord>(record).ok());
    let genuine = record.is_some() && kept.has_genuine_record()?;
    Ok(match understood {
        Some(begun) if genuine && begun.resetting => Data::Recorded(begun),
        _ if !kept.has_upper()? => Data::Absent,
        _ if record.is_none() => Data::WithoutRecord,
        Some(record) if genuine => Data::Recorded(record),
        Some(_) => Data::Defective(RecordDefect::Copied),
        None => Data::Defective(RecordDefect::Unreadable),
    })
}

/// Whether data can be made in a prefix as it is: the prefix exists, on a suitable file system.
pub(crate) fn is_possible(root: &Root, prefix: &Path) -> Result<bool> {
    let found = Store::open(root, prefix)?;
    Ok(found.is_some_and(|store| store.require_suitable().is_ok()))
}

/// Locks data that is not in use. A later try may succeed where this one fails.
pub(crate) fn lock_unused(host: &Host, kept: &Kept) -> Result<KeptLock> {
    let locked = kept.lock()?;
    if kept.has_upper()? {
        let used = NamespaceThread::run(|thread| {
            thread
                .enter(&host.namespace)
                .context("enter the node's mount namespace")?;
            Ok::<_, anyhow::Error>(holders::probe(thread, kept)?)
        });
        match used.context("start a thread")?? {
            holders::Use::Free => {}
            holders::Use::Unknown => bail!(AttachError::UseUnknown),
            holders::Use::Held => match holders::find(&host.proc, kept.key())?
                .iter()
                .find(|holder| holder.in_host_userns)
            {
                Some(holder) => bail!("process {} on the node still uses the data", holder.process.id()),
                None => bail!("the kernel still uses the data"),
            },
        }
    }
    Ok(locked)
}
