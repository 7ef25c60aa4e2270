use std::path::Path;

use super::*;

const CONTAINER: &[u8] = b"\
520 410 0:55 / / ro,relatime - overlay overlay rw,lowerdir=/var/l/2/fs:/var/l/1/fs,upperdir=/var/l/3/fs,workdir=/var/l/3/work\n\
521 520 0:60 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw\n\
522 520 0:61 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755\n\
523 522 0:62 / /dev/pts rw,nosuid,noexec - devpts devpts rw,gid=5\n\
524 520 254:0 /pods/x/hosts /etc/hosts rw,relatime shared:7 master:3 propagate_from:2 - ext4 /dev/vda rw\n";

#[test]
fn reads_what_the_kernel_prints() {
    let table = Table::parse(CONTAINER).unwrap();
    let root = table.root().unwrap();
    assert_eq!(root.id, 520);
    assert!(root.flags.read_only && !root.flags.no_suid);
    assert_eq!(
        root.super_option("upperdir").collect::<Vec<_>>(),
        [b"/var/l/3/fs"]
    );
    let children: Vec<_> = table.children(520).map(|m| m.mountpoint.as_path()).collect();
    assert_eq!(
        children,
        [Path::new("/proc"), Path::new("/dev"), Path::new("/etc/hosts")]
    );
    let hosts = &table.mounts()[4];
    assert_eq!(
        hosts.propagation,
        Propagation {
            shared: Some(7),
            master: Some(3),
            unbindable: false
        }
    );
}

#[test]
fn h9_names_with_blanks_line_feeds_and_backslashes_are_exact() {
    let line = b"7 1 0:5 / /a\\040b\\012c\\134\\011d rw - tmpfs a\\040b rw,lowerdir+=/x\\054y\\075\n";
    let table = Table::parse(line).unwrap();
    let mount = &table.mounts()[0];
    assert_eq!(mount.mountpoint, Path::new("/a b\nc\\\td"));
    assert_eq!(mount.source, "a b");
    assert_eq!(mount.super_option("lowerdir+").collect::<Vec<_>>(), [b"/x,y="]);
}

#[test]
fn an_escape_that_is_none_stays() {
    assert_eq!(unescape(b"\\9\\04\\400\\"), b"\\9\\04\\400\\");
}

#[test]
fn an_empty_source_is_read() {
    let table = Table::parse(b"7 1 0:5 / /a rw -  tmpfs rw\n");
    // The type is then the empty string, the source `tmpfs`: odd, but no mount is overlooked.
    assert_eq!(table.unwrap().mounts().len(), 1);
}

#[test]
fn a_line_that_is_not_understood_is_an_error() {
    for line in [
        &b"7 1 0:5 / /a rw shared:1"[..],
        b"x 1 0:5 / /a rw - tmpfs t rw",
        b"7 1 0:5",
        b"7 1 0:5 / /a rw shared:x - t t rw",
    ] {
        assert!(
            matches!(Table::parse(line), Err(TableError::Line(1))),
            "{}",
            line.escape_ascii()
        );
    }
}

#[test]
fn the_root_is_the_topmost_mount_at_slash() {
    // As left by a pivot that was interrupted: the old root lies on the new one.
    let table = Table::parse(
        b"10 5 0:1 / / rw - overlay overlay rw\n30 4 0:2 / / rw - overlay stoppablecontainer rw\n31 30 0:3 / /proc rw - proc proc rw\n",
    );
    assert_eq!(table.unwrap().root().unwrap().id, 30);
    let table =
        Table::parse(b"30 4 0:2 / / rw - overlay stoppablecontainer rw\n10 30 0:1 / / rw - overlay o rw\n");
    assert_eq!(table.unwrap().root().unwrap().id, 10);
}

#[test]
fn a_kept_root_is_told_by_type_and_source() {
    let table = Table::parse(
        b"1 0 0:1 / / rw - overlay stoppablecontainer rw\n2 1 0:2 / /a rw - tmpfs stoppablecontainer rw\n",
    );
    let table = table.unwrap();
    assert!(table.mounts()[0].is_kept_root());
    assert!(!table.mounts()[1].is_kept_root());
}

/// As containerd mounts the root of a container on a node with SELinux; a path that looks like the
/// option is none.
fn file(content: &[u8]) -> OwnedFd {
    use std::io::{Seek, SeekFrom, Write};
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.into()
}

#[test]
fn one_by_one_they_are_the_mounts_of_the_table() {
    let one_by_one = mounts(file(CONTAINER)).collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!(one_by_one, Table::parse(CONTAINER).unwrap().mounts());
    let wrong = [CONTAINER, b"520 410\n", CONTAINER].concat();
    assert!(matches!(
        mounts(file(&wrong)).nth(5),
        Some(Err(TableError::Line(6)))
    ));
    assert!(mounts(file(b"")).next().is_none());
    let cut_off = lines(file(b"one\ntwo")).collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!(cut_off, [b"one", b"two"]);
}

/// A container may have very many mounts. A search for one of them keeps one line in memory.
#[test]
fn h9_a_table_of_any_size_is_read_one_by_one() {
    let long = [
        b"7 1 0:5 / /a rw - tmpfs x ".as_slice(),
        &vec![b'o'; 8 << 20],
        b"\n",
    ]
    .concat();
    let table = [long.repeat(9).as_slice(), CONTAINER].concat();
    assert!(matches!(Table::read(file(&table)), Err(TableError::TooLarge)));
    let found = lines(file(&table)).find(|line| line.as_ref().unwrap().starts_with(b"520 "));
    assert!(found.is_some());
    let mut endless = lines(file(&vec![b'x'; 20 << 20]));
    assert!(matches!(endless.next(), Some(Err(TableError::LongLine))));
    assert!(endless.next().is_none());
}

#[test]
fn the_context_of_a_containers_root() {
    let context = |options: &str| {
        let line = format!("1 0 0:50 / / rw - overlay overlay {options}\n");
        Table::parse(line.as_bytes()).unwrap().root().unwrap().context()
    };
    let label = "system_u:object_r:container_file_t:s0:c1,c2";
    assert_eq!(
        context(&format!("rw,context=\"{label}\",lowerdir=/l")).as_deref(),
        Some(label)
    );
    assert_eq!(
        context("context=u:o:t:s0,lowerdir=/l").as_deref(),
        Some("u:o:t:s0")
    );
    assert_eq!(context("rw,lowerdir=/context=x,rootcontext=y"), None);
    assert_eq!(context("rw"), None);
}

#[test]
fn h25_a_table_takes_a_bounded_part_of_memory() {
    let file = tempfile::tempfile().unwrap();
    file.set_len((16 << 20) + 1).unwrap();
    assert!(matches!(Table::read(file.into()), Err(TableError::TooLarge)));
}
