/*!
Conversations with the exec-wrappers of pods, one socket for each published volume.

Here are the checks of a peer and the three verbs: `hold` of a provider, `run` and `hook` of a
consumer. What they do to a kept filesystem is in `filesystem`.
*/

pub(crate) mod consumer;
pub(crate) mod provider;
pub(crate) mod socket;
