/*!
F20: a prefix that was made is there after a power cut, and with it what was synced in it.

Most file systems write the whole way to a file that is synced, but none has to. So strace(1) looks
at what is asked of them.
*/

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use rootfs::{Root, Store};

const PREFIX: &str = "DURABLE_PREFIX";

/// What strace looks at. Not a test: the test below starts it.
#[test]
#[ignore = "runs under the eyes of a test"]
fn inside() {
    if let Ok(prefix) = std::env::var(PREFIX) {
        Store::create(&Root::of_this_thread().unwrap(), Path::new(&prefix)).unwrap();
    }
}

#[test]
fn f20_every_directory_on_the_way_to_a_prefix_is_synced_into_its_parent() {
    let top = tempfile::tempdir().unwrap();
    fs::create_dir(top.path().join("there")).unwrap();
    // What a link points at and is missing is made as well.
    symlink(top.path().join("elsewhere/target"), top.path().join("there/link")).unwrap();
    let prefix = top.path().join("there/link/a/prefix");
    let trace = top.path().join("trace");
    let run = || {
        let output = Command::new("strace")
            .args(["-f", "-y", "-qq", "-e", "trace=mkdirat,fsync", "-o"])
            .arg(&trace)
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "durable_prefix::inside", "--ignored"])
            .env(PREFIX, &prefix)
            .output()
            .expect("strace is needed: `cargo xtask test` installs it");
        assert!(output.status.success(), "{output:?}");
        fs::read_to_string(&trace).unwrap()
    };
    let calls = run();
    let made: Vec<_> = calls.match_indices("mkdirat(").collect();
    assert_eq!(made.len(), 4, "{calls}");
    // The descriptor of a call, as strace writes it: 3</path>.
    let path = |call: &str| {
        call.split_once('<')
            .unwrap()
            .1
            .split_once('>')
            .unwrap()
            .0
            .to_owned()
    };
    let synced_after = |at: usize, directory: &str| {
        let later = calls[at..].lines().filter(|line| line.contains("fsync("));
        later
            .into_iter()
            .any(|line| path(line) == directory && line.ends_with("= 0"))
    };
    for (at, _) in made {
        assert!(synced_after(at, &path(&calls[at..])), "{calls}");
    }
    let real = fs::canonicalize(&prefix).unwrap();
    assert!(synced_after(0, real.to_str().unwrap()), "{calls}");
    // Where nothing is made, nothing above is asked of file systems that may not do it.
    let calls = run();
    assert_eq!(
        calls.lines().filter(|line| line.contains("fsync(")).count(),
        1,
        "{calls}"
    );
    assert!(!calls.contains("mkdirat"), "{calls}");
}
