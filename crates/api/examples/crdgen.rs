//! Prints the CRDs as a YAML stream, for `cargo xtask codegen`. An example and not a binary, so
//! that whatever links this crate does without a YAML writer.

#![forbid(unsafe_code)]

fn main() -> Result<(), serde_saphyr::ser_error::Error> {
    for crd in stoppablecontainer_api::custom_resource_definitions() {
        print!("---\n{}", serde_saphyr::to_string(&crd)?);
    }
    Ok(())
}
