use super::*;

fn plan(table: &str) -> Plan {
    Plan::new(&Table::parse(table.as_bytes()).unwrap()).unwrap()
}

fn paths(plan: &Plan) -> Vec<&str> {
    plan.moves.iter().map(|m| m.path.to_str().unwrap()).collect()
}

#[test]
fn children_of_the_root_move_and_take_what_is_below_them() {
    let plan = plan(
        "10 4 0:1 / / rw,nosuid - overlay overlay rw\n11 10 0:2 / /proc rw - proc proc rw\n12 11 0:3 / /proc/acpi ro - tmpfs t rw\n\
         13 10 0:4 / /data rw - ext4 /dev/a rw\n14 13 0:5 / /data/deep rw - ext4 /dev/b rw\n15 10 0:6 /f /etc/hosts rw - ext4 /dev/a rw\n",
    );
    assert_eq!(paths(&plan), ["/proc", "/data", "/etc/hosts"]);
    assert!(plan.flags.no_suid && !plan.flags.read_only);
    assert_eq!(
        plan.moves.iter().map(|m| m.real_directory).collect::<Vec<_>>(),
        [true, false, false]
    );
}

#[test]
fn what_a_later_mount_covers_stays_behind() {
    let plan = plan(
        "10 4 0:1 / / rw - overlay o rw\n11 10 0:2 / /a/b rw - tmpfs t rw\n12 10 0:3 / /a rw - tmpfs t rw\n13 10 0:3 / /ab rw - tmpfs t rw\n",
    );
    assert_eq!(paths(&plan), ["/a", "/ab"]);
}

#[test]
fn a_table_without_root_has_no_plan() {
    assert_eq!(
        Plan::new(&Table::parse(b"11 10 0:2 / /a rw - tmpfs t rw\n").unwrap()),
        None
    );
}

/// A file system that asks another process or machine is known wherever it is mounted, and /proc
/// too.
#[test]
fn i18_file_systems_that_ask_a_server_are_known_by_their_devices() {
    let plan = plan(
        "10 4 0:1 / / rw - overlay o rw\n11 10 0:2 / /proc rw - proc proc rw\n12 10 0:3 / /data rw - fuse.sshfs x rw\n\
         13 12 0:4 / /data/deep rw - nfs4 x rw\n14 10 8:1 / /disk rw - ext4 /dev/a rw\n",
    );
    assert_eq!(plan.procs, [(0, 2)]);
    assert_eq!(
        plan.foreign,
        [((0, 3), "fuse.sshfs".into()), ((0, 4), "nfs4".into())]
    );
    assert!(plan.is_mounted("/data/a/b".as_ref()) && !plan.is_mounted("/dat".as_ref()));
}
