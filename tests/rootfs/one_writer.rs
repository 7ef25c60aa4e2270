//! I2: never two overlays on one upper directory.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rootfs::holders::Method;
use rootfs::namespace::NamespaceThread;
use rootfs::overlay::LowerdirApi;
use rootfs::{AttachError, Attached, Process, Root, Store, holders};
use rustix::mount::mount_bind;
use rustix::process::Pid;

use crate::container::Container;
use crate::kernel;
use crate::node::Node;

/// Enters a mount namespace, and a root in it. If that is the namespace's, its first thread ends,
/// and another lives on.
const STAYER: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
static void *live(void *unused) { write(1, "\n", 1); pause(); return unused; }
int main(int count, char **arguments) {
    pthread_t thread;
    if (count != 3 || setns(open(arguments[1], O_RDONLY), CLONE_NEWNS) != 0) return 1;
    if (arguments[2][1] != 0) {
        if (chroot(arguments[2]) != 0 || chdir("/") != 0) return 1;
        live(0);
    }
    if (pthread_create(&thread, 0, live, 0) != 0) return 1;
    syscall(SYS_exit, 0);
}
"#;

/// A process that stays in a container's namespace; ends when it is dropped.
pub(crate) struct Stayer(Child);

#[test]
fn i2_a_second_container_is_refused_while_the_first_one_lives() {
    Node::with(|node| {
        let base = node.layer("base", &[("etc/motd", Some("hello"))]);
        let provider = node.provider(&[&base]);
        let first = node.consumer("first").start();
        node.attach(&provider, &first).unwrap();
        let mut second = node.consumer("second").start();
        match node.attach(&provider, &second) {
            Err(AttachError::Held(holders)) => {
                assert_eq!(
                    holders.iter().map(|h| h.process.id()).collect::<Vec<_>>(),
                    [first.process.id()]
                );
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(
            second.read("/exec-wrapper").unwrap(),
            "wrapper",
            "it is as it was"
        );
        first.end();
        assert_eq!(node.attach_when_free(&provider, &second), Attached::Now);
    });
}

#[test]
fn i2_the_same_container_is_not_moved_twice() {
    Node::with(|node| {
        let base = node.layer("base", &[("etc/motd", Some("hello"))]);
        let provider = node.provider(&[&base]);
        let mut consumer = node.consumer("consumer").start();
        assert_eq!(node.attach(&provider, &consumer).unwrap(), Attached::Now);
        consumer.write("/etc/motd", "changed").unwrap();
        let mounts = consumer.mountpoints();
        assert_eq!(node.attach(&provider, &consumer).unwrap(), Attached::Already);
        assert_eq!(consumer.mountpoints(), mounts);
        assert_eq!(consumer.read("/etc/motd").unwrap(), "changed");
    });
}

#[test]
fn i2_the_kernel_tells_of_an_overlay_that_no_table_shows() {
    Node::with(|node| {
        let base = node.layer("base", &[("etc/motd", Some("hello"))]);
        let provider = node.provider(&[&base]);
        let kept = node.kept();
        let probe = || {
            NamespaceThread::run(|thread| {
                thread.enter(&node.namespace).unwrap();
                holders::probe(thread, &kept).unwrap()
            })
            .unwrap()
        };
        assert_eq!(probe(), holders::Use::Free);
        let consumer = node.consumer("consumer").start();
        // As a process that hid the mount (its own namespace, nothing but an open directory) would
        // hold it.
        node.attach(&provider, &consumer).unwrap();
        assert_eq!(probe(), holders::Use::Held);
        let root = consumer.process.root(&node.proc).unwrap();
        consumer.end();
        assert!(holders::find(&node.proc, &node.key).unwrap().is_empty());
        assert_eq!(probe(), holders::Use::Held);
        let second = node.consumer("second").start();
        assert!(matches!(node.attach(&provider, &second), Err(AttachError::Busy)));
        drop(root);
        assert_eq!(node.attach_when_free(&provider, &second), Attached::Now);
        // What the question leaves behind is not in the kept filesystem.
        assert!(!node.upper("../upper/index").exists());
    });
}

#[test]
fn i2_one_at_a_time() {
    Node::with(|node| {
        let base = node.layer("base", &[("etc/motd", Some("hello"))]);
        let provider = node.provider(&[&base]);
        let consumer = node.consumer("consumer").start();
        let kept = node.kept();
        let locked = kept.lock().unwrap();
        assert!(matches!(
            node.attach(&provider, &consumer),
            Err(AttachError::Store(rootfs::store::StoreError::Locked))
        ));
        drop(locked);
        assert_eq!(node.attach(&provider, &consumer).unwrap(), Attached::Now);
    });
}

#[test]
fn the_node_itself_is_never_moved() {
    Node::with(|node| {
        let base = node.layer("base", &[("etc/motd", Some("hello"))]);
        let provider = node.provider(&[&base]);
        let kept = node.kept();
        let own = provider.process.mount_namespace(&node.proc).unwrap();
        let request = rootfs::Request {
            proc: &node.proc,
            node: &own,
            image: &provider.process,
            container: &provider.process,
            users: None,
            kept: &kept,
            repeat: rootfs::Repeat::default(),
        };
        assert!(matches!(rootfs::attach(request), Err(AttachError::NotAContainer)));
    });
}

/// A tenant's changes of its own mount table can cost time, and nothing else: its neighbours start,
/// and the search still finds the tenant.
#[test]
fn i2_a_mount_table_without_measure_makes_no_start_fail_and_hides_no_user() {
    Node::with(|node| {
        // Layers that fill some pages of options, where a runtime can name so many.
        let count = if kernel::knows(LowerdirApi::Paths) {
            100
        } else {
            12
        };
        let layers = (0..count).map(|number| {
            let name = format!("{number}-{}", "x".repeat(200));
            node.layer(&name, &[("etc/motd", Some("hello"))])
        });
        let layers: Vec<_> = layers.collect();
        let layers: Vec<_> = layers.iter().map(PathBuf::as_path).collect();
        let provider = node.provider(&layers);
        let hog = node.consumer("hog").start();
        node.attach(&provider, &hog).unwrap();
        fill_mount_table(node, &hog);
        let size = fs::read(format!("/proc/{}/mountinfo", hog.process.id()))
            .unwrap()
            .len();
        assert!(size > 64 << 20, "{size}");

        let second = node.consumer("second").start();
        assert!(matches!(
            node.attach(&provider, &second),
            Err(AttachError::Held(_))
        ));
        for method in [Method::Calls, Method::Tables] {
            assert_eq!(
                found(node, method),
                [hog.process.id().cast_unsigned()],
                "{method:?}"
            );
        }
        let store = Store::create(&node.root(), &node.path("store")).unwrap();
        let stat = Root::of_this_thread().unwrap().stat().unwrap();
        let neighbour = store.create_key(&format!("{}-2", node.key), &stat).unwrap();
        assert_eq!(
            node.attach_to(&neighbour, &provider, &second).unwrap(),
            Attached::Now
        );
    });
}

/// A mount table shows what is below the root of the process, so it may show nothing. The calls for
/// mounts do not depend on the root; they came with Linux 6.11.
#[test]
fn i2_f21_a_process_with_another_root_is_found() {
    Node::with(|node| {
        let base = node.layer("base", &[("etc/motd", Some("hello"))]);
        let provider = node.provider(&[&base]);
        let first = node.consumer("first").start();
        node.attach(&provider, &first).unwrap();
        let stayer = Stayer::start(node, &first, "/dev/shm");
        first.end();
        let second = node.consumer("second").start();
        match node.attach(&provider, &second) {
            Err(AttachError::Held(holders)) => {
                assert_eq!(holders[0].process.id().cast_unsigned(), stayer.0.id());
            }
            Err(AttachError::Busy) if !knows_calls() => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(found(node, Method::Tables), [0; 0]);
        drop(stayer);
        assert_eq!(node.attach_when_free(&provider, &second), Attached::Now);
    });
}

/// Reads of files through a holder need one that has the kept filesystem as its root.
#[test]
fn a_holder_at_its_root_comes_before_one_that_changed_its_own() {
    Node::with(|node| {
        let base = node.layer("base", &[("etc/motd", Some("hello"))]);
        let provider = node.provider(&[&base]);
        let first = node.consumer("first").start();
        node.attach(&provider, &first).unwrap();
        let _elsewhere = Stayer::start(node, &first, "/dev/shm");
        let _inside = Stayer::start(node, &first, "/etc");
        let at_root = Stayer::start(node, &first, "/");
        first.end();
        for method in [Method::Calls, Method::Tables] {
            assert_eq!(found(node, method), [at_root.0.id()], "{method:?}");
        }
    });
}

#[test]
fn i2_f21_a_process_is_found_whose_first_thread_has_ended() {
    Node::with(|node| {
        let base = node.layer("base", &[("etc/motd", Some("hello"))]);
        let provider = node.provider(&[&base]);
        let first = node.consumer("first").start();
        node.attach(&provider, &first).unwrap();
        let stayer = Stayer::start(node, &first, "/");
        first.end();
        let second = node.consumer("second").start();
        assert!(matches!(
            node.attach(&provider, &second),
            Err(AttachError::Held(_))
        ));
        for method in [Method::Calls, Method::Tables] {
            assert_eq!(found(node, method), [stayer.0.id()], "{method:?}");
        }
        drop(stayer);
        assert_eq!(node.attach_when_free(&provider, &second), Attached::Now);
    });
}

// === impl Stayer ===

impl Stayer {
    /// With the namespace's root its first thread ends, with another one it lives.
    pub(crate) fn start(node: &Node, container: &Container, root: &str) -> Self {
        let (source, program) = (node.path("stayer.c"), node.path("stayer"));
        fs::write(&source, STAYER).unwrap();
        let compiled = Command::new("cc")
            .args(["-pthread", "-o"])
            .args([&program, &source])
            .status();
        assert!(compiled.unwrap().success());
        let mut child = Command::new(program)
            .arg(format!("/proc/{}/ns/mnt", container.process.id()))
            .arg(root)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        assert_eq!(stdout.read_line(&mut line).unwrap(), 1, "it ended");
        let status = format!("/proc/{}/status", child.id());
        while root == "/" && !fs::read_to_string(&status).unwrap().contains("State:\tZ") {
            std::thread::yield_now();
        }
        Self(child)
    }

    pub(crate) fn process(&self) -> Process {
        Process::open(Pid::from_child(&self.0)).unwrap()
    }
}

impl Drop for Stayer {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Ids of the processes that hold the kept filesystem.
fn found(node: &Node, method: Method) -> Vec<u32> {
    let holders = holders::find_by(&node.proc, &node.key, method).unwrap();
    holders.iter().map(|h| h.process.id().cast_unsigned()).collect()
}

/// Whether the kernel knows listmount(2) and statmount(2) for other namespaces.
fn knows_calls() -> bool {
    kernel::is((6, 11))
}

/// Mounts as often, and in places with names as long, as it takes for a table of more than 64 MiB.
fn fill_mount_table(node: &Node, container: &Container) {
    let theirs = container.process.mount_namespace(&node.proc).unwrap();
    NamespaceThread::run(|thread| {
        thread.enter(&theirs).unwrap();
        // Every line feed is four bytes in the table.
        std::env::set_current_dir("/dev/shm").unwrap();
        let name = "\n".repeat(250);
        for _ in 0..40 {
            fs::create_dir(&name).unwrap();
            std::env::set_current_dir(&name).unwrap();
        }
        for number in 0..1750 {
            let name = number.to_string();
            fs::create_dir(&name).unwrap();
            mount_bind(&name, &name).unwrap();
        }
    })
    .unwrap();
}
