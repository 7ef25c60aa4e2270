//! What the plugin says about the kept files, of a container that runs and of one that is stopped.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use stoppablecontainer_api::StoppableContainer;
use testkit::in_namespace;

use super::{create, failed, stopc};

/// The changes that a user made, and nothing that the product or the runtime made.
#[tokio::test]
async fn plugin_diff_of_a_running_and_of_a_stopped_container() {
    in_namespace("plugin-diff", async |ns| -> Result<()> {
        create(&ns, "kept").await?;
        let nothing = stopc(&ns, &["diff", "kept"]).await?.success()?;
        ensure!(nothing.is_empty(), "changes before any was made:\n{nothing}");
        let work = "mkdir /srv/mine && echo 1 > /srv/mine/file && rm /etc/issue && echo changed > /etc/issue.net \
                    && rm -r /usr/share/doc && chmod 700 /opt";
        ns.sh("kept", "main", work).await?;
        let expected = "D /etc/issue\nC /etc/issue.net\nC /opt/\nA /srv/mine/\nA /srv/mine/file\nD /usr/share/doc/\n";
        let running = stopc(&ns, &["diff", "kept"]).await?.success()?;
        ensure!(running == expected, "while it runs:\n{running}");
        stopc(&ns, &["stop", "kept", "--grace-period=1"])
            .await?
            .success()?;
        let stopped = stopc(&ns, &["diff", "kept"]).await?.success()?;
        ensure!(stopped == expected, "while it is stopped:\n{stopped}");

        let names = stopc(&ns, &["diff", "kept", "/etc", "-o", "name"])
            .await?
            .success()?;
        ensure!(names == "/etc/issue\n/etc/issue.net\n", "{names}");
        let whole = stopc(&ns, &["diff", "kept", "--depth=1", "-o", "json"])
            .await?
            .success()?;
        let whole: Value = serde_json::from_str(&whole)?;
        let etc = json!({ "change": "changed", "type": "directory", "count": 2, "path": "/etc" });
        ensure!(whole["changes"][0] == etc, "{whole:#}");
        let absent = stopc(&ns, &["diff", "kept", "/none"]).await?;
        failed(&absent, 1, "/none does not exist")
    })
    .await;
}

/// What the directories take, and the image's files take nothing.
#[tokio::test]
async fn plugin_du_of_directories_of_a_running_and_of_a_stopped_container() {
    in_namespace("plugin-du", async |ns| -> Result<()> {
        create(&ns, "kept").await?;
        let write = "mkdir -p /srv/a/b && dd if=/dev/zero of=/srv/a/b/file bs=1M count=3 && sync";
        ns.sh("kept", "main", write).await?;
        let sizes = async || -> Result<Vec<(u64, String)>> {
            let said = stopc(&ns, &["du", "kept", "/srv", "--depth=2", "-b"])
                .await?
                .success()?;
            let lines = said.lines().map(|line| {
                let (size, path) = line.split_once('\t').context("a line without a tab")?;
                Ok((size.parse()?, path.to_owned()))
            });
            lines.collect()
        };
        let running = sizes().await?;
        let paths: Vec<_> = running.iter().map(|(_, path)| path.as_str()).collect();
        ensure!(paths == ["/srv", "/srv/a", "/srv/a/b"], "{running:?}");
        ensure!(
            running.iter().all(|(size, _)| (3 << 20..4 << 20).contains(size)),
            "{running:?}"
        );
        stopc(&ns, &["stop", "kept", "--grace-period=1"])
            .await?
            .success()?;
        let stopped = sizes().await?;
        ensure!(stopped == running, "{running:?} became {stopped:?}");
        let image = stopc(&ns, &["du", "kept", "/usr/share", "-b"]).await?.success()?;
        ensure!(image == "0\t/usr/share\n", "{image}");
        Ok(())
    })
    .await;
}

/// A container that keeps no pod on its node while it is stopped.
#[tokio::test]
async fn plugin_diff_without_a_provider() {
    in_namespace("plugin-released", async |ns| -> Result<()> {
        create(&ns, "kept").await?;
        let release = json!({ "spec": { "provider": { "whileStopped": "Release" } } });
        ns.patch::<StoppableContainer>("kept", release).await?;
        stopc(&ns, &["stop", "kept", "--grace-period=1"])
            .await?
            .success()?;
        failed(&stopc(&ns, &["diff", "kept"]).await?, 1, "whileStopped to Keep")
    })
    .await;
}

/// The permission is that of Kubernetes for `pods/exec`.
#[tokio::test]
async fn plugin_diff_takes_the_permission_for_exec() {
    in_namespace("plugin-diff-user", async |ns| -> Result<()> {
        create(&ns, "kept").await?;
        let user = format!("system:serviceaccount:{}:default", ns.name);
        ns.create_json::<k8s_openapi::api::rbac::v1::Role>(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "name": "reads" },
            "rules": [
                { "apiGroups": ["stoppablecontainer.xtlsoft.top"], "resources": ["stoppablecontainers"],
                  "verbs": ["get"] },
                { "apiGroups": [""], "resources": ["pods"], "verbs": ["get"] },
            ],
        }))
        .await?;
        ns.create_json::<k8s_openapi::api::rbac::v1::RoleBinding>(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": "reads" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reads" },
            "subjects": [{ "kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user }],
        }))
        .await?;
        let diff = stopc(&ns, &["diff", "kept", "--as", &user]).await?;
        failed(&diff, 1, "pods/exec in the namespace")
    })
    .await;
}
