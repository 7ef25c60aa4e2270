/*!
The hooks of the chart: a check before `helm uninstall`, and `helm test`.
*/

use kube::api::{DynamicObject, ListParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, Error, ResourceExt};
use serde_json::json;
use thiserror::Error;

const GROUP: &str = "stoppablecontainer.xtlsoft.top";
const VERSION: &str = "v1alpha1";
/// The kinds whose objects have a finalizer that only the controller removes.
const KINDS: [(&str, &str); 2] = [
    ("StoppableContainer", "stoppablecontainers"),
    ("StoppableContainerInstance", "stoppablecontainerinstances"),
];
/// A prefix that the webhook rejects, whatever the administrator allows: it is not normalized.
const REJECTED_PREFIX: &str = "/helm-test/../rejected";

/// Why a hook failed.
#[derive(Debug, Error)]
pub enum HookError {
    /// Objects exist.
    #[error(
        "objects of kind {kind} exist, for example {example}: delete them and wait until they are gone, because only \
         the controller removes their finalizers and only the node agents remove their data. To uninstall the chart \
         without this check, use `helm uninstall --no-hooks`"
    )]
    InUse {
        /// Kind of the objects.
        kind: &'static str,
        /// Namespace and name of one object.
        example: String,
    },
    /// The API server accepted an object that the webhook rejects.
    #[error("the API server accepted an invalid object, so it does not call the webhook")]
    NotCalled,
    /// The API server rejected an invalid object, but not with the webhook's message.
    #[error("the API server rejected an object for a reason that is not the webhook's: {0}")]
    OtherReason(String),
    /// A call failed.
    #[error("{call} failed")]
    Call {
        /// What was called.
        call: String,
        /// The error of the call.
        source: Box<Error>,
    },
}

/// Fails while there are objects in any namespace. It succeeds if the kinds do not exist.
///
/// # Errors
/// [`HookError::InUse`], [`HookError::Call`]
pub async fn check_unused(client: &Client) -> Result<(), HookError> {
    for (kind, plural) in KINDS {
        let objects: Api<DynamicObject> = Api::all_with(client.clone(), &resource(kind, plural));
        let list = match objects.list_metadata(&ListParams::default().limit(1)).await {
            Err(Error::Api(status)) if status.code == 404 => continue,
            list => list.map_err(|source| call(format!("listing {plural}"), source))?,
        };
        if let Some(object) = list.items.first() {
            let namespace = object.namespace().unwrap_or_default();
            let example = format!("{namespace}/{}", object.name_any());
            return Err(HookError::InUse { kind, example });
        }
    }
    Ok(())
}

/// Creates a valid and an invalid StoppableContainer as dry runs. The webhook must reject the
/// invalid one. Nothing is stored.
///
/// # Errors
/// [`HookError::NotCalled`], [`HookError::OtherReason`], [`HookError::Call`]
pub async fn check_webhook(client: &Client, namespace: &str) -> Result<(), HookError> {
    let (kind, plural) = KINDS[0];
    let resource = resource(kind, plural);
    let objects: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let parameters = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let object = DynamicObject::new("helm-test", &resource).data(json!({"spec": {
        "running": false,
        "template": {"spec": {"containers": [{"name": "main", "image": "registry.invalid/helm-test"}]}},
    }}));
    let created = objects.create(&parameters, &object).await;
    created.map_err(|source| call(format!("creating a {kind} as a dry run"), source))?;

    let mut invalid = object;
    invalid.data["spec"]["hostPathPrefix"] = json!(REJECTED_PREFIX);
    match objects.create(&parameters, &invalid).await {
        Ok(_) => Err(HookError::NotCalled),
        Err(Error::Api(status)) if status.message.contains("admission webhook") => Ok(()),
        Err(Error::Api(status)) => Err(HookError::OtherReason(status.message.clone())),
        Err(source) => Err(call(format!("creating an invalid {kind} as a dry run"), source)),
    }
}

fn resource(kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, VERSION, kind), plural)
}

fn call(call: String, source: Error) -> HookError {
    HookError::Call {
        call,
        source: Box::new(source),
    }
}
