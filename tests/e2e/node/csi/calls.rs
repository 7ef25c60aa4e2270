//! Calls that a correct kubelet does not make: repeated, concurrent, out of order, and with
//! arbitrary contents.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;
use kube::{Api, ResourceExt};
use serde::Deserialize;
use serde_json::{Value, json};
use stoppablecontainer_api::names::{CSI_DRIVER, provider_pod_name};
use testkit::{Namespace, NodeShell, alone_in_namespace, in_namespace};

use super::{KUBELET, context_of};
use crate::support::{agent_on, cleaned_up, node_of, run, running, shell_template, told_about_pod, uid_of};

/// The response to a call.
#[derive(Debug, Deserialize)]
struct Answer {
    code: String,
    message: String,
}

/// Makes calls for another volume of a provider pod, so that the agent accepts the pod.
struct Caller<'a> {
    ns: &'a Namespace,
    context: Value,
    volumes: String,
    socket: String,
    /// UID of the provider pod.
    provider: String,
}

/// There is one mount for any number of calls. The codes are those of the CSI specification.
#[tokio::test]
async fn f23_publishing_and_unpublishing_in_any_order() {
    in_namespace("csi-calls", async |ns| {
        let pod = run(&ns, "kept", shell_template()).await?;
        let node = NodeShell::on(&ns, &node_of(&pod)?).await?;
        let caller = Caller::start(&ns).await?;
        // As the kubelet does before a call.
        node.sh(&format!("mkdir -p {0}/f23 {0}/f23-other", caller.volumes))
            .await?;
        // Only the mounts of this pod, because other tests have their own mounts on the node.
        let own_mounts = format!("grep -F {} /proc/1/mountinfo", uid_of(&pod));
        let before = node.sh(&own_mounts).await?;
        let (id, other_id) = ("csi-f23", "csi-f23-other");
        let target = caller.target("f23");
        let mounts = async |target: &str| -> Result<String> {
            node.sh(&format!("grep -c ' {target} ' /proc/1/mountinfo || true"))
                .await
        };
        let publish =
            json!({"verb": "publish", "volumeId": id, "targetPath": target, "volumeContext": caller.context});
        let unpublish = json!({"verb": "unpublish", "volumeId": id, "targetPath": target});
        let with = |call: &Value, key: &str, value: Value| {
            let mut call = call.clone();
            call[key] = value;
            call
        };
        let other_target = json!(caller.target("f23-other"));

        // Unpublish first, for a volume that was never published.
        caller
            .expect(
                vec![unpublish.clone(), with(&unpublish, "volumeId", json!("no such"))],
                &["Ok", "Ok"],
            )
            .await?;
        // Ten calls in sequence.
        caller.expect(vec![publish.clone(); 10], &["Ok"; 10]).await?;
        ensure!(
            mounts(&target).await? == "1",
            "published ten times: {} mounts",
            mounts(&target).await?
        );
        // A different target with the same ID.
        let mut other_pod = caller.context.clone();
        other_pod["csi.storage.k8s.io/pod.uid"] = json!("another");
        caller
            .expect(
                vec![
                    with(&publish, "targetPath", other_target.clone()),
                    with(&publish, "volumeContext", other_pod),
                    with(&publish, "volumeContext", caller.with("instance", "other")),
                    // Another volume of the same pod.
                    with(
                        &with(&publish, "volumeId", json!(other_id)),
                        "targetPath",
                        other_target.clone(),
                    ),
                ],
                &["AlreadyExists", "AlreadyExists", "InvalidArgument", "Ok"],
            )
            .await?;
        ensure!(mounts(&target).await? == "1", "a refused call changed the mount");
        caller
            .expect(
                vec![unpublish.clone(), unpublish.clone(), unpublish.clone()],
                &["Ok", "Ok", "Ok"],
            )
            .await?;
        ensure!(mounts(&target).await? == "0", "unpublished and mounted");

        // Ten concurrent calls: one does the work, the others get ABORTED, and a retry succeeds.
        for (call, mounted) in [(&publish, "1"), (&unpublish, "0")] {
            let answers = caller.call(&json!([with(call, "parallel", json!(10))])).await?;
            let codes: Vec<_> = answers[0].iter().map(|answer| answer.code.as_str()).collect();
            ensure!(
                codes.iter().all(|code| ["Ok", "Aborted"].contains(code)),
                "{codes:?}"
            );
            ensure!(codes.contains(&"Ok"), "none of ten was carried out: {codes:?}");
            caller.expect(vec![call.clone()], &["Ok"]).await?;
            let found = mounts(&target).await?;
            ensure!(
                found == mounted,
                "after ten at once: {found} mounts, not {mounted}"
            );
        }
        caller
            .expect(
                vec![with(
                    &with(&unpublish, "volumeId", json!(other_id)),
                    "targetPath",
                    other_target,
                )],
                &["Ok"],
            )
            .await?;
        let after = node.sh(&own_mounts).await?;
        ensure!(
            before == after,
            "the pod's mounts on the node were\n{before}\nand are\n{after}"
        );
        let records = node
            .sh(&format!("ls {KUBELET}/plugins/{CSI_DRIVER}/volumes"))
            .await?;
        ensure!(!records.contains("csi-f23"), "left behind: {records}");
        node.close().await
    })
    .await;
}

/// The agent rejects contents of names and attributes without following them, repeating them at
/// length or storing them.
#[tokio::test]
async fn h9_h16_h17_contents_of_a_callers_choice() {
    in_namespace("csi-contents", async |ns| {
        run(&ns, "kept", shell_template()).await?;
        let caller = Caller::start(&ns).await?;
        let publish = |id: &str, target: &str, context: Value| {
            json!({"verb": "publish", "volumeId": id, "targetPath": target, "volumeContext": context})
        };
        let good = caller.target("h16");
        let mut calls = Vec::new();
        for id in ["../x", "a/b", "a\nb", "a,b", "", &"a".repeat(1000)] {
            calls.push(publish(id, &good, caller.context.clone()));
        }
        let outside = format!("{KUBELET}/../../../etc/h16");
        for target in ["relative", "/etc/h16", outside.as_str(), "", &format!("{good}/../../x")] {
            calls.push(publish("csi-h16", target, caller.context.clone()));
        }
        for (key, value) in [
            ("csi.storage.k8s.io/pod.namespace", "../kube-system"),
            ("csi.storage.k8s.io/pod.name", "a\nlevel=error"),
            ("csi.storage.k8s.io/pod.uid", "a/b"),
            ("csi.storage.k8s.io/ephemeral", "false"),
            ("csi.storage.k8s.io/serviceAccount.tokens", "SECRET-one"),
            ("SECRET-two\n", "x"),
        ] {
            calls.push(publish("csi-h16", &good, caller.with(key, value)));
        }
        let mut secret = publish("csi-h16", &good, caller.context.clone());
        secret["secrets"] = json!({"password": "SECRET-three"});
        calls.push(secret);
        let mut large = publish("csi-h16", &good, caller.context.clone());
        large["large"] = json!(1 << 20);
        calls.push(large);
        let expected = vec!["InvalidArgument"; calls.len()];
        let answers = caller.expect(calls, &expected).await?;
        for answer in &answers {
            ensure!(answer.message.len() < 400, "{} bytes of message", answer.message.len());
        }
        // The agent does not trust the identity of another pod in the request.
        let theirs = caller.with("csi.storage.k8s.io/pod.name", "somebody");
        caller.expect(vec![publish("csi-h16", &good, theirs)], &["PermissionDenied"]).await?;

        let log = agent_log(&ns, &caller.node().await?).await?;
        ensure!(!log.contains("SECRET-one") && !log.contains("SECRET-three"), "a secret is in the agent's log");
        ensure!(!log.lines().any(|line| line.starts_with("level=error")), "a line of the log is the caller's");
        // Other images and pods may appear in the log too; these lines are about this test's pod.
        let own = [ns.name.as_str(), caller.provider.as_str(), "h16"];
        let ours = log.lines().filter(|line| own.iter().any(|own| line.contains(own)));
        let longest = ours.map(str::len).max().context("the agent's log has no word of these calls")?;
        ensure!(longest < 4096, "a line of {longest} bytes in the agent's log");
        running(&ns, "kept").await?;
        Ok(())
    })
    .await;
}

/// The administrator configured the kubelet to send service account tokens. The agent rejects them
/// because it does not need them, and they do not appear even in its most verbose log.
#[tokio::test]
async fn h17_tokens_that_the_kubelet_sends_are_nowhere() {
    alone_in_namespace("csi-tokens", async |ns, _alone| {
        let before = run(&ns, "kept", shell_template()).await?;
        let asked = |audiences: Value| json!({"spec": {"tokenRequests": audiences}}).to_string();
        let patch = async |audiences: Value| -> Result<()> {
            let patch = asked(audiences);
            ns.kubectl(&["patch", "csidriver", CSI_DRIVER, "--type=merge", "-p", &patch])
                .await?
                .success()
                .map(drop)
        };
        let agent = agent_on(&ns.client, &node_of(&before)?).await?;
        let owner = agent
            .owner_references()
            .first()
            .context("an agent without owner")?;
        let target = format!("daemonset/{}", owner.name);
        let namespace = agent.namespace().unwrap_or_default();
        let level = async |level: &str| -> Result<()> {
            for args in [
                &["set", "env", target.as_str(), &format!("RUST_LOG={level}")][..],
                &["rollout", "status", target.as_str(), "--timeout=120s"],
            ] {
                testkit::kubectl(&[&["-n", namespace.as_str()][..], args].concat(), "")
                    .await?
                    .success()?;
            }
            Ok(())
        };
        let usual = agent_environment(&agent, "RUST_LOG").context("no RUST_LOG")?;
        let found = async {
            level("trace").await?;
            patch(json!([{"audience": "h17"}])).await?;
            crate::support::create(&ns, "late", true, shell_template()).await?;
            let note = told_about_pod(&ns, &provider_pod_name("late"), "FailedMount").await?;
            ensure!(
                note.contains("serviceAccount.tokens"),
                "the event does not name the attribute: {note}"
            );
            let log = agent_log(&ns, &node_of(&before)?).await?;
            ensure!(
                log.contains("TRACE") || log.contains("trace"),
                "the log is not the most talkative one"
            );
            // All tokens start with this text: `{"alg":` in base64.
            ensure!(!log.contains("eyJhbGciOi"), "a token is in the agent's log");
            ensure!(!note.contains("eyJhbGciOi"), "a token is in an event");
            anyhow::Ok(())
        };
        let found = cleaned_up(found.await, patch(Value::Null).await);
        cleaned_up(found, level(&usual).await)?;
        // It recovers automatically.
        running(&ns, "late").await?;
        Ok(())
    })
    .await;
}

fn agent_environment(agent: &Pod, name: &str) -> Option<String> {
    let container = agent.spec.as_ref()?.containers.first()?;
    let variable = container
        .env
        .iter()
        .flatten()
        .find(|variable| variable.name == name)?;
    variable.value.clone()
}

async fn agent_log(ns: &Namespace, node: &str) -> Result<String> {
    let agent = agent_on(&ns.client, node).await?;
    let api: Api<Pod> = Api::namespaced(ns.client.clone(), &agent.namespace().unwrap_or_default());
    Ok(api.logs(&agent.name_any(), &LogParams::default()).await?)
}

// === impl Caller ===

impl<'a> Caller<'a> {
    async fn start(ns: &'a Namespace) -> Result<Self> {
        let provider = ns.api::<Pod>().get(&provider_pod_name("kept")).await?;
        let socket = format!("{KUBELET}/plugins/{CSI_DRIVER}/csi.sock");
        ns.create_json::<Pod>(json!({
            "metadata": {"name": "caller"},
            "spec": {
                "nodeName": node_of(&provider)?, "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false,
                "containers": [{
                    "name": "caller", "image": "test/csi-sanity:1",
                    // An entry that stays.
                    "command": ["/csi-test", "shim", socket, "/unused.sock", "{}"],
                    "volumeMounts": [{"name": "kubelet", "mountPath": KUBELET}],
                    "securityContext": {"privileged": true},
                }],
                "volumes": [{"name": "kubelet", "hostPath": {"path": KUBELET}}],
            },
        }))
        .await?;
        ns.pod_ready("caller").await?;
        Ok(Self {
            ns,
            context: context_of(ns, &provider),
            volumes: format!("{KUBELET}/pods/{}/volumes/kubernetes.io~csi", uid_of(&provider)),
            socket,
            provider: uid_of(&provider),
        })
    }

    fn target(&self, name: &str) -> String {
        format!("{}/{name}/mount", self.volumes)
    }

    fn with(&self, key: &str, value: &str) -> Value {
        let mut context = self.context.clone();
        context[key] = json!(value);
        context
    }

    async fn node(&self) -> Result<String> {
        node_of(&self.ns.api::<Pod>().get("caller").await?)
    }

    async fn call(&self, calls: &Value) -> Result<Vec<Vec<Answer>>> {
        let command = ["/csi-test", "call", &self.socket, &calls.to_string()];
        let output = self.ns.exec("caller", "caller", &command).await?.success()?;
        Ok(serde_json::from_str(&output)?)
    }

    /// Makes the calls in sequence and compares the codes.
    async fn expect(&self, calls: Vec<Value>, codes: &[&str]) -> Result<Vec<Answer>> {
        let answers: Vec<_> = self.call(&json!(calls)).await?.into_iter().flatten().collect();
        let found: Vec<_> = answers.iter().map(|answer| answer.code.as_str()).collect();
        ensure!(found == codes, "answered {answers:#?}, expected {codes:?}");
        Ok(answers)
    }
}
