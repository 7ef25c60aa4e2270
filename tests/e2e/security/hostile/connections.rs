//! The agent's socket in a consumer's volume: arbitrary messages, and any number of connections.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use stoppablecontainer_api::names::{PROVIDER_CONTAINER, provider_pod_name};
use testkit::{Namespace, in_namespace};

use super::{beside_neighbour, harmless};
use crate::support::users::{has_own_users, with_own_users};
use crate::support::{agent_on, node_of, run, shell_template, start, stop};

/// Connects, sends each line, and prints the responses until the agent closes the connection.
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

/// Opens more connections than the agent accepts from one pod, and sends half a line on each.
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
    in_namespace("words", async |ns| talk(&ns, |template| template).await).await;
}

/// A user namespace below that of its pod is not served either.
#[tokio::test]
async fn h14_h20_what_a_consumer_with_own_users_says_to_the_agent_is_answered_or_dropped() {
    in_namespace("words-own-users", async |ns| {
        if has_own_users(&ns).await? {
            talk(&ns, with_own_users).await?;
        }
        Ok(())
    })
    .await;
}

async fn talk(ns: &Namespace, change: impl Fn(Value) -> Value) -> Result<()> {
    harmless(ns, async |_| {
        // Independent of the cluster's default, because the test is about user namespaces.
        let unconfined = json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}});
        run(ns, "attacker", change(beside_neighbour(ns, &unconfined).await?)).await?;
        let said = ns
            .exec("attacker", "main", &["/bin/bash", "-ec", SAY])
            .await?
            .success()?;
        let said: Vec<_> = said.lines().collect();
        ensure!(said == ANSWERS, "{said:#?}");
        Ok(())
    })
    .await
}

/// Sends `hold` from a process next to the wrapper in the provider's container, which its owner can
/// run with `kubectl exec`, and disconnects after the response.
const HOLD: &str = r#"exec perl -MIO::Socket::UNIX -e '
    my $agent = IO::Socket::UNIX->new(Peer => "/.stoppablecontainer/agent.sock") or die "$!";
    print $agent "hold 1\n"; $agent->flush;
    while (<$agent>) { if (/^ok/) { print "held\n"; exit } }'"#;

/// Sends `run` requests of a container that was moved already, as fast as the agent responds.
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
/// More lines than an agent logs about one pod during the test.
const LINES: usize = 60;

/// The pod waits for its turn, and the agent's log does not grow.
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

/// The first process keeps holding, and the container starts with it.
#[tokio::test]
async fn i20_a_second_hold_in_the_provider_does_not_unregister_the_first() {
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

/// Other containers on the node start, stop and run their hooks as usual during the flood.
#[tokio::test]
async fn h25_a_flood_of_connections_to_the_agent_delays_no_other_pod() {
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
            // Only the flooding pod was delayed, and only for a short time.
            stop(&ns, "attacker").await?;
            start(&ns, "attacker").await.map(drop)
        })
        .await
    })
    .await;
}
