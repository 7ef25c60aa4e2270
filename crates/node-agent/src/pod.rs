/*!
Pods as the agent asks for them: whose they are and where. A pod may be as large as etcd takes, and anybody may ask the
kubelet for a volume of ours in one; nothing else of it is read (invariant I18).
*/

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use stoppablecontainer_api::held::{Held, METADATA, Selection};
use stoppablecontainer_api::json::Keep;

/// See above.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place;

impl Selection for Place {
    const KEEP: Keep = Keep::Fields(&[
        ("metadata", METADATA),
        ("spec", Keep::Fields(&[("nodeName", Keep::All)])),
    ]);
}

/// The pod of this name, if there is one.
pub(crate) async fn get(client: &Client, namespace: &str, name: &str) -> Result<Option<Pod>, kube::Error> {
    let api: Api<Held<Pod, Place>> = Api::namespaced(client.clone(), namespace);
    let found = api.get_opt(name).await?.map(Held::into_object).transpose();
    found.map_err(|unreadable| kube::Error::Service(Box::new(unreadable)))
}
