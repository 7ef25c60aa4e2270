//! Calls one after the other, or one of them many times at once, and the codes that they were
//! answered with.

use std::collections::HashMap;

use anyhow::{Context, Result};
use csi_proto::csi::node_client::NodeClient;
use csi_proto::csi::volume_capability::{AccessType, MountVolume};
use csi_proto::csi::{NodePublishVolumeRequest, NodeUnpublishVolumeRequest, VolumeCapability};
use serde::{Deserialize, Serialize};
use tonic::transport::Channel;
use tonic::{Code, Status};

/// A call of the Node service.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Call {
    verb: Verb,
    volume_id: String,
    target_path: String,
    /// Of a publish.
    #[serde(default)]
    volume_context: HashMap<String, String>,
    /// Of a publish.
    #[serde(default)]
    secrets: HashMap<String, String>,
    /// An attribute more, whose key and value have this many bytes each.
    #[serde(default)]
    large: usize,
    /// How often it is made, all at once.
    #[serde(default = "once")]
    parallel: usize,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Verb {
    Publish,
    Unpublish,
}

/// How a call was answered.
#[derive(Debug, Serialize)]
struct Answer {
    code: String,
    message: String,
}

/// Makes the calls of a JSON list and prints the answers, a list for each call.
pub(crate) async fn make(agent: Channel, calls: &str) -> Result<()> {
    let calls: Vec<Call> = serde_json::from_str(calls).context("CALLS")?;
    let mut answers = Vec::new();
    for call in calls {
        let all = (0..call.parallel).map(|_| one(agent.clone(), call.clone()));
        answers.push(futures::future::join_all(all).await);
    }
    println!("{}", serde_json::to_string(&answers)?);
    Ok(())
}

async fn one(agent: Channel, call: Call) -> Answer {
    let mut client = NodeClient::new(agent);
    let result = match call.verb {
        Verb::Publish => client.node_publish_volume(publish(call)).await.map(drop),
        Verb::Unpublish => {
            let request = NodeUnpublishVolumeRequest {
                volume_id: call.volume_id,
                target_path: call.target_path,
            };
            client.node_unpublish_volume(request).await.map(drop)
        }
    };
    let status = result.err().unwrap_or_else(|| Status::new(Code::Ok, ""));
    Answer {
        code: format!("{:?}", status.code()),
        message: status.message().to_owned(),
    }
}

fn publish(call: Call) -> NodePublishVolumeRequest {
    let mut volume_context = call.volume_context;
    if call.large > 0 {
        volume_context.insert("k".repeat(call.large), "x".repeat(call.large));
    }
    NodePublishVolumeRequest {
        volume_id: call.volume_id,
        target_path: call.target_path,
        volume_capability: Some(VolumeCapability {
            access_type: Some(AccessType::Mount(MountVolume::default())),
            ..VolumeCapability::default()
        }),
        volume_context,
        secrets: call.secrets,
        ..NodePublishVolumeRequest::default()
    }
}

fn once() -> usize {
    1
}
