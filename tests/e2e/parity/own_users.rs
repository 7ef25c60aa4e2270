//! Pods with `hostUsers: false`, each as a plain pod and as a StoppableContainer. Their files have
//! the owners of the image on disk, so the same object can be started with and without.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use stoppablecontainer_api::StoppableContainer;
use testkit::{Namespace, NodeShell, alone_in_namespace, in_namespace};

use super::{KEPT, PLAIN, Seen, assert_same, compare_web, look_inside, run_both};
use crate::support::agents::Agents;
use crate::support::users::{has_own_users, note_own_users, with_own_users};
use crate::support::{data_directory, node_of, run, running, shell_template, start, stop};

/// Creates files of several users, and prints their owners.
const FILES: &str = r"
mkdir -p /owned && cd /owned
touch by-root by-daemon by-last
chown 1:1 by-daemon && chown 65535:65535 by-last
chown 65536 by-root 2>&1 || true
cp /bin/true setuid && chown 33 setuid && chmod 4755 setuid
chown 7:7 /etc/hostname 2>&1 || true
chown 34 /usr/bin/env
rm /etc/issue
stat -c '%n %u:%g %a' * /usr/bin/env /etc/passwd /root /tmp / /proc /dev /var/run/secrets/kubernetes.io/serviceaccount/token
";

async fn owners(ns: &Namespace, pod: &str) -> Result<Seen> {
    let mut seen = look_inside(ns, pod).await?;
    for (what, script) in [
        ("files", FILES),
        // Where they begin differs from pod to pod.
        (
            "users and groups",
            "awk '{print $1, $3}' /proc/self/uid_map /proc/self/gid_map; id",
        ),
        ("a mount", "mount -t tmpfs none /mnt 2>&1 || true"),
        ("a device", "mknod /owned/null c 1 3 2>&1 || true"),
    ] {
        seen.insert(what, ns.sh(pod, "main", script).await?);
    }
    Ok(seen)
}

/// root, with emptyDir volumes, and with and without the capability to mount.
#[rstest::rstest]
#[case::root(&json!({}))]
#[case::may_mount(&json!({"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}))]
#[case::read_only_root(&json!({
    "securityContext": {"readOnlyRootFilesystem": true},
    "volumeMounts": [{"name": "v", "mountPath": "/owned"}, {"name": "v", "mountPath": "/srv", "subPath": "srv"}],
}))]
#[tokio::test]
async fn i5_h20_a_container_with_own_users_is_as_in_a_plain_pod(#[case] main: &Value) {
    in_namespace("own-users", async |ns| {
        if !has_own_users(&ns).await? {
            return Ok(());
        }
        let mut template = with_own_users(shell_template());
        json_patch::merge(&mut template["spec"]["containers"][0], main);
        template["spec"]["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
        run_both(&ns, &template).await?;
        if main["volumeMounts"].is_array() {
            return assert_same(&look_inside(&ns, PLAIN).await?, &look_inside(&ns, KEPT).await?);
        }
        let (plain, kept) = (owners(&ns, PLAIN).await?, owners(&ns, KEPT).await?);
        assert_same(&plain, &kept)?;
        for words in [
            "by-daemon 1:1",
            "by-last 65535:65535",
            "setuid 33:0 4755",
            "/usr/bin/env 34:0",
        ] {
            ensure!(kept["files"].contains(words), "{words:?}: {kept:#?}");
        }
        ensure!(
            kept["users and groups"].starts_with("0 65536\n0 65536\n"),
            "{kept:#?}"
        );
        note_own_users(kept["users and groups"].split_whitespace().nth(1).unwrap_or("?"));
        Ok(())
    })
    .await;
}

/// Hooks, probes, exec, cp, port-forward, a ConfigMap with subPath and a second container.
#[tokio::test]
async fn i5_h20_a_web_server_with_own_users_behaves_as_in_a_plain_pod() {
    in_namespace("own-users-web", async |ns| {
        if !has_own_users(&ns).await? {
            return Ok(());
        }
        compare_web(&ns, &with_own_users(super::web_template())).await
    })
    .await;
}

/// An unprivileged user and a group of the pod's volumes.
#[tokio::test]
async fn i5_h20_an_unprivileged_user_of_own_users_is_as_in_a_plain_pod() {
    in_namespace("own-users-user", async |ns| {
        if !has_own_users(&ns).await? {
            return Ok(());
        }
        let mut template = with_own_users(shell_template());
        template["spec"]["securityContext"] =
            json!({"runAsUser": 4711, "runAsGroup": 815, "fsGroup": 2000, "runAsNonRoot": true});
        template["spec"]["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
        let main = json!({
            "workingDir": "/not/in/the/image",
            "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
        });
        json_patch::merge(&mut template["spec"]["containers"][0], &main);
        run_both(&ns, &template).await?;
        assert_same(&look_inside(&ns, PLAIN).await?, &look_inside(&ns, KEPT).await?)?;
        let volume = "touch /v/file && stat -c '%u:%g %a' /v /v/file";
        let (plain, kept) = (
            ns.sh(PLAIN, "main", volume).await?,
            ns.sh(KEPT, "main", volume).await?,
        );
        ensure!(plain == kept, "plain pod: {plain}\nours: {kept}");
        Ok(())
    })
    .await;
}

/// With a user namespace, without, and with one again: the container sees the same owners, which
/// are those on disk. The agent is restarted meanwhile and reads users from the running container,
/// so the test runs alone.
#[tokio::test]
async fn h13_h20_i9_owners_stay_when_own_users_are_switched_off_and_on() {
    alone_in_namespace("own-users-switched", async |ns, _| {
        if !has_own_users(&ns).await? {
            return Ok(());
        }
        let pod = run(&ns, "kept", with_own_users(shell_template())).await?;
        let node = NodeShell::on(&ns, &node_of(&pod)?).await?;
        let upper = format!("{}/upper", data_directory(&ns, "kept").await?);
        let made = ns.sh("kept", "main", FILES).await?;
        let look = "cd /owned && stat -c '%n %u:%g %a' * /usr/bin/env; test ! -e /etc/issue";
        let expected = ns.sh("kept", "main", look).await?;
        ensure!(expected.contains("by-last 65535:65535"), "{made}\n{expected}");
        for (start_no, own) in [(1, false), (2, true), (3, false)] {
            let on_disk = node
                .sh(&format!(
                    "cd {upper}/owned && stat -c '%n %u:%g %a' * ../usr/bin/env"
                ))
                .await?;
            let on_disk = on_disk.replace("../usr", "/usr");
            ensure!(
                on_disk.trim_end() == expected.trim_end(),
                "start {start_no}, on disk: {on_disk}"
            );
            stop(&ns, "kept").await?;
            let users = json!({"spec": {"template": {"spec": {"hostUsers": !own}}}});
            ns.patch::<StoppableContainer>("kept", users).await?;
            start(&ns, "kept").await?;
            let map = ns
                .sh("kept", "main", "awk '{print $2, $3}' /proc/self/uid_map")
                .await?;
            ensure!(
                (map.trim_end() != "0 4294967295") == own,
                "start {start_no}: {map}"
            );
            let seen = ns.sh("kept", "main", look).await?;
            ensure!(seen == expected, "start {start_no}: {seen}\nexpected: {expected}");
            ns.sh(
                "kept",
                "main",
                "echo x >> /owned/by-daemon && echo x >> /usr/bin/env",
            )
            .await?;
            if own {
                Agents::find(&ns).await?.restart().await?;
                running(&ns, "kept").await?;
                let hook = ["/.stoppablecontainer/exec-wrapper", "hook", "--", "id", "-u"];
                let said = ns.exec("kept", "main", &hook).await?.success()?;
                ensure!(said.trim_end() == "0", "{said:?}");
            }
        }
        node.close().await
    })
    .await;
}
