//! Files anywhere in `/` survive faults of pods, agent and node.

use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use stoppablecontainer_api::names::{CSI_DRIVER, provider_pod_name};
use testkit::{Namespace, NodeShell, alone_in_namespace, in_namespace, patience};

use crate::support::agents::Agents;
use crate::support::counting::{counting, unnoticed};
use crate::support::node::{Part, reboot, running_after_reboot, until_it_answers};
use crate::support::{container_id, node_of, run, running, shell_template, start, stop, uid_of};

/// The program of probes and hooks.
const WRAPPER: &str = "/.stoppablecontainer/exec-wrapper";
const PATIENCE: Duration = Duration::from_mins(2);
/// Interval for checks of state that cannot be watched.
const PAUSE: Duration = Duration::from_millis(500);

/// Writes to many places of the root: new, changed, replaced and removed entries, unusual names,
/// owners, modes, links.
const WRITE: &str = r#"
    echo changed >> /etc/issue
    rm /etc/debian_version
    printf '#!/bin/sh\necho installed\n' > /usr/local/bin/tool && chmod 0755 /usr/local/bin/tool
    mkdir -p /opt/app/deep /var/lib/app /srv/shared && chmod 1777 /srv/shared && chmod 2750 /var/lib/app
    head -c 300000 /dev/urandom > /opt/app/deep/blob && ln /opt/app/deep/blob /opt/app/hard
    ln -s ../../etc/issue /opt/app/link && echo 1 > "/opt/app/with space, comma: colon" && echo 2 > /root/.hidden
    chown -R 1234:4321 /var/lib/app && cp /bin/true /usr/local/bin/setuid && chmod 4711 /usr/local/bin/setuid
    rm -r /usr/share/doc && mkdir /usr/share/doc && echo new > /usr/share/doc/only
    sync
"#;

/// Names, owners, modes, sizes, link counts and contents of the entries that `WRITE` changed, and
/// the entries that it removed.
const LOOK: &str = r"
    find /etc/issue /usr/local /opt /var/lib/app /srv /root/.hidden /usr/share/doc -printf '%p %U:%G %m %y %n %l ' \
        \( -type f -printf '%s %T@ ' \) -printf '\n' | sort
    find /etc/issue /usr/local /opt /srv /root/.hidden /usr/share/doc -type f -exec sha256sum {} + | sort
    test ! -e /etc/debian_version
";

/// Runs a container, writes files, lets `event` happen, and compares the files.
async fn survives<F, Fut>(ns: &Namespace, event: F) -> Result<()>
where
    F: FnOnce(Pod) -> Fut,
    Fut: Future<Output = Result<()>>,
{
    let pod = run(ns, "kept", shell_template()).await?;
    ns.sh("kept", "main", WRITE).await?;
    let before = ns.sh("kept", "main", LOOK).await?;
    ensure!(
        before.contains("/opt/app/hard 0:0 644 f 2"),
        "the test does not see what it wrote:\n{before}"
    );
    event(pod).await?;
    running(ns, "kept").await?;
    let after = ns.sh("kept", "main", LOOK).await?;
    ensure!(
        before == after,
        "the filesystem changed.\nbefore:\n{before}\nafter:\n{after}"
    );
    ensure!(
        ns.sh("kept", "main", "tool").await? == "installed",
        "the installed program does not run"
    );
    Ok(())
}

#[tokio::test]
async fn i1_files_survive_stop_and_start() {
    in_namespace("stop-start", async |ns| {
        let ns = &ns;
        survives(ns, async |_| {
            for _ in 0..2 {
                stop(ns, "kept").await?;
                start(ns, "kept").await?;
            }
            Ok(())
        })
        .await
    })
    .await;
}

#[tokio::test]
async fn i1_files_survive_deletion_of_the_consumer_pod() {
    in_namespace("consumer-deleted", async |ns| {
        let ns = &ns;
        survives(ns, async |pod| {
            ns.api::<Pod>().delete("kept", &DeleteParams::default()).await?;
            ns.other_pod_ready("kept", &uid_of(&pod)).await?;
            Ok(())
        })
        .await
    })
    .await;
}

#[tokio::test]
async fn i1_files_survive_kill_9_of_the_consumers_process() {
    in_namespace("kill-9", async |ns| {
        let ns = &ns;
        survives(ns, async |pod| {
            let node = NodeShell::on(ns, &node_of(&pod)?).await?;
            node.kill_first(&container_id(&pod, "main")?).await?;
            ns.pod_restarted("kept", "main", 1).await?;
            node.close().await
        })
        .await
    })
    .await;
}

#[tokio::test]
async fn i1_files_survive_a_kill_of_the_providers_container() {
    in_namespace("provider-killed", async |ns| {
        let ns = &ns;
        survives(ns, async |pod| {
            let name = provider_pod_name("kept");
            let provider = ns.pod_ready(&name).await?;
            let node = NodeShell::on(ns, &node_of(&pod)?).await?;
            node.kill_first(&container_id(&provider, "provider")?).await?;
            ns.pod_restarted(&name, "provider", 1).await?;
            // I9: a running container is not affected.
            let now = ns.pod_ready("kept").await?;
            ensure!(
                container_id(&now, "main")? == container_id(&pod, "main")?,
                "the consumer was restarted too"
            );
            stop(ns, "kept").await?;
            start(ns, "kept").await?;
            node.close().await
        })
        .await
    })
    .await;
}

#[tokio::test]
async fn i1_files_survive_deletion_of_the_provider_pod() {
    in_namespace("provider-deleted", async |ns| {
        let ns = &ns;
        survives(ns, async |_| {
            let name = provider_pod_name("kept");
            let provider = ns.pod_ready(&name).await?;
            ns.api::<Pod>().delete(&name, &DeleteParams::default()).await?;
            ns.other_pod_ready(&name, &uid_of(&provider)).await?;
            stop(ns, "kept").await?;
            start(ns, "kept").await?;
            Ok(())
        })
        .await
    })
    .await;
}

/// During a rollout of the agents, commands, logs, probes and hooks work as usual.
#[tokio::test]
async fn f18_i9_files_and_consumers_survive_a_rollout_of_the_agent() {
    alone_in_namespace("agent-restart", async |ns, _alone| {
        let ns = &ns;
        survives(ns, async |pod| {
            let agents = Agents::find(ns).await?;
            let talking = run(ns, "talking", counting()).await?;
            let use_both = async || {
                let hook = [WRAPPER, "hook", "--", "/usr/local/bin/tool"];
                for command in [&hook[..], &hook[3..]] {
                    let said = ns.exec("kept", "main", command).await?.success()?;
                    ensure!(said == "installed\n", "{command:?} says {said:?}");
                }
                unnoticed(ns, &talking).await
            };
            let used = meanwhile(agents.restart(), use_both).await?;
            ensure!(used > 0, "hooks and probes did not run during the rollout");
            let now = ns.pod_ready("kept").await?;
            ensure!(
                container_id(&now, "main")? == container_id(&pod, "main")?,
                "the consumer was restarted"
            );
            stop(ns, "kept").await?;
            agents.restart().await?;
            start(ns, "kept").await?;
            Ok(())
        })
        .await
    })
    .await;
}

/// Repeats an operation until `work` is done, and returns the number of repetitions.
async fn meanwhile(
    work: impl Future<Output = Result<()>>,
    again: impl AsyncFn() -> Result<()>,
) -> Result<u32> {
    let mut work = pin!(work);
    let mut times = 0;
    loop {
        tokio::select! {
            done = &mut work => return done.map(|()| times),
            done = again() => done?,
        }
        times += 1;
    }
}

/// A pod is deleted by force and its node loses its power, so that the kubelet never unpublishes
/// its volume (k8s#127229). The volume is removed completely, and the next pod has the files.
#[tokio::test]
async fn i11_f20_what_a_pod_leaves_that_went_while_its_node_was_down_is_collected() {
    alone_in_namespace("gone-meanwhile", async |ns, _alone| {
        let ns = &ns;
        survives(ns, async |pod| {
            let at = node_of(&pod)?;
            let node = NodeShell::on(ns, &at).await?;
            let agents = Agents::find(ns).await?;
            let volumes = format!("{}/plugins/{CSI_DRIVER}/volumes", agents.kubelet_directory());
            let uid = uid_of(&pod);
            let left = async || {
                let records = node
                    .sh(&format!("grep -lF '{uid}' {volumes}/*/volume.json || true"))
                    .await?;
                anyhow::Ok(records + &node.mounts_with(&uid).await?)
            };
            let before = left().await?;
            ensure!(
                before.contains("volume.json") && before.contains(" - "),
                "this test sees no record or no mount: {before}"
            );

            Part::Kubelet.suspend(&node).await?;
            let by_force = DeleteParams::default().grace_period(0);
            ns.api::<Pod>().delete("kept", &by_force).await?;
            reboot(&at).await?;
            ns.other_pod_ready("kept", &uid).await?;
            until_it_answers(&node).await?;

            let deadline = Instant::now() + patience(PATIENCE);
            loop {
                let after = left().await?;
                if after.is_empty() {
                    break;
                }
                ensure!(Instant::now() < deadline, "left behind: {after}");
                tokio::time::sleep(PAUSE).await;
            }
            stop(ns, "kept").await?;
            start(ns, "kept").await?;
            node.close().await
        })
        .await
    })
    .await;
}

/// A reboot of the node: all processes end at once, and the disks stay.
#[tokio::test]
async fn i1_files_survive_a_reboot_of_the_node() {
    alone_in_namespace("reboot", async |ns, _alone| {
        let ns = &ns;
        survives(ns, async |pod| {
            // A second container that is stopped during the reboot. It must start again as well.
            run(ns, "asleep", shell_template()).await?;
            ns.sh("asleep", "main", "echo kept > /root/file && sync").await?;
            stop(ns, "asleep").await?;

            let node = node_of(&pod)?;
            reboot(&node).await?;
            ns.pod_restarted(&provider_pod_name("kept"), "provider", 1)
                .await?;
            ns.pod_restarted("kept", "main", 1).await?;
            running_after_reboot(ns, "kept").await?;

            start(ns, "asleep").await?;
            ensure!(
                ns.sh("asleep", "main", "cat /root/file").await? == "kept",
                "the stopped one lost its file"
            );
            Ok(())
        })
        .await
    })
    .await;
}
