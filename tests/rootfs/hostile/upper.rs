//! H15: an administrator of the node, or a restored copy, may have put anything into a kept
//! filesystem. It shows only its own layers and changes nothing outside. A filesystem that cannot
//! be started is refused with the reason.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, XattrFlags, getxattr, mknodat, setxattr};

use crate::container;
use crate::kernel::{self, LOWERDIR_APIS};
use crate::node::Node;
use crate::overlays;

/// What is in every file that a container must not see.
const SECRET: &str = "of another tenant";

/// A change of the kept filesystem, and its outcome.
struct Case {
    name: &'static str,
    plant: fn(&Planter<'_>),
    outcome: Outcome,
}

enum Outcome {
    /// The container starts and sees these files with this content, or none.
    Sees(&'static [(&'static str, Option<&'static str>)]),
    /// It does not start; the error has these words.
    Refused(&'static str),
}

use Outcome::{Refused, Sees};

/// The files of the image, where nothing is the matter with them.
const IMAGE: &[(&str, Option<&str>)] = &[
    ("etc/motd", Some("hello")),
    ("bin/tool", Some("tool")),
    ("secret/file", Some("own secret")),
];

const CASES: &[Case] = &[
    Case {
        name: "a redirect to another directory of the image",
        plant: |p| p.redirect("open", b"/secret"),
        outcome: Sees(&[("open/file", None), ("etc/motd", Some("hello"))]),
    },
    Case {
        name: "a redirect to a sibling",
        plant: |p| p.redirect("open", b"secret"),
        outcome: Sees(&[("open/file", None), ("etc/motd", Some("hello"))]),
    },
    Case {
        name: "a redirect out of the image",
        plant: |p| p.redirect("open", b"/../../outside"),
        outcome: Sees(&[("open/file", None), ("etc/motd", Some("hello"))]),
    },
    Case {
        name: "a redirect to a path of the node",
        plant: |p| p.redirect("open", p.node.path("outside").as_os_str().as_encoded_bytes()),
        outcome: Sees(&[("open/file", None), ("etc/motd", Some("hello"))]),
    },
    Case {
        name: "a redirect of what is mounted on",
        plant: |p| p.redirect("etc", b"/secret"),
        outcome: Refused("etc"),
    },
    Case {
        name: "a redirect of the root",
        plant: |p| p.redirect("", b"/../outside"),
        outcome: Sees(IMAGE),
    },
    Case {
        name: "an opaque root",
        plant: |p| p.set("", "opaque", b"y"),
        outcome: Sees(&[]),
    },
    Case {
        name: "an opaque directory",
        plant: |p| {
            p.directory("bin");
            p.set("bin", "opaque", b"y");
        },
        outcome: Sees(&[("bin/tool", None), ("etc/motd", Some("hello"))]),
    },
    Case {
        name: "an opaque file",
        plant: |p| {
            p.file("bin/tool", "changed");
            p.set("bin/tool", "opaque", b"y");
        },
        outcome: Sees(&[("bin/tool", Some("changed")), ("etc/motd", Some("hello"))]),
    },
    Case {
        name: "opaque with a value of no meaning",
        plant: |p| {
            p.directory("bin");
            p.set("bin", "opaque", &[0xff; 200]);
        },
        outcome: Sees(IMAGE),
    },
    Case {
        name: "a file whose content is to come from elsewhere",
        plant: |p| {
            p.file("tool", "");
            p.set("tool", "metacopy", b"");
            p.set("tool", "redirect", b"/secret/file");
        },
        outcome: Sees(&[("tool", None), ("etc/motd", Some("hello"))]),
    },
    Case {
        name: "a file whose content is to come from outside",
        plant: |p| {
            p.file("tool", "");
            p.set("tool", "metacopy", b"");
            p.set("tool", "redirect", b"/../../outside/file");
        },
        outcome: Sees(&[("tool", None), ("etc/motd", Some("hello"))]),
    },
    Case {
        name: "a file whose content is to come from the file below",
        plant: |p| {
            p.file("bin/tool", "");
            p.set("bin/tool", "metacopy", &[0, 4, 0, 0]);
        },
        outcome: Sees(&[("bin/tool", None), ("etc/motd", Some("hello"))]),
    },
    Case {
        name: "files and directories that came from outside",
        plant: |p| {
            p.file("tool", "");
            p.directory("open");
            for path in ["tool", "open", ""] {
                p.set(path, "origin", &p.origin_outside());
            }
        },
        outcome: Sees(&[
            ("tool", Some("")),
            ("open/file", None),
            ("etc/motd", Some("hello")),
        ]),
    },
    Case {
        name: "an origin of no meaning",
        plant: |p| {
            p.file("bin/tool", "changed");
            p.set("bin/tool", "origin", &[0xfb; 60]);
            p.set("", "origin", b"");
        },
        outcome: Sees(&[("bin/tool", Some("changed")), ("etc/motd", Some("hello"))]),
    },
    Case {
        name: "impure everywhere",
        plant: |p| {
            p.file("bin/tool", "changed");
            for path in ["", "bin", "bin/tool"] {
                p.set(path, "impure", b"y");
            }
        },
        outcome: Sees(&[("bin/tool", Some("changed")), ("etc/motd", Some("hello"))]),
    },
    Case {
        name: "everything at once",
        plant: |p| {
            p.directory("open");
            p.file("tool", "");
            for path in ["open", "tool"] {
                p.set(path, "redirect", b"/secret");
                p.set(path, "opaque", b"x");
                p.set(path, "metacopy", b"");
                p.set(path, "impure", b"y");
                p.set(path, "origin", &p.origin_outside());
                p.set(path, "nlink", b"U+9");
                p.set(path, "upper", &p.origin_outside());
                p.set(path, "protattr", b"ia");
                p.set(path, "whiteout", b"");
            }
        },
        outcome: Sees(&[("open/file", None), ("etc/motd", Some("hello"))]),
    },
    Case {
        name: "/etc deleted",
        plant: |p| p.whiteout("etc"),
        // Made again for the mount that the pod has there.
        outcome: Sees(&[("etc/motd", None), ("bin/tool", Some("tool"))]),
    },
    Case {
        name: "/bin deleted",
        plant: |p| p.whiteout("bin"),
        outcome: Sees(&[("bin/tool", None), ("etc/motd", Some("hello"))]),
    },
    Case {
        name: "deleted what never was",
        plant: |p| {
            p.directory("open");
            p.whiteout("open/file");
            p.whiteout("nothing");
        },
        outcome: Sees(&[
            ("open/file", None),
            ("nothing", None),
            ("etc/motd", Some("hello")),
        ]),
    },
    Case {
        name: "/proc deleted",
        plant: |p| p.whiteout("proc"),
        outcome: Sees(IMAGE),
    },
    Case {
        name: "the upper directory is a link",
        plant: |p| p.link("upper"),
        outcome: Refused("cannot open the upper directory"),
    },
    Case {
        name: "the upper directory is a file",
        plant: |p| p.replace("upper", "a file"),
        outcome: Refused("cannot open the upper directory"),
    },
    Case {
        name: "the work directory is a link",
        plant: |p| p.link("work"),
        outcome: Refused("workdir"),
    },
    Case {
        name: "the work directory is a file",
        plant: |p| p.replace("work", "a file"),
        outcome: Refused("workdir"),
    },
    Case {
        name: "links in the work directory",
        plant: |p| {
            for name in ["work", "index"] {
                symlink(p.node.path("outside"), p.kept("work").join(name)).unwrap();
            }
        },
        outcome: Sees(IMAGE),
    },
    Case {
        name: "the work directory is of a file system that may be torn",
        plant: |p| fs::create_dir_all(p.kept("work/work/incompat/volatile")).unwrap(),
        // The kernel says why only there.
        outcome: Refused("kernel's log"),
    },
    Case {
        name: "links in place of what the question for users needs",
        plant: |p| p.link("probe"),
        outcome: Refused("probe"),
    },
];

/// Changes a kept filesystem as root on the node.
struct Planter<'a> {
    node: &'a Node,
}

// === impl Planter ===

impl Planter<'_> {
    fn kept(&self, name: &str) -> PathBuf {
        self.node.path("store").join(&self.node.key).join(name)
    }

    fn directory(&self, path: &str) {
        fs::create_dir_all(self.node.upper(path)).unwrap();
    }

    fn file(&self, path: &str, content: &str) {
        fs::create_dir_all(self.node.upper(path).parent().unwrap()).unwrap();
        fs::write(self.node.upper(path), content).unwrap();
    }

    fn set(&self, path: &str, attribute: &str, value: &[u8]) {
        let name = format!("trusted.overlay.{attribute}");
        setxattr(self.node.upper(path), name, value, XattrFlags::empty()).unwrap();
    }

    fn redirect(&self, path: &str, to: &[u8]) {
        self.directory(path);
        self.set(path, "redirect", to);
    }

    fn whiteout(&self, path: &str) {
        let mode = Mode::empty();
        mknodat(CWD, self.node.upper(path), FileType::CharacterDevice, mode, 0).unwrap();
    }

    /// Puts something else in place of a directory of the kept filesystem.
    fn replace(&self, name: &str, content: &str) {
        let _ = fs::remove_dir_all(self.kept(name));
        fs::write(self.kept(name), content).unwrap();
    }

    fn link(&self, name: &str) {
        let _ = fs::remove_dir_all(self.kept(name));
        symlink(self.node.path("outside"), self.kept(name)).unwrap();
    }

    /// What the kernel itself says in an upper directory of a file that came from outside.
    fn origin_outside(&self) -> Vec<u8> {
        let paths = ["upper", "work", "merged"].map(|name| self.node.path("elsewhere").join(name));
        for path in &paths {
            fs::create_dir_all(path).unwrap();
        }
        let [upper, work, merged] = paths;
        let options = [
            ("lowerdir", self.node.path("outside").display().to_string()),
            ("upperdir", upper.display().to_string()),
            ("workdir", work.display().to_string()),
        ];
        container::attach(container::new_mount("overlay", &options), &merged);
        fs::write(merged.join("file"), "copied up").unwrap();
        rustix::mount::unmount(&merged, rustix::mount::UnmountFlags::DETACH).unwrap();
        let mut origin = [0; 256];
        let length = getxattr(upper.join("file"), "trusted.overlay.origin", &mut origin[..]).unwrap();
        assert!(length > 20, "{length}");
        origin[..length].to_vec()
    }
}

/// Names, owners, times and content of everything below a directory.
fn fingerprint(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    walk(directory, &mut |path, metadata| {
        found.push(format!(
            "{} {:o} {}:{} {} {}.{} {:?}",
            path.display(),
            metadata.mode(),
            metadata.uid(),
            metadata.gid(),
            metadata.nlink(),
            metadata.ctime(),
            metadata.ctime_nsec(),
            metadata.is_file().then(|| fs::read(path).unwrap()),
        ));
    });
    found.sort();
    found
}

fn walk(directory: &Path, see: &mut dyn FnMut(&Path, &fs::Metadata)) {
    see(directory, &fs::symlink_metadata(directory).unwrap());
    // What cannot be looked at shows nothing.
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(metadata) = fs::symlink_metadata(entry.path()) else {
            continue;
        };
        if metadata.is_dir() {
            walk(&entry.path(), see);
        } else {
            see(&entry.path(), &metadata);
        }
    }
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let _ = write!(text, ": {error}");
        next = error.source();
    }
    text
}

/// A node with a kept filesystem, and a directory beside it that a container must not see.
fn with_outside(test: impl FnOnce(&Node) + Send) {
    Node::with(|node| {
        fs::create_dir_all(node.path("outside/work")).unwrap();
        fs::create_dir_all(node.path("outside/upper")).unwrap();
        for file in ["file", "work/file", "upper/file", "passwd"] {
            fs::write(node.path("outside").join(file), SECRET).unwrap();
        }
        drop(node.kept());
        test(node);
    });
}

#[test]
fn h15_a_hostile_upper_directory_shows_nothing_and_touches_nothing() {
    for case in CASES {
        with_outside(|node| {
            let base = node.layer("base", IMAGE);
            let provider = node.provider(&[&base]);
            let store = rootfs::Store::open(&node.root(), &node.path("store"))
                .unwrap()
                .unwrap();
            (case.plant)(&Planter { node });
            let outside = [node.path("outside"), base.clone()];
            let before = outside.each_ref().map(|path| fingerprint(path));
            let mut consumer = node.consumer("consumer").start();
            let kept = store.get(&node.key).unwrap().unwrap();
            let result = node.attach_to(&kept, &provider, &consumer);
            match (&case.outcome, result) {
                (Sees(files), Ok(_)) => {
                    for (path, content) in *files {
                        let seen = consumer.read(&format!("/{path}")).ok();
                        assert_eq!(seen.as_deref(), *content, "{}: {path}", case.name);
                    }
                    let root = PathBuf::from(format!("/proc/{}/root", consumer.process.id()));
                    // On some kernels a directory cannot be listed, or looked at, for what was
                    // planted.
                    for entry in fs::read_dir(&root).into_iter().flatten().flatten() {
                        let path = entry.path();
                        if ["proc", "dev"].iter().any(|name| path.ends_with(name)) {
                            continue;
                        }
                        if fs::symlink_metadata(&path).is_err() {
                            continue;
                        }
                        walk(&path, &mut |path, metadata| {
                            let content = metadata.is_file().then(|| fs::read(path).unwrap_or_default());
                            assert!(
                                content.is_none_or(|content| content != SECRET.as_bytes()),
                                "{}: {}",
                                case.name,
                                path.display()
                            );
                        });
                    }
                }
                (Refused(words), Err(error)) => {
                    let text = chain(&error);
                    println!("{}: {text}", case.name);
                    assert!(text.contains(words), "{}: {text}", case.name);
                    assert_eq!(
                        consumer.read("/exec-wrapper").as_deref(),
                        Ok("wrapper"),
                        "it is as it was"
                    );
                }
                (Sees(_), Err(error)) => panic!("{}: {}", case.name, chain(&error)),
                (Refused(_), Ok(_)) => panic!("{}: it started", case.name),
            }
            consumer.end();
            let after = outside.each_ref().map(|path| fingerprint(path));
            assert_eq!(after, before, "{}", case.name);
        });
    }
}

/// This includes the dialects that pass paths to the kernel, which follows links in them.
#[test]
fn h15_no_dialect_follows_a_link_in_place_of_a_directory() {
    for api in LOWERDIR_APIS.into_iter().filter(|api| kernel::knows(*api)) {
        for name in ["upper", "work"] {
            with_outside(|node| {
                let layer = overlays::open(&node.layer("base", IMAGE));
                (Planter { node }).link(name);
                let before = fingerprint(&node.path("outside"));
                let result = overlays::read(node, &[layer], api, "file");
                let text = chain(&result.unwrap_err());
                assert!(
                    text.contains(&format!("{name}dir: Too many levels of symbolic links")),
                    "{api:?}: {text}"
                );
                assert_eq!(fingerprint(&node.path("outside")), before, "{api:?} {name}");
            });
        }
    }
}
