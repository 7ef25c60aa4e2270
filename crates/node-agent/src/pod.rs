/*!
Pods as the agent asks for them: whose they are, where, and which container has our volume. A pod may be as large as
etcd takes, and whoever may create pods can ask the kubelet for a volume of ours in one; nothing else of it is read
(invariant I18).
*/

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use stoppablecontainer_api::held::{Held, METADATA, Selection};
use stoppablecontainer_api::json::Keep;

/// See above.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place;

/// Most entries of a list that are read. What lies behind them is not found, and the pod refused.
const ENTRIES: usize = 2_048;

const CONTAINERS: Keep = Keep::First(
    ENTRIES,
    &Keep::Fields(&[
        ("name", Keep::All),
        (
            "volumeMounts",
            Keep::First(
                ENTRIES,
                &Keep::Fields(&[("mountPath", Keep::All), ("name", Keep::All)]),
            ),
        ),
    ]),
);

impl Selection for Place {
    const KEEP: Keep = Keep::Fields(&[
        ("metadata", METADATA),
        (
            "spec",
            Keep::Fields(&[
                ("containers", CONTAINERS),
                ("initContainers", CONTAINERS),
                ("nodeName", Keep::All),
                (
                    "volumes",
                    Keep::First(
                        ENTRIES,
                        &Keep::Fields(&[
                            ("csi", Keep::Fields(&[("driver", Keep::All)])),
                            ("name", Keep::All),
                        ]),
                    ),
                ),
            ]),
        ),
    ]);
}

/// The pod of this name, if there is one.
pub(crate) async fn get(client: &Client, namespace: &str, name: &str) -> Result<Option<Pod>, kube::Error> {
    let api: Api<Held<Pod, Place>> = Api::namespaced(client.clone(), namespace);
    let found = api.get_opt(name).await?.map(Held::into_object).transpose();
    found.map_err(|unreadable| kube::Error::Service(Box::new(unreadable)))
}
