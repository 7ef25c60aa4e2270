//! I18: a volume whose file system stops answering is moved like any other, as the agent does not
//! ask it; a start where the agent would have to is refused.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use rootfs::holders::Method;
use rootfs::namespace::NamespaceThread;
use rootfs::{AttachError, Attached, attach, holders, usage};
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, open_tree};

use crate::container::{self, Container, Spec};
use crate::fuse::Fuse;
use crate::kernel;
use crate::node::Node;

/// Long enough for anything that does not hang.
const PATIENCE: Duration = Duration::from_secs(30);

/// Does something beside volumes that may hang; if it does, these end, so that it comes back and
/// the test fails.
fn unless_it_hangs<T: Send>(volumes: Vec<Fuse>, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let (done, ended) = mpsc::channel();
        let working = scope.spawn(move || {
            let result = work();
            done.send(()).unwrap();
            result
        });
        let in_time = ended.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Timeout);
        let asked: Vec<_> = volumes.iter().map(Fuse::asked).collect();
        drop(volumes);
        let result = working.join();
        assert!(in_time, "it hung; the volumes were asked {asked:?} times");
        let result = result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        assert_eq!(asked, vec![0; asked.len()], "a volume was asked something");
        result
    })
}

/// As a volume, below it another one, as the working directory, and in the place of the files that
/// name users.
#[test]
fn i18_a_fuse_volume_that_does_not_answer_is_moved() {
    for all in [true, false] {
        Node::with(|node| {
            let base = node.layer("base", &[("etc/passwd", Some("of the image"))]);
            let provider = node.provider(&[&base]);
            let (data, users) = (node.path("data"), node.path("users"));
            let volumes = vec![Fuse::mount(&data, all), Fuse::mount(&users, all)];
            let mut consumer = node.consumer("consumer").bind(&data, "/data", "private");
            if all {
                consumer = consumer.tmpfs("/data/b").working_directory("/data");
            }
            let consumer = consumer.bind(&users, "/etc/", "slave").start();
            for volume in &volumes {
                volume.stop_answering();
            }
            let kept = node.kept();
            let passwd = unless_it_hangs(volumes, || {
                assert_eq!(
                    node.attach_to(&kept, &provider, &consumer).unwrap(),
                    Attached::Now
                );
                assert_eq!(
                    node.attach_to(&kept, &provider, &consumer).unwrap(),
                    Attached::Already
                );
                for method in [Method::Calls, Method::Tables] {
                    let found = holders::find_by(&node.proc, &node.key, method).unwrap();
                    assert_eq!(found.len(), 1, "{method:?}");
                }
                assert!(attach::is_attached(&node.proc, &consumer.process, None, &node.key).unwrap());
                assert!(!attach::is_left_behind(&node.proc, &consumer.process, None, &node.key).unwrap());
                let root = attach::root_of(&node.proc, &consumer.process, None, &node.key).unwrap();
                root.unwrap().read("etc/passwd".as_ref(), 100).unwrap()
            });
            assert_eq!(
                passwd.as_deref(),
                Some(&b"of the image"[..]),
                "the root's own, whatever is mounted over it"
            );
            crate::disk::unmount(&data);
            crate::disk::unmount(&users);
        });
    }
}

/// A process of a container that made such a volume its root, in a namespace that has the kept
/// filesystem.
#[test]
fn i18_f21_a_holder_whose_root_does_not_answer_is_found() {
    Node::with(|node| {
        let provider = node.provider(&[&node.layer("base", &[("etc/motd", Some("hello"))])]);
        let data = node.path("data");
        let volume = Fuse::mount(&data, true);
        let consumer = node.consumer("consumer").bind(&data, "/data", "private").start();
        node.attach(&provider, &consumer).unwrap();
        let stayer = crate::one_writer::Stayer::start(node, &consumer, "/data");
        consumer.end();
        volume.stop_answering();
        unless_it_hangs(vec![volume], || {
            let found = |method| holders::find_by(&node.proc, &node.key, method).unwrap().len();
            let by_calls = found(Method::Calls);
            let method = if by_calls == 1 {
                "listmount(2)"
            } else {
                "mount tables"
            };
            kernel::tell(&format!("users of a kept filesystem are found by {method}"));
            assert_eq!(by_calls, usize::from(kernel::is((6, 11))));
            // Its table shows what is below its root.
            assert_eq!(found(Method::Tables), 0);
        });
        drop(stayer);
        crate::disk::unmount(&data);
    });
}

/// The image leads a mount of the pod into such a volume: to make the mountpoint the agent would
/// have to ask. A working directory there only affects the container itself.
#[test]
fn i18_what_a_link_leads_into_a_fuse_volume_is_refused() {
    Node::with(|node| {
        let base = node.layer(
            "base",
            &[("var/run", Some("-> /data/b")), ("work", Some("-> /data/b/deep"))],
        );
        let provider = node.provider(&[&base]);
        let data = node.path("data");
        let volume = Fuse::mount(&data, true);
        let consumer = |name: &str| node.consumer(name).bind(&data, "/data", "private");
        node.layer("wrapper", &[("work", None)]);
        let mut led = consumer("led").tmpfs("/var/run/secrets").start();
        let working = consumer("working").working_directory("/work").start();
        volume.stop_answering();
        let kept = node.kept();
        let refused = unless_it_hangs(vec![volume], || {
            let refused = node.attach_to(&kept, &provider, &led).unwrap_err();
            assert_eq!(node.attach_when_free(&provider, &working), Attached::Now);
            refused
        });
        let mut message = String::new();
        let mut error: &dyn std::error::Error = &refused;
        loop {
            message = format!("{message}: {error}");
            match error.source() {
                Some(source) => error = source,
                None => break,
            }
        }
        assert!(
            message.contains("/var/run/secrets") && message.contains("fuse"),
            "{message}"
        );
        assert_eq!(led.read("/exec-wrapper").unwrap(), "wrapper", "it is as it was");
        crate::disk::unmount(&data);
    });
}

/// A tenant who may mount puts such a file system over his container's root, itself or below
/// another mount; before the container was moved, and after it.
#[test]
fn i18_a_root_with_a_mount_over_it_is_left_alone() {
    for (below, moved) in [(false, false), (true, false), (false, true), (true, true)] {
        Node::with(|node| {
            let provider = node.provider(&[&node.layer("base", &[("etc/motd", Some("hello"))])]);
            let mut hog = node.consumer("hog").start();
            if moved {
                node.attach(&provider, &hog).unwrap();
            }
            let data = node.path("data");
            let volume = Fuse::mount(&data, true);
            let mount = if below {
                let lower = format!("{}:{}", node.layer("empty", &[]).display(), data.display());
                container::new_mount("overlay", &[("lowerdir", lower)])
            } else {
                open_tree(CWD, &data, OpenTreeFlags::OPEN_TREE_CLONE).unwrap()
            };
            cover_root(node, &hog, &mount);
            drop(mount);
            crate::disk::unmount(&data);
            volume.stop_answering();
            let kept = node.kept();
            let attached = unless_it_hangs(vec![volume], || node.attach_to(&kept, &provider, &hog));
            match attached {
                Ok(Attached::Already) if moved => {}
                Err(AttachError::CoveredRoot(_)) if !moved => {}
                other => panic!("{other:?}, below: {below}, moved: {moved}"),
            }
            assert_eq!(
                hog.read("/exec-wrapper").is_ok(),
                !moved,
                "its processes are where they were"
            );
        });
    }
}

/// Where such a file system is below the container's own root, that start hangs. That of a
/// neighbour does not, nor does anything else that is done all the time.
#[test]
fn i18_a_start_that_hangs_holds_up_no_other() {
    Node::with(|node| {
        let provider = node.provider(&[&node.layer("base", &[("etc/motd", Some("hello"))])]);
        let data = node.path("data");
        let volume = Fuse::mount(&data, true);
        let image = node.layer("image", &[("etc/motd", Some("hello"))]);
        let hog = Spec::new(node.path("hog"), &[&image, &data]).proc().start();
        crate::disk::unmount(&data);
        volume.stop_answering();
        let kept = node.kept();
        let neighbour = node.consumer("neighbour").start();
        let store = rootfs::Store::create(&node.root(), &node.path("store")).unwrap();
        let stat = node.root().stat().unwrap();
        let other = store.create_key(&format!("{}-2", node.key), &stat).unwrap();
        std::thread::scope(|scope| {
            let hanging = scope.spawn(|| node.attach_to(&kept, &provider, &hog));
            let begun = Instant::now();
            while volume.asked() == 0 && begun.elapsed() < PATIENCE {
                std::thread::yield_now();
            }
            assert_eq!(volume.asked(), 1, "it does not hang");
            assert_eq!(
                node.attach_to(&other, &provider, &neighbour).unwrap(),
                Attached::Now
            );
            assert!(matches!(
                node.attach_to(&kept, &provider, &neighbour),
                Err(AttachError::Store(rootfs::store::StoreError::Locked))
            ));
            assert!(holders::find(&node.proc, other.key()).unwrap().len() == 1);
            assert!(holders::find(&node.proc, &node.key).unwrap().is_empty());
            let upper = kept.upper().unwrap();
            assert!(
                usage::measure(&upper, Instant::now() + PATIENCE)
                    .unwrap()
                    .complete
            );
            assert!(!hanging.is_finished());
            drop(volume);
            assert!(hanging.join().unwrap().is_err());
        });
    });
}

/// Attaches a mount over the root of a container.
fn cover_root(node: &Node, container: &Container, mount: &OwnedFd) {
    let theirs = container.process.mount_namespace(&node.proc).unwrap();
    NamespaceThread::run(|thread| {
        thread.enter(&theirs).unwrap();
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(mount, "", rustix::fs::CWD, Path::new("/"), flags).unwrap();
    })
    .unwrap();
}
