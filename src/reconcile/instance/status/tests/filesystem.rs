//! The messages about the filesystem.

use stoppablecontainer_api::Phase;

use super::*;

fn failed(owners: &Value) -> Observed {
    with_provider(json!({
        "metadata": { "ownerReferences": owners },
        "status": { "filesystem": {
            "state": "Failed", "reason": "ImageChanged", "message": "another image",
            "recovery": { "id": "0123abcd", "verbs": ["accept", "reset"] },
        }},
    }))
}

#[test]
fn i12_a_failure_says_what_to_type_for_each_way_out() {
    let status = status(&failed(&Value::Null), now());
    assert_eq!(status.phase, Some(Phase::Failed));
    assert_eq!(
        message(&status, FILESYSTEM_READY),
        "another image. To use the files that are there, on the present image: kubectl annotate --overwrite -n team \
         stoppablecontainerinstance web stoppablecontainer.xtlsoft.top/recovery=accept-0123abcd. To DELETE all files \
         and begin with the present image, once it is stopped: kubectl annotate --overwrite -n team stoppablecontainerinstance web \
         stoppablecontainer.xtlsoft.top/recovery=reset-0123abcd"
    );
    let owner = json!([{
        "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainer", "name": "web",
        "uid": "u", "controller": true,
    }]);
    let status = super::status(&failed(&owner), now());
    assert!(
        message(&status, FILESYSTEM_READY).contains(" stoppablecontainer web "),
        "it is typed for the object that the user wrote: {status:?}"
    );
}

#[test]
fn i12_a_filesystem_over_its_limit_is_reported_in_the_kubelets_words_with_what_to_do() {
    let too_large = |running| {
        with_provider(json!({
            "spec": { "running": running, "template": { "spec": { "containers": [{
                "name": "main", "image": "nginx:1.25", "resources": { "limits": { "ephemeral-storage": "1M" } },
            }]}}},
            "status": { "filesystem": {
                "usage": { "bytes": 2_000_000, "inodes": 10 }, "recovery": { "id": "0123abcd", "verbs": ["reset"] },
            }},
        }))
    };
    let wanted = status(&too_large(true), now());
    assert_eq!(wanted.phase, Some(Phase::Failed));
    assert_eq!(
        reasons(&wanted),
        ["-Evicted", "+AsRequested", "+AsRequested", "-Evicted"]
    );
    let words = message(&wanted, CONSUMER_READY);
    assert!(
        words.starts_with("Container main exceeded its local ephemeral storage limit \"1M\". The files are kept and take 2000000 bytes;"),
        "{words}"
    );
    assert!(
        words.contains("limit (resources.limits.ephemeral-storage) is raised"),
        "{words}"
    );
    assert!(words.ends_with("recovery=reset-0123abcd"), "{words}");
    let stopped = status(&too_large(false), now());
    assert_eq!(
        stopped.phase,
        Some(Phase::Stopped),
        "nothing is in the way of what is wished"
    );
}

#[test]
fn f22_a_disk_that_is_nearly_full_is_a_warning_and_no_more() {
    let change = json!({ "status": { "filesystem": { "diskLow": "node n1 has less than 5% free" } } });
    let status = status(&with_both(change, up()), now());
    assert_eq!(status.phase, Some(Phase::Running));
    assert_eq!(
        reasons(&status),
        ["+AsRequested", "+AsRequested", "+DiskLow", "+AsRequested"]
    );
    assert_eq!(
        message(&status, FILESYSTEM_READY),
        "node n1 has less than 5% free"
    );
}

/// Whatever becomes of the disk's fill level, it is the lesser news.
#[test]
fn i7_a_write_that_failed_is_reported_and_does_not_prevent_a_start() {
    let failed = json!({ "podUid": "old", "message": "the disk did not take all" });
    let change =
        json!({ "status": { "filesystem": { "diskLow": "less than 5% free", "writeFailed": failed } } });
    let status = status(&with_both(change, up()), now());
    assert_eq!(status.phase, Some(Phase::Running));
    assert_eq!(
        reasons(&status),
        ["+AsRequested", "+AsRequested", "+WriteFailed", "+AsRequested"]
    );
    assert_eq!(message(&status, FILESYSTEM_READY), "the disk did not take all");
}

/// What keeps the node agent from its work stands in the condition, and not in its log alone.
#[test]
fn i12_what_the_node_agent_waits_for_is_reported() {
    let message = |change: Value| {
        let status = status(&with_both(change, up()), now());
        format!(
            "{} {}",
            reasons(&status)[2],
            self::message(&status, FILESYSTEM_READY)
        )
    };
    let hangs = json!({ "status": { "filesystem": { "state": "Preparing", "message": "the disk hangs" } } });
    assert_eq!(
        message(hangs),
        "-Preparing waiting for the node agent on node n1: the disk hangs"
    );
    let mut refused = deleting();
    let why = json!({ "state": "Failed", "reason": "HostPathPrefixRefused", "message": "it is not allowed" });
    refused["status"]["filesystem"] = why;
    assert_eq!(
        message(refused.clone()),
        "-Deleting waiting for the node agent on node n1 to remove the data: it is not allowed"
    );
    refused["status"]["filesystem"]["reason"] = json!("ImageChanged");
    assert_eq!(
        message(refused),
        "-Deleting waiting for the node agent on node n1 to remove the data"
    );
}
