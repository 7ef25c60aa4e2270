/*!
Conversations with the exec-wrappers of pods, one socket for each published volume.

Here are the checks of a peer and the requests: `hold` of a provider, `run` and `hook` of a
consumer, those of users about the kept files, and in `sandbox` the containers that cannot connect.
What the requests do to a kept filesystem is in `filesystem`.
*/

mod consumer;
mod files;
mod peer;
mod process_end;
mod provider;
mod sandbox;
mod socket;
mod unseen_hooks;

pub(crate) use self::socket::serve;
