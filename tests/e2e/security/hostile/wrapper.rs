//! The wrapper's program: a pod cannot change the program that other pods run.

use anyhow::ensure;
use serde_json::json;
use stoppablecontainer_api::StoppableContainer;
use testkit::in_namespace;

use super::{beside_neighbour, harmless};
use crate::support::{run, shell_template, start, stop};

/// Tries to write to all visible programs, including the wrapper.
const WRITE: &str = r#"
for program in /proc/[0-9]*/exe /exec-wrapper /.stoppablecontainer/exec-wrapper; do
    [ ! -e "$program" ] || { echo evil >> "$program" && echo "wrote $program"; } 2>/dev/null || true
done
for change in "chmod 0 /.stoppablecontainer/exec-wrapper" "rm -f /.stoppablecontainer/exec-wrapper" \
    "touch /.stoppablecontainer/new" "mount -o remount,bind,rw /.stoppablecontainer"; do
    if $change 2>/dev/null; then echo "did $change"; fi
done
"#;

/// A pod that may mount makes its volume writable and changes its content.
const CHANGE_VOLUME: &str = r"
mount -o remount,bind,rw /.stoppablecontainer
cd /.stoppablecontainer
chmod 0 exec-wrapper
echo evil > exec-wrapper
mkdir -p left/behind
mv agent.sock left
ln -s /etc/shadow agent.sock
ln -s /etc/shadow agent.sock.new
cat exec-wrapper
";

#[tokio::test]
async fn h6_a_consumer_cannot_change_the_wrapper() {
    in_namespace("wrapper", async |ns| {
        harmless(&ns, async |_| {
            let template = beside_neighbour(&ns, &json!({})).await?;
            run(&ns, "attacker", template).await?;
            let done = ns.sh("attacker", "main", WRITE).await?;
            ensure!(done.is_empty(), "the consumer {done}");
            Ok(())
        })
        .await
    })
    .await;
}

/// A pod with the permission to mount can change only its own volume. Its neighbours and later pods
/// have their own copy of the program, and the pod can be stopped, started and deleted.
#[tokio::test]
async fn h6_h14_a_consumer_that_may_mount_changes_no_volume_but_its_own() {
    in_namespace("wrapper-mount", async |ns| {
        harmless(&ns, async |_| {
            let capable = json!({"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}});
            let template = beside_neighbour(&ns, &capable).await?;
            run(&ns, "attacker", template).await?;
            let content = ns.sh("attacker", "main", CHANGE_VOLUME).await?;
            ensure!(
                content == "evil",
                "the attack failed, and shows nothing: {content}"
            );
            run(&ns, "newcomer", shell_template()).await?;
            stop(&ns, "attacker").await?;
            start(&ns, "attacker").await?;
            ns.sh("attacker", "main", CHANGE_VOLUME).await?;
            ns.delete::<StoppableContainer>("attacker").await
        })
        .await
    })
    .await;
}
