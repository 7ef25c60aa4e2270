//! Round trips of trees, and archives that do not come from us.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use kept_files::frame;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tar::{EntryType, Header};

use crate::pack::{PackError, Source, pack};
use crate::unpack::{Keep, Target, UnpackError, unpack};
use crate::{Tally, Watch, base_name};

#[derive(Default)]
struct Notes(Vec<String>, Option<u64>);

impl Watch for Notes {
    fn progress(&mut self, tally: Tally) {
        if let Some(left) = &mut self.1 {
            *left = left
                .min(&mut u64::MAX.saturating_sub(tally.bytes))
                .saturating_sub(1);
        }
    }

    fn note(&mut self, text: String) {
        self.0.push(text);
    }

    fn is_stopped(&self) -> bool {
        self.1 == Some(0)
    }
}

fn keep() -> Keep {
    let root = rustix::process::geteuid().is_root();
    Keep {
        owners: root,
        modes: true,
        set_id: true,
        special: true,
    }
}

fn packed(path: &Path) -> Vec<u8> {
    let mut stream = Vec::new();
    pack(Source::open(path).unwrap(), &mut stream, &mut Notes::default()).unwrap();
    stream
}

fn unpacked(stream: &[u8], to: &Path, base: Option<&str>) -> Result<Tally, UnpackError> {
    let target = Target::open(to, base.map(str::as_bytes))?;
    unpack(target, stream, keep(), &mut Notes::default())
}

fn left_overs(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name());
    names
        .filter(|name| name.as_bytes().starts_with(b".stopc-cp-"))
        .count()
}

#[test]
fn a_tree_comes_back_with_all_that_belongs_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir_all(from.join("a/locked")).unwrap();
    fs::write(from.join("a/locked/file"), "content").unwrap();
    fs::write(from.join("a/empty"), "").unwrap();
    fs::hard_link(from.join("a/locked/file"), from.join("a/other")).unwrap();
    symlink("./locked//file", from.join("a/link")).unwrap();
    symlink("x/".repeat(150), from.join("a/long link")).unwrap();
    mknodat(CWD, from.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let raw = OsStr::from_bytes(b"\xff\xfe\n");
    fs::write(from.join(raw), "raw").unwrap();
    let deep = from.join("d".repeat(200)).join("e".repeat(200));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("f".repeat(255)), "deep").unwrap();
    let set_id = from.join("a/set-id");
    fs::write(&set_id, "x").unwrap();
    if keep().owners {
        std::os::unix::fs::chown(&set_id, Some(1234), Some(3_000_000)).unwrap();
    }
    fs::set_permissions(&set_id, fs::Permissions::from_mode(0o4755)).unwrap();
    fs::set_permissions(from.join("a/locked"), fs::Permissions::from_mode(0o555)).unwrap();
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    fs::File::open(from.join("a/locked"))
        .unwrap()
        .set_modified(old)
        .unwrap();

    let to = dir.path().join("to");
    let tally = unpacked(&packed(&from), &to, Some("from")).unwrap();
    assert_eq!(tally.files, 9);
    let stat = |path: &str| fs::symlink_metadata(to.join(path)).unwrap();
    assert_eq!(fs::read(to.join("a/other")).unwrap(), b"content");
    assert_eq!(stat("a/other").ino(), stat("a/locked/file").ino());
    assert_eq!(
        fs::read_link(to.join("a/link")).unwrap().as_os_str(),
        "./locked//file"
    );
    assert_eq!(
        fs::read_link(to.join("a/long link")).unwrap().as_os_str(),
        OsStr::new(&"x/".repeat(150))
    );
    assert_eq!(stat("fifo").mode() & 0o170_777, 0o010_400);
    assert_eq!(fs::read(to.join(raw)).unwrap(), b"raw");
    let deep = to
        .join("d".repeat(200))
        .join("e".repeat(200))
        .join("f".repeat(255));
    assert_eq!(fs::read(deep).unwrap(), b"deep");
    assert_eq!(stat("a/locked").mode() & 0o7777, 0o555);
    assert_eq!(stat("a/locked").mtime(), 1_000_000_000);
    if keep().owners {
        assert_eq!(stat("a/set-id").mode() & 0o7777, 0o4755);
        assert_eq!(
            (stat("a/set-id").uid(), stat("a/set-id").gid()),
            (1234, 3_000_000)
        );
    }
    // Once more over it, into the directory that exists now.
    unpacked(&packed(&from.join(".")), &to, None).unwrap();
    assert_eq!(left_overs(&to.join("a")), 0);
}

#[test]
fn a_hole_stays_a_hole() {
    let dir = tempfile::tempdir().unwrap();
    for (parts, size) in [(1_u64, 1_u64 << 30), (40, 64 << 20), (0, 64 << 20), (1, 4096 + 7)] {
        let from = dir.path().join("sparse");
        let file = fs::File::create(&from).unwrap();
        for part in 0..parts {
            let at = part * (1 << 20) + 3;
            std::os::unix::fs::FileExt::write_all_at(&file, format!("part {part}").as_bytes(), at).unwrap();
        }
        file.set_len(size).unwrap();
        let stream = packed(&from);
        assert!(stream.len() < 1 << 20, "{} bytes are sent", stream.len());
        let to = dir.path().join("to");
        unpacked(&stream, &to, None).unwrap();
        let stat = fs::metadata(&to).unwrap();
        assert_eq!(stat.len(), size);
        assert!(stat.blocks() * 512 < 8 << 20, "{} blocks", stat.blocks());
        let file = fs::File::open(&to).unwrap();
        for part in 0..parts {
            let expected = format!("part {part}");
            let mut found = vec![0; expected.len()];
            std::os::unix::fs::FileExt::read_exact_at(&file, &mut found, part * (1 << 20) + 3).unwrap();
            assert_eq!(found, expected.as_bytes());
        }
    }
}

#[test]
fn the_destination_is_that_of_cp() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("file"), "1").unwrap();
    fs::create_dir(path("dir")).unwrap();
    let stream = packed(&path("file"));
    unpacked(&stream, &path("dir"), Some("file")).unwrap();
    assert_eq!(fs::read(path("dir/file")).unwrap(), b"1");
    unpacked(&stream, &path("new"), Some("file")).unwrap();
    assert_eq!(fs::read(path("new")).unwrap(), b"1");
    // A link is replaced, and what it leads to stays.
    symlink(path("file"), path("link")).unwrap();
    fs::write(path("dir/file"), "2").unwrap();
    unpacked(&packed(&path("dir/file")), &path("link"), Some("file")).unwrap();
    assert_eq!(fs::read(path("link")).unwrap(), b"2");
    assert_eq!(fs::read(path("file")).unwrap(), b"1");
    for wrong in ["none/new", "new2/", "file/x"] {
        let error = unpacked(&stream, &path(wrong), Some("file")).unwrap_err();
        assert!(matches!(error, UnpackError::Write { .. }), "{wrong}: {error}");
    }
    let error = unpacked(&packed(&path("dir")), &path("file"), None).unwrap_err();
    assert!(
        error.to_string().contains("something else than a directory"),
        "{error}"
    );
    assert!(matches!(Source::open(&path("none")), Err(PackError::Open { .. })));
    for (path, expected) in [
        ("/a/b/", Some("b")),
        ("b", Some("b")),
        ("/", None),
        ("a/.", None),
        ("..", None),
        ("", None),
    ] {
        assert_eq!(base_name(path.as_bytes()), expected.map(str::as_bytes), "{path}");
    }
}

#[test]
fn a_stream_that_is_cut_off_anywhere_is_an_error_and_leaves_no_part_of_a_file() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("from")).unwrap();
    fs::write(dir.path().join("from/file"), vec![7; 3000]).unwrap();
    let stream = packed(&dir.path().join("from"));
    for length in (0..stream.len()).step_by(97).chain([stream.len() - 1]) {
        let to = dir.path().join(format!("to{length}"));
        let error = unpacked(&stream[..length], &to, None).unwrap_err();
        assert!(matches!(error, UnpackError::Incomplete(_)), "{length}: {error}");
        if to.exists() {
            assert_eq!(left_overs(&to), 0, "{length}");
            let whole = fs::read(to.join("file")).is_ok_and(|content| content.len() == 3000);
            assert!(whole || !to.join("file").exists(), "{length}");
        }
    }
}

#[test]
fn an_interrupted_copy_leaves_no_part_of_a_file() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), vec![7; 1 << 20]).unwrap();
    let stream = packed(&dir.path().join("file"));
    let to = tempfile::tempdir().unwrap();
    let target = Target::open(to.path(), Some(b"file")).unwrap();
    let mut watch = Notes(Vec::new(), Some(4));
    let error = unpack(target, &stream[..], keep(), &mut watch).unwrap_err();
    assert!(matches!(error, UnpackError::Stopped), "{error}");
    assert_eq!(fs::read_dir(to.path()).unwrap().count(), 0);
}

#[test]
fn without_owners_the_bits_that_depend_on_them_are_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::write(&from, "x").unwrap();
    fs::set_permissions(&from, fs::Permissions::from_mode(0o6755)).unwrap();
    mknodat(CWD, dir.path().join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let local = Keep {
        owners: false,
        modes: true,
        set_id: true,
        special: false,
    };
    let mut notes = Notes::default();
    let target = Target::open(&dir.path().join("to"), None).unwrap();
    unpack(target, &packed(&from)[..], local, &mut notes).unwrap();
    let mode = fs::metadata(dir.path().join("to")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o755);
    let target = Target::open(&dir.path().join("to2"), None).unwrap();
    let tally = unpack(target, &packed(&dir.path().join("fifo"))[..], local, &mut notes).unwrap();
    assert_eq!(tally.files, 0);
    assert!(
        notes.0[0].ends_with("to2 is a FIFO and is not copied"),
        "{:?}",
        notes.0
    );
}

/// An entry with a name that the library would not write.
fn entry(kind: EntryType, name: &[u8], link: &[u8], data: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(data.len() as u64);
    header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name);
    header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn framed(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut frames = frame::Writer::new(Vec::new());
    frames.write_all(&entries.concat()).unwrap();
    frames.write_all(&[0; 1024]).unwrap();
    frames.finish().unwrap()
}

/// Nothing outside of the destination changes, whatever the archive says.
#[test]
fn h9_hostile_archives_do_not_leave_the_destination() {
    let regular = |name: &[u8]| entry(EntryType::Regular, name, b"", b"evil");
    let top = || entry(EntryType::Directory, b"top", b"", b"");
    let huge = {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::GNULongName);
        header.set_size(1 << 40);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.resize(4 << 20, b'a');
        bytes
    };
    let archives: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("parent", vec![top(), regular(b"top/../../outside/file")]),
        ("parent at the top", vec![regular(b"../outside/file")]),
        ("absolute", vec![regular(b"/tmp/top/file")]),
        ("another top", vec![regular(b"file")]),
        ("empty name", vec![top(), regular(b"top//file")]),
        ("dot", vec![top(), regular(b"top/./file")]),
        (
            "through a link",
            vec![
                top(),
                entry(EntryType::Symlink, b"top/link", b"../outside", b""),
                regular(b"top/link/file"),
            ],
        ),
        (
            "the top is a link",
            vec![
                entry(EntryType::Symlink, b"top", b"../outside", b""),
                regular(b"top/file"),
            ],
        ),
        (
            "a directory over a link",
            vec![
                top(),
                entry(EntryType::Symlink, b"top/link", b"../outside", b""),
                entry(EntryType::Directory, b"top/link", b"", b""),
            ],
        ),
        (
            "hard link outside",
            vec![
                top(),
                entry(EntryType::Link, b"top/file", b"../outside/file", b""),
            ],
        ),
        (
            "hard link through a link",
            vec![
                top(),
                entry(EntryType::Symlink, b"top/link", b"../outside", b""),
                entry(EntryType::Link, b"top/file", b"top/link/file", b""),
            ],
        ),
        (
            "hard link to a link",
            vec![
                top(),
                entry(EntryType::Symlink, b"top/link", b"../outside/file", b""),
                entry(EntryType::Link, b"top/file", b"top/link", b""),
            ],
        ),
        (
            "hard link to what was there",
            vec![top(), entry(EntryType::Link, b"top/file", b"top/before", b"")],
        ),
        (
            "unknown type",
            vec![top(), entry(EntryType::new(b'V'), b"top/file", b"", b"")],
        ),
        ("a name without end", vec![huge]),
        ("noise", vec![vec![b'x'; 2048]]),
    ];
    for (what, entries) in archives {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("outside")).unwrap();
        fs::create_dir_all(dir.path().join("to")).unwrap();
        fs::write(dir.path().join("outside/file"), "before").unwrap();
        fs::write(dir.path().join("to/before"), "before").unwrap();
        let outcome = unpacked(&framed(&entries), &dir.path().join("to"), None);
        assert!(outcome.is_err(), "{what} was accepted");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "{what}");
        let outside = fs::metadata(dir.path().join("outside/file")).unwrap();
        assert_eq!((outside.nlink(), outside.len()), (1, 6), "{what}");
        assert_eq!(
            fs::read_dir(dir.path().join("outside")).unwrap().count(),
            1,
            "{what}"
        );
        assert_eq!(
            fs::metadata(dir.path().join("to/before")).unwrap().nlink(),
            1,
            "{what}"
        );
    }
}

#[test]
fn a_file_replaces_a_link_and_is_not_written_through_it() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("to")).unwrap();
    fs::write(dir.path().join("outside"), "before").unwrap();
    let entries = [
        entry(EntryType::Directory, b"top", b"", b""),
        entry(EntryType::Symlink, b"top/file", b"../outside", b""),
        entry(EntryType::Regular, b"top/file", b"", b"mine"),
    ];
    unpacked(&framed(&entries), &dir.path().join("to"), None).unwrap();
    assert_eq!(fs::read(dir.path().join("outside")).unwrap(), b"before");
    assert_eq!(fs::read(dir.path().join("to/file")).unwrap(), b"mine");
}

#[test]
fn what_cannot_be_read_is_an_error_after_the_rest() {
    if rustix::process::geteuid().is_root() {
        // Root reads everything, but not a directory that is too deep.
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        fs::create_dir_all(from.join("d/".repeat(crate::MAX_DEPTH + 3))).unwrap();
        fs::write(from.join("file"), "x").unwrap();
        let mut stream = Vec::new();
        let packed = pack(Source::open(&from).unwrap(), &mut stream, &mut Notes::default());
        assert!(
            matches!(packed, Err(PackError::Unreadable { count: 1, .. })),
            "{packed:?}"
        );
        let error = unpacked(&stream, &dir.path().join("to"), None).unwrap_err();
        assert!(
            error.to_string().starts_with("1 of the files could not be read"),
            "{error}"
        );
        assert_eq!(fs::read(dir.path().join("to/file")).unwrap(), b"x");
    }
}
