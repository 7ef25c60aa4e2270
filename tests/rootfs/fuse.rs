/*!
A FUSE file system that stops answering: its daemon is a thread of the test, which speaks as much of
the protocol (linux/fuse.h) as it takes to be mounted.

Nothing hangs for longer than the file system lives: when it is dropped its device is closed, and
the kernel then fails whatever waits.
*/

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};

use crate::container;

/// Opcodes.
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const STATFS: u32 = 17;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

/// Errors.
const NO_ENTRY: i32 = -2;
const NOT_KNOWN: i32 = -38;

/// Size of the header of a request.
const HEADER: usize = 40;

/// A file system; ends when it is dropped.
pub(crate) struct Fuse {
    said: Arc<Said>,
    daemon: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Said {
    /// It has answered the first request, which the kernel makes by itself.
    begun: AtomicBool,
    /// It answers no more.
    silent: AtomicBool,
    /// It is to end.
    over: AtomicBool,
    /// Requests since it answers no more.
    asked: AtomicUsize,
}

// === impl Fuse ===

impl Fuse {
    /// Mounts one, which has a directory `b` and nothing else. With `all` every user may use it,
    /// and else only its owner, the user 1000: the kernel refuses root without asking the server.
    pub(crate) fn mount(path: &Path, all: bool) -> Self {
        let (mount, fuse) = Self::detached(all);
        std::fs::create_dir_all(path).unwrap();
        container::attach(mount, path);
        fuse
    }

    /// One that is mounted nowhere yet.
    pub(crate) fn detached(all: bool) -> (OwnedFd, Self) {
        let device = File::options()
            .read(true)
            .write(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
            .open("/dev/fuse")
            .unwrap();
        let fs = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        let user = if all { "0" } else { "1000" };
        for (key, value) in [
            ("fd", device.as_raw_fd().to_string().as_str()),
            ("rootmode", "40000"),
            ("user_id", user),
            ("group_id", user),
        ] {
            fsconfig_set_string(&fs, key, value).unwrap();
        }
        if all {
            fsconfig_set_flag(&fs, "allow_other").unwrap();
        }
        fsconfig_create(&fs).unwrap();
        let said = Arc::<Said>::default();
        let daemon = std::thread::spawn({
            let said = Arc::clone(&said);
            move || serve(&device, &said)
        });
        while !said.begun.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
        let daemon = Some(daemon);
        (mount, Self { said, daemon })
    }

    /// From here on it takes requests and answers none.
    pub(crate) fn stop_answering(&self) {
        self.said.silent.store(true, Ordering::SeqCst);
    }

    /// How often it was asked since then.
    pub(crate) fn asked(&self) -> usize {
        self.said.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        self.said.over.store(true, Ordering::SeqCst);
        self.daemon.take().unwrap().join().unwrap();
    }
}

fn serve(device: &File, said: &Said) {
    let mut request = vec![0; 1 << 18];
    let pause = Timespec {
        tv_sec: 0,
        tv_nsec: 20_000_000,
    };
    while !said.over.load(Ordering::SeqCst) {
        let mut fds = [PollFd::new(device, PollFlags::IN)];
        if poll(&mut fds, Some(&pause)) != Ok(1) {
            continue;
        }
        // Everything but a request: it was taken back, or the file system is unmounted.
        let Ok(length @ HEADER..) = rustix::io::read(device.as_fd(), &mut request) else {
            if fds[0].revents().contains(PollFlags::ERR) {
                return;
            }
            continue;
        };
        let request = &request[..length];
        let opcode = u32::from_ne_bytes(request[4..8].try_into().unwrap());
        let forgotten = matches!(opcode, FORGET | BATCH_FORGET | INTERRUPT);
        if forgotten {
            continue;
        }
        if said.silent.load(Ordering::SeqCst) {
            said.asked.fetch_add(1, Ordering::SeqCst);
            continue;
        }
        let (error, body) = answer(opcode, &request[HEADER..]);
        let length = u32::try_from(16 + body.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(error.to_ne_bytes());
        bytes.extend(&request[8..16]);
        bytes.extend(body);
        // Refused if it was taken back meanwhile.
        let _ = rustix::io::write(device.as_fd(), &bytes);
        said.begun.store(true, Ordering::SeqCst);
    }
}

/// The answer to a request: error and body.
fn answer(opcode: u32, body: &[u8]) -> (i32, Vec<u8>) {
    match opcode {
        INIT => {
            let mut init = Words::default();
            // Version, read-ahead, flags, background, largest write, and the rest.
            init.half(7).half(31).half(0).half(0).half(0).half(4096);
            (0, init.filled(64))
        }
        GETATTR => {
            let mut out = Words::default();
            // Not valid for a moment: every look is a question.
            out.whole(0).whole(0).attributes(1);
            (0, out.0)
        }
        LOOKUP if body == b"b\0" => {
            let mut out = Words::default();
            out.whole(2).whole(0).whole(0).whole(0).whole(0).attributes(2);
            (0, out.0)
        }
        LOOKUP => (NO_ENTRY, Vec::new()),
        STATFS => (0, vec![0; 80]),
        _ => (NOT_KNOWN, Vec::new()),
    }
}

/// The numbers of a structure.
#[derive(Default)]
struct Words(Vec<u8>);

// === impl Words ===

impl Words {
    fn whole(&mut self, number: u64) -> &mut Self {
        self.0.extend(number.to_ne_bytes());
        self
    }

    fn half(&mut self, number: u32) -> &mut Self {
        self.0.extend(number.to_ne_bytes());
        self
    }

    /// `struct fuse_attr` of a directory.
    fn attributes(&mut self, inode: u64) -> &mut Self {
        self.whole(inode).whole(0).whole(0).whole(0).whole(0).whole(0);
        self.half(0).half(0).half(0).half(0o40755).half(2);
        self.half(0).half(0).half(0).half(4096).half(0)
    }

    fn filled(mut self, length: usize) -> Vec<u8> {
        self.0.resize(length, 0);
        self.0
    }
}
