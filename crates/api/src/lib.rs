/*!
The API of StoppableContainer: its two custom resources, and the names that the operator, the node
agent and the tests share.

This crate does not use a Kubernetes client. `cargo xtask codegen` generates the CRDs from the Rust
types, so a change of a type changes the API.
*/

#![forbid(unsafe_code)]

mod bounds;
pub mod conditions;
#[expect(
    unreachable_pub,
    reason = "the KubeSchema derive makes a private copy of the type and keeps its `pub`"
)]
mod container;
mod documented;
#[expect(unreachable_pub, reason = "as above")]
mod instance;
pub mod json;
pub mod names;
mod owner;
mod recovery;
mod reference;
mod schema;
mod status;
mod steps;
mod template;
mod text;
pub mod trimmed;
mod usage;

pub use bounds::{Excess, MAX_POD_NODES, MAX_TEMPLATE_BYTES, MAX_TEMPLATE_NODES, pod_excesses};
pub use container::{
    DEFAULT_HOST_PATH_PREFIX, GivenUpNodes, KeptFilesystem, ProviderSpec, StoppableContainer,
    StoppableContainerSpec, StoppableContainerStatus, WhileStopped,
};
pub use instance::{
    ConsumerReport, FilesystemState, FilesystemStatus, GivenUp, Identity, ImageFacts, PinnedImage, Placement,
    StoppableContainerInstance, StoppableContainerInstanceSpec, StoppableContainerInstanceStatus,
    TemplateCheck,
};
pub use owner::{controller_of, is_controlled_by};
pub use recovery::{RecoveryAnswer, RecoveryOffer, RecoveryVerb};
pub use reference::same_repository;
pub use schema::custom_resource_definitions;
pub use status::Phase;
pub use steps::{StartSteps, StopSteps};
pub use template::{MainContainer, PodTemplate, Provider, TemplateError};
pub use text::truncate_utf8;
pub use usage::{FilesystemUsage, StorageExcess, storage_limit, whole_quantity};
