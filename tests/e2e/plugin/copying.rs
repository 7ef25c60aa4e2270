//! `cp` between this machine and a container whose image has no tar.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::json;
use stoppablecontainer_api::StoppableContainer;
use testkit::{Namespace, in_namespace};

use super::{create, failed, stopc};

async fn copy(ns: &Namespace, from: &str, to: &str) -> Result<String> {
    stopc(ns, &["cp", from, to]).await?.success()
}

fn text(path: &Path) -> Result<&str> {
    path.to_str()
        .ok_or_else(|| anyhow::anyhow!("a temporary directory with an unusual name"))
}

/// Links, modes and content come there and back, and the image's tar is not used.
#[tokio::test]
async fn plugin_cp_there_and_back_without_tar() {
    in_namespace("plugin-cp", async |ns| -> Result<()> {
        create(&ns, "kept").await?;
        ns.sh("kept", "main", "rm -f $(command -v tar)").await?;
        let dir = tempfile::tempdir()?;
        let from = dir.path().join("from");
        std::fs::create_dir_all(from.join("sub"))?;
        std::fs::write(from.join("sub/file"), vec![7; 3 << 20])?;
        std::fs::set_permissions(from.join("sub/file"), std::fs::Permissions::from_mode(0o750))?;
        std::fs::hard_link(from.join("sub/file"), from.join("second"))?;
        symlink("sub/file", from.join("link"))?;
        let said = copy(&ns, text(&from)?, "kept:/srv").await?;
        ensure!(said == "copied 3 files, 3.0 MiB\n", "{said}");
        let look = "cd /srv/from && stat -c '%a %h %s' sub/file && readlink link && ls -A /srv/from";
        let found = ns.sh("kept", "main", look).await?;
        ensure!(
            found.trim() == "750 2 3145728\nsub/file\nlink\nsecond\nsub",
            "{found}"
        );
        let back = dir.path().join("back");
        copy(&ns, "kept:/srv/from", text(&back)?).await?;
        let stat = std::fs::metadata(back.join("sub/file"))?;
        ensure!(stat.mode() & 0o7777 == 0o750 && stat.nlink() == 2, "{stat:?}");
        ensure!(std::fs::read_link(back.join("link"))?.as_os_str() == "sub/file");
        ensure!(std::fs::read(back.join("second"))? == vec![7; 3 << 20]);
        let absent = stopc(&ns, &["cp", "kept:/none", text(&back)?]).await?;
        failed(&absent, 1, "cannot read /none")?;
        let absent = stopc(&ns, &["cp", text(&from)?, "kept:/none/x"]).await?;
        failed(&absent, 1, "the directory /none/ cannot be used")
    })
    .await;
}

/// A stopped container is not started without being asked to.
#[tokio::test]
async fn plugin_cp_of_a_stopped_container() {
    in_namespace("plugin-cp-stopped", async |ns| -> Result<()> {
        create(&ns, "kept").await?;
        ns.sh("kept", "main", "echo 1 > /srv/file").await?;
        stopc(&ns, &["stop", "kept", "--grace-period=1"])
            .await?
            .success()?;
        let dir = tempfile::tempdir()?;
        let to = dir.path().join("file");
        let reads = ["cp", "kept:/srv/file", text(&to)?];
        failed(&stopc(&ns, &reads).await?, 1, "kept is stopped")?;
        ensure!(!to.exists(), "something was written");
        std::fs::write(&to, "2\n")?;
        let writes = ["cp", text(&to)?, "kept:/srv/file"];
        failed(&stopc(&ns, &writes).await?, 1, "repeat the command with --start")?;
        stopc(&ns, &["cp", "--start", text(&to)?, "kept:/srv/file"])
            .await?
            .success()?;
        let found = ns.sh("kept", "main", "cat /srv/file").await?;
        ensure!(found.trim() == "2", "{found}");
        Ok(())
    })
    .await;
}

/// A volume that is full, and a user who may not write: the cause is printed, and no part of a file
/// stays.
#[tokio::test]
async fn plugin_cp_that_the_kernel_refuses() {
    in_namespace("plugin-cp-refused", async |ns| -> Result<()> {
        ns.create_json::<StoppableContainer>(json!({
            "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainer",
            "metadata": { "name": "kept" },
            "spec": { "template": { "spec": {
                "containers": [{
                    "name": "main", "image": "ubuntu:22.04", "command": ["/bin/sleep", "infinity"],
                    "securityContext": { "runAsUser": 1000, "runAsGroup": 1000 },
                    "volumeMounts": [{ "name": "small", "mountPath": "/small" }],
                }],
                "volumes": [{ "name": "small", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } }],
            }}},
        }))
        .await?;
        stopc(&ns, &["start", "kept"]).await?.success()?;
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("file");
        std::fs::write(&file, vec![7; 4 << 20])?;
        let full = stopc(&ns, &["cp", text(&file)?, "kept:/small/"]).await?;
        failed(&full, 1, "no space is left")?;
        let denied = stopc(&ns, &["cp", text(&file)?, "kept:/etc/"]).await?;
        failed(&denied, 1, "cannot write /etc/file: Permission denied")?;
        let left = ns.sh("kept", "main", "ls -A /small").await?;
        ensure!(left.trim().is_empty(), "{left}");
        let secret = stopc(&ns, &["cp", "kept:/etc/shadow", text(dir.path())?]).await?;
        failed(&secret, 1, "could not be read")?;
        copy(&ns, text(&file)?, "kept:/tmp/").await?;
        let owner = ns.sh("kept", "main", "stat -c '%u %s' /tmp/file").await?;
        ensure!(owner.trim() == "1000 4194304", "{owner}");
        Ok(())
    })
    .await;
}
