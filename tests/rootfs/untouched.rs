/*!
What no test of the mount engine may change: the machine's own files and devices, and the kept files
of another object.

Programs cannot set the time of change (ctime), so a file whose ctime is the same has the same
content, owner, mode and attributes.
*/

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Directories of the machine, with everything in them.
const TREES: [&str; 3] = ["/etc", "/boot", "/opt"];
/// Directories whose entries count and no more: others work below them.
const LISTS: [&str; 6] = ["/", "/usr", "/usr/bin", "/usr/local/bin", "/root", "/dev"];

/// What was there. Compared by [`Untouched::check`].
#[derive(Debug)]
pub(crate) struct Untouched {
    neighbour: PathBuf,
    seen: BTreeMap<PathBuf, String>,
}

// === impl Untouched ===

impl Untouched {
    /// Makes files for a neighbour in this directory, and takes down what must not change.
    pub(crate) fn begin(neighbour: PathBuf) -> Self {
        let upper = neighbour.join("another/upper");
        fs::create_dir_all(upper.join("etc")).unwrap();
        fs::write(upper.join("etc/shadow"), "the neighbour's").unwrap();
        std::os::unix::fs::symlink("/etc", upper.join("link")).unwrap();
        let seen = look(&neighbour);
        Self { neighbour, seen }
    }

    pub(crate) fn check(self) {
        let now = look(&self.neighbour);
        let differ = |path: &&PathBuf| self.seen.get(*path) != now.get(*path);
        let changed: Vec<_> = self.seen.keys().chain(now.keys()).filter(differ).collect();
        assert!(changed.is_empty(), "the test changed {changed:?}");
    }
}

fn look(neighbour: &Path) -> BTreeMap<PathBuf, String> {
    let mut seen = BTreeMap::new();
    for tree in TREES.map(Path::new).into_iter().chain([neighbour]) {
        list(tree, true, &mut seen);
    }
    for directory in LISTS {
        list(Path::new(directory), false, &mut seen);
    }
    seen
}

fn list(directory: &Path, whole: bool, seen: &mut BTreeMap<PathBuf, String>) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.map(Result::unwrap) {
        let path = entry.path();
        // Other tests have some at the same time.
        if path.starts_with("/dev") && entry.file_name().as_encoded_bytes().starts_with(b"loop") {
            continue;
        }
        let Ok(data) = entry.metadata() else { continue };
        let what = format!(
            "{:o} {}:{} {:x}",
            data.mode(),
            data.uid(),
            data.gid(),
            data.rdev()
        );
        // A directory's time is that of its entries too, and devices have theirs from being used.
        let still = !data.is_dir() && data.rdev() == 0;
        let since = still.then(|| (data.ino(), data.size(), data.ctime(), data.ctime_nsec()));
        seen.insert(path.clone(), format!("{what} {since:?}"));
        if whole && data.is_dir() {
            list(&path, true, seen);
        }
    }
}
