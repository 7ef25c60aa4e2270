//! The agent's socket in a consumer's volume: whatever its processes say there, and however many they are.

use anyhow::ensure;
use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;
use kube::{Api, ResourceExt};
use serde_json::json;
use stoppablecontainer_api::names::{PROVIDER_CONTAINER, provider_pod_name};
use testkit::in_namespace;

use super::{beside_neighbour, harmless};
use crate::support::{agent_on, node_of, run, shell_template, start, stop};

/// Connects, says each line, and prints what is answered until the agent hangs up.
const SAY: &str = r#"
say() { perl -MIO::Socket::UNIX -e '
    my $agent = IO::Socket::UNIX->new(Peer => "/.stoppablecontainer/agent.sock") or die "$!";
    $SIG{PIPE} = "IGNORE";
    print $agent eval qq("$ARGV[0]"); $agent->flush; print <$agent> // "nothing\n"' -- "$1"; }
say '\n'
say 'hook 2\n'
say 'hold 1\n'
say '\xff\x00 1\n'
say 'hook 1\nhold 1\nrun 1\n'
say '@{[ q(x) x 100_000 ]}\n'
exec unshare --user --map-root-user sh -c "$(declare -f say); say 'run 1\n'"
"#;

const ANSWERS: [&str; 7] = [
    "error not a line of the wrapper protocol, version 1",
    "error not a line of the wrapper protocol, version 1",
    "error 'hold' is not for the Consumer pod",
    "error not a line of the wrapper protocol, version 1",
    "ok",
    "nothing",
    "error processes with their own user namespace are not served",
];

/// Opens more connections than the agent takes of one pod, and says half a line on each.
const FLOOD: &str = r#"
perl -MIO::Socket::UNIX -e '
    my @all = map { IO::Socket::UNIX->new(Peer => "/.stoppablecontainer/agent.sock") or die "$!" } 1..120;
    for my $one (@all) { print $one "hook"; $one->flush }
    open my $said, ">", "/flooded"; close $said;
    sleep 1000000' </dev/null >/dev/null 2>&1 &
until [ -e /flooded ]; do sleep 0.1; done
"#;

#[tokio::test]
async fn h14_what_a_consumer_says_to_the_agent_is_answered_or_dropped() {
    in_namespace("words", async |ns| {
        harmless(&ns, async |_| {
            // Whatever the cluster's default is: user namespaces are what this is about.
            let unconfined = json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}});
            run(&ns, "attacker", beside_neighbour(&ns, &unconfined).await?).await?;
            let said = ns
                .exec("attacker", "main", &["/bin/bash", "-ec", SAY])
                .await?
                .success()?;
            let said: Vec<_> = said.lines().collect();
            ensure!(said == ANSWERS, "{said:#?}");
            Ok(())
        })
        .await
    })
    .await;
}

/// Says `hold` in the provider's container beside its wrapper, as `kubectl exec` lets its owner do, and hangs up when that
/// is granted.
const HOLD: &str = r#"exec perl -MIO::Socket::UNIX -e '
    my $agent = IO::Socket::UNIX->new(Peer => "/.stoppablecontainer/agent.sock") or die "$!";
    print $agent "hold 1\n"; $agent->flush;
    while (<$agent>) { if (/^ok/) { print "held\n"; exit } }'"#;

/// Asks to be moved, where it is already, as fast as it is answered.
const ASK: &str = r#"
perl -MIO::Socket::UNIX -e '
    while (1) {
        my $agent = IO::Socket::UNIX->new(Peer => "/.stoppablecontainer/agent.sock") or die "$!";
        print $agent "run 1\n"; $agent->flush;
        while (<$agent>) { last if /^ok/ }
        open my $said, ">", "/asked"; close $said;
    }' </dev/null >/dev/null 2>&1 &
until [ -e /asked ]; do sleep 0.1; done
"#;
/// More lines than an agent writes of one pod in the time of the test.
const LINES: usize = 60;

/// It waits for its turn, and the agent's log does not grow with it.
#[tokio::test]
async fn i18_a_consumer_that_asks_in_a_loop_fills_no_log() {
    in_namespace("loop", async |ns| {
        harmless(&ns, async |_| {
            let attacker = run(&ns, "attacker", beside_neighbour(&ns, &json!({})).await?).await?;
            ns.sh("attacker", "main", ASK).await?;
            run(&ns, "newcomer", beside_neighbour(&ns, &json!({})).await?).await?;
            stop(&ns, "newcomer").await?;
            start(&ns, "newcomer").await?;
            let agent = agent_on(&ns.client, &node_of(&attacker)?).await?;
            let pods = Api::<Pod>::namespaced(ns.client.clone(), &agent.namespace().unwrap_or_default());
            let log = pods.logs(&agent.name_any(), &LogParams::default()).await?;
            let about = format!("{}/attacker", ns.name);
            let lines = log.lines().filter(|line| line.contains(&about)).count();
            ensure!((1..LINES).contains(&lines), "{lines} lines about {about}");
            stop(&ns, "attacker").await
        })
        .await
    })
    .await;
}

/// The first one goes on to hold, and the container starts with it.
#[tokio::test]
async fn i20_a_second_hold_in_the_provider_unregisters_nobody() {
    in_namespace("second-hold", async |ns| {
        run(&ns, "kept", shell_template()).await?;
        stop(&ns, "kept").await?;
        let provider = provider_pod_name("kept");
        for _ in 0..3 {
            let said = ns
                .exec(&provider, PROVIDER_CONTAINER, &["/bin/sh", "-ec", HOLD])
                .await?;
            let said = said.success()?;
            ensure!(said.trim_end() == "held", "{said:?}");
        }
        start(&ns, "kept").await.map(drop)
    })
    .await;
}

/// Others on the node start, stop and run their hooks as ever, also while the flood is on.
#[tokio::test]
async fn h25_a_flood_of_connections_to_the_agent_delays_nobody_else() {
    in_namespace("flood", async |ns| {
        harmless(&ns, async |_| {
            let template = beside_neighbour(&ns, &json!({})).await?;
            run(&ns, "attacker", template).await?;
            ns.sh("attacker", "main", FLOOD).await?;
            let hook = json!({"lifecycle": {"postStart": {"exec": {"command": ["/bin/touch", "/hooked"]}}}});
            run(&ns, "newcomer", beside_neighbour(&ns, &hook).await?).await?;
            stop(&ns, "newcomer").await?;
            start(&ns, "newcomer").await?;
            ns.sh("newcomer", "main", "test -e /hooked").await?;
            // It has harmed nobody but itself, and not for long.
            stop(&ns, "attacker").await?;
            start(&ns, "attacker").await.map(drop)
        })
        .await
    })
    .await;
}
