//! Images that point elsewhere stay where they are.

use std::fs;
use std::path::Path;

use rootfs::Attached;

use crate::node::Node;

mod upper;

#[test]
fn h1_links_at_mountpoints_lead_inside_the_root() {
    Node::with(|node| {
        let outside = node.path("outside");
        fs::create_dir_all(&outside).unwrap();
        fs::write(outside.join("hosts"), "of the node").unwrap();
        let outside_name = outside.display().to_string();
        let base = node.layer(
            "base",
            &[
                ("etc", Some(&format!("-> {outside_name}"))),
                ("up", Some("-> ../../../../../..")),
                ("dangling", Some("-> /nowhere/at/all")),
                ("relative/link", Some("-> ../target")),
            ],
        );
        let volume = node.path("volume");
        fs::create_dir_all(&volume).unwrap();
        fs::write(volume.join("file"), "v").unwrap();
        let provider = node.provider(&[&base]);
        let mut consumer = node
            .consumer("consumer")
            .bind(&volume, "/up/climbed", "private")
            .bind(&volume, "/dangling", "private")
            .bind(&volume, "/relative/link/x", "private")
            .start();
        assert_eq!(node.attach(&provider, &consumer).unwrap(), Attached::Now);
        for path in ["/climbed/file", "/nowhere/at/all/file", "/target/x/file"] {
            assert_eq!(consumer.read(path).as_deref(), Ok("v"), "{path}");
        }
        // What was mounted on /etc/hosts is where the link leads inside.
        assert_eq!(
            consumer.read(&format!("{outside_name}/hosts")).unwrap(),
            "hosts of the pod"
        );
        assert_eq!(fs::read_to_string(outside.join("hosts")).unwrap(), "of the node");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    });
}

#[test]
fn h1_h3_the_runtimes_own_directories_must_be_real() {
    for (name, target) in [
        ("proc", "-> /etc"),
        ("dev", "-> /tmp"),
        ("sys", "-> /etc"),
        ("proc", "a file"),
        ("sys", "a file"),
        ("dev", "-> loop"),
        ("sys", "-> /nowhere/at/all"),
        ("sys", "-> proc"),
    ] {
        Node::with(|node| {
            let base = node.layer(
                "base",
                &[
                    (name, Some(target)),
                    ("loop", Some("-> loop")),
                    ("etc/motd", Some("x")),
                ],
            );
            // The provider is not what this is about, so its image has real ones.
            let image = node.layer("image", &[("etc/motd", Some("x"))]);
            let wrapper = node.provider(&[&image]);
            let mut consumer = node.consumer("consumer").mount("sysfs", "/sys").start();
            // The upper directory is where a tenant would have put them.
            let kept = node.kept();
            fs::remove_dir_all(node.upper("")).unwrap();
            fs::rename(&base, node.upper("")).unwrap();
            drop(kept);
            let error = node.attach(&wrapper, &consumer).unwrap_err();
            let text = format!("{error:?}");
            assert!(
                text.contains("SymbolicLink") || text.contains("NotADirectory"),
                "{name} {target}: {text}"
            );
            // Everything was taken back: the container is as it was.
            assert_eq!(consumer.read("/exec-wrapper").unwrap(), "wrapper");
            assert!(
                !consumer
                    .mountpoints()
                    .iter()
                    .any(|m| m.contains("stoppablecontainer-root"))
            );
        });
    }
}

/// What a pod mounts below /tmp and /run is the pod's, and an image may have links there;
/// distributions do.
#[test]
fn h1_tmp_and_run_as_links_lead_inside_the_root() {
    for (name, target, refused) in [
        ("tmp", "/etc", None),
        ("tmp", "../../../../etc", None),
        ("tmp", "/var/tmp", None),
        ("tmp", "nowhere/tmp", None),
        ("tmp", "/dev/shm", None),
        ("tmp", "tmp", Some("TooManyLinks")),
        ("tmp", "/", Some("TheRoot")),
        ("tmp", "/proc", Some("its mount point is in /proc")),
        ("tmp", "/proc/self/fd", Some("ProcLink")),
        ("run", "OUTSIDE", None),
        ("run", "../../..OUTSIDE", None),
        ("run", "/var/run", None),
        ("run", "nowhere/run", None),
        ("run", ".", None),
        ("run", "run", Some("TooManyLinks")),
        // Directories cannot be made there, so there is no place for the mount.
        ("run", "/sys", Some("/run/secrets")),
    ] {
        Node::with(|node| {
            let outside = node.path("outside");
            fs::create_dir_all(&outside).unwrap();
            let target = target.replace("OUTSIDE", outside.to_str().unwrap());
            let link = format!("-> {target}");
            let base = node.layer("base", &[(name, Some(&link)), ("etc/motd", Some("hello"))]);
            let provider = node.provider(&[&base]);
            let mut consumer = node
                .consumer("consumer")
                .mount("sysfs", "/sys")
                .tmpfs("/tmp")
                .tmpfs("/run/secrets")
                .start();
            let mounts = consumer.mountpoints().len();
            match (node.attach(&provider, &consumer), refused) {
                (Ok(attached), None) => {
                    assert_eq!(attached, Attached::Now, "{name} {target}");
                    consumer.write("/run/secrets/token", "t").unwrap();
                    assert_eq!(consumer.read("/run/secrets/token").unwrap(), "t");
                    consumer.write("/tmp/file", "x").unwrap();
                    assert!(!node.upper("/etc/file").exists(), "beside the mount: {target}");
                }
                (Err(error), Some(words)) => {
                    let text = format!("{error:?}");
                    assert!(text.contains(words), "{name} {target}: {text}");
                    assert_eq!(consumer.read("/exec-wrapper").unwrap(), "wrapper");
                }
                (result, _) => panic!("{name} {target}: {result:?}"),
            }
            assert_eq!(consumer.mountpoints().len(), mounts, "{name} {target}");
            assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{name} {target}");
            for path in ["/etc/file", "/etc/secrets", "/run/secrets/token"] {
                assert!(!Path::new(path).exists(), "{path}: {name} {target}");
            }
        });
    }
}

#[test]
fn h1_a_mountpoint_of_the_wrong_type_is_refused() {
    Node::with(|node| {
        let base = node.layer("base", &[("etc/hosts", None)]);
        let provider = node.provider(&[&base]);
        let mut consumer = node.consumer("consumer").start();
        let error = format!("{:?}", node.attach(&provider, &consumer).unwrap_err());
        assert!(
            error.contains("IsADirectory") && error.contains("/etc/hosts"),
            "{error}"
        );
        assert_eq!(consumer.read("/exec-wrapper").unwrap(), "wrapper");
    });
    Node::with(|node| {
        let base = node.layer("base", &[("data", Some("a file"))]);
        let provider = node.provider(&[&base]);
        let mut consumer = node.consumer("consumer").tmpfs("/data").start();
        let error = format!("{:?}", node.attach(&provider, &consumer).unwrap_err());
        assert!(
            error.contains("NotADirectory") && error.contains("/data"),
            "{error}"
        );
        assert_eq!(consumer.read("/exec-wrapper").unwrap(), "wrapper");
    });
}

#[test]
fn h1_a_loop_of_links_is_refused() {
    Node::with(|node| {
        let base = node.layer("base", &[("a", Some("-> b")), ("b", Some("-> a"))]);
        let provider = node.provider(&[&base]);
        let consumer = node.consumer("consumer").tmpfs("/a/x").start();
        let error = format!("{:?}", node.attach(&provider, &consumer).unwrap_err());
        assert!(error.contains("TooManyLinks"), "{error}");
    });
}

/// Their targets differ for the agent and for the container, so the agent does not follow them.
#[test]
fn h5_links_of_proc_are_not_followed() {
    for target in ["self/cwd", "1/cwd/etc", "self/fd/9", "thread-self/root"] {
        Node::with(|node| {
            let base = node.layer("base", &[("work", Some(&format!("-> /proc/{target}")))]);
            let provider = node.provider(&[&base]);
            let mut consumer = node.consumer("consumer").tmpfs("/work/below").start();
            let error = format!("{:?}", node.attach(&provider, &consumer).unwrap_err());
            assert!(error.contains("ProcLink") && error.contains("/work"), "{error}");
            assert_eq!(consumer.read("/exec-wrapper").unwrap(), "wrapper");
        });
    }
}

#[test]
fn h9_layers_and_mounts_with_odd_names() {
    Node::with(|node| {
        let base = node.layer("a,b c", &[("etc/motd", Some("hello"))]);
        let top = node.layer("line\nfeed = x\t", &[("etc/issue", Some("welcome"))]);
        let provider = node.provider(&[&top, &base]);
        let mut consumer = node.consumer("consumer").tmpfs("/odd,name\\here").start();
        consumer.write("/odd,name\\here/x", "x").unwrap();
        node.attach(&provider, &consumer).unwrap();
        assert_eq!(consumer.read("/odd,name\\here/x").unwrap(), "x");
        assert_eq!(consumer.read("/etc/issue").unwrap(), "welcome");
        // The layer itself, not the container's root in place of layers that could not be opened.
        let table = consumer.process.mounts(&node.proc).unwrap();
        let layers = table
            .root()
            .unwrap()
            .super_option("lowerdir+")
            .chain(table.root().unwrap().super_option("lowerdir"));
        // Before 6.7 all are in one option.
        let count: usize = layers.map(|list| list.split(|byte| *byte == b':').count()).sum();
        assert_eq!(count, 2);
        assert_eq!(consumer.read("/etc/motd").unwrap(), "hello");
    });
}

#[test]
fn h12_only_small_regular_files_are_read() {
    Node::with(|node| {
        let base = node.layer(
            "base",
            &[
                ("etc/passwd", Some("root:x:0:0::/:")),
                ("etc/link", Some("-> /etc/passwd")),
                ("etc/out", Some("-> ../../../etc/passwd")),
                ("etc/dir", None),
            ],
        );
        let fifo = rustix::fs::FileType::Fifo;
        let mode = rustix::fs::Mode::from_raw_mode(0o644);
        rustix::fs::mknodat(rustix::fs::CWD, base.join("etc/fifo"), fifo, mode, 0).unwrap();
        let file = fs::File::create(base.join("etc/sparse")).unwrap();
        file.set_len(10 << 30).unwrap();
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY;
        let root = rootfs::Root::new(rustix::fs::open(&base, flags, rustix::fs::Mode::empty()).unwrap());
        let read = |path: &str| {
            root.read(path.as_ref(), 1 << 20)
                .map_err(|e| format!("{:?}", e.problem))
        };
        for path in ["etc/passwd", "etc/link", "etc/out"] {
            assert_eq!(read(path), Ok(Some(b"root:x:0:0::/:".to_vec())), "{path}");
        }
        assert_eq!(read("etc/none"), Ok(None));
        assert_eq!(read("etc/fifo").unwrap_err(), "NotAFile");
        assert_eq!(read("etc/dir").unwrap_err(), "NotAFile");
        assert!(read("etc/sparse").unwrap_err().starts_with("TooLarge"));
    });
}

#[test]
fn h2_a_directory_swapped_for_a_link_while_it_is_resolved() {
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::fs::{CWD, Mode, OFlags, RenameFlags, renameat_with};

    const ATTEMPTS: usize = 10_000;
    Node::with(|node| {
        let outside = node.path("outside");
        fs::create_dir_all(outside.join("below")).unwrap();
        let tree = node.path("tree");
        fs::create_dir_all(tree.join("target/below")).unwrap();
        // The same path exists inside, so that a link that is followed inside leads somewhere as
        // well.
        fs::create_dir_all(tree.join(outside.strip_prefix("/").unwrap()).join("below")).unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("link")).unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let root = rootfs::Root::new(rustix::fs::open(&tree, flags, Mode::empty()).unwrap());
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    renameat_with(
                        CWD,
                        tree.join("target"),
                        CWD,
                        tree.join("link"),
                        RenameFlags::EXCHANGE,
                    )
                    .unwrap();
                }
            });
            // How often a program loses the race if it resolves the path in the usual way.
            let naive = (0..ATTEMPTS).filter(|attempt| {
                let made = format!("naive-{attempt}");
                let _ = fs::create_dir(tree.join("target/below").join(&made));
                fs::remove_dir(outside.join("below").join(&made)).is_ok()
            });
            let naive = naive.count();
            let (mut direct, mut through, mut refused) = (0, 0, 0);
            for attempt in 0..ATTEMPTS {
                let made = format!("made-{attempt}");
                match root.create_directory(format!("target/below/{made}").as_ref(), Mode::RWXU) {
                    Ok(_)
                        if tree.join("target/below").join(&made).exists()
                            || tree.join("link/below").join(&made).exists() =>
                    {
                        direct += 1;
                    }
                    Ok(_) => through += 1,
                    Err(_) => refused += 1,
                }
            }
            over.store(true, Ordering::Relaxed);
            let races = format!(
                "{ATTEMPTS} attempts: {direct} before the swap, {through} after it, {refused} refused; without \
                 care {naive} escapes"
            );
            println!("{races}");
            // The attacker has to win often, and to lose often, for this to mean something.
            let often = ATTEMPTS / 100;
            assert!(
                direct > often && through + refused > often && naive > often,
                "{races}"
            );
        });
        assert_eq!(
            fs::read_dir(outside.join("below")).unwrap().count(),
            0,
            "an escape"
        );
    });
}
