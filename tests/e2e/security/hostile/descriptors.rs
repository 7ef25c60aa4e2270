//! Working directories and descriptors outside the root.

use anyhow::ensure;
use serde_json::json;
use stoppablecontainer_api::StoppableContainer;
use testkit::in_namespace;

use super::{beside_neighbour, create_plain, ended, harmless};
use crate::support::{create, run, set_running, stop};

/// All descriptors of the main process, and whether the container knows their mounts.
const DESCRIPTORS: &str = r#"
cd /proc/1/fd
for fd in *; do
    mount=$(sed -n 's/^mnt_id:[[:space:]]*//p' ../fdinfo/$fd)
    known=$(awk -v id="$mount" '$1 == id {print "mounted"}' ../mountinfo)
    echo "$fd $(readlink $fd | sed 's/[0-9]\{3,\}/N/') $known"
done
readlink /proc/1/cwd
ls -diL /proc/1/cwd /proc/1/root | awk '{print $1}' | uniq | wc -l
"#;

/// A working directory by the number of a descriptor, or by /proc/1/cwd: rejected as in a plain
/// pod, or the root.
#[tokio::test]
async fn h5_working_directories_in_proc_are_as_in_a_plain_pod() {
    in_namespace("workdir", async |ns| {
        harmless(&ns, async |_| {
            let refused = ["/proc/self/fd/3", "/proc/self/fd/7", "/proc/self/fd/63"];
            for (at, path) in refused.iter().chain(&["/proc/1/cwd"]).enumerate() {
                let template = beside_neighbour(&ns, &json!({"workingDir": path})).await?;
                create_plain(&ns, &format!("plain-{at}"), &template).await?;
                create(&ns, &format!("kept-{at}"), true, template).await?;
            }
            for at in 0..refused.len() {
                let plain = ended(&ns, &format!("plain-{at}")).await?;
                let kept = ended(&ns, &format!("kept-{at}")).await?;
                ensure!(plain == kept, "plain pod: {plain:?}\nours: {kept:?}");
                ensure!(kept.0 == 128 && kept.1.contains("/proc/self/fd/"), "{kept:?}");
            }
            let (plain, kept) = (
                format!("plain-{}", refused.len()),
                format!("kept-{}", refused.len()),
            );
            ns.pod_ready(&plain).await?;
            ns.pod_ready(&kept).await?;
            let plain = ns.sh(&plain, "main", DESCRIPTORS).await?;
            let kept = ns.sh(&kept, "main", DESCRIPTORS).await?;
            ensure!(plain == kept, "plain pod: {plain}\nours: {kept}");
            ensure!(
                kept.lines().count() == 5 && kept.ends_with("/\n1"),
                "not three descriptors, or not in the root:\n{kept}"
            );
            Ok(())
        })
        .await
    })
    .await;
}

/// Symlinks in the kept filesystem to the root that the container had before the move.
#[tokio::test]
async fn h5_a_working_directory_that_leads_out_of_the_kept_filesystem_is_refused() {
    in_namespace("workdir-link", async |ns| {
        harmless(&ns, async |_| {
            let template = beside_neighbour(&ns, &json!({})).await?;
            run(&ns, "attacker", template.clone()).await?;
            ns.sh("attacker", "main", "ln -s /proc/self/cwd /work").await?;
            stop(&ns, "attacker").await?;
            let mut template = template;
            template["spec"]["containers"][0]["workingDir"] = json!("/work");
            // The message is that of the ended container, whichever runs at that moment.
            template["spec"]["containers"][0]["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
            ns.patch::<StoppableContainer>("attacker", json!({"spec": {"template": template}}))
                .await?;
            set_running(&ns, "attacker", true).await?;
            let (code, said) = ended(&ns, "attacker").await?;
            let line = "\"/work\" in the root filesystem: leads through a link of /proc, which differs for every \
            process";
            ensure!(
                code == 125 && said.trim_end().ends_with(line) && said.lines().count() == 1,
                "{code}: {said}"
            );
            stop(&ns, "attacker").await
        })
        .await
    })
    .await;
}
