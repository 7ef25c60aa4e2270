//! Generates the code of `src/gen` from the protos in `proto/`, without `protoc`, into the
//! directory named by the only argument. `cargo xtask codegen` runs it. It is an example, so that
//! other builds do not compile its dependencies.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The protos below `proto`, one per generated file.
const SOURCES: [(&str, &str); 7] = [
    ("csi", "csi.proto"),
    ("cri", "api.proto"),
    ("containerd", "leases.proto"),
    ("containerd", "snapshots.proto"),
    ("deviceplugin", "api.proto"),
    ("dra", "api.proto"),
    ("registration", "api.proto"),
];

fn main() -> Result<()> {
    let out = std::env::args_os()
        .nth(1)
        .map(PathBuf::from)
        .context("name the directory to write to")?;
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    for (directory, proto) in SOURCES {
        let include = protos.join(directory);
        let descriptors = protox::compile([include.join(proto)], [&include])
            .with_context(|| format!("compile {directory}/{proto}"))?;
        tonic_prost_build::configure()
            .generate_default_stubs(true)
            .build_transport(false)
            .emit_rerun_if_changed(false)
            .out_dir(&out)
            .compile_fds(descriptors)
            .with_context(|| format!("generate code for {directory}/{proto}"))?;
    }
    Ok(())
}
