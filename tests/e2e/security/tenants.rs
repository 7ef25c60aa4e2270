//! Operations of users on a shared cluster: the decisions are those on a plain pod, and users
//! cannot access data of others.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace as NamespaceObject, Pod, ResourceQuota};
use k8s_openapi::api::events::v1::Event;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use stoppablecontainer_api::conditions::READY;
use stoppablecontainer_api::names::{
    CSI_DRIVER, LABEL_ROLE, ROLE_CONSUMER, VOLUME_MOUNT_PATH, VOLUME_NAME, placeholder_pod_name,
    provider_pod_name,
};
use stoppablecontainer_api::{StoppableContainer, StoppableContainerInstance};
use testkit::{Namespace, NodeShell, client_as, in_namespace};

use crate::support::release::Release;
use crate::support::{
    create, data_directory, node_of, run, running, shell_template, start, stop, told_about_pod, uid_of,
};

/// The labels do not authorize access, but Services and policies use them.
#[tokio::test]
async fn h19_system_labels_cannot_be_changed_after_creation() {
    in_namespace("labels", async |ns| {
        run(&ns, "kept", shell_template()).await?;
        let mut own = shell_template();
        own["metadata"] = json!({"name": "own"});
        ns.create_json::<Pod>(own).await?;

        let change = async |name: &str, metadata: Value| {
            let patch = json!({"metadata": metadata});
            ns.patch::<Pod>(name, patch).await
        };
        let provider = provider_pod_name("kept");
        for (name, metadata) in [
            ("kept", json!({"labels": {LABEL_ROLE: null}})),
            ("kept", json!({"labels": {LABEL_ROLE: "provider"}})),
            ("own", json!({"labels": {LABEL_ROLE: ROLE_CONSUMER}})),
            (
                "kept",
                json!({"annotations": {"stoppablecontainer.xtlsoft.top/main-container": "other"}}),
            ),
            (
                "kept",
                json!({"annotations": {"stoppablecontainer.xtlsoft.top/template-fields": "{}"}}),
            ),
            (
                provider.as_str(),
                json!({"annotations": {"stoppablecontainer.xtlsoft.top/image": "other"}}),
            ),
            (
                provider.as_str(),
                json!({"annotations": {"stoppablecontainer.xtlsoft.top/template-hash": null}}),
            ),
        ] {
            let answer = change(name, metadata.clone()).await;
            let error = answer.err().with_context(|| format!("{name} took {metadata}"))?;
            ensure!(
                format!("{error:#}").contains("controller sets, changes or removes"),
                "{error:#}"
            );
        }
        // The owner may change everything else of a pod.
        change(
            "kept",
            json!({"labels": {"team": "a"}, "annotations": {"note": "x"}}),
        )
        .await?;
        change("own", json!({"labels": {"team": "a"}})).await?;
        Ok(())
    })
    .await;
}

/// `kubectl debug` works as on any pod, but cannot use the volume that gives access to the kept
/// filesystem.
#[tokio::test]
async fn h20_a_debug_container_sees_the_kept_filesystem_and_does_not_get_its_volume() {
    in_namespace("debug", async |ns| {
        run(&ns, "kept", shell_template()).await?;
        ns.sh("kept", "main", "echo kept > /root/file").await?;
        let debug = [
            "debug",
            "kept",
            "--image=ubuntu:22.04",
            "--target=main",
            "--container=looker",
            "--profile=sysadmin",
            "--",
            "sleep",
            "infinity",
        ];
        ns.kubectl(&debug).await?.success()?;
        ns.wait("kept", "the debug container runs", |pod: &Pod| {
            let statuses = pod
                .status
                .as_ref()
                .and_then(|s| s.ephemeral_container_statuses.as_ref());
            statuses.is_some_and(|s| {
                s.iter()
                    .any(|c| c.state.as_ref().is_some_and(|s| s.running.is_some()))
            })
        })
        .await?;
        let seen = ns.sh("kept", "looker", "cat /proc/1/root/root/file").await?;
        ensure!(seen == "kept", "the debug container saw {seen:?}");

        let pod = ns.api::<Pod>().get("kept").await?;
        let known = serde_json::to_value(pod.spec.and_then(|s| s.ephemeral_containers))?;
        let mut containers = known.as_array().cloned().unwrap_or_default();
        containers.push(json!({
            "name": "thief", "image": "ubuntu:22.04",
            "volumeMounts": [{"name": VOLUME_NAME, "mountPath": "/stolen"}],
        }));
        let patch = Patch::Strategic(json!({"spec": {"ephemeralContainers": containers}}));
        let answer = ns
            .api::<Pod>()
            .patch_subresource("ephemeralcontainers", "kept", &PatchParams::default(), &patch)
            .await;
        let error = answer.err().context("a debug container got the volume")?;
        ensure!(
            error.to_string().contains("only the main container may mount"),
            "{error}"
        );
        Ok(())
    })
    .await;
}

/// A user's pod that names an instance as its controller is rejected. Without the policy (here its
/// author acts as the controller), it does not get a mount, and an event explains why.
#[tokio::test]
async fn h16_a_pod_written_by_hand_gets_nothing() {
    in_namespace("forged", async |ns| {
        let pod = run(&ns, "kept", shell_template()).await?;
        ns.sh("kept", "main", "echo secret > /root/file").await?;
        let instance = ns.api::<StoppableContainerInstance>().get("kept").await?;
        let controller = Release::find(&ns.client).await?.controller_user()?;
        let controller = Api::<Pod>::namespaced(client_as(&controller).await?, &ns.name);
        for (name, attributes) in [
            ("plain", json!({})),
            (
                "attributes",
                json!({"instance": "kept", "csi.storage.k8s.io/pod.uid": uid_of(&pod)}),
            ),
        ] {
            let forged = json!({
                "metadata": {"name": name, "ownerReferences": [{
                    "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainerInstance",
                    "name": "kept", "uid": instance.uid(), "controller": true,
                }]},
                "spec": {
                    "nodeName": node_of(&pod)?, "terminationGracePeriodSeconds": 0,
                    "containers": [{
                        "name": "main", "image": "ubuntu:22.04", "command": ["sleep", "infinity"],
                        "volumeMounts": [{"name": "v", "mountPath": VOLUME_MOUNT_PATH}],
                    }],
                    "volumes": [{"name": "v", "csi": {"driver": CSI_DRIVER, "volumeAttributes": attributes}}],
                }
            });
            let refused = ns.create_json::<Pod>(forged.clone()).await.err();
            let refused = refused.map(|error| format!("{error:#}")).unwrap_or_default();
            ensure!(
                refused.contains("only StoppableContainer's controller"),
                "the forged pod {name}: {refused}"
            );
            controller
                .create(&PostParams::default(), &serde_json::from_value(forged)?)
                .await?;
            let note = told_about_pod(&ns, name, "FailedMount").await?;
            ensure!(
                note.contains("PermissionDenied") || note.contains("InvalidArgument"),
                "the event says {note:?}"
            );
        }
        let shell = NodeShell::on(&ns, &node_of(&pod)?).await?;
        let forged = ns.api::<Pod>().get("plain").await?;
        let mounts = shell.mounts_with(&uid_of(&forged)).await?;
        ensure!(!mounts.contains("kubernetes.io~csi"), "{mounts}");
        let file = format!("{}/upper/root/file", data_directory(&ns, "kept").await?);
        ensure!(shell.sh(&format!("cat {file}")).await? == "secret");
        shell.close().await
    })
    .await;
}

/// Pod Security, quota and missing objects that the template names: the API server's decision is
/// the same as on a plain pod, and the controller does not create anything that its user could not
/// create.
#[tokio::test]
async fn h22_the_verdict_is_that_on_a_plain_pod() {
    in_namespace("verdict", async |ns| {
        let label = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}});
        ns.cluster_api::<NamespaceObject>()
            .patch(&ns.name, &PatchParams::default(), &Patch::Merge(label))
            .await?;
        ns.create_json::<ResourceQuota>(json!({
            "metadata": {"name": "small"}, "spec": {"hard": {"limits.memory": "1Gi"}},
        }))
        .await?;
        let limit = json!({"resources": {"limits": {"memory": "64Mi"}}});
        let with = |main: Value, pod: Value| {
            let mut template = shell_template();
            for fields in [&limit, &main] {
                json_patch::merge(&mut template["spec"]["containers"][0], fields);
            }
            json_patch::merge(&mut template["spec"], &pod);
            template
        };
        let cases = [
            (
                "privileged",
                with(json!({"securityContext": {"privileged": true}}), json!({})),
            ),
            ("host-network", with(json!({}), json!({"hostNetwork": true}))),
            ("host-pid", with(json!({}), json!({"hostPID": true}))),
            (
                "host-path",
                with(
                    json!({}),
                    json!({"volumes": [{"name": "h", "hostPath": {"path": "/"}}]}),
                ),
            ),
            (
                "account",
                with(json!({}), json!({"serviceAccountName": "nobodys"})),
            ),
            (
                "priority",
                with(json!({}), json!({"priorityClassName": "nobodys"})),
            ),
            ("runtime", with(json!({}), json!({"runtimeClassName": "nobodys"}))),
            (
                "quota",
                with(json!({"resources": {"limits": {"memory": "2Gi"}}}), json!({})),
            ),
        ];
        for (name, template) in cases {
            let mut plain = template.clone();
            plain["metadata"] = json!({"name": name});
            let dry_run = PostParams {
                dry_run: true,
                ..PostParams::default()
            };
            let refused = ns
                .api::<Pod>()
                .create(&dry_run, &serde_json::from_value(plain)?)
                .await
                .err()
                .with_context(|| format!("a plain pod would be taken: {name}"))?;
            let kube::Error::Api(refused) = refused else {
                return Err(refused.into());
            };
            // The decision follows "is forbidden:"; the name precedes it.
            let verdict = refused
                .message
                .split_once("forbidden: ")
                .map_or(refused.message.as_str(), |(_, v)| v);
            let verdict = verdict.split(", requested").next().unwrap_or(verdict).to_owned();

            create(&ns, name, true, template).await?;
            let blocked = |object: &StoppableContainer| {
                let conditions = object.status.iter().flat_map(|s| &s.conditions);
                conditions
                    .clone()
                    .any(|c| c.status == "False" && c.message.contains(&verdict))
            };
            ns.wait(name, &format!("a condition says {verdict:?}"), blocked)
                .await?;
            ensure!(
                ns.api::<Pod>().get_opt(name).await?.is_none(),
                "{name}: a consumer was made"
            );
        }
        Ok(())
    })
    .await;
}

/// A pod that does not fit on any node waits in the scheduler's queue with the scheduler's message,
/// like a plain pod. The kubelet never gets it.
#[tokio::test]
async fn h23_what_does_not_fit_waits_with_the_schedulers_words() {
    in_namespace("too-big", async |ns| {
        let mut template = shell_template();
        template["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1000"}});
        create(&ns, "kept", true, template).await?;
        ns.wait(
            "kept",
            "Ready has the scheduler's words",
            |object: &StoppableContainer| {
                let conditions = object.status.iter().flat_map(|s| &s.conditions);
                conditions.clone().any(|c| {
                    c.type_ == READY && c.status == "False" && c.message.contains("Insufficient cpu")
                })
            },
        )
        .await?;
        let pending = ns.api::<Pod>().get(&placeholder_pod_name("kept")).await?;
        ensure!(
            pending.status.and_then(|s| s.phase).as_deref() == Some("Pending"),
            "the placeholder is not Pending"
        );
        let pods = ns.api::<Pod>().list(&ListParams::default()).await?;
        ensure!(pods.items.len() == 1, "{} pods wait for a node", pods.items.len());
        let refusals = events(&ns, "kept").await?;
        ensure!(refusals.is_empty(), "the kubelet was asked: {refusals:?}");

        // With smaller requests it starts without further action.
        stop(&ns, "kept").await?;
        ns.patch::<StoppableContainer>("kept", json!({"spec": {"template": shell_template()}}))
            .await?;
        start(&ns, "kept").await?;
        running(&ns, "kept").await?;
        Ok(())
    })
    .await;
}

/// Events about a pod.
async fn events(ns: &Namespace, about: &str) -> Result<Vec<Event>> {
    let api: Api<Event> = ns.api();
    let fields = format!("regarding.kind=Pod,regarding.name={about}");
    Ok(api.list(&ListParams::default().fields(&fields)).await?.items)
}
