//! What `doctor` reads from the cluster. A part that cannot be read is an error of its own.

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::storage::v1::CSINode;
use kube::api::{DynamicObject, ListParams, PostParams};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use serde_json::json;
use stoppablecontainer_api::conditions::reason;
use stoppablecontainer_api::names::GROUP;
use stoppablecontainer_api::{StoppableContainer, StoppableContainerInstance};

use crate::explain;
use crate::session::Session;

use super::super::version::PRODUCT;

/// A part, or why it cannot be read.
pub(super) type Read<T> = Result<T, String>;

/// Everything that the checks look at.
#[derive(Debug)]
pub(super) struct Facts {
    /// Namespace of the session.
    pub(super) namespace: String,
    /// Version of Kubernetes: major and minor, as the API server writes them.
    pub(super) kubernetes: Read<(String, String)>,
    /// Versions of the product's API group that are served.
    pub(super) served: Read<Vec<String>>,
    /// Webhook configurations: their names and CA bundles.
    pub(super) webhooks: Read<Vec<Webhook>>,
    /// Result of a dry run that passes the webhook.
    pub(super) dry_run: Read<()>,
    /// Deployments of the product.
    pub(super) controllers: Read<Vec<Deployment>>,
    /// DaemonSets of the product.
    pub(super) agents: Read<Vec<DaemonSet>>,
    /// Nodes.
    pub(super) nodes: Read<Vec<Node>>,
    /// Drivers by node.
    pub(super) drivers: Read<Vec<CSINode>>,
    /// Whether the user may do this in the namespace.
    pub(super) permissions: Vec<(Permission, Read<bool>)>,
    /// StoppableContainers of all namespaces, or of the session's.
    pub(super) containers: Read<Vec<StoppableContainer>>,
    /// Their instances.
    pub(super) instances: Read<Vec<StoppableContainerInstance>>,
    /// Events of nodes about data without an object.
    pub(super) orphans: Read<Vec<Event>>,
}

/// A webhook configuration.
#[derive(Clone, Debug)]
pub(super) struct Webhook {
    /// `mutating` or `validating`
    pub(super) kind: &'static str,
    /// The CA bundles of its webhooks.
    pub(super) bundles: Vec<Vec<u8>>,
}

/// An operation on a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Permission {
    pub(super) verb: &'static str,
    pub(super) group: &'static str,
    pub(super) resource: &'static str,
    pub(super) subresource: &'static str,
    /// The commands that need it.
    pub(super) commands: &'static str,
}

/// What the commands need.
pub(super) const PERMISSIONS: &[Permission] = &[
    own("list", "list, status"),
    own("watch", "every wait"),
    own("create", "create"),
    own("patch", "start, stop, restart, resize, reset, accept"),
    own("delete", "delete"),
    pods("get", "", "status, restart"),
    pods("create", "exec", "exec, shell"),
    pods("get", "log", "logs"),
];

const fn own(verb: &'static str, commands: &'static str) -> Permission {
    Permission {
        verb,
        group: GROUP,
        resource: "stoppablecontainers",
        subresource: "",
        commands,
    }
}

const fn pods(verb: &'static str, subresource: &'static str, commands: &'static str) -> Permission {
    Permission {
        verb,
        group: "",
        resource: "pods",
        subresource,
        commands,
    }
}

// === impl Facts ===

impl Facts {
    /// Reads everything.
    pub(super) async fn read(session: &Session) -> Self {
        let client = &session.client;
        let version = client.apiserver_version().await;
        let mut permissions = Vec::new();
        for permission in PERMISSIONS {
            permissions.push((*permission, may(session, *permission).await));
        }
        Self {
            namespace: session.namespace.clone(),
            kubernetes: said(version).map(|info| (info.major, info.minor)),
            served: served(session).await,
            webhooks: webhooks(session).await,
            dry_run: dry_run(session).await,
            controllers: product(session).await,
            agents: product(session).await,
            nodes: everywhere(session).await,
            drivers: everywhere(session).await,
            permissions,
            containers: of_product(session).await,
            instances: of_product(session).await,
            orphans: orphans(session).await,
        }
    }
}

fn said<T>(result: Result<T, kube::Error>) -> Read<T> {
    result.map_err(|error| match error {
        // Not for the roles of users of containers.
        kube::Error::Api(status) if status.code == 403 => {
            format!("you may not read it: {}", status.message)
        }
        error => explain::request("read it", &error).to_string(),
    })
}

async fn served(session: &Session) -> Read<Vec<String>> {
    let groups = said(session.client.list_api_groups().await)?.groups;
    let own = groups.into_iter().filter(|group| group.name == GROUP);
    Ok(own
        .flat_map(|group| group.versions)
        .map(|version| version.version)
        .collect())
}

async fn webhooks(session: &Session) -> Read<Vec<Webhook>> {
    let bytes = |bundle: Option<k8s_openapi::ByteString>| bundle.map(|bundle| bundle.0).unwrap_or_default();
    let mutating: Vec<MutatingWebhookConfiguration> = product(session).await?;
    let validating: Vec<ValidatingWebhookConfiguration> = product(session).await?;
    let mutating = mutating.into_iter().map(|configuration| Webhook {
        kind: "mutating",
        bundles: configuration
            .webhooks
            .into_iter()
            .flatten()
            .map(|webhook| bytes(webhook.client_config.ca_bundle))
            .collect(),
    });
    let validating = validating.into_iter().map(|configuration| Webhook {
        kind: "validating",
        bundles: configuration
            .webhooks
            .into_iter()
            .flatten()
            .map(|webhook| bytes(webhook.client_config.ca_bundle))
            .collect(),
    });
    Ok(mutating.chain(validating).collect())
}

/// Has the API server check an object without storing it. It calls the webhook for that.
async fn dry_run(session: &Session) -> Read<()> {
    let kind = kube::api::ApiResource::erase::<StoppableContainer>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(session.client.clone(), &session.namespace, &kind);
    let object = json!({
        "apiVersion": kind.api_version, "kind": kind.kind,
        "metadata": { "generateName": "doctor-" },
        "spec": {
            "running": false,
            "template": { "spec": { "containers": [{ "name": "main", "image": "doctor" }] } },
        },
    });
    let object = serde_json::from_value(object).map_err(|error| error.to_string())?;
    let params = PostParams {
        dry_run: true,
        field_manager: None,
    };
    match api.create(&params, &object).await {
        Ok(_) => Ok(()),
        Err(error) => Err(explain::request("create a container in a dry run", &error).to_string()),
    }
}

async fn may(session: &Session, permission: Permission) -> Read<bool> {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                namespace: Some(session.namespace.clone()),
                verb: text(permission.verb),
                group: text(permission.group),
                resource: text(permission.resource),
                subresource: text(permission.subresource),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(session.client.clone());
    let answer = said(reviews.create(&PostParams::default(), &review).await)?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

/// Objects of a kind that belong to the product.
async fn product<K>(session: &Session) -> Read<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let params = ListParams::default().labels(PRODUCT);
    let listed = Api::<K>::all(session.client.clone()).list(&params).await;
    Ok(said(listed)?.items)
}

async fn everywhere<K>(session: &Session) -> Read<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let listed = Api::<K>::all(session.client.clone())
        .list(&ListParams::default())
        .await;
    Ok(said(listed)?.items)
}

/// Objects of the product's kinds in all namespaces, or in the session's if only that is allowed.
async fn of_product<K>(session: &Session) -> Read<Vec<K>>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
{
    if let Ok(objects) = everywhere(session).await {
        return Ok(objects);
    }
    let listed = session
        .api::<K>(&session.namespace)
        .list(&ListParams::default())
        .await;
    Ok(said(listed)?.items)
}

async fn orphans(session: &Session) -> Read<Vec<Event>> {
    let mut events = Vec::new();
    for reason in [reason::ORPHANED_FILESYSTEM, reason::MOVED_FILESYSTEM] {
        let params = ListParams::default().fields(&format!("reason={reason}"));
        let listed = Api::<Event>::all(session.client.clone()).list(&params).await;
        events.extend(said(listed)?.items);
    }
    Ok(events)
}
