/*!
The kept filesystem of an instance: what is done to its data, and what the agent writes about that
into `status.filesystem`.
*/

pub(crate) mod blocked;
pub(crate) mod data;
pub(crate) mod prepare;
pub(crate) mod recovery;
pub(crate) mod removal;
pub(crate) mod usage;
pub(crate) mod users;
pub(crate) mod writeback;
