/*!
Answers about the files of a kept filesystem, for users.

The files are the user's, and so are their names and number. What is read and how long that takes is
bounded, and the thread that reads has the lowest priority.
*/

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kept_files::listing::{Change, ChangeKind, DirectoryUsage, FileType};
use kept_files::request::Place;
use kept_files::{Request, frame};
use rootfs::diff::{self, Scope, Source, diff};
use rootfs::{Kept, Process, usage};
use rustix::fs::FileType as Type;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use stoppablecontainer_api::{StoppableContainerInstance, names};

use super::data::{self, Data};
use crate::node::Host;

/// How long a listing may take.
const TIME: Duration = Duration::from_mins(1);
/// Mount points of every container besides those of its template.
const MOUNTPOINTS: [&str; 9] = [
    names::VOLUME_MOUNT_PATH,
    "/dev",
    "/proc",
    "/sys",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/run/.containerenv",
    "/run/secrets/kubernetes.io/serviceaccount",
];

/// The files of an instance.
pub(crate) struct Files {
    pub(crate) host: Arc<Host>,
    /// The instance, which says where they are.
    pub(crate) object: Arc<StoppableContainerInstance>,
    /// Its UID.
    pub(crate) key: String,
    /// A process of the container that runs the image.
    pub(crate) image: Arc<Process>,
}

// === impl Files ===

impl Files {
    /// Answers a request in frames. Blocks as long as the request takes.
    pub(crate) fn answer(&self, request: &Request, to: impl Write + Send) -> Result<()> {
        // Of this thread and those that it starts, and of their input and output.
        rustix::process::setpriority_process(None, 19).context("lower the priority")?;
        let mut frames = frame::Writer::new(to);
        let answered = match request {
            Request::Diff(place) => self.changes(place, &mut frames),
            Request::Usage(place) => self.usage(place, &mut frames),
        };
        match answered {
            Ok(()) => frames.finish().map(drop),
            Err(error) => frames.fail(&format!("{error:#}")).map(drop),
        }
        .context("send the answer")
    }

    fn open(&self) -> Result<Kept> {
        let prefix = Path::new(&self.object.spec.host_path_prefix);
        let root = &self.host.root;
        let data = data::look(root, prefix, &self.key, None)?;
        if !matches!(data, Data::Recorded(record) if !record.resetting) {
            bail!("the kept files are not there; `kubectl stopc status` says why");
        }
        data::open(root, prefix, &self.key)?.context("the kept files are not there")
    }

    fn changes(&self, place: &Place, to: &mut (impl Write + Send)) -> Result<()> {
        let kept = self.open()?;
        let path = path_of(place);
        let scope = Scope {
            path: &path,
            depth: depth_of(place),
            mountpoints: &mountpoints(&self.object),
            until: Instant::now() + TIME,
        };
        let mut receive = |change: diff::Change| to.write_all(line(&change).as_bytes()).is_ok();
        let complete = diff(self.source(&kept), scope, &mut receive)?;
        require_complete(complete)
    }

    fn usage(&self, place: &Place, to: &mut (impl Write + Send)) -> Result<()> {
        let kept = self.open()?;
        let depth = depth_of(place).unwrap_or(usize::MAX);
        let mut receive = |directory: usage::DirectoryUsage| {
            let line = DirectoryUsage {
                bytes: directory.bytes,
                inodes: directory.inodes,
                path: directory.path.into_os_string().into_vec(),
            };
            to.write_all(line.to_line().as_bytes()).is_ok()
        };
        let until = Instant::now() + TIME;
        let complete = usage::directories(self.source(&kept), &path_of(place), depth, until, &mut receive)?;
        require_complete(complete)
    }

    fn source<'a>(&'a self, kept: &'a Kept) -> Source<'a> {
        Source {
            proc: &self.host.proc,
            node: &self.host.namespace,
            image: &self.image,
            kept,
        }
    }
}

/// A listing that is not complete has to say so.
fn require_complete(complete: bool) -> Result<()> {
    if !complete {
        bail!(
            "the list is not complete: there are more files than can be read in {} s, or directories deeper than a \
             path can be; name a directory to list less",
            TIME.as_secs()
        );
    }
    Ok(())
}

fn path_of(place: &Place) -> PathBuf {
    std::ffi::OsString::from_vec(place.path.clone()).into()
}

fn depth_of(place: &Place) -> Option<usize> {
    place.depth.and_then(|depth| usize::try_from(depth).ok())
}

/// The change as a line of the answer.
fn line(change: &diff::Change) -> String {
    let change = Change {
        kind: match change.kind {
            diff::ChangeKind::Added => ChangeKind::Added,
            diff::ChangeKind::Changed => ChangeKind::Changed,
            diff::ChangeKind::Deleted => ChangeKind::Deleted,
        },
        file_type: match change.file_type {
            Type::RegularFile => FileType::File,
            Type::Directory => FileType::Directory,
            Type::Symlink => FileType::Link,
            _ => FileType::Other,
        },
        count: change.count,
        path: change.path.as_os_str().as_bytes().to_vec(),
    };
    change.to_line()
}

/// Where the runtime mounts something in the main container, with the directories above. Mount
/// points that other webhooks add are not known here; they are listed.
fn mountpoints(object: &StoppableContainerInstance) -> HashSet<PathBuf> {
    let template = object.spec.template.value().unwrap_or_default();
    let containers = template["spec"]["containers"].as_array();
    let main = containers.and_then(|containers| containers.first());
    let mounts = main.and_then(|main| main["volumeMounts"].as_array());
    let paths = mounts
        .into_iter()
        .flatten()
        .filter_map(|mount| mount["mountPath"].as_str());
    let mut all = HashSet::new();
    for path in paths.chain(MOUNTPOINTS) {
        // In nearly all images /var/run is a link to /run.
        let target = path.strip_prefix("/var").filter(|path| path.starts_with("/run/"));
        for path in [Some(path), target].into_iter().flatten() {
            all.extend(Path::new(path).ancestors().map(Path::to_owned));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn mount_points_are_those_of_the_main_container() {
        let object: StoppableContainerInstance = serde_json::from_value(json!({
            "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainerInstance",
            "metadata": { "name": "web" },
            "spec": { "stoppableContainerName": "web", "template": { "spec": { "containers": [
                { "name": "main", "volumeMounts": [
                    { "name": "a", "mountPath": "/data/a/" }, { "name": "b", "mountPath": "/var/run/b" },
                ]},
                { "name": "side", "volumeMounts": [{ "name": "c", "mountPath": "/side" }] },
            ]}}},
        }))
        .unwrap();
        let found = mountpoints(&object);
        for path in [
            "/data/a",
            "/data",
            "/var/run/b",
            "/run/b",
            "/run",
            "/dev",
            "/etc/hosts",
            "/etc",
        ] {
            assert!(found.contains(Path::new(path)), "{path}");
        }
        assert!(!found.contains(Path::new("/side")));
    }

    #[test]
    fn a_change_is_the_line_that_the_plugin_reads() {
        let change = diff::Change {
            kind: diff::ChangeKind::Deleted,
            file_type: Type::Socket,
            count: 3,
            path: "/a\nb".into(),
        };
        assert_eq!(line(&change), "deleted other 3 /a\\x0ab\n");
    }
}
