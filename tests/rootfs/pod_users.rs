/*!
Containers of a pod with a user namespace of its own (`hostUsers: false`): files have the owners of
the image, in the container and on disk, and only that user namespace is served.
*/

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rootfs::test_hooks::attach_with_api;
use rootfs::{AttachError, Attached, Proc, Process, UserNamespace, attach, holders};
use rustix::fs::{XattrFlags, getxattr, setxattr};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::Pid;

use crate::container::Container;
use crate::kernel::{self, LOWERDIR_APIS};
use crate::node::Node;
use crate::special_files::{CAPABILITY, CAPABILITY_2};
use crate::user_namespaces::{Impostor, MOUNTS};

/// How many users a pod has, as the kubelet gives them.
const LENGTH: u32 = 65536;

/// A user namespace, as a runtime makes it for a pod; ends when it is dropped.
pub(crate) struct PodUsers {
    child: Child,
    /// The node's user and group that are 0 in it.
    pub(crate) first: u32,
}

// === impl PodUsers ===

impl PodUsers {
    /// The users from `first` on.
    pub(crate) fn start(first: u32) -> Self {
        let child = Command::new("unshare")
            .args(["--user", "sleep", "infinity"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let users = Self { child, first };
        let own = fs::read_link("/proc/self/ns/user").unwrap();
        while fs::read_link(users.path()).unwrap() == own {
            std::thread::yield_now();
        }
        for map in ["uid_map", "gid_map"] {
            let path = format!("/proc/{}/{map}", users.child.id());
            fs::write(path, format!("0 {first} {LENGTH}\n")).unwrap();
        }
        users
    }

    /// Path of the namespace on the node.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/{}/ns/user", self.child.id()).into()
    }

    fn namespace(&self) -> UserNamespace {
        let process = Process::open(Pid::from_child(&self.child)).unwrap();
        process.user_namespace(&Proc::open().unwrap()).unwrap()
    }
}

impl Drop for PodUsers {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether the kernel makes overlays of mounts with other owners. Says what it answers.
pub(crate) fn has_pod_users(node: &Node) -> bool {
    let able = kernel::is((5, 19));
    if !able {
        let base = node.layer("base", &[]);
        let provider = node.provider(&[&base]);
        let users = PodUsers::start(100_000);
        let consumer = node.consumer("consumer").users(&users).start();
        let refused = node.attach(&provider, &consumer).unwrap_err();
        kernel::tell(&format!("a pod with its own users: {refused}"));
        assert!(matches!(refused, AttachError::Unmappable { .. }), "{refused:?}");
    }
    able
}

/// Runs a test on a kernel that [`has_pod_users`].
fn with_pod_users(test: impl FnOnce(&Node) + Send) {
    Node::with(|node| {
        if has_pod_users(node) {
            test(node);
        }
    });
}

/// Owner and group on disk.
fn owner(path: &Path) -> (u32, u32) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.uid(), metadata.gid())
}

/// An image with files of several users.
fn image(node: &Node) -> PathBuf {
    let base = node.layer(
        "base",
        &[
            ("etc/motd", Some("hello")),
            ("home/app/file", Some("of app")),
            ("old", Some("x")),
        ],
    );
    for path in ["home/app", "home/app/file"] {
        chown(base.join(path), Some(1000), Some(1001)).unwrap();
    }
    base
}

/// A container on the kept filesystem: with these users, or with those of the node.
fn started(node: &Node, provider: &Container, start: usize, users: Option<&PodUsers>) -> Container {
    let spec = node.consumer(&format!("start-{start}"));
    let consumer = match users {
        Some(users) => spec.users(users).start(),
        None => spec.start(),
    };
    assert_eq!(node.attach_when_free(provider, &consumer), Attached::Now);
    consumer
}

/// Started with three ranges of users and with those of the node, in turn: the ids that the
/// container sees, and those on disk, are always those of the image.
#[test]
fn i5_h13_h20_owners_are_those_of_the_image_whatever_the_users_of_the_pod() {
    with_pod_users(|node| {
        let base = image(node);
        let provider = node.provider(&[&base]);
        let pods = [
            Some(PodUsers::start(100_000)),
            None,
            Some(PodUsers::start(65536 * 7)),
            Some(PodUsers::start(100_000)),
        ];
        for (start, users) in pods.iter().enumerate() {
            let mut consumer = started(node, &provider, start, users.as_ref());
            assert_eq!(consumer.stat("/").unwrap(), "directory 755 0:0");
            assert_eq!(consumer.stat("/etc/motd").unwrap(), "file 644 0:0");
            assert_eq!(consumer.stat("/home/app").unwrap(), "directory 755 1000:1001");
            assert_eq!(consumer.stat("/home/app/file").unwrap(), "file 644 1000:1001");
            assert_eq!(consumer.stat("/dev").unwrap(), "directory 1777 0:0");
            for earlier in 0..start {
                let (made, given) = (format!("/made-{earlier}"), format!("/given-{earlier}"));
                assert_eq!(consumer.stat(&made).unwrap(), "file 644 0:0");
                assert_eq!(consumer.stat(&given).unwrap(), "file 644 33:33");
                // Copied up at its first start.
                assert_eq!(
                    consumer.read("/home/app/file").unwrap(),
                    format!("start {}", start - 1)
                );
                assert!(consumer.stat("/old").is_err());
            }
            let (made, given) = (format!("/made-{start}"), format!("/given-{start}"));
            consumer.write(&made, "x").unwrap();
            consumer.write(&given, "x").unwrap();
            consumer.chown(&given, 33).unwrap();
            consumer
                .write("/home/app/file", &format!("start {start}"))
                .unwrap();
            let _ = consumer.remove("/old");
            assert_eq!(owner(&node.upper(&made)), (0, 0));
            assert_eq!(owner(&node.upper(&given)), (33, 33));
            assert_eq!(owner(&node.upper("home/app")), (1000, 1001));
            assert_eq!(owner(&node.upper("home/app/file")), (1000, 1001));
            assert_eq!(owner(&node.upper("old")), (0, 0), "a whiteout");
            assert_eq!(owner(&node.upper("dev")), (0, 0), "a mount point");
            if users.is_some() {
                // What is outside of its range belongs to no user, as in any such pod.
                assert!(consumer.chown(&given, LENGTH).is_err());
            }
            consumer.end();
        }
        assert_eq!(owner(&base.join("home/app/file")), (1000, 1001));
    });
}

/// File capabilities that the root of a pod gives are kept as those of root: of its user namespace
/// they would be of no use at the next start, which has another one.
#[test]
fn h13_h20_capabilities_of_files_are_those_of_the_image_whatever_the_users_of_the_pod() {
    with_pod_users(|node| {
        let base = node.layer("base", &[("tool", Some("x")), ("plain", Some("x"))]);
        setxattr(base.join("tool"), CAPABILITY, &CAPABILITY_2, XattrFlags::CREATE).unwrap();
        let provider = node.provider(&[&base]);
        let expected = format!("{CAPABILITY_2:?}");
        let pods = [
            Some(PodUsers::start(100_000)),
            None,
            Some(PodUsers::start(200_000)),
        ];
        for (start, users) in pods.iter().enumerate() {
            let mut consumer = started(node, &provider, start, users.as_ref());
            assert_eq!(consumer.capability("/tool").unwrap(), expected, "start {start}");
            if start == 0 {
                consumer.set_capability("/plain").unwrap();
                consumer.write("/made", "x").unwrap();
                consumer.set_capability("/made").unwrap();
                // A copy of the file goes up with it.
                consumer.chown("/tool", 0).unwrap();
                consumer.set_capability("/tool").unwrap();
            }
            for path in ["/plain", "/made"] {
                assert_eq!(
                    consumer.capability(path).unwrap(),
                    expected,
                    "start {start}: {path}"
                );
            }
            for path in ["tool", "plain", "made"] {
                let mut value = [0; 64];
                let length = getxattr(node.upper(path), CAPABILITY, &mut value).unwrap();
                assert_eq!(value[..length], CAPABILITY_2, "on disk: {path}");
            }
            consumer.end();
        }
    });
}

/// The root of a container that runs the image is an overlay where the runtime's mount is not
/// found, and the kernel gives the files of an overlay no other owners.
#[test]
fn i12_h20_layers_that_cannot_have_other_owners_are_named() {
    with_pod_users(|node| {
        let directory = node.path("hidden");
        let lower = directory.join("mask/lower").display().to_string();
        let lower = format!("{lower}:{lower}-2");
        let options = [("lowerdir", lower.as_str())];
        let hidden = Impostor::start(MOUNTS, &directory, "mask", "overlay", &options);
        let users = PodUsers::start(100_000);
        let mut consumer = node.consumer("consumer").users(&users).start();
        let refused = attach(rootfs::Request {
            proc: &node.proc,
            node: &node.namespace,
            image: &hidden.process,
            container: &consumer.process,
            users: consumer.users.as_ref(),
            kept: &node.kept(),
            repeat: rootfs::Repeat::default(),
        });
        let refused = refused.unwrap_err();
        assert!(matches!(refused, AttachError::Unmappable { .. }), "{refused:?}");
        assert!(refused.to_string().contains("a layer of the image"), "{refused}");
        assert_eq!(consumer.read("/exec-wrapper").unwrap(), "wrapper");
    });
}

/// Whatever way the kernel has of telling layers.
#[test]
fn i9_h20_layers_with_other_owners_are_told_in_every_way() {
    with_pod_users(|node| {
        let top = node.layer("top", &[("file", Some("top"))]);
        let base = image(node);
        let provider = node.provider(&[&top, &base]);
        let users = PodUsers::start(100_000);
        for api in LOWERDIR_APIS.into_iter().filter(|api| kernel::knows(*api)) {
            let mut consumer = node.consumer(&format!("{api:?}")).users(&users).start();
            let kept = node.kept();
            let request = || rootfs::Request {
                proc: &node.proc,
                node: &node.namespace,
                image: &provider.process,
                container: &consumer.process,
                users: consumer.users.as_ref(),
                kept: &kept,
                repeat: rootfs::Repeat::default(),
            };
            let attached = loop {
                match attach_with_api(request(), api) {
                    Err(AttachError::Held(_) | AttachError::Busy) => std::thread::yield_now(),
                    other => break other.unwrap(),
                }
            };
            assert_eq!(attached, Attached::Now, "{api:?}");
            assert_eq!(consumer.read("/file").unwrap(), "top");
            assert_eq!(consumer.stat("/home/app").unwrap(), "directory 755 1000:1001");
            consumer.write("/written", "x").unwrap();
            consumer.end();
        }
    });
}

/// As under systemd, where every mount of the node is shared. What the engine mounts on its way
/// must not be mounted on the node, over the layers of the image; the test's node compares its
/// mounts.
#[test]
fn i7_h20_nothing_is_mounted_on_a_node_whose_mounts_are_shared() {
    with_pod_users(|node| {
        let layers = ["a", "b", "c"].map(|name| node.layer(name, &[(name, Some(name))]));
        mount_change(node.path(""), MountPropagationFlags::SHARED).unwrap();
        let provider = node.provider(&[&layers[0], &layers[1], &layers[2]]);
        let users = PodUsers::start(100_000);
        for start in 0..2 {
            let mut consumer = node.consumer(&format!("start-{start}")).users(&users).start();
            assert_eq!(node.attach_when_free(&provider, &consumer), Attached::Now);
            for name in ["a", "b", "c"] {
                assert_eq!(consumer.read(&format!("/{name}")).unwrap(), name);
                assert_eq!(
                    fs::read_to_string(node.path("layers").join(name).join(name)).unwrap(),
                    name
                );
            }
            consumer.end();
        }
        drop(provider);
        mount_change(node.path(""), MountPropagationFlags::PRIVATE).unwrap();
    });
}

/// The mounts of the container keep what they forbid, and its root is as the runtime made it.
#[test]
fn i5_h20_mounts_of_a_pod_with_its_own_users_are_moved() {
    with_pod_users(|node| {
        let base = image(node);
        let volume = node.path("volume");
        fs::create_dir_all(&volume).unwrap();
        fs::write(volume.join("file"), "of the volume").unwrap();
        let provider = node.provider(&[&base]);
        let users = PodUsers::start(100_000);
        let mut consumer = node
            .consumer("consumer")
            .users(&users)
            .bind(&volume, "/volume", "ro")
            .tmpfs("/tmp")
            .tmpfs("/tmp/deep")
            .read_only()
            .working_directory("/tmp/deep")
            .start();
        let mut before = consumer.mountpoints();
        assert_eq!(node.attach(&provider, &consumer).unwrap(), Attached::Now);
        let mut after = consumer.mountpoints();
        before.sort();
        after.sort();
        assert_eq!(before, after);
        assert_eq!(consumer.read("/volume/file").unwrap(), "of the volume");
        assert!(consumer.write("/volume/file", "x").is_err());
        assert!(consumer.write("/etc/motd", "x").is_err());
        consumer.write("/tmp/deep/x", "x").unwrap();
        consumer.enter("/tmp/deep").unwrap();
        assert_eq!(consumer.list(".").unwrap(), "x");
    });
}

/// The kernel knows the data as in use, by whatever mount it is reached.
#[test]
fn i2_h20_data_of_a_pod_with_its_own_users_is_in_use() {
    with_pod_users(|node| {
        let base = image(node);
        let provider = node.provider(&[&base]);
        let users = PodUsers::start(100_000);
        let first = node.consumer("first").users(&users).start();
        node.attach(&provider, &first).unwrap();
        let other_users = PodUsers::start(200_000);
        for second in [
            node.consumer("with-users").users(&other_users).start(),
            node.consumer("without").start(),
        ] {
            let refused = node.attach(&provider, &second).unwrap_err();
            let AttachError::Held(holders) = &refused else {
                panic!("{refused:?}")
            };
            assert_eq!(holders[0].process.id(), first.process.id());
            assert!(!holders[0].in_host_userns, "only named");
        }
        assert_eq!(node.attach(&provider, &first).unwrap(), Attached::Already);
        first.end();
        let again = node.consumer("again").start();
        assert_eq!(node.attach_when_free(&provider, &again), Attached::Now);
        let known = holders::find(&node.proc, &node.key).unwrap();
        assert_eq!(known.len(), 1);
        assert!(known[0].in_host_userns);
    });
}

/// A process is in the user namespace that it is to be in, or nothing is read of it.
#[test]
fn i3_h20_only_the_users_of_the_pod_are_served() {
    with_pod_users(|node| {
        let base = image(node);
        let provider = node.provider(&[&base]);
        let (pod, other) = (PodUsers::start(100_000), PodUsers::start(200_000));
        let kept = node.kept();
        let attach_in = |container: &Container, users: Option<&UserNamespace>| {
            attach(rootfs::Request {
                proc: &node.proc,
                node: &node.namespace,
                image: &provider.process,
                container: &container.process,
                users,
                kept: &kept,
                repeat: rootfs::Repeat::default(),
            })
        };
        let mut with = node.consumer("with").users(&pod).start();
        let mut without = node.consumer("without").start();
        let (pod, other) = (pod.namespace(), other.namespace());
        for (container, users) in [(&with, None), (&with, Some(&other)), (&without, Some(&pod))] {
            let refused = attach_in(container, users);
            assert!(matches!(refused, Err(AttachError::UserNamespace)), "{refused:?}");
        }
        for container in [&mut with, &mut without] {
            assert_eq!(container.read("/exec-wrapper").unwrap(), "wrapper");
        }
        assert_eq!(attach_in(&with, Some(&pod)).unwrap(), Attached::Now);
        let is_attached = |users: Option<&UserNamespace>| {
            attach::is_attached(&node.proc, &with.process, users, &node.key).unwrap()
        };
        let root = |users: Option<&UserNamespace>| {
            attach::root_of(&node.proc, &with.process, users, &node.key).unwrap()
        };
        assert!(is_attached(Some(&pod)));
        assert!(root(Some(&pod)).is_some());
        for users in [None, Some(&other)] {
            assert!(!is_attached(users));
            assert!(root(users).is_none());
        }
        // The container that runs the image is always in the node's: there the names of its layers
        // are the runtime's.
        let refused = attach(rootfs::Request {
            proc: &node.proc,
            node: &node.namespace,
            image: &with.process,
            container: &without.process,
            users: None,
            kept: &kept,
            repeat: rootfs::Repeat::default(),
        });
        assert!(refused.is_err(), "{refused:?}");
    });
}

/// A process of a pod can make a user namespace, with the same users. The kernel says that it is
/// below that of the pod.
#[test]
fn i8_h20_a_user_namespace_below_that_of_a_pod_is_not_the_pods() {
    let proc = Proc::open().unwrap();
    let own = proc.own_user_namespace().unwrap();
    let pod = PodUsers::start(100_000);
    let mut nested = Command::new("nsenter")
        .arg(format!("--user={}", pod.path().display()))
        .args(["--setuid=0", "--setgid=0", "unshare", "--user", "--map-root-user"])
        .args(["sh", "-c", "echo; exec sleep infinity"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0];
    std::io::Read::read_exact(nested.stdout.as_mut().unwrap(), &mut line).unwrap();
    let process = Process::open(Pid::from_child(&nested)).unwrap();
    let below = process.user_namespace(&proc).unwrap();
    let maps = process.id_maps(&proc).unwrap();
    nested.kill().unwrap();
    nested.wait().unwrap();
    assert_eq!(maps.users[0].outside, 100_000, "as the node sees it");
    let pod = pod.namespace();
    assert!(pod.is_child_of(&own).unwrap());
    assert!(below.is_child_of(&pod).unwrap());
    assert!(!below.is_child_of(&own).unwrap());
    assert!(!own.is_child_of(&own).unwrap());
}
