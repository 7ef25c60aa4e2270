//! Why a call of the kubelet's fails, and the gRPC code of each reason.

use std::path::PathBuf;

use tonic::{Code, Status};

use crate::instance::ObjectRef;
use crate::instance::pod::PodError;

/// The reason.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CsiError {
    /// The request breaks the CSI specification, or asks for something that the driver does not
    /// have.
    #[error("{0}")]
    InvalidRequest(String),
    #[error("the target path is not below {}", .0.display())]
    TargetOutside(PathBuf),
    #[error("another call for this volume is under way")]
    InProgress,
    #[error("the volume is published for another pod or at another path")]
    PublishedElsewhere,
    #[error(transparent)]
    Pod(#[from] PodError),
    #[error(
        "StoppableContainerInstance {owner} (UID {}), which owns pod {pod}, is not an instance of node {node}",
        .owner.uid
    )]
    UnknownInstance {
        owner: Box<ObjectRef>,
        pod: ObjectRef,
        node: String,
    },
    #[error(
        "pod {pod} (UID {}) is neither the provider nor the consumer that StoppableContainerInstance {owner} \
         records in its status",
        .pod.uid
    )]
    NotRecorded { owner: Box<ObjectRef>, pod: ObjectRef },
    #[error("the owner reference of pod {pod} names {owner}, but the object with this UID has another name")]
    OwnerName { owner: Box<ObjectRef>, pod: ObjectRef },
    #[error("pod {0} holds room for a consumer and never starts")]
    Placeholder(ObjectRef),
    #[error("the instance changed while it was read")]
    InstanceChanged,
    /// What the consumer wrote is not durable yet, or a failure of that is not reported yet.
    #[error("{0:#}")]
    Writeback(anyhow::Error),
    /// The node does not do what it should.
    #[error("{0:#}")]
    Internal(#[from] anyhow::Error),
}

// === impl CsiError ===

impl CsiError {
    /// The gRPC code of the error, see the CSI specification.
    pub(super) fn code(&self) -> Code {
        match self {
            Self::InvalidRequest(_) | Self::TargetOutside(_) => Code::InvalidArgument,
            Self::InProgress => Code::Aborted,
            Self::PublishedElsewhere => Code::AlreadyExists,
            Self::Pod(error) => match error {
                PodError::Unavailable { .. } => Code::Unavailable,
                PodError::Missing(_)
                | PodError::OtherUid { .. }
                | PodError::OtherNode { .. }
                | PodError::OtherOwner(_)
                | PodError::NotMountedByOne(_) => Code::PermissionDenied,
            },
            Self::UnknownInstance { .. } | Self::NotRecorded { .. } | Self::OwnerName { .. } => {
                Code::PermissionDenied
            }
            Self::Placeholder(_) => Code::FailedPrecondition,
            Self::Writeback(_) => Code::Unavailable,
            Self::InstanceChanged | Self::Internal(_) => Code::Internal,
        }
    }
}

impl From<CsiError> for Status {
    fn from(error: CsiError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
