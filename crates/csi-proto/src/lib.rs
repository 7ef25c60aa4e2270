//! Placeholder header, replaced with the code.
