/*!
Kernels from Debian's packages, by this machine's apt, which verifies them by Debian's keyring. Each
comes from the suite that has its series, with package lists of its own: those of the machine are
not touched. Of the packages only the kernel and the modules that tests need are kept.
*/

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Series;
use crate::progress::Step;
use crate::shell;
use crate::tools::{Fingerprint, Stamp};

/// Modules that the virtual machine and the tests need, as far as they are not built in.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "fuse",
    "virtiofs",
    "overlay",
    "loop",
    "btrfs",
];
/// Debian's keys, of the package debian-archive-keyring.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A kernel that was downloaded.
#[derive(Debug)]
pub(super) struct Kernel {
    /// The full version.
    pub(super) release: String,
    /// `vmlinuz`.
    pub(super) image: PathBuf,
    /// A directory of modules whose names sort in the order in which they have to be loaded.
    pub(super) modules: PathBuf,
}

/// Downloads the newest kernel of a series, unless one is in `dir`.
pub(super) fn provide(step: &Step<'_>, series: Series, dir: &Path) -> Result<Kernel> {
    let kernel = |release: String| Kernel {
        release,
        image: dir.join("vmlinuz"),
        modules: dir.join("modules"),
    };
    let fingerprint = MODULES
        .iter()
        .fold(Fingerprint::new(), |mut sum, name| sum.text(name).clone())
        .finish();
    let (stamp, release_file) = (Stamp::new(dir.join("stamp")), dir.join("release"));
    if stamp.is(&fingerprint) {
        let release = fs::read_to_string(&release_file);
        return release
            .map(kernel)
            .with_context(|| format!("reading {}", release_file.display()));
    }
    remove(dir)?;
    let (apt, unpacked) = (dir.join("apt"), dir.join("unpacked"));
    let suite = Suite::update(step, series.suite(), &apt)?;
    let packages = choose(&suite.names()?, series)?;
    suite.unpack(step, &packages, &unpacked)?;
    let tree = ModuleTree::of(step, &unpacked)?;
    tree.copy(step, &dir.join("modules"))?;
    let kernel = kernel(tree.release.clone());
    fs::copy(tree.kernel(&unpacked)?, &kernel.image)
        .with_context(|| format!("copying the kernel to {}", kernel.image.display()))?;
    remove(&apt)?;
    remove(&unpacked)?;
    fs::write(&release_file, &kernel.release)
        .with_context(|| format!("writing {}", release_file.display()))?;
    stamp.set(&fingerprint)?;
    Ok(kernel)
}

/// The package lists of a suite.
struct Suite<'a> {
    name: &'a str,
    config: PathBuf,
}

// === impl Suite ===

impl<'a> Suite<'a> {
    /// Downloads them to `dir`.
    fn update(step: &Step<'_>, name: &'a str, dir: &Path) -> Result<Self> {
        for below in ["lists/partial", "archives/partial"] {
            let path = dir.join(below);
            fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        }
        let (sources, config) = (dir.join("debian.sources"), dir.join("apt.conf"));
        let uri = archive()?;
        let text =
            format!("Types: deb\nURIs: {uri}\nSuites: {name}\nComponents: main\nSigned-By: {KEYRING}\n");
        fs::write(&sources, text).with_context(|| format!("writing {}", sources.display()))?;
        let dir = dir.display();
        let text = format!(
            "Dir::Etc::sourcelist \"{}\";\n\
             Dir::Etc::sourceparts \"/dev/null\";\n\
             Dir::State::lists \"{dir}/lists\";\n\
             Dir::Cache::archives \"{dir}/archives\";\n\
             Dir::Cache::pkgcache \"\";\n\
             Dir::Cache::srcpkgcache \"\";\n\
             APT::Sandbox::User \"root\";\n",
            sources.display()
        );
        fs::write(&config, text).with_context(|| format!("writing {}", config.display()))?;
        let suite = Self { name, config };
        step.run(suite.command("apt-get").arg("update"))?;
        Ok(suite)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.config);
        command
    }

    /// The names of its packages of kernels.
    fn names(&self) -> Result<Vec<String>> {
        let names = shell::output(self.command("apt-cache").args(["pkgnames", "linux-"]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Downloads packages and unpacks them to `root`.
    fn unpack(&self, step: &Step<'_>, packages: &[String], root: &Path) -> Result<()> {
        fs::create_dir_all(root).with_context(|| format!("making {}", root.display()))?;
        step.note(format!("downloading {} of {}", packages.join(" "), self.name));
        step.run(
            self.command("apt-get")
                .current_dir(root)
                .arg("download")
                .args(packages),
        )?;
        for file in files(root)? {
            step.run(Command::new("dpkg").arg("-x").arg(file).arg(root))?;
        }
        Ok(())
    }
}

/// Where this machine's apt has Debian from.
fn archive() -> Result<String> {
    let format = "$(ORIGIN) $(COMPONENT) $(RELEASE) $(REPO_URI)";
    let targets = shell::capture(
        "apt-get",
        ["indextargets", "--format", format, "Created-By: Packages"],
    )
    .context("asking apt-get for its sources: kernels of other releases come from Debian's packages")?;
    let uri = targets.lines().find_map(|line| {
        let uri = line.strip_prefix("Debian main ")?.split_once(' ');
        uri.filter(|(release, _)| !release.contains('-'))
            .map(|(_, uri)| uri)
    });
    uri.map(str::to_owned).context(
        "apt's sources have no suite of Debian: kernels of other releases come from Debian's packages. Use a Debian machine",
    )
}

/// The packages of the newest kernel of a series, for virtual machines: it is a third of the one
/// for all hardware.
fn choose(names: &[String], series: Series) -> Result<Vec<String>> {
    // Since Debian 14 the package of the image has nothing in it, and these three have what it had
    // before.
    for parts in [
        &["linux-binary", "linux-modules", "linux-base"][..],
        &["linux-image"],
    ] {
        let versions = names.iter().filter_map(|name| {
            let version = name
                .strip_prefix(parts[0])?
                .strip_prefix('-')?
                .strip_suffix("-cloud-amd64")?;
            version
                .strip_prefix(series.number())?
                .starts_with('.')
                .then_some(version)
        });
        if let Some(newest) = versions.max_by_key(|version| numbers(version)) {
            return Ok(parts
                .iter()
                .map(|part| format!("{part}-{newest}-cloud-amd64"))
                .collect());
        }
    }
    bail!(
        "Debian's suite {} has no kernel {series} any more: name the series that it has in xtask/src/kernels.rs",
        series.suite()
    )
}

/// The numbers in a version, which order versions of the same form.
fn numbers(version: &str) -> Vec<u64> {
    version
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

/// The modules of an unpacked kernel.
struct ModuleTree {
    release: String,
    dir: PathBuf,
}

// === impl ModuleTree ===

impl ModuleTree {
    /// Finds it, and makes the list of what depends on what.
    fn of(step: &Step<'_>, root: &Path) -> Result<Self> {
        let base = ["usr", ""].map(|base| root.join(base));
        let base = base
            .iter()
            .find(|base| base.join("lib/modules").is_dir())
            .context("the packages of the kernel have no lib/modules")?;
        let dir = files(&base.join("lib/modules"))?
            .pop()
            .context("the packages of the kernel have no modules")?;
        let release = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        step.run(Command::new("depmod").arg("-b").arg(base).arg(&release))?;
        Ok(Self { release, dir })
    }

    /// `vmlinuz`.
    fn kernel(&self, root: &Path) -> Result<PathBuf> {
        let places = [
            root.join(format!("boot/vmlinuz-{}", self.release)),
            self.dir.join("vmlinuz"),
        ];
        let found = places.into_iter().find(|place| place.is_file());
        found.with_context(|| format!("the packages of kernel {} have no vmlinuz", self.release))
    }

    /// Copies [`MODULES`] and what they depend on to `target`, as plain files.
    fn copy(&self, step: &Step<'_>, target: &Path) -> Result<()> {
        fs::create_dir_all(target).with_context(|| format!("making {}", target.display()))?;
        let list = self.dir.join("modules.dep");
        let list = fs::read_to_string(&list).with_context(|| format!("reading {}", list.display()))?;
        for (at, module) in in_order(&list, MODULES).into_iter().enumerate() {
            let source = self.dir.join(module);
            let name = module.rsplit('/').next().unwrap_or(module);
            let copy = target.join(format!("{at:03}-{name}"));
            fs::copy(&source, &copy).with_context(|| format!("copying {}", source.display()))?;
            if copy.extension().is_some_and(|extension| extension == "xz") {
                step.run(Command::new("xz").arg("--decompress").arg(&copy))?;
            }
        }
        Ok(())
    }
}

/// The files of these modules and what they depend on, by a `modules.dep`, in the order in which
/// they have to be loaded. A module without a line there is built into the kernel.
fn in_order<'a>(list: &'a str, names: &[&str]) -> Vec<&'a str> {
    let mut files = Vec::new();
    for name in names {
        let line = list.lines().find_map(|line| {
            let (file, needs) = line.split_once(':')?;
            let own = file.rsplit('/').next()?.split('.').next()?.replace('-', "_");
            (own == *name).then_some((file, needs))
        });
        let Some((file, needs)) = line else { continue };
        // Each of those that it needs comes before those that this one needs.
        for file in needs.split_whitespace().rev().chain([file]) {
            if !files.contains(&file) {
                files.push(file);
            }
        }
    }
    files
}

/// What is in a directory, sorted.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let reading = || format!("reading {}", dir.display());
    let entries = fs::read_dir(dir).with_context(reading)?;
    let mut files = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()
        .with_context(reading)?;
    files.sort();
    Ok(files)
}

/// Removes a directory, if it is there.
pub(super) fn remove(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("removing {}", dir.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Series, choose, in_order};

    #[test]
    fn the_newest_kernel_of_a_series_is_chosen() {
        let names = [
            "linux-image-5.10.0-9-cloud-amd64",
            "linux-image-5.10.0-32-cloud-amd64",
            "linux-headers-5.10.0-40-cloud-amd64",
            "linux-image-5.10.0-41-amd64",
            "linux-image-7.2.13+deb14-cloud-amd64",
            "linux-binary-7.2.13+deb14-cloud-amd64",
            "linux-binary-7.20.1+deb14-cloud-amd64",
        ]
        .map(str::to_owned);
        assert_eq!(
            choose(&names, Series::V5_10).unwrap(),
            ["linux-image-5.10.0-32-cloud-amd64"]
        );
        assert_eq!(
            choose(&names, Series::V7_2).unwrap(),
            ["linux-binary", "linux-modules", "linux-base"]
                .map(|part| format!("{part}-7.2.13+deb14-cloud-amd64"))
        );
        let error = choose(&names, Series::V6_1).unwrap_err().to_string();
        assert!(error.contains("bookworm has no kernel 6.1"), "{error}");
    }

    #[test]
    fn modules_come_after_what_they_need() {
        let list = "kernel/virtio_pci.ko: kernel/virtio_ring.ko kernel/virtio.ko\n\
                    kernel/virtio_blk.ko.xz: kernel/virtio_ring.ko kernel/virtio.ko\n\
                    kernel/virtio-not.ko:\n";
        assert_eq!(
            in_order(list, &["virtio_pci", "fuse", "virtio_blk"]),
            [
                "kernel/virtio.ko",
                "kernel/virtio_ring.ko",
                "kernel/virtio_pci.ko",
                "kernel/virtio_blk.ko.xz"
            ]
        );
    }
}
