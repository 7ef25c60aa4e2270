//! Tables and properties of the rewrite.
