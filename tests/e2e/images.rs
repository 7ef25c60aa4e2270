/*!
Images: unusual contents and users, the layers that the node must keep while a consumer runs, and
the digest of kept data.
*/

mod image_pin;
mod pinned;
mod retagged;
mod variants;
