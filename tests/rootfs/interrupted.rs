//! I9: the process that moves a container may die at any point; the next attempt brings it to the
//! same state.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, mpsc};

use rootfs::namespace::NamespaceThread;
use rootfs::{AttachError, Attached, Process, attach};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MoveMountFlags, move_mount};

use crate::container::Container;
use crate::node::Node;
use crate::one_writer::Stayer;
use crate::pod_users::{PodUsers, has_pod_users};

/// Ends the work as a kill would: nothing is taken back, descriptors close.
struct Killed;

/// Moves a container and kills the work after `step` steps. Returns the names of the steps that
/// were done.
fn killed_after(node: &Node, provider: &Container, consumer: &Container, step: usize) -> Vec<&'static str> {
    let steps = Mutex::new(Vec::new());
    let observer = |name| {
        let mut steps = steps.lock().unwrap();
        steps.push(name);
        if steps.len() == step {
            drop(steps);
            resume_unwind(Box::new(Killed));
        }
    };
    loop {
        steps.lock().unwrap().clear();
        match catch_unwind(AssertUnwindSafe(|| {
            node.attach_observed(provider, consumer, Some(&observer))
        })) {
            Ok(Err(AttachError::Held(_) | AttachError::Busy)) => std::thread::yield_now(),
            Ok(other) => panic!("step {step} is after the end: {other:?}"),
            Err(panic) => {
                assert!(panic.is::<Killed>());
                break;
            }
        }
    }
    steps.into_inner().unwrap()
}

#[test]
fn i9_f17_killed_at_every_step_and_tried_again() {
    Node::with(|node| kill_at_every_step(node, None));
}

#[test]
fn i9_f17_h20_with_its_own_users_killed_at_every_step_and_tried_again() {
    Node::with(|node| {
        if has_pod_users(node) {
            kill_at_every_step(node, Some(&PodUsers::start(100_000)));
        }
    });
}

/// With hooks that changed the container's root, after a start with others and changes of the user
/// at the same paths.
#[test]
fn i9_f17_with_hooks_killed_at_every_step_and_tried_again() {
    Node::with(|node| {
        let base = node.layer("base", &[("opt/vendor/image", Some("of the image"))]);
        let provider = node.provider(&[&base]);
        let hooked = |name: &str| {
            let consumer = node.consumer(name).start();
            let root = node.path(name).join("root/opt/vendor");
            fs::create_dir_all(&root).unwrap();
            for file in ["library", "image", name] {
                fs::write(root.join(file), name).unwrap();
            }
            consumer
        };
        let mut first = node.consumer("first").start();
        node.attach(&provider, &first).unwrap();
        first.write("/opt/vendor/library", "of the user").unwrap();
        first.remove("/opt/vendor/image").unwrap();
        first.end();
        let clean = hooked("clean");
        let all = Mutex::new(Vec::new());
        let observe = |name| all.lock().unwrap().push(name);
        while let Err(AttachError::Held(_) | AttachError::Busy) =
            node.attach_observed(&provider, &clean, Some(&observe))
        {
            all.lock().unwrap().clear();
        }
        clean.end();
        let count = all.into_inner().unwrap().len();
        assert!(count > 12, "{count}");
        for step in 1..=count {
            let name = format!("killed-after-{step}");
            let mut consumer = hooked(&name);
            let done = killed_after(node, &provider, &consumer, step);
            node.attach_when_free(&provider, &consumer);
            let expected = format!("image {name} library");
            assert_eq!(consumer.list("/opt/vendor").unwrap(), expected, "{done:?}");
            for file in ["library", "image"] {
                assert_eq!(
                    consumer.read(&format!("/opt/vendor/{file}")).unwrap(),
                    name,
                    "{done:?}"
                );
            }
            consumer.end();
        }
        let mut last = node.consumer("last").start();
        node.attach_when_free(&provider, &last);
        assert_eq!(last.list("/opt/vendor").unwrap(), "library");
        assert_eq!(last.read("/opt/vendor/library").unwrap(), "of the user");
    });
}

fn kill_at_every_step(node: &Node, users: Option<&PodUsers>) {
    let base = node.layer("base", &[("etc/motd", Some("hello"))]);
    let provider = node.provider(&[&base]);
    let consumer = |name: &str| {
        let spec = node.consumer(name).tmpfs("/data").tmpfs("/data/deep").read_only();
        let spec = spec.working_directory("/data");
        match users {
            Some(users) => spec.users(users).start(),
            None => spec.start(),
        }
    };
    let mut clean = consumer("clean");
    let all = Mutex::new(Vec::new());
    node.attach_observed(&provider, &clean, Some(&|name| all.lock().unwrap().push(name)))
        .unwrap();
    let (all, expected) = (all.into_inner().unwrap(), clean.mountpoints());
    clean.end();
    assert!(all.len() >= 13, "{all:?}");
    // While the file system behind a read-only root is written.
    assert!(all.contains(&"make a copy of the root writable"), "{all:?}");

    for step in 1..=all.len() {
        let mut consumer = consumer(&format!("killed-after-{step}"));
        let done = killed_after(node, &provider, &consumer, step);
        assert_eq!(done, all[..step]);
        let attached = node.attach_when_free(&provider, &consumer);
        // From the change-over on the container is where it belongs.
        let there = done.contains(&"change over");
        assert_eq!(
            attached,
            if there { Attached::Already } else { Attached::Now },
            "{done:?}"
        );
        assert_eq!(consumer.mountpoints(), expected, "{done:?}");
        assert_eq!(consumer.read("/etc/motd").unwrap(), "hello");
        assert!(consumer.write("/etc/motd", "x").is_err(), "read-only: {done:?}");
        consumer.write("/data/deep/x", "x").unwrap();
        consumer.end();
    }
}

#[test]
fn i9_f17_dead_after_the_change_over() {
    Node::with(|node| {
        let base = node.layer("base", &[("etc/motd", Some("hello"))]);
        let provider = node.provider(&[&base]);
        let mut consumer = node.consumer("consumer").start();
        node.attach(&provider, &consumer).unwrap();
        let expected = consumer.mountpoints();
        // The old root still on top of the new one: what a pivot_root leaves.
        let theirs = consumer.process.mount_namespace(&node.proc).unwrap();
        NamespaceThread::run(|thread| {
            thread.enter(&theirs).unwrap();
            let root = rustix::fs::open("/", OFlags::PATH, Mode::empty()).unwrap();
            let old = crate::container::new_mount("tmpfs", &[]);
            let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
            move_mount(&old, "", &root, "", empty).unwrap();
        })
        .unwrap();
        assert_eq!(consumer.mountpoints().len(), expected.len() + 1);
        assert_eq!(node.attach(&provider, &consumer).unwrap(), Attached::Already);
        assert_eq!(consumer.mountpoints(), expected);
        assert_eq!(consumer.read("/etc/motd").unwrap(), "hello");
    });
}

#[test]
fn i9_a_failed_attempt_leaves_nothing_behind() {
    Node::with(|node| {
        let base = node.layer("base", &[("data", Some("a file"))]);
        let provider = node.provider(&[&base]);
        let mut consumer = node.consumer("consumer").tmpfs("/data").start();
        let before = consumer.mountpoints();
        for _ in 0..3 {
            assert!(node.attach(&provider, &consumer).is_err());
            assert_eq!(consumer.mountpoints(), before);
        }
    });
}

/// The kubelet can start an exec hook at any time. A hook that starts while the old root still lies
/// on the new one stays on the old root. This state can last long if the work is interrupted there.
/// The agent distinguishes such a hook from one that only has to wait.
#[test]
fn i9_f17_who_comes_during_the_change_over_is_known() {
    Node::with(|node| {
        let base = node.layer("base", &[("etc/motd", Some("hello"))]);
        let provider = node.provider(&[&base]);
        let consumer = node.consumer("consumer").start();
        let left_behind =
            |process: &Process| attach::is_left_behind(&node.proc, process, None, &node.key).unwrap();
        assert!(!left_behind(&consumer.process), "it only has to wait");
        let late = std::thread::scope(|scope| {
            let ((come, called), (came, arrived)) = (mpsc::channel(), mpsc::channel());
            let arrived = Mutex::new(arrived);
            let consumer = &consumer;
            let hook = scope.spawn(move || {
                called.recv().unwrap();
                let hook = Stayer::start(node, consumer, "/.");
                came.send(()).unwrap();
                hook
            });
            let observer = |step| {
                if step == "change over" {
                    come.send(()).unwrap();
                    arrived.lock().unwrap().recv().unwrap();
                }
            };
            node.attach_observed(&provider, consumer, Some(&observer))
                .unwrap();
            hook.join().unwrap()
        });
        assert!(left_behind(&late.process()));
        assert!(!left_behind(&consumer.process));
    });
}
