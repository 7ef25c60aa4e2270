//! A tree that changes, or never ends, while it is used.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rootfs::Root;
use rustix::fs::{CWD, FileType, Mode, OFlags, RenameFlags, inotify, mknodat, renameat_with};
use rustix::io::Errno;

use crate::node::Node;

fn open(tree: &Path) -> OwnedFd {
    rustix::fs::open(tree, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
}

/// Tells whether something was opened since the last time that it was asked.
struct Watch(OwnedFd);

impl Watch {
    fn on(path: &Path) -> Self {
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).unwrap();
        inotify::add_watch(&watch, path, inotify::WatchFlags::OPEN).unwrap();
        Self(watch)
    }

    fn saw(&self) -> bool {
        match rustix::io::read(&self.0, &mut [0_u8; 4096]) {
            Ok(length) => length > 0,
            Err(Errno::AGAIN) => false,
            Err(e) => panic!("{e}"),
        }
    }
}

/// To open a device is enough for some: a watchdog starts, a tape rewinds. A FIFO stands for it,
/// whose opening is seen.
#[test]
fn h12_a_file_exchanged_for_another_thing_while_it_is_read() {
    const LOST: usize = 100;
    Node::with(|node| {
        let tree = node.path("tree");
        fs::create_dir(&tree).unwrap();
        let (file, fifo) = (tree.join("file"), tree.join("fifo"));
        fs::write(&file, "content").unwrap();
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let watch = Watch::on(&fifo);
        let root = Root::new(open(&tree));
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    renameat_with(CWD, &file, CWD, &fifo, RenameFlags::EXCHANGE).unwrap();
                }
            });
            // How long it takes until a program that checks the path and then opens it has lost the
            // race often enough.
            let (mut attempts, mut naive) = (0, 0);
            while naive < LOST && attempts < 10_000_000 {
                attempts += 1;
                let looked = rustix::fs::open(&file, OFlags::PATH, Mode::empty()).unwrap();
                let stat = rustix::fs::fstat(&looked).unwrap();
                if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
                    drop(rustix::fs::open(&file, flags, Mode::empty()).unwrap());
                }
                naive += usize::from(watch.saw());
            }
            let (mut read, mut refused, mut opened) = (0, 0, 0);
            for _ in 0..attempts.max(10_000) {
                match root.read("file".as_ref(), 100) {
                    Ok(content) => {
                        assert_eq!(content.unwrap(), b"content");
                        read += 1;
                    }
                    Err(_) => refused += 1,
                }
                opened += usize::from(watch.saw());
            }
            over.store(true, Ordering::Relaxed);
            let races = format!(
                "{attempts} attempts: {read} read, {refused} refused, {opened} opened; without care {naive} opened"
            );
            println!("{races}");
            assert!(read > LOST && refused > LOST && naive == LOST, "{races}");
            assert_eq!(opened, 0, "{races}");
        });
    });
}

#[test]
fn h14_another_thing_in_the_place_of_a_file_of_ours_is_not_opened() {
    Node::with(|node| {
        let directory = node.path("directory");
        fs::create_dir(&directory).unwrap();
        mknodat(CWD, directory.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let watch = Watch::on(&directory.join("fifo"));
        let opened = open(&directory);
        assert_eq!(rootfs::files::read(&opened, "fifo", 100), Err(Errno::INVAL));
        assert_eq!(
            rootfs::files::is_sealed(&opened, "fifo", "seal"),
            Err(Errno::INVAL)
        );
        assert!(!watch.saw());
    });
}

/// Every component is looked up from the top, so links that make a path of very many take very
/// long.
#[test]
fn h1_links_that_make_a_path_very_long_are_refused() {
    Node::with(|node| {
        let tree = node.path("tree");
        fs::create_dir_all(tree.join("d")).unwrap();
        let detour = "d/../".repeat(700);
        for (link, next) in [("0", "1"), ("1", "2"), ("2", "d")] {
            symlink(format!("{detour}{next}"), tree.join(link)).unwrap();
        }
        let root = Root::new(open(&tree));
        let made = root.create_directory("1/made".as_ref(), Mode::RWXU);
        assert!(made.is_ok() && tree.join("d/made").is_dir(), "{made:?}");
        let refused = root
            .create_directory("0/refused".as_ref(), Mode::RWXU)
            .unwrap_err();
        assert!(
            refused.to_string().contains("more than 4096 components"),
            "{refused}"
        );
        assert!(!tree.join("d/refused").exists());
        // A path that was long before any link.
        let refused = root.create_file(format!("{}x", "d/../".repeat(2100)).as_ref(), Mode::RWXU);
        assert!(refused.unwrap_err().to_string().contains("4096 components"));
    });
}
