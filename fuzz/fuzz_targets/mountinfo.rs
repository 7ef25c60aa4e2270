//! Mount tables, in which mountpoints and sources are whatever a container called them: a table or
//! an error, and nothing of one line becomes part of another.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rootfs::table::Table;

fuzz_target!(|text: &[u8]| {
    let Ok(table) = Table::parse(text) else {
        return;
    };
    let lines = text
        .split(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
        .count();
    assert_eq!(table.mounts().len(), lines);
    let root = table.root().map(|mount| mount.id);
    for mount in table.mounts() {
        assert!(table.children(mount.id).count() <= lines);
        let options = mount.super_options.split(|b| *b == b',').count();
        for option in ["lowerdir", "lowerdir+", "upperdir", "workdir"] {
            assert!(mount.super_option(option).count() <= options);
        }
    }
    assert!(root.is_none_or(|id| table.mounts().iter().any(|mount| mount.id == id)));
});
