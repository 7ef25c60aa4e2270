//! The checks of `doctor`: findings from what was read. Pure.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::{Resource, ResourceExt};
use stoppablecontainer_api::names::{CSI_DRIVER, GROUP};
use stoppablecontainer_api::{Phase, StoppableContainer, controller_of};
use x509_parser::pem::Pem;

use crate::cmd::version;
use crate::explain::INSTALL;
use crate::units;
use crate::view;

use super::facts::Facts;

/// Oldest supported minor release of Kubernetes 1.
const OLDEST: u32 = 32;
/// Certificates that expire sooner are reported.
const SOON: i64 = 7 * 24 * 3600;

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// How bad it is.
    pub(super) level: Level,
    /// What was checked.
    pub(super) check: &'static str,
    /// What was found.
    pub(super) text: String,
    /// What to do.
    pub(super) next: Option<String>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// It works.
    Ok,
    /// The user may not look at it.
    Unknown,
    /// It works, and needs attention.
    Warning,
    /// It does not work.
    Failed,
}

/// All checks in the order in which one depends on the other.
pub(super) fn all(facts: &Facts, now: Timestamp) -> Vec<Finding> {
    let mut findings = vec![kubernetes(facts), crds(facts)];
    findings.push(controller(facts));
    findings.extend(webhook(facts, now));
    findings.extend(agents(facts));
    findings.push(permissions(facts));
    findings.push(versions(facts));
    findings.push(containers(facts));
    findings.push(orphans(facts));
    findings
}

fn kubernetes(facts: &Facts) -> Finding {
    let check = "Kubernetes";
    let (major, minor) = match &facts.kubernetes {
        Ok(version) => version,
        Err(why) => return failed(check, why, "check the kubeconfig: kubectl cluster-info"),
    };
    let number: String = minor.chars().take_while(char::is_ascii_digit).collect();
    let text = format!("release {major}.{number}");
    match number.parse::<u32>() {
        Ok(number) if major == "1" && number < OLDEST => failed(
            check,
            &text,
            &format!("1.{OLDEST} or newer is needed; upgrade the cluster"),
        ),
        _ => ok(check, &text),
    }
}

fn crds(facts: &Facts) -> Finding {
    let check = "CRDs";
    let needed = StoppableContainer::version(&());
    match &facts.served {
        Err(why) => unknown(check, why),
        Ok(served) if served.is_empty() => failed(check, &format!("{GROUP} is not served"), INSTALL),
        Ok(served) if served.iter().any(|version| *version == *needed) => {
            ok(check, &format!("{GROUP}/{needed} is served"))
        }
        Ok(served) => failed(
            check,
            &format!("{} is served, and this plugin needs {needed}", served.join(", ")),
            "install the plugin of the cluster's version",
        ),
    }
}

fn controller(facts: &Facts) -> Finding {
    let check = "controller";
    let controllers = match &facts.controllers {
        Err(why) => return unknown(check, why),
        Ok(controllers) => controllers,
    };
    let Some(controller) = controllers.first() else {
        return failed(check, "no Deployment of the product", INSTALL);
    };
    let wanted = controller
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1);
    let ready = controller
        .status
        .as_ref()
        .and_then(|status| status.ready_replicas)
        .unwrap_or(0);
    let place = controller.namespace().unwrap_or_default();
    let text = format!("{ready} of {wanted} replicas are ready in {place}");
    let next = format!("kubectl -n {place} describe deployment {}", controller.name_any());
    match ready {
        _ if controllers.len() > 1 => failed(
            check,
            &format!("{} Deployments of the product", controllers.len()),
            "a cluster has one installation; uninstall the others",
        ),
        0 => failed(check, &text, &next),
        _ if ready < wanted => warning(check, &text, &next),
        _ => ok(check, &text),
    }
}

fn webhook(facts: &Facts, now: Timestamp) -> Vec<Finding> {
    let check = "webhook";
    let answers = match &facts.dry_run {
        Ok(()) => ok(check, "answers the API server"),
        // A refusal of the object is an answer.
        Err(why) if why.contains("denied the request") => ok(check, "answers the API server"),
        Err(why) if why.contains("failed calling webhook") => failed(
            check,
            why,
            "check the controller, and the network from the API server to it (port 8443)",
        ),
        Err(why) => unknown(check, why),
    };
    let configured = match &facts.webhooks {
        Err(why) => unknown("webhook configuration", why),
        Ok(webhooks) => {
            let missing: Vec<_> = ["mutating", "validating"]
                .into_iter()
                .filter(|kind| webhooks.iter().all(|webhook| webhook.kind != *kind))
                .collect();
            if missing.is_empty() {
                certificate(webhooks.iter().flat_map(|webhook| &webhook.bundles), now)
            } else {
                failed(
                    "webhook configuration",
                    &format!("{} is missing", missing.join(" and ")),
                    INSTALL,
                )
            }
        }
    };
    vec![answers, configured]
}

/// The first end of the authorities that the API server trusts.
fn certificate<'a>(bundles: impl Iterator<Item = &'a Vec<u8>>, now: Timestamp) -> Finding {
    let check = "webhook certificate";
    let next = "look at the controller's log: kubectl logs -l app.kubernetes.io/component=controller -A";
    let mut ends = Vec::new();
    for bundle in bundles {
        if bundle.is_empty() {
            return failed(check, "a webhook has no caBundle", next);
        }
        // With an old and a new authority, the newest one counts.
        match newest_end(bundle) {
            Some(end) => ends.push(end),
            None => return failed(check, "a caBundle has no certificate", next),
        }
    }
    let Some(end) = ends.into_iter().min() else {
        return failed(check, "a webhook configuration has no webhook", INSTALL);
    };
    let left = now.duration_until(end).as_secs();
    let day = end.strftime("%Y-%m-%d");
    if left <= 0 {
        failed(check, &format!("the authority expired on {day}"), next)
    } else if left < SOON {
        let left = units::age(now, end);
        warning(
            check,
            &format!("the authority expires in {left}, on {day}"),
            "it is renewed before that by the controller, or by you if it is your own",
        )
    } else {
        ok(check, &format!("the authority is valid until {day}"))
    }
}

fn newest_end(bundle: &[u8]) -> Option<Timestamp> {
    let pems = Pem::iter_from_buffer(bundle).filter_map(Result::ok);
    let ends = pems.filter_map(|pem| {
        let certificate = pem.parse_x509().ok()?;
        Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
    });
    ends.max()
}

fn agents(facts: &Facts) -> Vec<Finding> {
    vec![agent_pods(facts), agent_drivers(facts)]
}

fn agent_pods(facts: &Facts) -> Finding {
    let check = "node agents";
    let agents = match &facts.agents {
        Err(why) => return unknown(check, why),
        Ok(agents) => agents,
    };
    let Some(agent) = agents.first() else {
        return failed(check, "no DaemonSet of the product", INSTALL);
    };
    let (wanted, ready) = agent.status.as_ref().map_or((0, 0), |status| {
        (status.desired_number_scheduled, status.number_ready)
    });
    let place = agent.namespace().unwrap_or_default();
    let text = format!("{ready} of {wanted} are ready in {place}");
    if ready < wanted || wanted == 0 {
        let next = format!("kubectl -n {place} describe daemonset {}", agent.name_any());
        return failed(check, &text, &next);
    }
    ok(check, &text)
}

/// Nodes whose kubelet does not know the agent. A node without one is only a problem for the
/// containers on it.
fn agent_drivers(facts: &Facts) -> Finding {
    let check = "agent per node";
    let (nodes, drivers) = match (&facts.nodes, &facts.drivers) {
        (Err(why), _) | (_, Err(why)) => return unknown(check, why),
        (Ok(nodes), Ok(drivers)) => (nodes, drivers),
    };
    let registered: BTreeSet<_> = drivers
        .iter()
        .filter(|node| node.spec.drivers.iter().any(|driver| driver.name == CSI_DRIVER))
        .map(ResourceExt::name_any)
        .collect();
    let linux = |node: &&Node| {
        node.labels()
            .get("kubernetes.io/os")
            .is_none_or(|os| os == "linux")
    };
    let without: Vec<_> = nodes
        .iter()
        .filter(linux)
        .map(ResourceExt::name_any)
        .filter(|name| !registered.contains(name))
        .collect();
    if without.is_empty() {
        return ok(check, &format!("all {} Linux nodes have one", registered.len()));
    }
    let text = format!("not registered on {}", without.join(", "));
    let next = "containers cannot start there; check agent.nodeSelector, agent.tolerations and agent.kubeletDir of \
                the chart";
    let used = facts.containers.iter().flatten().any(|container| {
        let node = container
            .status
            .as_ref()
            .and_then(|status| status.node_name.as_ref());
        node.is_some_and(|node| without.contains(node))
    });
    if used || registered.is_empty() {
        failed(check, &text, next)
    } else {
        warning(check, &text, next)
    }
}

fn permissions(facts: &Facts) -> Finding {
    let check = "your permissions";
    let mut missing = Vec::new();
    for (permission, allowed) in &facts.permissions {
        match allowed {
            Err(why) => return unknown(check, why),
            Ok(true) => {}
            Ok(false) => {
                let sub = if permission.subresource.is_empty() {
                    String::new()
                } else {
                    format!("/{}", permission.subresource)
                };
                missing.push(format!(
                    "{} {}{sub} (for {})",
                    permission.verb, permission.resource, permission.commands
                ));
            }
        }
    }
    if missing.is_empty() {
        return ok(
            check,
            &format!("every command is allowed in namespace {}", facts.namespace),
        );
    }
    warning(
        check,
        &format!(
            "not allowed in namespace {}: {}",
            facts.namespace,
            missing.join(", ")
        ),
        "ask an administrator for the ClusterRole edit in this namespace",
    )
}

fn versions(facts: &Facts) -> Finding {
    let check = "versions";
    let label = |labels: &std::collections::BTreeMap<String, String>| {
        labels.get("app.kubernetes.io/version").cloned()
    };
    let (controllers, agents) = match (&facts.controllers, &facts.agents) {
        (Err(why), _) | (_, Err(why)) => return unknown(check, why),
        (Ok(controllers), Ok(agents)) => (controllers, agents),
    };
    let found: BTreeSet<_> = controllers
        .iter()
        .filter_map(|object| label(object.labels()))
        .chain(agents.iter().filter_map(|object| label(object.labels())))
        .collect();
    let own = version::client();
    if found.iter().any(|version| version != own) {
        let found: Vec<_> = found.into_iter().collect();
        return warning(
            check,
            &format!("the plugin is {own}, the cluster has {}", found.join(" and ")),
            "install the plugin of the cluster's version",
        );
    }
    if found.is_empty() {
        return unknown(check, "the cluster's objects have no version");
    }
    ok(check, &format!("plugin, controller and agents are {own}"))
}

fn containers(facts: &Facts) -> Finding {
    let check = "containers";
    let containers = match &facts.containers {
        Err(why) => return unknown(check, why),
        Ok(containers) => containers,
    };
    let failed: Vec<_> = containers
        .iter()
        .filter(|container| view::phase(container) == Some(Phase::Failed))
        .map(|container| {
            format!(
                "{}/{}",
                container.namespace().unwrap_or_default(),
                container.name_any()
            )
        })
        .collect();
    if failed.is_empty() {
        return ok(check, &format!("{} containers, none failed", containers.len()));
    }
    warning(
        check,
        &format!(
            "{} of {} failed: {}",
            failed.len(),
            containers.len(),
            failed.join(", ")
        ),
        "kubectl stopc status NAME",
    )
}

fn orphans(facts: &Facts) -> Finding {
    let check = "orphans";
    let (instances, events) = match (&facts.instances, &facts.orphans) {
        (Err(why), _) | (_, Err(why)) => return unknown(check, why),
        (Ok(instances), Ok(events)) => (instances, events),
    };
    let alone: Vec<_> = instances
        .iter()
        .filter(|instance| controller_of::<StoppableContainer>(*instance).is_none())
        .map(|instance| {
            format!(
                "{}/{}",
                instance.namespace().unwrap_or_default(),
                instance.name_any()
            )
        })
        .collect();
    let nodes: BTreeSet<_> = events
        .iter()
        .filter_map(|event| event.regarding.as_ref()?.name.clone())
        .collect();
    let mut texts = Vec::new();
    if !alone.is_empty() {
        texts.push(format!(
            "instances without a StoppableContainer: {}",
            alone.join(", ")
        ));
    }
    if !nodes.is_empty() {
        let nodes: Vec<_> = nodes.into_iter().collect();
        texts.push(format!("data without an object on {}", nodes.join(", ")));
    }
    if texts.is_empty() {
        return ok(check, "no instance or data without an object");
    }
    warning(
        check,
        &texts.join("; "),
        "see \"Data without an object\" in docs/storage.md",
    )
}

// === Findings ===

fn ok(check: &'static str, text: &str) -> Finding {
    finding(Level::Ok, check, text, None)
}

fn unknown(check: &'static str, why: &str) -> Finding {
    finding(Level::Unknown, check, why, None)
}

fn warning(check: &'static str, text: &str, next: &str) -> Finding {
    finding(Level::Warning, check, text, Some(next))
}

fn failed(check: &'static str, text: &str, next: &str) -> Finding {
    finding(Level::Failed, check, text, Some(next))
}

fn finding(level: Level, check: &'static str, text: &str, next: Option<&str>) -> Finding {
    Finding {
        level,
        check,
        text: text.to_owned(),
        next: next.map(str::to_owned),
    }
}

// === impl Level ===

impl Level {
    /// The word in the table.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Failed => "FAILED",
        }
    }
}

#[cfg(test)]
mod tests;
