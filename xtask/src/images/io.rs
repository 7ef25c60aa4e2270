/*!
The images of `bench io`: a static program, and files that it reads and writes.

They have the same files in 1, 10 and 60 layers. The lowest layer has all of them, so that the node
stores the large ones once. Each further layer has a part of the small ones again, so that a
directory has entries of every layer, as directories of other images have.
*/

use std::fs;

use anyhow::{Context, Result};
use io_load::image::{self, COPIED, COPIED_FILES, LARGE, LARGE_BYTES, LARGE_FILES};
use io_load::image::{READ, READ_FILES, SMALL_BYTES};
use serde_json::json;

use super::buildah::Buildah;
use super::destination::Destination;
use super::layout::{self, Entry, Layer};
use super::platform::Platform;
use super::product;
use crate::progress::{Progress, Step};
use crate::tools::Fingerprint;
use crate::workspace::Workspace;

const PROGRAM: &str = "io-load";
/// Numbers of layers.
const LAYERS: [u32; 3] = [1, 10, 60];

/// Number of steps of [`provide`].
pub(crate) const STEPS: usize = 1;

/// An image that the cluster has.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    /// Number of its layers.
    pub(crate) layers: u32,
    /// Its name.
    pub(crate) name: String,
}

/// Delivers the images that the cluster does not have.
pub(crate) fn provide(
    workspace: &Workspace,
    progress: &Progress,
    destination: &Destination<'_>,
) -> Result<Vec<Image>> {
    progress.step("Images with 1, 10 and 60 layers", |step| {
        let program = product::build_static(workspace, PROGRAM, step)?;
        let program = fs::read(&program).with_context(|| format!("reading {}", program.display()))?;
        let mut fingerprint = Fingerprint::new();
        fingerprint.text(include_str!("io.rs")).text(layout::SOURCE);
        fingerprint.path(&workspace.join("crates/io-load/src"))?;
        let fingerprint = fingerprint.bytes(&program).finish();
        let images = LAYERS.map(|layers| Image {
            layers,
            // A node that has an image of this name has these files.
            name: format!("docker.io/test/io:{layers}-{}", &fingerprint[..12]),
        });
        let buildah = Buildah::new(workspace);
        let _lock = buildah.lock()?;
        for image in &images {
            image.provide(&buildah, &program, &fingerprint, destination, step)?;
        }
        Ok(images.into())
    })
}

// === impl Image ===

impl Image {
    fn provide(
        &self,
        buildah: &Buildah,
        program: &[u8],
        fingerprint: &str,
        destination: &Destination<'_>,
        step: &Step<'_>,
    ) -> Result<()> {
        step.note(&self.name);
        let directory = buildah.layout(&self.name);
        let config = json!({"config": {"Entrypoint": ["/io-load"], "Cmd": ["wait"]}});
        let layers = (0..self.layers).map(|number| self.layer(number, program));
        layout::write(&directory, Platform::OF_MACHINE, layers, config)?;
        let delivered = destination.deliver(buildah, &self.name, fingerprint, step);
        // It is large, and quickly written again.
        fs::remove_dir_all(&directory).with_context(|| format!("removing {}", directory.display()))?;
        delivered
    }

    /// A layer, counted from the lowest.
    fn layer(&self, number: u32, program: &[u8]) -> Layer {
        let mut layer = Vec::new();
        if number == 0 {
            layer.push((PROGRAM.to_owned(), Entry::File(program.to_vec())));
        }
        layer.push((image::DIRECTORY.to_owned(), Entry::Directory));
        let small = [(READ, READ_FILES), (COPIED, COPIED_FILES)];
        let directories = small.map(|(directory, count)| (directory, count, SMALL_BYTES));
        let large = (number == 0).then_some((LARGE, LARGE_FILES, LARGE_BYTES));
        for (directory, count, bytes) in directories.into_iter().chain(large) {
            layer.push((directory.to_owned(), Entry::Directory));
            let files = (0..count).filter(|file| number == 0 || file % self.layers == number);
            layer.extend(files.map(|file| {
                let path = image::file(directory, file).to_string_lossy().into_owned();
                (path, Entry::File(image::content(bytes)))
            }));
        }
        layer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(layer: &Layer) -> Vec<&str> {
        let files = layer.iter().filter(|(_, entry)| matches!(entry, Entry::File(_)));
        files.map(|(path, _)| path.as_str()).collect()
    }

    #[test]
    fn the_lowest_layer_has_all_files_and_is_the_same_in_all_images() {
        let image = |layers| Image {
            layers,
            name: String::new(),
        };
        let (one, ten) = (image(1).layer(0, b"program"), image(10).layer(0, b"program"));
        assert_eq!(files(&one), files(&ten));
        let count = 1 + READ_FILES + COPIED_FILES + LARGE_FILES;
        assert_eq!(files(&one).len(), count as usize);
    }

    #[test]
    fn every_further_layer_has_files_of_each_directory_that_has_small_ones() {
        let image = Image {
            layers: 60,
            name: String::new(),
        };
        for number in 1..60 {
            let layer = image.layer(number, b"program");
            for directory in [READ, COPIED] {
                let of = files(&layer);
                let of: Vec<_> = of.iter().filter(|path| path.starts_with(directory)).collect();
                assert!(!of.is_empty() && of.len() < 20, "{number}: {of:?}");
            }
            assert!(!files(&layer).iter().any(|path| path.starts_with(LARGE)));
        }
    }
}
