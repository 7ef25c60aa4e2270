/*!
Images: the product's own, by the shipped Dockerfile, and those that the tests and examples name, built here because
there is no registry to pull them from.
*/

pub mod pause;
mod static_program;
