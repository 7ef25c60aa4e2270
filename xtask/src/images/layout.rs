/*!
Images written blob by blob in the OCI image layout, for content that a builder of images cannot
create, or would create slowly.
*/

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::platform::Platform;
use crate::shell;

/// The source of this module, which is an input of every image that it writes.
pub(super) const SOURCE: &str = include_str!("layout.rs");

/// Paths and entries of a layer.
pub(super) type Layer = Vec<(String, Entry)>;

/// An entry of a layer.
pub(super) enum Entry {
    Directory,
    File(Vec<u8>),
    Link(&'static str),
    Fifo,
    /// Kind (`b'3'` character, `b'4'` block), major and minor number.
    Device(u8, u32, u32),
}

/// Writes an image into a directory, in place of an earlier one. The root filesystem and the
/// platform are added to the config.
pub(super) fn write(
    layout: &Path,
    platform: Platform,
    layers: impl IntoIterator<Item = Layer>,
    mut config: Value,
) -> Result<()> {
    if layout.exists() {
        fs::remove_dir_all(layout).with_context(|| format!("removing {}", layout.display()))?;
    }
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).with_context(|| format!("making {}", blobs.display()))?;
    let media_type = "application/vnd.oci.image.layer.v1.tar";
    let layers = layers.into_iter();
    let layers: Vec<_> = layers
        .map(|layer| blob(&blobs, media_type, &archive(&layer)))
        .collect::<Result<_>>()?;
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer["digest"].clone()).collect();
    config["architecture"] = json!(platform.architecture());
    config["os"] = json!("linux");
    config["rootfs"] = json!({"type": "layers", "diff_ids": diff_ids});
    let config = blob(
        &blobs,
        "application/vnd.oci.image.config.v1+json",
        config.to_string().as_bytes(),
    )?;
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers});
    let mut manifest = blob(&blobs, media_type, manifest.to_string().as_bytes())?;
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "latest"});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(layout.join("index.json"), index.to_string())?;
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#)?;
    Ok(())
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
        let dir = std::env::temp_dir().join(format!("layout-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join("layer.tar");
        let entries = [
            ("dev", Entry::Directory),
            ("dev/null", Entry::Link("/hostile-target")),
            ("dev/random", Entry::Fifo),
            ("dev/console", Entry::File(b"a file".to_vec())),
            ("disk", Entry::Device(b'4', 254, 0)),
        ];
        let layer: Layer = entries.map(|(path, entry)| (path.to_owned(), entry)).into();
        fs::write(&file, archive(&layer)).unwrap();
        let listing = shell::capture("tar", ["-tvf".as_ref(), file.as_os_str()]).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(listing.lines().count(), layer.len(), "{listing}");
        assert!(listing.contains("dev/null -> /hostile-target"), "{listing}");
        assert!(listing.contains("254,0"), "{listing}");
    }
}
