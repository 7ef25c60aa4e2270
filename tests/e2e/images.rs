/*!
Images: those with unusual contents or users, the layers that the node must keep while a consumer runs, and the digest
that kept data belongs to.
*/

mod image_pin;
mod pinned;
mod retagged;
mod variants;
