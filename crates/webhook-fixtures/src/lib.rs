/*!
What the tests and the fuzz targets of the webhook share: its router in this process, one instance
and its pod, pods of every shape, and what must hold for each of them. The benchmarks use the same
objects.
*/

#![forbid(unsafe_code)]
// A test helper that cannot continue ends the test.
#![allow(clippy::missing_panics_doc, clippy::unwrap_used)]

mod generated;
mod harness;
mod objects;
mod properties;

pub use generated::pod_spec;
pub use harness::{Answer, CONTROLLER, Harness, Reviewer};
pub use objects::{consumer_of, creation, instance, pod, spec_with_variables, typical_spec};
pub use properties::check_rewrite;
