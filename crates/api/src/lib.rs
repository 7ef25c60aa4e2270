/*!
The API of StoppableContainer: its two custom resources, and the names that the
operator, the node agent and the tests must spell alike.

Nothing here talks to a cluster. The Rust types are the source of the CRDs
(`cargo xtask codegen` writes them), so a change here is a change of the API.
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
mod template;
mod text;
pub mod trimmed;
mod usage;

pub use bounds::{Excess, MAX_POD_NODES, MAX_TEMPLATE_BYTES, MAX_TEMPLATE_NODES, pod_excesses};
pub use container::{
    DEFAULT_HOST_PATH_PREFIX, KeptFilesystem, ProviderSpec, StoppableContainer, StoppableContainerSpec,
    StoppableContainerStatus,
};
pub use instance::{
    ConsumerReport, FilesystemState, FilesystemStatus, Identity, ImageFacts, PinnedImage, Placement,
    StoppableContainerInstance, StoppableContainerInstanceSpec, StoppableContainerInstanceStatus,
    TemplateCheck,
};
pub use owner::{controller_of, is_controlled_by};
pub use recovery::{RecoveryAnswer, RecoveryOffer, RecoveryVerb};
pub use reference::same_repository;
pub use schema::custom_resource_definitions;
pub use status::Phase;
pub use template::{MainContainer, PodTemplate, Provider, TemplateError};
pub use text::truncate_utf8;
pub use usage::{FilesystemUsage, StorageExcess, storage_limit, whole_quantity};
