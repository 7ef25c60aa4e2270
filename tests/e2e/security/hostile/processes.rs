//! Consumers that resist their end or use all available resources.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use stoppablecontainer_api::{Phase, StoppableContainer};
use testkit::{Namespace, in_namespace};

use super::{beside_neighbour, create_plain, harmless};
use crate::support::{create, phase, running, set_running, start, stop};

/// The pod's grace period in seconds.
const GRACE: u64 = 2;
/// Additional time that a StoppableContainer may take to end, compared with a plain pod.
const SLACK: Duration = Duration::from_secs(5);

/// Ignores every signal that can be ignored, and has children that do the same.
const STUBBORN: &str = "trap '' TERM INT HUP QUIT USR1 USR2 WINCH
    for child in 1 2 3; do (while :; do sleep 1000; done) & done
    while :; do sleep 1000; done";

/// Forks until a limit stops it, at most 10,000 times. Prints whether all processes lived at once.
const FORK: &str = r#"
perl -e '
    my @children;
    my $ended = 0;
    while (@children < 10000 && !$ended) {
        my $child = fork;
        last if !defined $child;
        if (!$child) { my $own = "x" x 100_000; sleep 1000; exit }
        push @children, $child;
        $ended++ while waitpid(-1, 1) > 0;
    }
    kill "KILL", @children;
    exit(@children == 10000 && !$ended ? 0 : 7);
' >/dev/null 2>&1 &
wait $! && echo all || echo stopped
"#;
/// Exit of a command that the kernel killed.
const KILLED: i32 = 128 + 9;

/// Overlays, namespaces and roots of the consumer's own, and mounts that remain.
const NEST: &str = r"
mount -t tmpfs scratch /mnt
mkdir /mnt/upper /mnt/work /mnt/merged
mount -t overlay nested -o lowerdir=/usr,upperdir=/mnt/upper,workdir=/mnt/work /mnt/merged
echo nested > /mnt/merged/file
rm /mnt/merged/bin/perl
ls /mnt/upper /mnt/upper/bin
chroot /mnt/merged/.. /merged/bin/true 2>&1 || true
unshare --mount --pid --fork --mount-proc chroot / sh -c 'echo $$; mount -t tmpfs pinned /opt; ls /opt'
test -x /usr/bin/perl && echo perl
setsid unshare --mount sleep 1000000 </dev/null >/dev/null 2>&1 &
for at in 1 2 3 4 5 6 7 8; do mkdir /srv/$at; mount --bind / /srv/$at; done
grep -c ' /srv/' /proc/self/mountinfo
";

/// A program that ignores the stop signal is killed at the end of its grace period, like that of a
/// plain pod.
#[tokio::test]
async fn h25_a_consumer_that_ignores_signals_is_gone_as_soon_as_a_plain_pod() {
    in_namespace("stubborn", async |ns| {
        harmless(&ns, async |_| {
            let stubborn = json!({"command": ["/bin/sh", "-c", STUBBORN]});
            let mut template = beside_neighbour(&ns, &stubborn).await?;
            template["spec"]["terminationGracePeriodSeconds"] = json!(GRACE);
            create_plain(&ns, "plain", &template).await?;
            create(&ns, "kept", true, template).await?;
            ns.pod_ready("plain").await?;
            running(&ns, "kept").await?;
            ends_like_a_plain_pod(&ns).await
        })
        .await
    })
    .await;
}

/// A pod may fork as much as its memory limit allows. It affects only itself and can be stopped.
#[tokio::test]
async fn h25_ten_thousand_processes_meet_the_limits_of_the_pod() {
    in_namespace("forks", async |ns| {
        harmless(&ns, async |_| {
            let small = json!({"resources": {"limits": {"memory": "64Mi"}}});
            let template = beside_neighbour(&ns, &small).await?;
            create_plain(&ns, "plain", &template).await?;
            create(&ns, "kept", true, template).await?;
            ns.pod_ready("plain").await?;
            running(&ns, "kept").await?;
            for pod in ["plain", "kept"] {
                // The container ended after its start and not because it could not start.
                ns.exec(pod, "main", &["/bin/bash", "-c", "exec perl -e 1"])
                    .await?
                    .success()?;
                match ns.exec(pod, "main", &["/bin/bash", "-c", FORK]).await {
                    Ok(output) => ensure!(
                        output.code == KILLED || output.stdout.trim_end() == "stopped",
                        "{pod} with ten thousand processes in 64 MiB: {output:?}"
                    ),
                    // The end of the container's first process also ended its connection.
                    Err(error) => out_of_memory(&ns, pod).await.context(error)?,
                }
                ns.pod_ready(pod).await?;
            }
            ends_like_a_plain_pod(&ns).await?;
            start(&ns, "kept").await.map(drop)
        })
        .await
    })
    .await;
}

/// The kept root is one overlay, like the root of a plain container, so another overlay can be
/// mounted on top of it.
#[tokio::test]
async fn h25_nested_overlays_and_namespaces_are_as_in_a_plain_pod_and_do_not_stay() {
    in_namespace("nested", async |ns| {
        harmless(&ns, async |_| {
            let privileged = json!({"securityContext": {"privileged": true}});
            let template = beside_neighbour(&ns, &privileged).await?;
            create_plain(&ns, "plain", &template).await?;
            create(&ns, "kept", true, template).await?;
            ns.pod_ready("plain").await?;
            running(&ns, "kept").await?;
            let (plain, kept) = (
                ns.sh("plain", "main", NEST).await?,
                ns.sh("kept", "main", NEST).await?,
            );
            ensure!(plain == kept, "plain pod: {plain}\nours: {kept}");
            ensure!(kept.contains("perl\n8"), "nothing was nested: {kept}");
            ends_like_a_plain_pod(&ns).await?;
            start(&ns, "kept").await?;
            let left = ns
                .sh(
                    "kept",
                    "main",
                    "ls /mnt; grep -c ' /srv/' /proc/self/mountinfo || true",
                )
                .await?;
            ensure!(left == "0", "mounts of before: {left}");
            stop(&ns, "kept").await?;
            ns.delete::<StoppableContainer>("kept").await
        })
        .await
    })
    .await;
}

/// Waits until the kernel has killed the main container for its memory usage.
async fn out_of_memory(ns: &Namespace, pod: &str) -> Result<()> {
    let killed = |pod: &Pod| {
        let statuses = pod
            .status
            .iter()
            .flat_map(|s| s.container_statuses.iter().flatten());
        let mut states = statuses.flat_map(|c| [&c.state, &c.last_state]).flatten();
        states.any(|state| {
            let end = state.terminated.as_ref();
            end.is_some_and(|end| end.reason.as_deref() == Some("OOMKilled"))
        })
    };
    ns.wait(pod, "its container was killed for its memory", killed)
        .await
        .map(drop)
}

/// Ends the plain pod and the StoppableContainer at the same time. The latter may take the grace
/// period and a little more.
async fn ends_like_a_plain_pod(ns: &Namespace) -> Result<()> {
    let plain = async {
        let begin = Instant::now();
        ns.delete::<Pod>("plain").await?;
        anyhow::Ok(begin.elapsed())
    };
    let kept = async {
        let begin = Instant::now();
        set_running(ns, "kept", false).await?;
        phase(ns, "kept", Phase::Stopped).await?;
        anyhow::Ok(begin.elapsed())
    };
    let (plain, kept) = tokio::try_join!(plain, kept)?;
    println!("plain pod gone after {plain:?}, ours after {kept:?}");
    let allowed = plain.max(Duration::from_secs(GRACE)) + SLACK;
    ensure!(kept <= allowed, "plain pod: {plain:?}, ours: {kept:?}");
    Ok(())
}
