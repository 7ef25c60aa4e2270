use super::*;
use crate::table::Table;

fn of(options: &str) -> Option<Named> {
    let line = format!("5 1 0:9 / / rw - overlay overlay rw,{options}\n");
    named(&Table::parse(line.as_bytes()).unwrap().mounts()[0])
}

fn paths(names: &[&str]) -> Vec<PathBuf> {
    names.iter().map(PathBuf::from).collect()
}

#[test]
fn layers_come_topmost_first() {
    let named = of("lowerdir=/s/3/fs:/s/2/fs,upperdir=/s/4/fs,workdir=/s/4/work").unwrap();
    assert_eq!(named.lower, paths(&["/s/3/fs", "/s/2/fs"]));
    assert_eq!(named.upper, Some("/s/4/fs".into()));
}

#[test]
fn layers_that_were_added_one_by_one() {
    assert_eq!(
        of("lowerdir+=/a,lowerdir+=/b:c,upperdir=/u").unwrap().lower,
        paths(&["/a", "/b:c"])
    );
}

#[test]
fn h9_colons_commas_and_backslashes_in_layers() {
    // The kernel escapes the comma for mountinfo; the process that mounted escaped the
    // colon and the backslash.
    assert_eq!(
        of(r"lowerdir=/a\134:b:/c\054d\134\134e").unwrap().lower,
        paths(&["/a:b", r"/c,d\e"])
    );
}

#[test]
fn what_cannot_be_mounted_again_is_no_list_of_layers() {
    assert_eq!(of("upperdir=/u"), None);
    assert_eq!(of("lowerdir=/a::/data"), None);
    assert_eq!(
        of("lowerdir=3:6:7,upperdir=/s/overlay/5e/diff"),
        None,
        "descriptors"
    );
    assert!(of("lowerdir=3/fs:6/fs,upperdir=/s/snapshots/7/fs").is_some());
    assert_eq!(of("lowerdir+=/a,datadir+=/b"), None);
    let line = b"5 1 0:9 / / rw - ext4 /dev/vda rw,lowerdir=/a\n";
    assert_eq!(named(&Table::parse(line).unwrap().mounts()[0]), None);
}
