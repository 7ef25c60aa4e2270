//! The cache of glibc's loader, compared with the one that the machine's ldconfig(8) makes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{HookRoot, start};
use crate::container::{Container, Spec};
use crate::node::Node;

/// A shared object with nothing but a name, for x86-64: an ELF header, a segment with the whole
/// file, and a dynamic section.
pub(super) fn shared_object(name: &str) -> Vec<u8> {
    let strings = format!("\0{name}\0");
    let (dynamic_at, strings_at) = (64 + 2 * 56, 64 + 2 * 56 + 4 * 16);
    let size = strings_at + strings.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    let half = |file: &mut Vec<u8>, value: u16| file.extend_from_slice(&value.to_le_bytes());
    let int = |file: &mut Vec<u8>, value: u32| file.extend_from_slice(&value.to_le_bytes());
    let long = |file: &mut Vec<u8>, value: u64| file.extend_from_slice(&value.to_le_bytes());
    // Shared object, x86-64, version, entry, program headers, section headers.
    half(&mut file, 3);
    half(&mut file, 62);
    int(&mut file, 1);
    for value in [0, 64, 0] {
        long(&mut file, value);
    }
    // Flags, sizes and counts.
    int(&mut file, 0);
    for value in [64, 56, 2, 64, 0, 0] {
        half(&mut file, value);
    }
    for (kind, at, length) in [(1, 0, size), (2, dynamic_at, 64)] {
        int(&mut file, kind);
        int(&mut file, 4);
        for value in [at, at, at, length, length, 8] {
            long(&mut file, value);
        }
    }
    // Strings, their size, the name, the end.
    for (tag, value) in [(5, strings_at), (10, strings.len() as u64), (14, 1), (0, 0)] {
        long(&mut file, tag);
        long(&mut file, value);
    }
    file.extend_from_slice(strings.as_bytes());
    file
}

/// Writes a shared object on the node.
fn library(path: &Path, name: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, shared_object(name)).unwrap();
}

/// The lines of a cache below a container's root.
pub(super) fn cache(consumer: &Container, path: &str) -> Vec<String> {
    let root = format!("/proc/{}/root", consumer.process.id());
    let cache = Path::new(&root).join(path.trim_start_matches('/'));
    let output = Command::new("/sbin/ldconfig")
        .arg("-p")
        .arg("-C")
        .arg(cache)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().skip(1).map(|line| line.trim().to_owned());
    lines.filter(|line| line.contains("=>")).collect()
}

/// Runs the machine's ldconfig over a container's root.
fn run_ldconfig(consumer: &Container, cache: &str) {
    let root = format!("/proc/{}/root", consumer.process.id());
    let status = Command::new("/sbin/ldconfig")
        .args(["-r", &root, "-C", cache])
        .status()
        .unwrap();
    assert!(status.success());
}

/// An image of Debian's kind with a library.
fn image(node: &Node) -> PathBuf {
    let base = node.layer(
        "base",
        &[
            ("etc/ld.so.conf", Some("include /etc/ld.so.conf.d/*.conf\n")),
            (
                "etc/ld.so.conf.d/multiarch.conf",
                Some("# Multiarch\n/usr/local/lib/x86_64-linux-gnu\n/usr/lib/x86_64-linux-gnu\n"),
            ),
            ("etc/ld.so.cache", Some("of the image")),
            ("lib", Some("-> usr/lib")),
            ("lib64", Some("-> usr/lib64")),
            ("usr/lib64", None),
            ("usr/lib/x86_64-linux-gnu/libplugin.so", Some("not a library")),
            ("usr/lib/x86_64-linux-gnu/libz.so.1", Some("-> libz.so.1.2.13")),
            ("usr/lib/x86_64-linux-gnu/libz.so", Some("-> libz.so.1")),
        ],
    );
    library(&base.join("usr/lib/x86_64-linux-gnu/libz.so.1.2.13"), "libz.so.1");
    library(&base.join("usr/lib/x86_64-linux-gnu/libz.so.1.2.9"), "libz.so.1");
    // One that the image's configuration puts before that of the distribution.
    library(
        &base.join("usr/local/lib/x86_64-linux-gnu/libz.so.1"),
        "libz.so.1",
    );
    library(&base.join("usr/lib/libother.so.3"), "libother.so.3");
    library(&base.join("usr/lib/libodd.so"), "libodd-1.so");
    base
}

/// A driver on the node, with the version in the names of its libraries: their paths and names.
fn driver(node: &Node, version: &str) -> Vec<(PathBuf, String)> {
    let directory = node.path(&format!("driver-{version}"));
    let names = [
        ("libcuda.so", "libcuda.so.1"),
        ("libnvidia-ml.so", "libnvidia-ml.so.1"),
    ];
    names
        .map(|(file, soname)| {
            let file = format!("{file}.{version}");
            library(&directory.join(&file), soname);
            (directory.join(&file), file)
        })
        .into()
}

/// Mounts the driver into a container.
fn bind_driver(spec: Spec, driver: &[(PathBuf, String)]) -> Spec {
    driver.iter().fold(spec, |spec, (path, name)| {
        spec.bind(path, &format!("/usr/lib/x86_64-linux-gnu/{name}"), "private")
    })
}

fn with_driver(node: &Node, name: &str, version: &str) -> Spec {
    bind_driver(node.consumer(name), &driver(node, version))
}

/// What NVIDIA's hooks leave in a plain container: of the directories, those that the image's
/// configuration does not have.
fn hooks_of_plain(root: &HookRoot) {
    root.link("/usr/lib/x86_64-linux-gnu/libcuda.so", "libcuda.so.1");
    root.file("/etc/ld.so.conf.d/00-nvcr-1.conf", "/opt/own\n");
}

/// What NVIDIA's hooks leave in the wrapper's root, in which there is neither a configuration nor a
/// library of the image.
fn hooks(root: &HookRoot) {
    root.link("/usr/lib/x86_64-linux-gnu/libcuda.so", "libcuda.so.1");
    root.file("/etc/ld.so.conf", "include /etc/ld.so.conf.d/*.conf\n");
    root.file(
        "/etc/ld.so.conf.d/00-nvcr-1.conf",
        "/usr/lib/x86_64-linux-gnu\n/opt/own\n",
    );
    root.file(
        "/etc/ld.so.conf.d/zz-nvcr-2.conf",
        "/lib\n/usr/lib\n/lib64\n/usr/lib64\n/libx32\n",
    );
    root.file("/etc/ld.so.cache", "of the wrapper's root");
    fs::create_dir_all(root.path("/run/nvidia-ctk-hook/1")).unwrap();
}

/// The same image with the same driver and hooks in a plain container, where the hook's ldconfig
/// runs over its root.
fn plain(node: &Node, image: &Path, name: &str, version: &str) -> Container {
    let driver = driver(node, version);
    let spec = Spec::new(node.path(name), &[image]).proc();
    let container = bind_driver(spec, &driver).start();
    hooks_of_plain(&HookRoot::of(node, name));
    run_ldconfig(&container, "/etc/ld.so.cache");
    container
}

#[test]
fn i5_the_cache_of_the_loader_is_that_of_a_plain_container_at_every_start() {
    Node::with(|node| {
        let base = image(node);
        let provider = node.provider(&[&base]);
        let directory = "/usr/lib/x86_64-linux-gnu";
        for version in ["550.1", "560.2"] {
            let mut plain = plain(node, &base, &format!("plain-{version}"), version);
            let mut consumer = start(
                node,
                &provider,
                &with_driver(node, version, version),
                version,
                hooks,
            );
            let ours = cache(&consumer, "/etc/ld.so.cache");
            assert_eq!(ours, cache(&plain, "/etc/ld.so.cache"));
            // With the links that ldconfig makes, and no libraries of another version.
            assert_eq!(consumer.list(directory), plain.list(directory));
            for name in ["libcuda.so.1", "libnvidia-ml.so.1", "libz.so.1"] {
                let line = format!("{name} (libc6,x86-64) => {directory}/{name}");
                assert!(ours.contains(&line), "{line}: {ours:#?}");
            }
            assert!(!node.upper("etc/ld.so.cache").exists() || version == "560.2");
            // A package manager goes on working: it replaces the cache, for this start.
            run_ldconfig(&consumer, "/etc/ld.so.cache");
            assert!(cache(&consumer, "/etc/ld.so.cache").len() >= ours.len());
            consumer.end();
        }
        // The user's cache, with the driver in it, does not count without the driver.
        for name in ["without", "again"] {
            let consumer = start(node, &provider, &node.consumer(name), name, |_| {});
            let ours = cache(&consumer, "/etc/ld.so.cache");
            assert!(!ours.iter().any(|line| line.contains("libcuda")), "{ours:#?}");
            assert!(ours.iter().any(|line| line.contains("libz.so.1")), "{ours:#?}");
            consumer.end();
        }
    });
}

/// What the user installed without telling the loader, and what the user removed.
#[test]
fn i5_the_cache_has_the_libraries_of_the_user() {
    Node::with(|node| {
        let base = image(node);
        let provider = node.provider(&[&base]);
        let mut consumer = start(node, &provider, &node.consumer("first"), "first", |_| {});
        let root = format!("/proc/{}/root", consumer.process.id());
        let root = Path::new(&root);
        library(&root.join("opt/mine/libmine.so.2"), "libmine.so.2");
        consumer
            .write("/etc/ld.so.conf.d/mine.conf", "/opt/mine")
            .unwrap();
        consumer.remove("/usr/lib/libother.so.3").unwrap();
        consumer.end();
        let consumer = start(
            node,
            &provider,
            &with_driver(node, "second", "550"),
            "second",
            hooks,
        );
        let ours = cache(&consumer, "/etc/ld.so.cache");
        assert!(ours.contains(&"libmine.so.2 (libc6,x86-64) => /opt/mine/libmine.so.2".to_owned()));
        assert!(!ours.iter().any(|line| line.contains("libother")), "{ours:#?}");
        // Nothing that ldconfig would add, but for the link of the linker: when it looked at that,
        // the link of the name was not there yet.
        run_ldconfig(&consumer, "/etc/check.cache");
        let mut theirs = cache(&consumer, "/etc/check.cache");
        theirs.retain(|line| !line.starts_with("libcuda.so "));
        assert_eq!(ours, theirs);
    });
}

/// A library in a directory that the runtime mounts as a whole.
#[test]
fn i5_libraries_in_a_mounted_directory_are_in_the_cache() {
    Node::with(|node| {
        let base = image(node);
        let provider = node.provider(&[&base]);
        let driver = node.path("driver");
        library(&driver.join("lib64/libcuda.so.550"), "libcuda.so.1");
        std::os::unix::fs::symlink("libcuda.so.550", driver.join("lib64/libcuda.so.1")).unwrap();
        let spec = node.consumer("consumer").bind(&driver, "/usr/local/nvidia", "ro");
        let consumer = start(node, &provider, &spec, "consumer", |root| {
            root.file("/etc/ld.so.conf.d/nvidia.conf", "/usr/local/nvidia/lib64\n");
        });
        let ours = cache(&consumer, "/etc/ld.so.cache");
        let line = "libcuda.so.1 (libc6,x86-64) => /usr/local/nvidia/lib64/libcuda.so.1";
        assert!(ours.contains(&line.to_owned()), "{ours:#?}");
    });
}

/// An image of CUDA with libraries for a newer driver than the node's. NVIDIA's hook
/// (`enable-cuda-compat`) puts their directory first, and finds none in the wrapper's root.
#[test]
fn i5_libraries_of_forward_compatibility_come_before_those_of_an_older_driver() {
    Node::with(|node| {
        let base = image(node);
        std::os::unix::fs::symlink("cuda-12.7", base.join("usr/local/cuda")).unwrap();
        let compat = "usr/local/cuda-12.7/compat";
        library(&base.join(compat).join("libcuda.so.565.57"), "libcuda.so.1");
        let provider = node.provider(&[&base]);
        for (name, driver, expected) in [
            ("older", Some(550), "/usr/local/cuda-12.7/compat"),
            ("same", Some(565), "/usr/lib/x86_64-linux-gnu"),
            ("without", None, "/usr/lib/x86_64-linux-gnu"),
            ("again", Some(550), "/usr/local/cuda-12.7/compat"),
        ] {
            let mut spec = with_driver(node, name, "550.1");
            if let Some(driver) = driver {
                spec = spec.cuda_driver(driver);
            }
            let mut consumer = start(node, &provider, &spec, name, hooks);
            let ours = cache(&consumer, "/etc/ld.so.cache");
            // The loader takes the first.
            let first = ours.iter().find(|line| line.starts_with("libcuda.so.1 "));
            let line = format!("libcuda.so.1 (libc6,x86-64) => {expected}/libcuda.so.1");
            assert_eq!(first, Some(&line), "{name}: {ours:#?}");
            let configured = consumer.read("/etc/ld.so.conf.d/00-compat-0.conf");
            let is_preferred = expected == format!("/{compat}");
            assert_eq!(
                configured.ok(),
                is_preferred.then(|| expected.to_owned()),
                "{name}"
            );
            consumer.end();
        }
        // With several it is unknown which one counts, as for NVIDIA's hook.
        library(&base.join(compat).join("libcuda.so.570.1"), "libcuda.so.1");
        let spec = with_driver(node, "several", "550.1").cuda_driver(550);
        let mut consumer = start(node, &provider, &spec, "several", hooks);
        assert!(consumer.read("/etc/ld.so.conf.d/00-compat-0.conf").is_err());
    });
}

/// The configuration of the image stays, and one that the image does not have is the hook's.
#[test]
fn i5_an_image_without_a_cache_or_configuration_gets_one() {
    Node::with(|node| {
        let base = node.layer("base", &[("usr/lib/x86_64-linux-gnu", None)]);
        library(&base.join("usr/lib/x86_64-linux-gnu/libz.so.1"), "libz.so.1");
        let provider = node.provider(&[&base]);
        let spec = with_driver(node, "consumer", "550");
        let mut consumer = start(node, &provider, &spec, "consumer", hooks);
        let ours = cache(&consumer, "/etc/ld.so.cache");
        for name in ["libcuda.so.1", "libz.so.1"] {
            assert!(ours.iter().any(|line| line.starts_with(name)), "{ours:#?}");
        }
        assert_eq!(
            consumer.read("/etc/ld.so.conf").unwrap(),
            "include /etc/ld.so.conf.d/*.conf"
        );
        assert!(!node.upper("etc/ld.so.cache").exists());
    });
}

/// musl's loader has a list of directories and no cache.
#[test]
fn i5_an_image_with_musl_has_the_directories_of_the_driver() {
    Node::with(|node| {
        let base = node.layer(
            "base",
            &[
                ("etc/alpine-release", Some("3.20")),
                ("etc/ld-musl-x86_64.path", Some("/lib")),
            ],
        );
        let provider = node.provider(&[&base]);
        let spec = with_driver(node, "consumer", "550");
        let mut consumer = start(node, &provider, &spec, "consumer", hooks);
        assert_eq!(
            consumer.read("/etc/ld-musl-x86_64.path").unwrap(),
            "/lib\u{1}/usr/lib/x86_64-linux-gnu\u{1}/opt/own\u{1}/lib\u{1}/usr/lib\u{1}/lib64\u{1}/usr/lib64\u{1}/libx32"
        );
        consumer.end();
        let mut consumer = start(node, &provider, &node.consumer("second"), "second", |_| {});
        assert_eq!(consumer.read("/etc/ld-musl-x86_64.path").unwrap(), "/lib");
    });
}
