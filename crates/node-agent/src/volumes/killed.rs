/*!
F17: the agent is killed at every system call that changes something, while it publishes and
unpublishes; the next attempt brings everything to the state of a run that was not interrupted.

strace(1) kills: a copy of this test program does the work under its eyes.
*/

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rootfs::{Namespace, Proc, Root};
use rustix::fs::OFlags;

use crate::instance::ObjectRef;
use crate::node::{Host, on_node};
use crate::volumes::{Role, VolumeRecord, Volumes};

const ID: &str = "csi-killed";
/// Names the directory and the work of the copy.
const DIRECTORY: &str = "KILLED_DIRECTORY";
const WORK: &str = "KILLED_WORK";
/// What changes something or leads there. Each is counted by itself, and for each thread.
const CALLS: &[&str] = &[
    "openat",
    "mkdirat",
    "unlinkat",
    "renameat",
    "renameat2",
    "write",
    "copy_file_range",
    "fsync",
    "fchmod",
    "fchmodat",
    "bind",
    "listen",
    "setns",
    "fchdir",
    "mount",
    "umount2",
];

/// One thread's part of a call of the kubelet's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Create,
    Mount,
    Unmount,
    Remove,
}

const ALL: [Work; 4] = [Work::Create, Work::Mount, Work::Unmount, Work::Remove];

#[test]
fn f17_i9_killed_at_every_system_call_of_publish_and_unpublish() {
    on_node(|host, directory| {
        fs::create_dir(directory.join("base")).unwrap();
        fs::create_dir(directory.join("pod")).unwrap();
        fs::write(directory.join("program"), "program").unwrap();
        open(directory)
            .install_wrapper(&directory.join("program"))
            .unwrap();
        let nothing = state(host, directory);
        publish(host, directory);
        let published = state(host, directory);
        unpublish(host, directory);
        assert_eq!(state(host, directory), nothing);

        let mut kills = 0;
        for work in ALL {
            for call in CALLS {
                for count in 1.. {
                    // As it is when that work begins.
                    for before in ALL.into_iter().take_while(|before| *before != work) {
                        before.done(host, directory);
                    }
                    let killed = killed(directory, work, call, count);
                    kills += usize::from(killed);
                    let case = format!("killed at {call} {count} of {work:?}");
                    // After an unpublish the kubelet does not publish again, but asks for the same
                    // once more.
                    if matches!(work, Work::Create | Work::Mount) {
                        publish(host, directory);
                        assert_eq!(state(host, directory), published, "{case}, then published");
                    }
                    unpublish(host, directory);
                    assert_eq!(state(host, directory), nothing, "{case}, then unpublished");
                    if !killed {
                        break;
                    }
                }
            }
        }
        println!("{kills} kills");
        assert!(kills > 40, "only {kills} kills: the tracer sees too little");
    });
}

/// The copy's part.
#[test]
#[ignore = "is started and killed by the other test"]
fn inside() {
    let directory = PathBuf::from(std::env::var_os(DIRECTORY).unwrap());
    let work = std::env::var(WORK).unwrap();
    let work = ALL
        .into_iter()
        .find(|known| format!("{known:?}") == work)
        .unwrap();
    work.done(&this_node(), &directory);
}

/// Whether the copy was killed; otherwise it came to its end.
fn killed(directory: &Path, work: Work, call: &str, count: usize) -> bool {
    let output = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e"])
        .arg(format!("trace={call}"))
        .arg("-e")
        .arg(format!("inject={call}:signal=SIGKILL:when={count}"))
        .arg(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "volumes::killed::inside",
            "--test-threads=1",
        ])
        .env(DIRECTORY, directory)
        .env(WORK, format!("{work:?}"))
        .output()
        .expect("strace is needed: `cargo xtask test` installs it");
    assert!(
        output.status.success() || output.status.signal() == Some(9) || output.status.code() == Some(128 + 9),
        "{output:?}"
    );
    !output.status.success()
}

/// The node of the thread.
fn this_node() -> Host {
    let proc = Proc::open().unwrap();
    let namespace = Namespace::new(proc.open_at("thread-self/ns/mnt", OFlags::RDONLY).unwrap());
    let root = Root::of_this_thread().unwrap();
    Host {
        proc,
        namespace,
        root,
    }
}

fn open(directory: &Path) -> Volumes {
    Volumes::open(fs::File::open(directory.join("base")).unwrap().into()).unwrap()
}

fn target(directory: &Path) -> PathBuf {
    directory.join("pod/mount")
}

fn publish(host: &Host, directory: &Path) {
    Work::Create.done(host, directory);
    Work::Mount.done(host, directory);
}

fn unpublish(host: &Host, directory: &Path) {
    Work::Unmount.done(host, directory);
    Work::Remove.done(host, directory);
}

impl Work {
    fn done(self, host: &Host, directory: &Path) {
        let volumes = open(directory);
        let guard = volumes.try_lock(ID).unwrap();
        let object = |name: &str| ObjectRef {
            namespace: "ns".into(),
            name: name.into(),
            uid: format!("uid-{name}"),
        };
        match self {
            Self::Create => {
                let record = VolumeRecord {
                    target: target(directory),
                    pod: object("pod"),
                    instance: object("instance"),
                    role: Role::Consumer,
                    prefix: "/data".into(),
                    container: None,
                    image_id: None,
                };
                drop(guard.create(&record).unwrap());
            }
            Self::Mount => {
                let mount = directory.join("base/volumes").join(ID).join("mount");
                host.mount_volume(&fs::File::open(mount).unwrap().into(), &target(directory))
                    .unwrap();
            }
            Self::Unmount => host.unmount_volume(&target(directory)).unwrap(),
            Self::Remove => guard.remove().unwrap(),
        }
    }
}

/// Every path with its type, mode, size and what it says; and every mount.
fn state(host: &Host, directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = vec![directory.to_owned()];
    while let Some(above) = rest.pop() {
        for entry in fs::read_dir(&above).unwrap() {
            let path = entry.unwrap().path();
            let about = fs::symlink_metadata(&path).unwrap();
            let content = fs::read_to_string(&path).unwrap_or_default();
            found.push(format!("{} {:o} {content}", path.display(), about.mode()));
            if about.is_dir() {
                rest.push(path);
            }
        }
    }
    let table = host.proc.own_mounts().unwrap();
    let below = table
        .mounts()
        .iter()
        .filter(|mount| mount.mountpoint.starts_with(directory));
    found.extend(below.map(|mount| format!("{} {:?}", mount.mountpoint.display(), mount.flags)));
    found.sort();
    found
}
