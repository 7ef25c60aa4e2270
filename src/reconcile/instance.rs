//! The reconciler of StoppableContainerInstances.

pub(crate) mod apply;
pub(crate) mod observe;
pub(crate) mod plan;
pub(crate) mod status;
mod storage;
pub(crate) mod template;
