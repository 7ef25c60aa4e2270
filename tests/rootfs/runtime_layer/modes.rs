//! Modes that a hook sets (`nvidia-cdi-hook chmod`). The hook skips what the wrapper's root lacks.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::{names_in_upper, refused, start};
use crate::container::{Container, Spec};
use crate::node::Node;
use crate::pod_users::{PodUsers, has_pod_users};

fn mode(consumer: &mut Container, path: &str) -> String {
    let stat = consumer.stat(path).unwrap();
    stat.split(' ').nth(1).unwrap().to_owned()
}

fn image(node: &Node) -> std::path::PathBuf {
    let base = node.layer(
        "base",
        &[
            ("opt/vendor/tool", Some("of the image")),
            ("opt/vendor/data/x", Some("x")),
            ("opt/short", Some("-> vendor")),
        ],
    );
    let private = fs::Permissions::from_mode(0o4700);
    fs::set_permissions(base.join("opt/vendor/tool"), private).unwrap();
    base
}

#[test]
fn i5_a_hooks_mode_of_a_file_of_the_image_is_there_at_every_start_with_the_hook() {
    Node::with(|node| {
        let base = image(node);
        let provider = node.provider(&[&base]);
        let with_hook = |name: &str| {
            let spec = node.consumer(name);
            spec.hook_mode("/opt/short/tool", 0o2755)
                .hook_mode("/opt/vendor/data", 0o711)
                .hook_mode("/opt/missing", 0o755)
                .hook_mode("/dev/shm", 0o700)
        };
        for name in ["first", "second"] {
            let mut consumer = start(node, &provider, &with_hook(name), name, |_| {});
            // The hook clears other bits.
            assert_eq!(consumer.stat("/opt/vendor/tool").unwrap(), "file 755 0:0");
            assert_eq!(consumer.read("/opt/vendor/tool").unwrap(), "of the image");
            assert_eq!(consumer.stat("/opt/vendor/data").unwrap(), "directory 711 0:0");
            assert_eq!(consumer.read("/opt/vendor/data/x").unwrap(), "x");
            assert!(consumer.stat("/opt/missing").is_err());
            // In a mount of the container: the hook found it there.
            assert_eq!(mode(&mut consumer, "/dev/shm"), "1777");
            consumer.end();
        }
        assert_eq!(names_in_upper(node, "opt"), [""; 0], "none of it is the user's");
        let mut consumer = start(node, &provider, &node.consumer("without"), "without", |_| {});
        assert_eq!(mode(&mut consumer, "/opt/vendor/tool"), "4700");
        assert_eq!(mode(&mut consumer, "/opt/vendor/data"), "755");
    });
}

/// The user's files get the mode too, and have their own again without the hook. A directory that
/// the user changed keeps what a hook gave it, as the overlay shows no other mode.
#[test]
fn i5_a_hooks_mode_of_a_file_of_the_user_is_of_the_start() {
    Node::with(|node| {
        let provider = node.provider(&[&image(node)]);
        let mut consumer = start(node, &provider, &node.consumer("first"), "first", |_| {});
        consumer.write("/opt/vendor/tool", "of the user").unwrap();
        consumer.make_directory("/opt/mine").unwrap();
        consumer.write("/opt/mine/x", "x").unwrap();
        consumer.end();
        for name in ["second", "third"] {
            let spec = node
                .consumer(name)
                .hook_mode("/opt/vendor/tool", 0o755)
                .hook_mode("/opt/mine", 0o1711);
            let mut consumer = start(node, &provider, &spec, name, |_| {});
            assert_eq!(consumer.read("/opt/vendor/tool").unwrap(), "of the user");
            assert_eq!(mode(&mut consumer, "/opt/vendor/tool"), "755");
            assert_eq!(mode(&mut consumer, "/opt/mine"), "711");
            assert_eq!(consumer.read("/opt/mine/x").unwrap(), "x");
            consumer.end();
        }
        let mut consumer = start(node, &provider, &node.consumer("without"), "without", |_| {});
        assert_eq!(consumer.read("/opt/vendor/tool").unwrap(), "of the user");
        assert_ne!(mode(&mut consumer, "/opt/vendor/tool"), "755");
        assert_eq!(mode(&mut consumer, "/opt/mine"), "711");
    });
}

/// Where the mode cannot be carried over, the error names the hook, the path, and what to do.
#[test]
fn i5_i18_h12_a_hooks_mode_that_cannot_be_carried_over_is_refused_by_name() {
    Node::with(|node| {
        let base = image(node);
        fs::File::create(base.join("opt/huge"))
            .unwrap()
            .set_len(1 << 40)
            .unwrap();
        symlink("/srv/data", base.join("opt/shared")).unwrap();
        let provider = node.provider(&[&base]);
        let volume = node.path("volume");
        fs::create_dir_all(&volume).unwrap();
        let with = |name: &str, path: &str| {
            let spec = node.consumer(name).bind(&volume, "/srv/data", "private");
            spec.hook_mode(path, 0o750).start()
        };
        let huge = refused(node, &provider, &with("huge", "/opt/huge"));
        assert_eq!(
            huge,
            "cannot take over what the container runtime did to the container's root: a hook chmod gives /opt/huge the \
             mode 750, which would copy a file of more than 4194304 bytes at every start; give the file this mode \
             yourself, or remove the device from the template"
        );
        for (name, path) in [("link", "/opt/shared"), ("below", "/opt/shared/x")] {
            let link = refused(node, &provider, &with(name, path));
            for words in [
                &format!("a hook chmod gives {path} the mode 750"),
                "leads to /srv/data,",
                "replace the link in the image, or remove the device",
            ] {
                assert!(link.contains(words), "{words:?}: {link}");
            }
        }
        let mut consumer = start(node, &provider, &node.consumer("next"), "next", |_| {});
        assert_eq!(mode(&mut consumer, "/opt/vendor/data"), "755");
    });
}

/// Links of the image stay in the image.
#[test]
fn i7_h12_a_hooks_mode_does_not_leave_the_root() {
    Node::with(|node| {
        let outside = node.path("outside");
        fs::write(&outside, "of the node").unwrap();
        let before = fs::metadata(&outside).unwrap().permissions();
        let base = node.layer("base", &[("opt/loop", Some("-> loop"))]);
        symlink(&outside, base.join("opt/out")).unwrap();
        symlink(Path::new("/proc/1/root"), base.join("opt/proc")).unwrap();
        let provider = node.provider(&[&base]);
        let spec = ["/opt/out", "/opt/loop", "../../../../outside"]
            .into_iter()
            .fold(node.consumer("consumer"), |spec, path| {
                spec.hook_mode(path, 0o777)
            });
        let mut consumer = start(node, &provider, &spec, "consumer", |_| {});
        assert!(consumer.stat("/opt/out").unwrap().starts_with("link"));
        assert_eq!(fs::metadata(&outside).unwrap().permissions(), before);
    });
}

/// In a pod with its own users.
#[test]
fn i5_h20_a_hooks_mode_with_its_own_users() {
    Node::with(|node| {
        if !has_pod_users(node) {
            return;
        }
        let provider = node.provider(&[&image(node)]);
        let users = PodUsers::start(100_000);
        let spec: Spec = node.consumer("consumer").users(&users);
        let spec = spec
            .hook_mode("/opt/vendor/tool", 0o755)
            .hook_mode("/opt/vendor/data", 0o711);
        let mut consumer = start(node, &provider, &spec, "consumer", |_| {});
        assert_eq!(consumer.stat("/opt/vendor/tool").unwrap(), "file 755 0:0");
        assert_eq!(consumer.stat("/opt/vendor/data").unwrap(), "directory 711 0:0");
    });
}
