/*!
Images: the product's own, by the shipped Dockerfile, and those that the tests and examples name, built here because
there is no registry to pull them from.
*/

mod base;
mod buildah;
mod destination;
pub mod pause;
mod static_program;
pub mod testing;

pub use destination::Destination;
