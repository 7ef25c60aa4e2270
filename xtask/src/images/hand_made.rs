/*!
Images that image builders cannot create.
*/

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::buildah::Buildah;
use super::layout::{self, Entry, Layer};
use super::platform::Platform;
use crate::progress::Step;
use crate::tools::{Fingerprint, Stamp};

/// One image.
pub(super) struct HandMade {
    /// Name in manifests.
    pub(super) name: &'static str,
    /// The layers on top of the one with the static program `/static`.
    layers: fn() -> Vec<Layer>,
    /// The config, as [`layout::write`] takes it.
    config: fn() -> Value,
}

/// Size of a config that exceeds the agent's limit. It is less than skopeo's limit; in the output
/// of a runtime each `<` has six bytes.
const HUGE: usize = 2 << 20;

pub(super) const IMAGES: &[HandMade] = &[
    HandMade {
        name: "docker.io/test/hostile-devices:1",
        layers: || vec![devices()],
        config: || json!({"config": {"Entrypoint": ["/static", "pause"]}}),
    },
    HandMade {
        name: "docker.io/test/hostile-dev-link:1",
        layers: || {
            vec![vec![
                ("elsewhere".to_owned(), Entry::Directory),
                ("dev".to_owned(), Entry::Link("/elsewhere")),
            ]]
        },
        config: || json!({"config": {"Entrypoint": ["/static", "pause"]}}),
    },
    HandMade {
        name: "docker.io/test/hostile-config:1",
        layers: Vec::new,
        config: || {
            json!({"config": {
                "Entrypoint": ["/static", "pause"], "Cmd": null, "Env": null, "ExposedPorts": null, "OnBuild": null,
                "Volumes": {"/../../../../hostile-volume": {}, "/static/../../hostile-volume": {}},
                "Labels": {"../../../etc/hostile": "../../../etc/hostile", "lines": "a\nb\u{0}", "large": "x".repeat(1 << 20)},
            }})
        },
    },
    HandMade {
        name: "docker.io/test/malformed-config:1",
        layers: Vec::new,
        config: || json!({"config": {"Entrypoint": 7, "Cmd": "pause", "Env": {"A": 1}, "User": []}}),
    },
    HandMade {
        name: "docker.io/test/huge-config:1",
        layers: Vec::new,
        config: || json!({"config": {"Entrypoint": ["/static", "pause"], "Labels": {"huge": "<".repeat(HUGE)}}}),
    },
    HandMade {
        name: "docker.io/test/huge-environment:1",
        layers: Vec::new,
        config: || json!({"config": {"Entrypoint": ["/static", "pause"], "Env": [format!("HUGE={}", "x".repeat(1 << 20))]}}),
    },
    HandMade {
        name: "docker.io/test/layers-127:1",
        layers: || many(126),
        config: || json!({"config": {"Entrypoint": ["/static", "pause"]}}),
    },
    HandMade {
        name: "docker.io/test/layers-128:1",
        layers: || many(127),
        config: || json!({"config": {"Entrypoint": ["/static", "pause"]}}),
    },
];

/// Writes the images that changed. Returns the stamp of their inputs.
pub(super) fn provide(buildah: &Buildah, program: &Path, step: &Step<'_>) -> Result<String> {
    let program = fs::read(program).with_context(|| format!("reading {}", program.display()))?;
    let fingerprint = Fingerprint::new()
        .text(include_str!("hand_made.rs"))
        .text(layout::SOURCE)
        .bytes(&program)
        .finish();
    for image in IMAGES {
        let layout = buildah.layout(image.name);
        let stamp = Stamp::new(layout.join("stamp"));
        if !stamp.is(&fingerprint) || !layout.is_dir() {
            step.note(image.name);
            let base = vec![("static".to_owned(), Entry::File(program.clone()))];
            let layers = std::iter::once(base).chain((image.layers)());
            layout::write(&layout, Platform::Amd64, layers, (image.config)())?;
            stamp.set(&fingerprint)?;
        }
    }
    Ok(fingerprint)
}

/// A /dev whose entries do not match their names.
fn devices() -> Layer {
    let entries = [
        ("dev", Entry::Directory),
        ("dev/null", Entry::Link("/hostile-target")),
        ("dev/zero", Entry::Directory),
        ("dev/random", Entry::Fifo),
        ("dev/full", Entry::Device(b'3', 1, 1)),
        ("dev/console", Entry::File(b"a file".to_vec())),
        ("dev/ptmx", Entry::Device(b'4', 254, 0)),
        ("dev/pts", Entry::Link("/proc/1/cwd")),
        ("dev/shm", Entry::Link("../../../../hostile-target")),
        ("dev/mqueue", Entry::File(b"a file".to_vec())),
        ("dev/termination-log", Entry::Link("/hostile-target")),
        ("dev/stdout", Entry::Link("/static")),
        ("hostile-target", Entry::Directory),
        ("disk", Entry::Device(b'4', 254, 0)),
        ("memory", Entry::Device(b'3', 1, 1)),
    ];
    entries.map(|(path, entry)| (path.to_owned(), entry)).into()
}

/// Layers with one file each.
fn many(count: usize) -> Vec<Layer> {
    (1..=count)
        .map(|number| {
            vec![(
                format!("layer-{number}"),
                Entry::File(number.to_string().into_bytes()),
            )]
        })
        .collect()
}
