//! Placeholder header, replaced with the code.
fn main() {}
