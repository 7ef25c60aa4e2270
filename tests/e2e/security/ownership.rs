//! Only the controller links an object to its instance, its pods and its data. The tests cover
//! forgeries, deletions out of order, and the takeover of remaining objects.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use stoppablecontainer_api::conditions::{CONSUMER_READY, FILESYSTEM_READY, PROVIDER_READY, reason};
use stoppablecontainer_api::names::{
    FINALIZER, GATE_PLACEHOLDER, LABEL_ROLE, ROLE_CONSUMER, provider_pod_name,
};
use stoppablecontainer_api::{StoppableContainer, StoppableContainerInstance};
use testkit::{Namespace, NodeShell, client_as, in_namespace};

use crate::support::release::Release;
use crate::support::{
    blocked, create, data_directory, node_of, run, running, shell_template, start, stop, uid_of,
};

/// Acts as the controller, which the policies allow, so the test shows the protection without them.
async fn past_the_policies(ns: &Namespace) -> Result<Client> {
    client_as(&Release::find(&ns.client).await?.controller_user()?).await
}

/// kubectl's message of a rejection.
async fn refused(ns: &Namespace, args: &[&str], because: &str) -> Result<()> {
    let output = ns.kubectl(args).await?;
    ensure!(
        output.code != 0 && output.stderr.contains(because),
        "{args:?} was to be refused because of {because:?}: {output:?}"
    );
    Ok(())
}

/// Story: a user created a pod with the name of a consumer or a provider and added the owner
/// reference afterwards. The controller adopted it and reported Ready for a pod on its own root.
#[tokio::test]
async fn i16_h16_a_pod_by_hand_is_never_consumer_or_provider() {
    in_namespace("by-hand", async |ns| {
        let past = Api::<Pod>::namespaced(past_the_policies(&ns).await?, &ns.name);
        for (object, pod, part, role) in [
            ("one", "one".to_owned(), CONSUMER_READY, "consumer"),
            ("two", provider_pod_name("two"), PROVIDER_READY, "provider"),
        ] {
            let mut by_hand = shell_template();
            by_hand["metadata"] = json!({"name": pod});
            let by_hand = ns.create_json::<Pod>(by_hand).await?;
            ns.pod_ready(&pod).await?;
            create(&ns, object, true, shell_template()).await?;
            blocked(&ns, object, part, reason::NAME_CONFLICT).await?;

            let instance = ns.api::<StoppableContainerInstance>().get(object).await?;
            let forgery = json!({"metadata": {
                "labels": {
                    "stoppablecontainer.xtlsoft.top/managed-by": "stoppablecontainer",
                    "stoppablecontainer.xtlsoft.top/instance": object,
                    "stoppablecontainer.xtlsoft.top/role": role,
                },
                "ownerReferences": [{
                    "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainerInstance",
                    "name": object, "uid": instance.uid(), "controller": true,
                }],
            }});
            let only_owner = json!({"metadata": {"ownerReferences": forgery["metadata"]["ownerReferences"]}});
            let patch = only_owner.to_string();
            refused(
                &ns,
                &["patch", "pod", &pod, "--type=merge", "-p", &patch],
                "only StoppableContainer's controller sets or removes a StoppableContainerInstance as the controller of a pod",
            )
            .await?;

            past.patch(&pod, &PatchParams::default(), &Patch::Merge(forgery)).await?;
            let ready = running(&ns, object).await?;
            let now = ns.api::<Pod>().get(&pod).await?;
            ensure!(uid_of(&now) != uid_of(&by_hand), "the pod by hand was adopted");
            let root = ns.sh(object, "main", "grep ' / / ' /proc/self/mountinfo | grep -c stoppablecontainer").await?;
            ensure!(root == "1", "pod {} does not run on its kept root", uid_of(&ready));
        }
        Ok(())
    })
    .await;
}

/// Story: `kubectl delete stoppablecontainerinstance` deleted the data, and the object started on
/// an empty root without a condition.
#[tokio::test]
async fn h19_i1_an_instance_is_not_deleted_under_its_owner() {
    in_namespace("instance", async |ns| {
        let pod = run(&ns, "kept", shell_template()).await?;
        ns.sh("kept", "main", "echo kept > /root/file").await?;
        let instead = "delete the StoppableContainer instead";
        refused(&ns, &["delete", "stoppablecontainerinstance", "kept"], instead).await?;
        refused(&ns, &["delete", "stopci", "--all", "--wait=false"], instead).await?;
        let cut = r#"{"metadata":{"ownerReferences":null}}"#;
        let loose = ["patch", "stopci", "kept", "--type=merge", "-p", cut];
        refused(&ns, &loose, "metadata.ownerReferences").await?;
        let still = running(&ns, "kept").await?;
        ensure!(uid_of(&still) == uid_of(&pod), "the consumer was replaced");
        ensure!(ns.sh("kept", "main", "cat /root/file").await? == "kept");

        // Without the policy the data is deleted. This is a loss like any other, and the user
        // decides about the next step.
        let past = past_the_policies(&ns).await?;
        Api::<StoppableContainerInstance>::namespaced(past, &ns.name)
            .delete("kept", &DeleteParams::default())
            .await?;
        let message = blocked(&ns, "kept", FILESYSTEM_READY, reason::FILESYSTEM_LOST).await?;
        let none = ns.api::<StoppableContainerInstance>().get_opt("kept").await?;
        ensure!(none.is_none(), "another instance was made");
        let (_, answer) = message.rsplit_once('=').with_context(|| message.clone())?;
        let answer = format!("stoppablecontainer.xtlsoft.top/recovery={answer}");
        ns.kubectl(&["annotate", "--overwrite", "stoppablecontainer", "kept", &answer])
            .await?
            .success()?;
        running(&ns, "kept").await?;
        let file = ns.exec("kept", "main", &["/bin/cat", "/root/file"]).await?;
        ensure!(file.code != 0, "the lost file is there");
        Ok(())
    })
    .await;
}

/// A different image instead of the wrapper would run on its own root, and the kubelet would report
/// it as Ready.
#[tokio::test]
async fn i3_the_image_of_a_main_container_is_not_changed_in_its_pod() {
    in_namespace("set-image", async |ns| {
        let pod = run(&ns, "kept", shell_template()).await?;
        let provider = provider_pod_name("kept");
        let because = "can only be changed in the template of the StoppableContainer";
        for (pod, container) in [("kept", "main"), (provider.as_str(), "provider")] {
            let (pod, image) = (format!("pod/{pod}"), format!("{container}=nginx:1.25"));
            refused(&ns, &["set", "image", &pod, &image], because).await?;
        }
        ns.kubectl(&["label", "pod", "kept", "team=a"]).await?.success()?;
        ensure!(uid_of(&running(&ns, "kept").await?) == uid_of(&pod));
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn i11_the_finalizer_is_the_controllers_alone() {
    in_namespace("finalizer", async |ns| {
        run(&ns, "kept", shell_template()).await?;
        let none = r#"{"metadata":{"finalizers":null}}"#;
        let patch = ["patch", "stopci", "kept", "--type=merge", "-p", none];
        refused(&ns, &patch, "metadata.finalizers").await?;

        // `kubectl replace` with the user's own manifest removes the finalizer; the controller adds
        // it again.
        let manifest = json!({
            "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainer",
            "metadata": {"name": "kept", "labels": {"replaced": "yes"}},
            "spec": {"running": true, "template": shell_template()},
        });
        ns.kubectl_with_input(&["replace", "-f", "-"], &manifest.to_string())
            .await?
            .success()?;
        let object = ns
            .wait("kept", "the finalizer is back", |object: &StoppableContainer| {
                object.finalizers().iter().any(|f| f == FINALIZER)
            })
            .await?;
        ensure!(object.labels().contains_key("replaced"));

        // The finalizer protects the object while it is being deleted.
        let hold = json!({"metadata": {"finalizers": [FINALIZER, "example.org/hold"]}});
        ns.patch::<StoppableContainer>("kept", hold).await?;
        ns.api::<StoppableContainer>()
            .delete("kept", &DeleteParams::default())
            .await?;
        let release = json!({"metadata": {"finalizers": ["example.org/hold"]}}).to_string();
        let early = ns
            .kubectl(&["patch", "stopc", "kept", "--type=merge", "-p", &release])
            .await?;
        let released = |object: &StoppableContainer| !object.finalizers().iter().any(|f| f == FINALIZER);
        if early.code == 0 {
            // The controller may have been faster.
            let instance = ns.api::<StoppableContainerInstance>().get_opt("kept").await?;
            ensure!(instance.is_none(), "the finalizer went before the instance");
        } else {
            ensure!(early.stderr.contains("metadata.finalizers"), "{early:?}");
        }
        ns.wait("kept", "the controller took its finalizer off", released)
            .await?;
        let instance = ns.api::<StoppableContainerInstance>().get_opt("kept").await?;
        ensure!(instance.is_none(), "the instance outlived the finalizer");
        ns.patch::<StoppableContainer>("kept", json!({"metadata": {"finalizers": null}}))
            .await?;
        ns.wait_gone::<StoppableContainer>("kept").await
    })
    .await;
}

/// `kubectl delete --cascade=orphan` keeps data and pods, and the next object of the same name gets
/// them.
#[tokio::test]
async fn i17_what_an_orphan_deletion_left_is_taken_over_with_its_data() {
    in_namespace("orphan", async |ns| {
        let pod = run(&ns, "kept", shell_template()).await?;
        ns.sh("kept", "main", "echo kept > /root/file").await?;
        let data = data_directory(&ns, "kept").await?;
        let instance = ns.api::<StoppableContainerInstance>().get("kept").await?;

        for _ in 0..3 {
            let orphan = ["delete", "stoppablecontainer", "kept", "--cascade=orphan"];
            ns.kubectl(&orphan).await?.success()?;
            ns.wait_gone::<StoppableContainer>("kept").await?;
            let left = ns.api::<StoppableContainerInstance>().get("kept").await?;
            ensure!(
                left.metadata.deletion_timestamp.is_none(),
                "the data is being deleted"
            );
            ensure!(
                left.owner_references().is_empty(),
                "{:?}",
                left.owner_references()
            );
            ensure!(
                ns.sh("kept", "main", "cat /root/file").await? == "kept",
                "the consumer went"
            );

            create(&ns, "kept", true, shell_template()).await?;
            let taken = running(&ns, "kept").await?;
            ensure!(uid_of(&taken) == uid_of(&pod), "it was started anew");
            let now = ns.api::<StoppableContainerInstance>().get("kept").await?;
            ensure!(now.uid() == instance.uid(), "another instance was made");
        }
        stop(&ns, "kept").await?;
        start(&ns, "kept").await?;
        ensure!(ns.sh("kept", "main", "cat /root/file").await? == "kept");

        let node = NodeShell::on(&ns, &node_of(&pod)?).await?;
        ns.delete::<StoppableContainer>("kept").await?;
        let gone = node.sh(&format!("test ! -e {data} && echo gone")).await?;
        ensure!(gone == "gone", "{data} is still there");
        node.close().await
    })
    .await;
}

/// The controller may write the status of pods to nominate a node. A policy rejects every other
/// change, also with the controller's token. The pod is in the namespace of the release,
/// which the webhooks leave out.
#[tokio::test]
async fn i16_the_controller_writes_nothing_but_a_nomination_to_a_pods_status() {
    in_namespace("nomination", async |ns| {
        let release = Release::find(&ns.client).await?;
        let gate = |name: &str| json!([{ "name": name }]);
        let pod = |name: &str, role: &str, gate: &Value| {
            json!({
                "metadata": { "name": format!("{}-{name}", ns.name), "labels": { LABEL_ROLE: role } },
                "spec": { "schedulingGates": gate, "containers": [{ "name": "main", "image": "none" }] },
            })
        };
        let pods = Api::<Pod>::namespaced(ns.client.clone(), &release.namespace);
        let as_controller = Api::<Pod>::namespaced(past_the_policies(&ns).await?, &release.namespace);
        let nomination = json!({ "status": { "nominatedNodeName": "node" } });
        let phase = json!({ "status": { "phase": "Succeeded" } });
        let words = (
            "only for consumer pods that wait for their placeholder",
            "changes only status.nominatedNodeName",
        );
        let cases = [
            ("gated", ROLE_CONSUMER, GATE_PLACEHOLDER, &nomination, None),
            ("phase", ROLE_CONSUMER, GATE_PLACEHOLDER, &phase, Some(words.1)),
            (
                "open",
                ROLE_CONSUMER,
                "example.com/other",
                &nomination,
                Some(words.0),
            ),
            ("other", "other", GATE_PLACEHOLDER, &nomination, Some(words.0)),
        ];
        for (name, role, of, change, refusal) in cases {
            let pod: Pod = serde_json::from_value(pod(name, role, &gate(of)))?;
            let pod = pods.create(&PostParams::default(), &pod).await?;
            let written = as_controller
                .patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(change))
                .await;
            pods.delete(&pod.name_any(), &DeleteParams::default()).await?;
            match refusal {
                None => drop(written?),
                Some(words) => {
                    let error = written.err().with_context(|| format!("{name} was written"))?;
                    ensure!(error.to_string().contains(words), "{name}: {error}");
                }
            }
        }
        Ok(())
    })
    .await;
}
