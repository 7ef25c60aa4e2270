/*!
Programs built from Go modules: Kubernetes as one multi-call binary, and helm.
*/

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::release::Release;
use super::stamp::{Fingerprint, Stamp};
use crate::progress::Step;
use crate::shell;

/// A program that `go install` builds from its module.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Program {
    name: &'static str,
    /// Its package with the version.
    pub(crate) module: &'static str,
    /// Packages that a cold build compiles; only the progress display uses it.
    packages: usize,
    environment: &'static [(&'static str, &'static str)],
    link_flags: &'static str,
}

pub(super) const HELM: Program = Program {
    name: "helm",
    module: "helm.sh/helm/v3/cmd/helm@v3.20.2",
    packages: 1150,
    environment: WITHOUT_C,
    link_flags: SMALL,
};
pub(super) const KWOK: Program = Program {
    name: "kwok",
    module: "sigs.k8s.io/kwok/cmd/kwok@v0.8.0",
    packages: 900,
    environment: WITHOUT_C,
    link_flags: SMALL,
};
/// The conformance test of CSI plugins.
pub(crate) const CSI_SANITY: Program = Program {
    name: "csi-sanity",
    module: "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity@v5.6.0",
    packages: 435,
    environment: WITHOUT_C,
    link_flags: SMALL,
};
/// NVIDIA's program for CDI hooks. It is partly C, and static because it runs on the node. Not
/// every mirror of Go's checksum database has its module.
pub(crate) const NVIDIA_HOOK: Program = Program {
    name: "nvidia-cdi-hook",
    module: "github.com/NVIDIA/nvidia-container-toolkit/cmd/nvidia-cdi-hook@v1.18.2",
    packages: 210,
    environment: &[("CGO_ENABLED", "1"), ("GONOSUMDB", "github.com/NVIDIA")],
    link_flags: "-s -w -linkmode external -extldflags -static",
};

/// The environment of a program that is only Go, and static therefore.
const WITHOUT_C: &[(&str, &str)] = &[("CGO_ENABLED", "0")];
/// Without a symbol table and debug information.
const SMALL: &str = "-s -w";

/// Packages that a cold build compiles; only the progress display uses it.
const KUBE_PACKAGES: usize = 1700;
/// As above, for containerd.
const CONTAINERD_PACKAGES: usize = 900;

/// Builds the Kubernetes programs of a release into `tools` unless their sources are those of the
/// last build.
pub(super) fn build_kube(step: &Step<'_>, release: Release, sources: &Path, tools: &Path) -> Result<()> {
    let flags = link_flags(release);
    let modules = sources.join(release.modules());
    let mut fingerprint = Fingerprint::new();
    fingerprint.text(&flags);
    for file in [
        sources.join("main.go"),
        modules.clone(),
        modules.with_extension("sum"),
    ] {
        fingerprint.path(&file)?;
    }
    let fingerprint = fingerprint.finish();
    let product = tools.join(release.program());
    let stamp = Stamp::new(tools.join(format!("{}.stamp", release.program())));
    if product.is_file() && stamp.is(&fingerprint) {
        return Ok(());
    }
    let go = go()?;
    let partial = tools.join(format!("{}.partial", release.program()));
    let mut command = Command::new(go);
    command.current_dir(sources).env("CGO_ENABLED", "0");
    command
        .args(["build", "-modfile"])
        .arg(&modules)
        .args([
            "-v",
            "-trimpath",
            "-tags",
            "providerless",
            "-ldflags",
            &flags,
            "-o",
        ])
        .arg(&partial)
        .arg(".");
    step.run_counting(&mut command, KUBE_PACKAGES)?;
    std::fs::rename(&partial, &product)
        .with_context(|| format!("moving {} into place", partial.display()))?;
    stamp.set(&fingerprint)
}

/// Installs a program into a directory unless this version is there.
pub(crate) fn install(step: &Step<'_>, program: &Program, dir: &Path) -> Result<()> {
    let stamp = Stamp::new(dir.join(format!("{}.stamp", program.name)));
    if dir.join(program.name).is_file() && stamp.is(program.module) {
        return Ok(());
    }
    let mut command = Command::new(go()?);
    command
        .env("GOBIN", dir)
        .envs(program.environment.iter().copied());
    command.args([
        "install",
        "-v",
        "-trimpath",
        "-ldflags",
        program.link_flags,
        program.module,
    ]);
    step.run_counting(&mut command, program.packages)?;
    stamp.set(program.module)
}

/// Installs containerd, its shim and `ctr` of a version into a directory.
pub(super) fn install_containerd(step: &Step<'_>, version: &str, dir: &Path) -> Result<()> {
    let stamp = Stamp::new(dir.with_extension("stamp"));
    if dir.join("containerd").is_file() && stamp.is(version) {
        return Ok(());
    }
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let mut command = Command::new(go()?);
    command.env("CGO_ENABLED", "0").env("GOBIN", dir);
    command.args(["install", "-v", "-trimpath", "-ldflags", "-s -w"]);
    let module = "github.com/containerd/containerd/v2/cmd";
    for program in ["containerd", "containerd-shim-runc-v2", "ctr"] {
        command.arg(format!("{module}/{program}@{version}"));
    }
    step.run_counting(&mut command, CONTAINERD_PACKAGES)?;
    stamp.set(version)
}

/// Installs runc of a version into a directory, linked with the libseccomp below `libraries`.
pub(super) fn install_runc(step: &Step<'_>, version: &str, libraries: &Path, dir: &Path) -> Result<()> {
    let stamp = Stamp::new(dir.join("runc.stamp"));
    if dir.join("runc").is_file() && stamp.is(version) {
        return Ok(());
    }
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
    let libs = libraries.join("usr/lib").join(triplet);
    let packages = libs.join("pkgconfig");
    let mut command = Command::new(go()?);
    command.env("CGO_ENABLED", "1").env("GOBIN", dir);
    command
        // Go's build cache does not know what pkg-config answered, and would link with the
        // libraries of another clone, which may be gone.
        .env("CGO_LDFLAGS", format!("-L{}", libs.display()))
        .env("PKG_CONFIG_PATH", packages)
        .env("PKG_CONFIG_SYSROOT_DIR", libraries);
    command.args(["install", "-trimpath", "-tags", "seccomp netgo osusergo"]);
    command.args(["-ldflags", "-s -w -linkmode external -extldflags -static"]);
    command.arg(format!("github.com/opencontainers/runc@{version}"));
    step.run(&mut command)?;
    stamp.set(version)
}

/// Copies Kubernetes' description of its API out of the module of a version.
pub(super) fn copy_schema(step: &Step<'_>, version: &str, file: &Path) -> Result<()> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Module {
        dir: PathBuf,
    }

    if file.is_file() {
        return Ok(());
    }
    let mut command = Command::new(go()?);
    command.args([
        "mod",
        "download",
        "-json",
        &format!("k8s.io/kubernetes@{version}"),
    ]);
    let module: Module = serde_json::from_str(&step.output(&mut command)?)
        .with_context(|| format!("reading where Go has Kubernetes {version}"))?;
    let partial = file.with_extension("partial");
    let schema = module.dir.join("api/openapi-spec/swagger.json");
    // The copy would be read-only as the module is.
    let text = std::fs::read(&schema).with_context(|| format!("reading {}", schema.display()))?;
    std::fs::write(&partial, text).with_context(|| format!("writing {}", partial.display()))?;
    std::fs::rename(&partial, file).with_context(|| format!("moving {} into place", partial.display()))
}

/// The go command.
///
/// # Errors
/// With what to do where there is none.
pub(crate) fn go() -> Result<PathBuf> {
    match shell::which("go") {
        Some(path) => Ok(path),
        None => bail!(
            "Go is missing: the local cluster's Kubernetes is built from its Go module. \
             Install Go 1.26 or newer (https://go.dev/dl) and make sure that `go version` works"
        ),
    }
}

/// Without the version variables the kubelet and clients refuse or misbehave.
fn link_flags(release: Release) -> String {
    let version = release.version();
    let mut parts = version.trim_start_matches('v').split('.');
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let package = "k8s.io/component-base/version";
    format!(
        "-s -w -X {package}.gitVersion={version} -X {package}.gitMajor={major} \
         -X {package}.gitMinor={minor} -X {package}.gitTreeState=clean"
    )
}
