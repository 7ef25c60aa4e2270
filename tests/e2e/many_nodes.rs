//! Clusters of several nodes: where an object goes, and what becomes of it when its node goes.
//!
//! Each test says how many nodes it needs, and a run adds what is missing. They run alone, because
//! most of them change what a node has.

mod away;
mod claims;
mod first_node;
