/*!
What a container runtime and its hooks do to a container's root is in the kept root, at every start
and of that start alone.

The hooks are these tests: they write where a hook writes, to the root of the container before its
command runs, through the runtime's mount on the node.
*/

mod hostile;
mod libraries;
mod modes;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rootfs::{AttachError, usage};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use crate::container::{Container, Spec};
use crate::node::Node;
use crate::pod_users::{PodUsers, has_pod_users};

/// Time limit for a measurement.
const TIME: Duration = Duration::from_mins(5);

/// A container's root before the command runs, as a hook sees it on the node.
struct HookRoot(PathBuf);

// === impl HookRoot ===

impl HookRoot {
    fn of(node: &Node, consumer: &str) -> Self {
        Self(node.path(consumer).join("root"))
    }

    fn path(&self, path: &str) -> PathBuf {
        let path = self.0.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn link(&self, path: &str, target: &str) {
        symlink(target, self.path(path)).unwrap();
    }

    fn file(&self, path: &str, content: &str) {
        fs::write(self.path(path), content).unwrap();
    }
}

/// Starts a consumer, lets the hooks work, and moves it onto the kept filesystem.
fn start(
    node: &Node,
    provider: &Container,
    spec: &Spec,
    name: &str,
    hooks: impl FnOnce(&HookRoot),
) -> Container {
    let consumer = spec.start();
    hooks(&HookRoot::of(node, name));
    node.attach_when_free(provider, &consumer);
    consumer
}

/// Why a consumer does not start, in the words that the agent prints.
fn refused(node: &Node, provider: &Container, consumer: &Container) -> String {
    loop {
        match node.attach(provider, consumer) {
            Err(AttachError::Held(_) | AttachError::Busy) => std::thread::yield_now(),
            refused => return format!("{:#}", anyhow::Error::from(refused.unwrap_err())),
        }
    }
}

/// Names of what the user wrote, without those of mount points that every start makes.
fn names_in_upper(node: &Node, path: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(node.upper(path)) else {
        return Vec::new();
    };
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn usr_merged(node: &Node) -> PathBuf {
    node.layer(
        "base",
        &[
            ("usr/lib64/libc.so.6", Some("not read")),
            ("lib64", Some("-> usr/lib64")),
            ("etc/motd", Some("hello")),
        ],
    )
}

#[test]
fn i5_what_hooks_made_is_in_the_kept_root() {
    Node::with(|node| {
        let base = usr_merged(node);
        let provider = node.provider(&[&base]);
        let spec = node.consumer("consumer");
        let mut consumer = start(node, &provider, &spec, "consumer", |root| {
            root.link("/lib64/libcuda.so", "libcuda.so.1");
            root.file("/opt/vendor/settings", "of the driver");
            root.file("/etc/motd", "of the hook");
            fs::create_dir(root.path("/opt/empty")).unwrap();
            fs::set_permissions(root.path("/opt/empty"), fs::Permissions::from_mode(0o2711)).unwrap();
            chown(root.path("/opt/empty"), Some(12), Some(34)).unwrap();
            let kind = FileType::CharacterDevice;
            mknodat(
                CWD,
                root.path("/opt/null"),
                kind,
                Mode::from_raw_mode(0o640),
                makedev(1, 3),
            )
            .unwrap();
            let mode = Mode::from_raw_mode(0o600);
            mknodat(CWD, root.path("/opt/pipe"), FileType::Fifo, mode, 0).unwrap();
            chown(root.path("/opt/pipe"), Some(12), Some(34)).unwrap();
        });
        // Where a link of the image leads, as a hook in a plain pod would follow it.
        assert_eq!(consumer.stat("/lib64").unwrap(), "link 777 0:0");
        assert_eq!(consumer.list("/usr/lib64").unwrap(), "libc.so.6 libcuda.so");
        assert_eq!(consumer.read("/opt/vendor/settings").unwrap(), "of the driver");
        assert_eq!(consumer.read("/etc/motd").unwrap(), "of the hook");
        assert_eq!(consumer.stat("/opt/empty").unwrap(), "directory 2711 12:34");
        let root = format!("/proc/{}/root", consumer.process.id());
        let device = fs::metadata(Path::new(&root).join("opt/null")).unwrap();
        assert!(device.file_type().is_char_device() && device.rdev() == makedev(1, 3));
        assert_eq!(device.mode() & 0o7777, 0o640);
        let pipe = fs::metadata(Path::new(&root).join("opt/pipe")).unwrap();
        assert!(pipe.file_type().is_fifo(), "{pipe:?}");
        assert_eq!((pipe.mode() & 0o7777, pipe.uid(), pipe.gid()), (0o600, 12, 34));
        // None of it is the user's.
        for path in ["usr", "opt", "lib64"] {
            assert!(!node.upper(path).exists(), "{path}");
        }
    });
}

/// The directories that lead to a mount point, the mount point itself and the working directory
/// are the runtime's in every container.
#[test]
fn i5_a_container_without_hooks_has_no_layer_of_the_runtime() {
    Node::with(|node| {
        let base = usr_merged(node);
        let provider = node.provider(&[&base]);
        let volume = node.path("volume");
        fs::create_dir_all(&volume).unwrap();
        let spec = node.consumer("consumer").bind(&volume, "/srv/data", "private");
        let mut consumer = start(node, &provider, &spec, "consumer", |_| {});
        assert_eq!(consumer.list("/srv").unwrap(), "data");
        assert!(!node.path("store").join(&node.key).join("runtime").exists());
        assert!(node.upper("srv/data").exists());
    });
}

/// A file that only some containers have, such as a library of a device plugin, is mounted on an
/// empty file. In a plain pod that is gone with the container.
#[test]
fn i5_the_empty_file_below_a_mounted_file_does_not_outlive_the_start() {
    Node::with(|node| {
        let base = usr_merged(node);
        let provider = node.provider(&[&base]);
        let file = node.path("file");
        fs::write(&file, "of the node").unwrap();
        let spec = node
            .consumer("first")
            .bind(&file, "/lib64/libplugin.so.550", "private")
            .bind(&file, "/etc/hosts", "private");
        let mut consumer = start(node, &provider, &spec, "first", |_| {});
        for path in ["/usr/lib64/libplugin.so.550", "/etc/hosts"] {
            assert_eq!(consumer.read(path).unwrap(), "of the node");
        }
        consumer.end();
        let mut consumer = start(node, &provider, &node.consumer("second"), "second", |_| {});
        assert_eq!(consumer.list("/usr/lib64").unwrap(), "libc.so.6");
        assert_eq!(names_in_upper(node, "usr/lib64"), [""; 0]);
    });
}

/// A new driver has other files, and without a device there are none.
#[test]
fn i5_nothing_of_an_earlier_start_is_left() {
    Node::with(|node| {
        let base = usr_merged(node);
        let provider = node.provider(&[&base]);
        for (name, version) in [("first", "550"), ("second", "560"), ("third", "560")] {
            let library = node.path(&format!("libcuda.so.{version}"));
            fs::write(&library, version).unwrap();
            let spec =
                node.consumer(name)
                    .bind(&library, &format!("/usr/lib64/libcuda.so.{version}"), "private");
            let mut consumer = start(node, &provider, &spec, name, |root| {
                root.link("/usr/lib64/libcuda.so", &format!("libcuda.so.{version}"));
                root.file(&format!("/usr/share/driver/{version}"), "x");
            });
            assert_eq!(consumer.read("/usr/lib64/libcuda.so").unwrap(), version);
            assert_eq!(
                consumer.list("/usr/lib64").unwrap(),
                format!("libc.so.6 libcuda.so libcuda.so.{version}")
            );
            assert_eq!(consumer.list("/usr/share/driver").unwrap(), version);
            consumer.write("/usr/lib64/mine", version).unwrap();
            consumer.remove("/usr/lib64/mine").unwrap();
            consumer.end();
        }
        let spec = node.consumer("without");
        let mut consumer = start(node, &provider, &spec, "without", |_| {});
        assert_eq!(consumer.list("/usr/lib64").unwrap(), "libc.so.6");
        assert!(consumer.list("/usr/share").is_err());
        assert_eq!(names_in_upper(node, "usr/lib64"), [""; 0]);
        assert!(!node.path("store").join(&node.key).join("runtime").exists());
    });
}

/// A hook that makes a link replaces a file with the name, in every start of a plain pod. Without
/// the hook, the user's file is there.
#[test]
fn i5_a_file_of_the_user_gives_way_to_a_hooks_and_comes_back() {
    Node::with(|node| {
        let base = usr_merged(node);
        let provider = node.provider(&[&base]);
        let spec = |name: &str| node.consumer(name);
        let mut consumer = start(node, &provider, &spec("first"), "first", |_| {});
        consumer.write("/usr/lib64/libcuda.so", "of the user").unwrap();
        // A directory that the user made: the kernel marks it as one that hides what lies below.
        consumer.make_directory("/usr/lib64/vendor").unwrap();
        consumer.write("/usr/lib64/vendor/mine", "x").unwrap();
        consumer.remove("/usr/lib64/libc.so.6").unwrap();
        consumer.end();

        let hooks = |root: &HookRoot| {
            root.link("/usr/lib64/libcuda.so", "libcuda.so.1");
            root.link("/usr/lib64/libc.so.6", "libc.so.7");
            root.file("/usr/lib64/vendor/settings", "of the hook");
        };
        for name in ["second", "third"] {
            let mut consumer = start(node, &provider, &spec(name), name, hooks);
            assert_eq!(consumer.stat("/usr/lib64/libcuda.so").unwrap(), "link 777 0:0");
            assert_eq!(consumer.stat("/usr/lib64/libc.so.6").unwrap(), "link 777 0:0");
            assert_eq!(consumer.list("/usr/lib64/vendor").unwrap(), "mine settings");
            // What the user deletes is there again at the next start with the hook.
            consumer.remove("/usr/lib64/vendor/settings").unwrap();
            consumer.end();
        }
        let mut consumer = start(node, &provider, &spec("last"), "last", |_| {});
        assert_eq!(consumer.read("/usr/lib64/libcuda.so").unwrap(), "of the user");
        assert_eq!(consumer.list("/usr/lib64").unwrap(), "libcuda.so vendor");
        assert_eq!(consumer.list("/usr/lib64/vendor").unwrap(), "mine");
    });
}

/// As the documented backup leaves the layer of the last start out.
#[test]
fn i5_a_backup_without_the_layer_has_the_users_files() {
    Node::with(|node| {
        let provider = node.provider(&[&usr_merged(node)]);
        let mut consumer = start(node, &provider, &node.consumer("first"), "first", |_| {});
        consumer.write("/etc/motd", "of the user").unwrap();
        consumer.end();
        let mut consumer = start(node, &provider, &node.consumer("second"), "second", |root| {
            root.file("/etc/motd", "of the hook");
            root.file("/etc/vendor", "of the hook");
        });
        consumer.remove("/etc/vendor").unwrap();
        consumer.end();
        fs::remove_dir_all(node.path("store").join(&node.key).join("runtime")).unwrap();
        let mut consumer = start(node, &provider, &node.consumer("third"), "third", |_| {});
        assert_eq!(consumer.read("/etc/motd").unwrap(), "of the user");
        consumer.end();
        let mut consumer = start(node, &provider, &node.consumer("last"), "last", |root| {
            root.file("/etc/vendor", "of the hook");
        });
        assert_eq!(consumer.read("/etc/vendor").unwrap(), "of the hook");
    });
}

/// The user's files counted less while a hook's files were in their place, so a container could
/// exceed its limit.
#[test]
fn i12_a_file_of_the_user_that_gives_way_counts_as_before() {
    Node::with(|node| {
        let provider = node.provider(&[&usr_merged(node)]);
        let mut consumer = start(node, &provider, &node.consumer("first"), "first", |_| {});
        consumer
            .write_durable("/usr/lib64/library", &"x".repeat(1 << 20))
            .unwrap();
        consumer.end();
        let bytes = || {
            usage::measure_kept(&node.kept(), Instant::now() + TIME)
                .unwrap()
                .bytes
        };
        let before = bytes();
        assert!(before >= 1 << 20, "{before}");
        let consumer = start(node, &provider, &node.consumer("second"), "second", |root| {
            root.link("/usr/lib64/library", "of-the-hook");
        });
        assert!(bytes() >= before, "{} of {before}", bytes());
        consumer.end();
    });
}

/// What the user does to a hook's file is the user's, as any change.
#[test]
fn i5_what_the_user_made_of_a_hooks_file_stays() {
    Node::with(|node| {
        let base = usr_merged(node);
        let provider = node.provider(&[&base]);
        let mut consumer = start(node, &provider, &node.consumer("first"), "first", |root| {
            root.file("/etc/vendor.conf", "of the hook");
        });
        consumer.write("/etc/vendor.conf", "of the user").unwrap();
        consumer.end();
        let mut consumer = start(node, &provider, &node.consumer("second"), "second", |_| {});
        assert_eq!(consumer.read("/etc/vendor.conf").unwrap(), "of the user");
    });
}

/// A directory of the image that the user emptied and filled again hides the image's files.
#[test]
fn i5_what_a_users_directory_hides_stays_hidden() {
    Node::with(|node| {
        let base = node.layer(
            "base",
            &[
                ("opt/vendor/old", Some("x")),
                ("opt/vendor/deep/old", Some("x")),
                ("opt/vendor/kept/old", Some("x")),
            ],
        );
        let provider = node.provider(&[&base]);
        let mut consumer = start(node, &provider, &node.consumer("first"), "first", |_| {});
        consumer.remove_tree("/opt/vendor").unwrap();
        for path in ["/opt/vendor", "/opt/vendor/deep"] {
            consumer.make_directory(path).unwrap();
        }
        consumer.end();
        for name in ["second", "third"] {
            let mut consumer = start(node, &provider, &node.consumer(name), name, |root| {
                root.file("/opt/vendor/new", "x");
            });
            assert_eq!(consumer.list("/opt/vendor").unwrap(), "deep new");
            assert_eq!(consumer.list("/opt/vendor/deep").unwrap(), "");
            consumer.end();
        }
        let mut consumer = start(node, &provider, &node.consumer("last"), "last", |_| {});
        assert_eq!(consumer.list("/opt/vendor").unwrap(), "deep");
    });
}

#[test]
fn i5_a_read_only_root_has_what_hooks_made() {
    Node::with(|node| {
        let base = usr_merged(node);
        let provider = node.provider(&[&base]);
        let spec = node.consumer("consumer").read_only();
        let consumer = spec.start();
        // Hooks run before the runtime makes the root read-only, so not through that mount.
        let root = HookRoot::of(node, "consumer");
        root.link("/usr/lib64/libcuda.so", "libcuda.so.1");
        root.file("/etc/ld.so.cache", "");
        node.attach_when_free(&provider, &consumer);
        let mut consumer = consumer;
        assert_eq!(consumer.list("/usr/lib64").unwrap(), "libc.so.6 libcuda.so");
        assert!(consumer.stat("/etc/ld.so.cache").is_ok());
        assert!(consumer.write("/etc/x", "x").is_err(), "read-only");
    });
}

/// In a pod with its own users the files of a hook have the owners that the pod sees.
#[test]
fn i5_h20_with_its_own_users() {
    Node::with(|node| {
        if !has_pod_users(node) {
            return;
        }
        let base = usr_merged(node);
        let provider = node.provider(&[&base]);
        let users = PodUsers::start(100_000);
        let spec = node.consumer("consumer").users(&users);
        let mut consumer = start(node, &provider, &spec, "consumer", |root| {
            root.link("/lib64/libcuda.so", "libcuda.so.1");
            root.file("/etc/ld.so.cache", "");
            root.file("/opt/vendor", "x");
            chown(root.path("/opt/vendor"), Some(100_007), Some(100_008)).unwrap();
        });
        assert_eq!(consumer.stat("/opt/vendor").unwrap(), "file 644 7:8");
        assert_eq!(consumer.stat("/etc/ld.so.cache").unwrap(), "file 644 0:0");
        assert_eq!(consumer.list("/usr/lib64").unwrap(), "libc.so.6 libcuda.so");
        consumer.end();
        // The same without.
        let spec = node.consumer("hosts-users");
        let mut consumer = start(node, &provider, &spec, "hosts-users", |root| {
            root.link("/lib64/libcuda.so", "libcuda.so.1");
        });
        assert_eq!(consumer.list("/usr/lib64").unwrap(), "libc.so.6 libcuda.so");
    });
}
