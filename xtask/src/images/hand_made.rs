/*!
Images that image builders cannot create, written blob by blob in the OCI image layout.
*/

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::buildah::Buildah;
use crate::progress::Step;
use crate::shell;
use crate::tools::{Fingerprint, Stamp};

/// One image.
pub(super) struct HandMade {
    /// Name in manifests.
    pub(super) name: &'static str,
    /// The layers on top of the one with the static program `/static`.
    layers: fn() -> Vec<Layer>,
    /// The config, without root filesystem and platform, which are added.
    config: fn() -> Value,
}

/// Paths and entries of a layer.
type Layer = Vec<(String, Entry)>;

/// An entry of a layer.
enum Entry {
    Directory,
    File(Vec<u8>),
    Link(&'static str),
    Fifo,
    /// Kind (`b'3'` character, `b'4'` block), major and minor number.
    Device(u8, u32, u32),
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
        .bytes(&program)
        .finish();
    for image in IMAGES {
        let layout = buildah.layout(image.name);
        let stamp = Stamp::new(layout.join("stamp"));
        if !stamp.is(&fingerprint) || !layout.is_dir() {
            step.note(image.name);
            image.write(&layout, &program)?;
            stamp.set(&fingerprint)?;
        }
    }
    Ok(fingerprint)
}

// === impl HandMade ===

impl HandMade {
    fn write(&self, layout: &Path, program: &[u8]) -> Result<()> {
        if layout.exists() {
            fs::remove_dir_all(layout).with_context(|| format!("removing {}", layout.display()))?;
        }
        let blobs = layout.join("blobs/sha256");
        fs::create_dir_all(&blobs).with_context(|| format!("making {}", blobs.display()))?;
        let base = vec![("static".to_owned(), Entry::File(program.to_vec()))];
        let mut layers = Vec::new();
        for layer in std::iter::once(base).chain((self.layers)()) {
            let media_type = "application/vnd.oci.image.layer.v1.tar";
            layers.push(blob(&blobs, media_type, &archive(&layer))?);
        }
        let mut config = (self.config)();
        let diff_ids: Vec<_> = layers.iter().map(|layer| layer["digest"].clone()).collect();
        config["architecture"] = json!("amd64");
        config["os"] = json!("linux");
        config["rootfs"] = json!({"type": "layers", "diff_ids": diff_ids});
        let config = blob(
            &blobs,
            "application/vnd.oci.image.config.v1+json",
            config.to_string().as_bytes(),
        )?;
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest =
            json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers});
        let mut manifest = blob(&blobs, media_type, manifest.to_string().as_bytes())?;
        manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "latest"});
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        fs::write(layout.join("index.json"), index.to_string())?;
        fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#)?;
        Ok(())
    }
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

/// Writes a blob and returns its descriptor.
fn blob(blobs: &Path, media_type: &str, content: &[u8]) -> Result<Value> {
    let new: PathBuf = blobs.join("new");
    fs::write(&new, content).with_context(|| format!("writing {}", new.display()))?;
    let sum = shell::capture("sha256sum", [&new])?;
    let digest = sum
        .split_whitespace()
        .next()
        .context("sha256sum printed nothing")?;
    fs::rename(&new, blobs.join(digest)).with_context(|| format!("naming {digest}"))?;
    Ok(json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": content.len()}))
}

/// A tar archive in the POSIX format.
fn archive(layer: &Layer) -> Vec<u8> {
    let mut archive = Vec::new();
    for (path, entry) in layer {
        let (kind, mode, content, target, device) = match entry {
            Entry::Directory => (b'5', 0o755, &[][..], "", (0, 0)),
            Entry::File(content) => (b'0', 0o755, content.as_slice(), "", (0, 0)),
            Entry::Link(target) => (b'2', 0o777, &[][..], *target, (0, 0)),
            Entry::Fifo => (b'6', 0o666, &[][..], "", (0, 0)),
            Entry::Device(kind, major, minor) => (*kind, 0o666, &[][..], "", (*major, *minor)),
        };
        let mut header = [0; 512];
        let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
        put(0, path.as_bytes());
        put(100, format!("{mode:07o}").as_bytes());
        put(108, b"0000000\x000000000");
        put(124, format!("{:011o}", content.len()).as_bytes());
        put(136, b"00000000000");
        put(148, b"        ");
        put(156, &[kind]);
        put(157, target.as_bytes());
        put(257, b"ustar\x0000");
        put(329, format!("{:07o}", device.0).as_bytes());
        put(337, format!("{:07o}", device.1).as_bytes());
        let sum: u32 = header.iter().copied().map(u32::from).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        archive.extend_from_slice(&header);
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tar_reads_the_archives() {
        let dir = std::env::temp_dir().join(format!("hand-made-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join("layer.tar");
        fs::write(&file, archive(&devices())).unwrap();
        let listing = shell::capture("tar", ["-tvf".as_ref(), file.as_os_str()]).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(listing.lines().count(), devices().len(), "{listing}");
        assert!(listing.contains("dev/null -> /hostile-target"), "{listing}");
        assert!(listing.contains("254,0"), "{listing}");
    }
}
