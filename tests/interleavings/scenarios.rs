//! All scenarios.

mod ends;
mod life;
mod losses;
mod nodes;

use crate::scenario::Scenario;
pub(crate) use ends::delete;
pub(crate) use life::{start, stop};

/// Every scenario, by subject.
pub(crate) fn all() -> impl Iterator<Item = &'static Scenario> {
    [life::ALL, ends::ALL, nodes::ALL, losses::ALL]
        .into_iter()
        .flatten()
}
