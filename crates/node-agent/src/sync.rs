/*!
Tasks that no call begins: the watch of instances, one task for each instance, measurements, the
search for data without an instance, and what an earlier agent left unfinished.

Here is when something is done. What is done is in the rooms below.
*/

mod instance;
pub(crate) mod measure;
pub(crate) mod orphans;
pub(crate) mod restore;
pub(crate) mod watch;
