/*!
The part of a pod that the agent reads: its owner, its node, and which container has our volume. A pod may be as large as
etcd takes, and every user who may create pods can ask the kubelet for a volume of ours in one; so the agent reads
nothing else of it (invariant I18).
*/

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use stoppablecontainer_api::json::Keep;
use stoppablecontainer_api::trimmed::{METADATA, Selection, Trimmed};

/// See above.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place;

/// Most entries of a list that are read. The agent does not find entries behind them and refuses the pod.
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
    let api: Api<Trimmed<Pod, Place>> = Api::namespaced(client.clone(), namespace);
    let found = api.get_opt(name).await?.map(Trimmed::into_object).transpose();
    found.map_err(|unreadable| kube::Error::Service(Box::new(unreadable)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn i18_of_a_pod_little_is_read_and_of_its_lists_no_more_than_some() {
        let volumes = vec![json!({ "name": "v" }); 31_000];
        let pod = json!({
            "metadata": {
                "name": "web", "namespace": "ns", "uid": "u1", "annotations": { "big": "x".repeat(9_000) },
                "ownerReferences": [{ "apiVersion": "v1", "kind": "K", "name": "o", "uid": "o1", "controller": true }],
            },
            "spec": { "nodeName": "n1", "containers": [{ "name": "c" }], "volumes": volumes },
        });
        let held: Trimmed<Pod, Place> = serde_json::from_str(&pod.to_string()).unwrap();
        let pod = held.into_object().unwrap();
        assert_eq!(pod.metadata.owner_references.unwrap().len(), 1);
        let spec = pod.spec.unwrap();
        assert_eq!(spec.node_name.as_deref(), Some("n1"));
        assert_eq!(spec.volumes.map(|volumes| volumes.len()), Some(ENTRIES));
    }
}
