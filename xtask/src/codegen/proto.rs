/*!
Generates `crates/csi-proto/src/gen` from the protos vendored next to it, without
`protoc`, so that a user of the workspace needs neither it nor this program.
*/

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The protos below `crates/csi-proto/proto`, and the file that each becomes below `crates/csi-proto/src/gen`.
const SOURCES: [(&str, &str, &str); 3] = [
    ("csi", "csi.proto", "csi.v1.rs"),
    ("cri", "api.proto", "runtime.v1.rs"),
    ("registration", "api.proto", "pluginregistration.rs"),
];

/// The generated files, as (path in the workspace, content). Writes nothing in the workspace; `scratch` is an
/// existing directory for intermediate files.
pub fn generate(workspace: &Path, scratch: &Path) -> Result<Vec<(PathBuf, String)>> {
    let protos = workspace.join("crates/csi-proto/proto");
    let mut files = Vec::new();
    for (directory, proto, generated) in SOURCES {
        let include = protos.join(directory);
        let descriptors = protox::compile([include.join(proto)], [&include])
            .with_context(|| format!("compile {directory}/{proto}"))?;
        tonic_prost_build::configure()
            .generate_default_stubs(true)
            .build_transport(false)
            .emit_rerun_if_changed(false)
            .out_dir(scratch)
            .compile_fds(descriptors)
            .with_context(|| format!("generate code for {directory}/{proto}"))?;
        let content = fs::read_to_string(scratch.join(generated))
            .with_context(|| format!("read what was generated for {directory}/{proto}"))?;
        files.push((Path::new("crates/csi-proto/src/gen").join(generated), content));
    }
    Ok(files)
}
