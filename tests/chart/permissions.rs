//! Permissions of the programs. Each is listed here with a line of code that needs it: a permission
//! without such a line, or a line that does not exist any more, is an error.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{Objects, name, render, root};

/// A permission: the end of the role's name, the resource, and the verb. The verbs get, list and
/// watch are one, `read`. Then a file, and a part of the line that needs the permission.
type Use = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
);

#[rustfmt::skip]
const USES: &[Use] = &[
    ("controller", "stoppablecontainers", "read", "src/reconcile/watch.rs", "watch::<StoppableContainer, Whole>"),
    ("controller", "stoppablecontainers", "patch", "src/reconcile/container/apply.rs", ".patch(&container.name_any()"),
    ("controller", "stoppablecontainers/status", "patch", "src/reconcile/container/status.rs", ".patch_status(&container.name_any()"),
    ("controller", "stoppablecontainerinstances", "read", "src/reconcile/watch.rs", "watch::<StoppableContainerInstance, Whole>"),
    ("controller", "stoppablecontainerinstances", "create", "src/reconcile/container/apply.rs", ".create(&post_params(), &desired_instance("),
    ("controller", "stoppablecontainerinstances", "patch", "src/reconcile/instance/apply.rs", ".patch(&instance.name_any()"),
    ("controller", "stoppablecontainerinstances", "delete", "src/reconcile/container/apply.rs", "instances.delete("),
    ("controller", "stoppablecontainerinstances/status", "patch", "src/reconcile/instance/apply/status.rs", ".patch_status(&instance.name_any()"),
    // The admission plugin OwnerReferencesPermissionEnforcement asks for these.
    ("controller", "stoppablecontainers/finalizers", "update", "src/reconcile/container/desired.rs", "block_owner_deletion: Some(true)"),
    ("controller", "stoppablecontainerinstances/finalizers", "update", "src/reconcile/pods.rs", "block_owner_deletion: Some(true)"),
    ("controller", "pods", "read", "src/reconcile/watch.rs", "watch::<Pod, selections::Pods>"),
    ("controller", "pods", "create", "src/dry_run.rs", ".create(&params, pod"),
    ("controller", "pods", "patch", "src/reconcile/instance/apply.rs", ".patch(&pod.name_any()"),
    ("controller", "pods", "delete", "src/reconcile/instance/apply/delete.rs", ".delete(&pod.name_any()"),
    ("controller", "pods/status", "patch", "src/reconcile/instance/apply/change_over.rs", ".patch_status(&pod.name_any()"),
    ("controller", "pods/resize", "patch", "src/reconcile/instance/apply/resize.rs", ".patch_subresource(\"resize\""),
    ("controller", "nodes", "read", "src/reconcile/watch.rs", "watch::<Node, selections::Nodes>"),
    ("controller", "persistentvolumeclaims", "read", "src/webhook/claims.rs", "watch::<_, selections::Claims>"),
    ("controller", "csinodes", "read", "src/reconcile/watch.rs", "watch::<CSINode, selections::Drivers>"),
    ("controller", "events", "create", "src/reconcile/context/events.rs", "recorder.publish("),
    ("controller", "events", "patch", "src/reconcile/context/events.rs", "recorder.publish("),
    ("controller", "mutatingwebhookconfigurations", "read", "webhook-certs/src/keeper.rs", "mutating, Event::Mutating"),
    ("controller", "mutatingwebhookconfigurations", "patch", "webhook-certs/src/keeper.rs", "api.patch(&name"),
    ("controller", "validatingwebhookconfigurations", "read", "webhook-certs/src/keeper.rs", "validating, Event::Validating"),
    ("controller", "validatingwebhookconfigurations", "patch", "webhook-certs/src/keeper.rs", "api.patch(&name"),
    ("controller", "leases", "read", "src/lease.rs", "watch_object(self.api.clone()"),
    ("controller", "leases", "update", "src/lease.rs", ".replace(&self.options.name"),
    ("controller", "leases", "create", "src/lease.rs", "self.api.create("),
    ("controller", "secrets", "read", "webhook-certs/src/keeper.rs", "watched(secrets, secret, Event::Secret)"),
    ("controller", "secrets", "update", "webhook-certs/src/keeper.rs", "api.replace(name"),
    ("controller", "secrets", "create", "webhook-certs/src/keeper.rs", "api.create(&params"),
    ("certs", "mutatingwebhookconfigurations", "read", "webhook-certs/src/keeper.rs", "mutating, Event::Mutating"),
    ("certs", "mutatingwebhookconfigurations", "patch", "webhook-certs/src/keeper.rs", "api.patch(&name"),
    ("certs", "validatingwebhookconfigurations", "read", "webhook-certs/src/keeper.rs", "validating, Event::Validating"),
    ("certs", "validatingwebhookconfigurations", "patch", "webhook-certs/src/keeper.rs", "api.patch(&name"),
    ("certs", "secrets", "read", "webhook-certs/src/keeper.rs", "watched(secrets, secret, Event::Secret)"),
    ("certs", "secrets", "update", "webhook-certs/src/keeper.rs", "api.replace(name"),
    ("certs", "secrets", "create", "webhook-certs/src/keeper.rs", "api.create(&params"),
    ("node-agent", "pods", "read", "crates/node-agent/src/instance/pod.rs", "Api<Trimmed<Pod, F>>"),
    ("node-agent", "stoppablecontainerinstances", "read", "crates/node-agent/src/sync/watch.rs", "watch_trimmed::<StoppableContainerInstance, Whole>"),
    ("node-agent", "stoppablecontainerinstances/status", "patch", "crates/node-agent/src/instance/status.rs", ".patch_status("),
    ("node-agent", "tokenreviews", "create", "crates/node-agent/src/metrics/scraper.rs", "Api::<TokenReview>::all"),
    ("node-agent", "subjectaccessreviews", "create", "crates/node-agent/src/metrics/scraper.rs", "Api::<SubjectAccessReview>::all"),
    ("node-agent-events", "events", "create", "crates/node-agent/src/sync/orphans.rs", "recorder.publish("),
    ("node-agent-events", "events", "patch", "crates/node-agent/src/sync/orphans.rs", "recorder.publish("),
    ("uninstall", "stoppablecontainers", "read", "webhook-certs/src/hooks.rs", ".list_metadata("),
    ("uninstall", "stoppablecontainerinstances", "read", "webhook-certs/src/hooks.rs", ".list_metadata("),
    ("test", "stoppablecontainers", "create", "webhook-certs/src/hooks.rs", "objects.create("),
];
/// Roles of users and not of programs.
const USERS: [&str; 3] = ["view", "edit", "metrics-reader"];

fn words<'a>(rule: &'a Value, key: &str) -> Vec<&'a str> {
    let words = rule[key].as_array().into_iter().flatten();
    words.map(|word| word.as_str().unwrap()).collect()
}

/// All permissions of the programs, with the names of their roles.
fn granted(objects: &Objects) -> BTreeSet<(String, String, String)> {
    let mut granted = BTreeSet::new();
    for role in objects.of("ClusterRole").chain(objects.of("Role")) {
        let program = name(role).strip_prefix("stoppablecontainer-").unwrap();
        if USERS.contains(&program) {
            continue;
        }
        for rule in role["rules"].as_array().unwrap() {
            for resource in words(rule, "resources") {
                for verb in words(rule, "verbs") {
                    let verb = if matches!(verb, "get" | "list" | "watch") {
                        "read"
                    } else {
                        verb
                    };
                    granted.insert((program.to_owned(), resource.to_owned(), verb.to_owned()));
                }
            }
        }
    }
    granted
}

#[test]
fn the_programs_have_the_permissions_that_their_code_needs_and_no_others() {
    let needed = USES
        .iter()
        .map(|(program, resource, verb, ..)| (program.to_string(), resource.to_string(), verb.to_string()));
    let needed: BTreeSet<_> = needed.collect();
    assert_eq!(needed.len(), USES.len(), "a permission is listed twice");
    let granted = granted(&render(&[]));
    let unused: Vec<_> = granted.difference(&needed).collect();
    let missing: Vec<_> = needed.difference(&granted).collect();
    assert!(
        unused.is_empty() && missing.is_empty(),
        "not listed here: {unused:?}, not granted: {missing:?}"
    );
}

#[test]
fn the_code_that_needs_a_permission_exists() {
    for (program, resource, verb, file, part) in USES {
        let text = std::fs::read_to_string(root().join(file)).unwrap();
        assert!(
            text.contains(part),
            "{program} needs {verb} of {resource}: {file} does not contain {part:?}"
        );
    }
}

/// A wildcard would hide which permissions a program has.
#[test]
fn no_role_has_a_wildcard() {
    for role in render(&[]).0 {
        for rule in role["rules"].as_array().into_iter().flatten() {
            for key in ["apiGroups", "resources", "verbs"] {
                assert!(!words(rule, key).contains(&"*"), "{}: {key}", name(&role));
            }
        }
    }
}
