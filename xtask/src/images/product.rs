/*!
The product's own images, built from static binaries with the shipped Dockerfile. Their tag ends
with a hash of their content, so that a cluster never runs an older build with the same name.
*/

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use super::buildah::{Buildah, Recipe};
use super::destination::Destination;
use super::platform::Platform;
use crate::progress::{Progress, Step};
use crate::tools::Fingerprint;
use crate::workspace::Workspace;

/// The public registry of the images, which is the chart's default.
const REGISTRY: &str = "docker.io/xtlsoft";
/// Binaries and their cargo packages.
pub(super) const BINARIES: &[(&str, &str)] = &[
    ("operator", "stoppablecontainer"),
    ("webhook-certs", "webhook-certs"),
    ("node-agent", "node-agent"),
    ("exec-wrapper", "exec-wrapper"),
];
/// Programs of test images; their packages have the same names.
const TEST_PROGRAMS: &[&str] = &["injectors", "csi-test", "fake-gpu"];
/// Images and their Dockerfile targets.
const IMAGES: &[(&str, &str)] = &[
    ("stoppablecontainer-operator", "operator"),
    ("stoppablecontainer-certs", "webhook-certs"),
    ("stoppablecontainer-node-agent", "node-agent"),
    (WRAPPER, "exec-wrapper"),
];
const WRAPPER: &str = "stoppablecontainer-exec-wrapper";
/// Supported STOPSIGNALs. The image without a suffix has SIGTERM.
const STOP_SIGNALS: &[(&str, &str)] = &[
    ("sigquit", "SIGQUIT"),
    ("sigint", "SIGINT"),
    ("sighup", "SIGHUP"),
    ("sigusr1", "SIGUSR1"),
    ("sigusr2", "SIGUSR2"),
    ("sigwinch", "SIGWINCH"),
    ("sigkill", "SIGKILL"),
    ("sigrtmin-3", "SIGRTMIN+3"),
];

/// Goals for the sizes of the wrapper, which is in every consumer pod, and of the other programs,
/// in bytes.
const SMALL: u64 = 1_500_000;
const LARGE: u64 = 20_000_000;

/// Cargo profiles of the binaries.
#[derive(Clone, Copy, Debug)]
struct Profiles {
    programs: &'static str,
    wrapper: &'static str,
}

/// For clusters that pull from a registry, which may be shared.
const PUBLISHED: Profiles = Profiles {
    programs: "release",
    wrapper: "tiny",
};
/// For clusters on this machine.
const LOCAL: Profiles = Profiles {
    programs: "local",
    wrapper: "tiny",
};

/// A compilation that starts before [`provide`]. Cargo's lock makes [`provide`] wait for its
/// result. Dropping this value kills the compilation.
#[derive(Debug)]
pub(crate) struct EarlyCompile(Child);

/// Number of steps of [`provide`].
pub(crate) const STEPS: usize = 2;

/// Compiles the binaries, builds the images that changed and delivers them. Returns their tag.
pub(crate) fn provide(
    workspace: &Workspace,
    progress: &Progress,
    destination: Option<&Destination<'_>>,
) -> Result<String> {
    let buildah = Buildah::new(workspace);
    let (profiles, platforms) = match destination {
        Some(Destination::Registry(_)) => (PUBLISHED, Platform::ALL),
        _ => (LOCAL, &[Platform::OF_MACHINE][..]),
    };
    progress.step("Compile static binaries (some minutes the first time)", |step| {
        platforms.iter().try_for_each(|platform| {
            platform.prepare(step)?;
            compile(workspace, profiles, *platform, step)
        })
    })?;
    let _lock = buildah.lock()?;
    for platform in platforms {
        fill_dist(workspace, profiles, *platform)?;
        let sizes = sizes(&platform.dist(workspace.dist()))?;
        progress.say(format!("      programs for {}: {sizes}", platform.architecture()));
    }
    let tag = tag(workspace, platforms)?;
    progress.step("Build and deliver the images", |step| {
        let file = workspace.join("Dockerfile");
        let build_for = |platform: Platform, name: &str, target: &str, args: &[(&str, &str)]| {
            if buildah.has(name) {
                return Ok(());
            }
            let recipe = Recipe {
                name,
                file: &file,
                context: &platform.dist(workspace.dist()),
                target,
                platform,
                args,
            };
            buildah.build(&recipe, step)
        };
        let build = |image: &str, target: &str, tag: &str, signal: &str| -> Result<()> {
            let name = format!("{REGISTRY}/{image}:{tag}");
            step.note(&name);
            let args = [("VERSION", Workspace::version()), ("STOP_SIGNAL", signal)];
            // Others do not declare the signal.
            let args = if image == WRAPPER { &args[..] } else { &args[..1] };
            if let [platform] = platforms {
                build_for(*platform, &name, target, args)?;
            } else {
                let of = |platform: &Platform| format!("{name}-{}", platform.architecture());
                for platform in platforms {
                    build_for(*platform, &of(platform), target, args)?;
                }
                let images: Vec<_> = platforms.iter().map(of).collect();
                buildah.index(&name, &images, step)?;
            }
            destination.map_or(Ok(()), |destination| {
                destination.deliver(&buildah, &name, tag, step)
            })
        };
        for (image, target) in IMAGES {
            build(image, target, &tag, "SIGTERM")?;
            buildah.remove_other_tags(&format!("{REGISTRY}/{image}"), &tag)?;
        }
        STOP_SIGNALS.iter().try_for_each(|(suffix, signal)| {
            build(WRAPPER, "exec-wrapper", &format!("{tag}-{suffix}"), signal)
        })
    })?;
    Ok(tag)
}

/// Starts to compile the programs for a cluster on this machine, with a low priority. Its errors
/// are not displayed, because [`provide`] compiles again and reports them.
pub(crate) fn compile_early(workspace: &Workspace) -> Option<EarlyCompile> {
    let binaries = LOCAL.binaries(LOCAL.programs);
    let cargo = cargo_build(workspace, LOCAL.programs, &binaries, Platform::OF_MACHINE);
    let mut command = Command::new("nice");
    command.arg(cargo.get_program()).args(cargo.get_args());
    for (name, value) in cargo.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command.current_dir(workspace.root());
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().ok().map(EarlyCompile)
}

/// Compiles a program of a test image, and returns its path in a separate directory, the build
/// context of the image. It is compiled together with the product's programs. Otherwise its
/// dependencies would have different features and be compiled again.
pub(super) fn build_test_program(workspace: &Workspace, program: &str, step: &Step<'_>) -> Result<PathBuf> {
    let tests = TEST_PROGRAMS.iter().map(|program| (*program, *program));
    let mut binaries = LOCAL.binaries(LOCAL.programs);
    binaries.extend(tests);
    build(workspace, LOCAL.programs, &binaries, Platform::OF_MACHINE, step)?;
    let copy = workspace.target().join("images").join(program).join(program);
    let compiled = Platform::OF_MACHINE.compiled(&workspace.target(), LOCAL.programs);
    copy_program(&compiled.join(program), &copy)?;
    Ok(copy)
}

// === impl EarlyCompile ===

impl Drop for EarlyCompile {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

// === impl Profiles ===

impl Profiles {
    /// The binaries with one of the profiles, and their packages.
    fn binaries(self, profile: &str) -> Vec<(&'static str, &'static str)> {
        let of_profile = BINARIES.iter().filter(|(binary, _)| self.of(binary) == profile);
        of_profile.copied().collect()
    }

    fn of(self, binary: &str) -> &'static str {
        if binary == "exec-wrapper" {
            self.wrapper
        } else {
            self.programs
        }
    }
}

/// Compiles every binary.
fn compile(workspace: &Workspace, profiles: Profiles, platform: Platform, step: &Step<'_>) -> Result<()> {
    for profile in [profiles.programs, profiles.wrapper] {
        build(workspace, profile, &profiles.binaries(profile), platform, step)?;
    }
    Ok(())
}

/// Compiles binaries statically.
fn build(
    workspace: &Workspace,
    profile: &str,
    binaries: &[(&str, &str)],
    platform: Platform,
    step: &Step<'_>,
) -> Result<()> {
    step.run(&mut cargo_build(workspace, profile, binaries, platform))
}

fn cargo_build(
    workspace: &Workspace,
    profile: &str,
    binaries: &[(&str, &str)],
    platform: Platform,
) -> Command {
    let mut command = platform.cargo();
    command.current_dir(workspace.root()).args(["--profile", profile]);
    for (binary, package) in binaries {
        command.args(["--package", package, "--bin", binary]);
    }
    command
}

/// Compiles a program that is not in an image of the product as a static release for this machine,
/// and returns its path. Its package has the same name.
pub(crate) fn build_static(workspace: &Workspace, program: &str, step: &Step<'_>) -> Result<PathBuf> {
    let (profile, platform) = (PUBLISHED.programs, Platform::OF_MACHINE);
    build(workspace, profile, &[(program, program)], platform, step)?;
    Ok(platform.compiled(&workspace.target(), profile).join(program))
}

/// Copies the binaries to the directory that the Dockerfile uses.
fn fill_dist(workspace: &Workspace, profiles: Profiles, platform: Platform) -> Result<()> {
    BINARIES.iter().try_for_each(|(binary, _)| {
        let compiled = platform.compiled(&workspace.target(), profiles.of(binary));
        copy_program(
            &compiled.join(binary),
            &platform.dist(workspace.dist()).join(binary),
        )
    })
}

/// The sizes of the programs in units of 1,000,000 bytes, with those that exceed their goals
/// marked. Each image has one program, and the agent's also the wrapper.
fn sizes(dist: &Path) -> Result<String> {
    let mut sizes = Vec::new();
    for (binary, _) in BINARIES {
        let path = dist.join(binary);
        let file = fs::metadata(&path).with_context(|| format!("reading {}", path.display()))?;
        let goal = if *binary == "exec-wrapper" { SMALL } else { LARGE };
        let mark = if file.len() > goal {
            format!(" (goal: {} MB)", megabytes(goal))
        } else {
            String::new()
        };
        sizes.push(format!("{binary} {} MB{mark}", megabytes(file.len())));
    }
    Ok(sizes.join(", "))
}

/// With one decimal, rounded down.
fn megabytes(bytes: u64) -> String {
    format!("{}.{}", bytes / 1_000_000, bytes / 100_000 % 10)
}

/// Copies a compiled program atomically.
fn copy_program(source: &Path, to: &Path) -> Result<()> {
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    let partial = to.with_extension("partial");
    fs::copy(source, &partial).with_context(|| format!("copying {}", source.display()))?;
    fs::rename(&partial, to).with_context(|| format!("moving {} into place", to.display()))
}

/// The version and twelve digits of a hash of the images' inputs.
fn tag(workspace: &Workspace, platforms: &[Platform]) -> Result<String> {
    let mut fingerprint = Fingerprint::new();
    fingerprint.path(&workspace.join("Dockerfile"))?;
    for platform in platforms {
        let dist = platform.dist(workspace.dist());
        for (binary, _) in BINARIES {
            fingerprint.path(&dist.join(binary))?;
        }
    }
    Ok(format!(
        "{}-{}",
        Workspace::version(),
        &fingerprint.finish()[..12]
    ))
}

#[cfg(test)]
mod tests {
    use super::megabytes;

    #[test]
    fn megabytes_have_one_decimal() {
        assert_eq!(megabytes(1_299_999), "1.2");
        assert_eq!(megabytes(20_000_000), "20.0");
    }
}
