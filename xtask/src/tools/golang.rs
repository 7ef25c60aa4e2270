/*!
Programs built from Go modules: Kubernetes as one multi-call binary, and helm.
*/

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::stamp::{Fingerprint, Stamp};
use crate::progress::Step;
use crate::shell;

/// The Kubernetes that the local cluster runs. `xtask/cluster-tools/go.mod` names the same version.
pub(crate) const KUBERNETES_VERSION: &str = "v1.34.4";
const HELM: &str = "helm.sh/helm/v3/cmd/helm@v3.20.2";
const CSI_SANITY: &str = "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity@v5.6.0";
/// Packages that a cold build compiles; only the progress display uses it.
const KUBE_PACKAGES: usize = 1700;
/// As above, for helm.
const HELM_PACKAGES: usize = 1150;

/// Builds `kube` into `tools` unless its sources are those of the last build.
pub(super) fn build_kube(step: &Step<'_>, sources: &Path, tools: &Path) -> Result<()> {
    let flags = link_flags();
    let mut fingerprint = Fingerprint::new();
    let fingerprint = fingerprint.text(&flags).path(sources)?.finish();
    let product = tools.join("kube");
    let stamp = Stamp::new(tools.join("kube.stamp"));
    if product.is_file() && stamp.is(&fingerprint) {
        return Ok(());
    }
    let go = go()?;
    let partial = tools.join("kube.partial");
    let mut command = Command::new(go);
    command.current_dir(sources).env("CGO_ENABLED", "0");
    command
        .args([
            "build",
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

/// Builds helm into `tools` unless this version is there.
pub(super) fn install_helm(step: &Step<'_>, tools: &Path) -> Result<()> {
    let stamp = Stamp::new(tools.join("helm.stamp"));
    if tools.join("helm").is_file() && stamp.is(HELM) {
        return Ok(());
    }
    let mut command = Command::new(go()?);
    command.env("CGO_ENABLED", "0").env("GOBIN", tools);
    command.args(["install", "-v", "-trimpath", "-ldflags", "-s -w", HELM]);
    step.run_counting(&mut command, HELM_PACKAGES)?;
    stamp.set(HELM)
}

/// Installs csi-sanity, the conformance test of CSI plugins, into a directory.
pub(crate) fn install_csi_sanity(step: &Step<'_>, dir: &Path) -> Result<()> {
    let stamp = Stamp::new(dir.join("csi-sanity.stamp"));
    if dir.join("csi-sanity").is_file() && stamp.is(CSI_SANITY) {
        return Ok(());
    }
    let mut command = Command::new(go()?);
    command.env("CGO_ENABLED", "0").env("GOBIN", dir);
    command.args(["install", "-trimpath", "-ldflags", "-s -w", CSI_SANITY]);
    step.run(&mut command)?;
    stamp.set(CSI_SANITY)
}

/// The go command.
///
/// # Errors
/// With what to do where there is none.
pub(crate) fn go() -> Result<std::path::PathBuf> {
    match shell::which("go") {
        Some(path) => Ok(path),
        None => bail!(
            "Go is missing: the local cluster's Kubernetes is built from its Go module. \
             Install Go 1.26 or newer (https://go.dev/dl) and make sure that `go version` works"
        ),
    }
}

/// Without the version variables the kubelet and clients refuse or misbehave.
fn link_flags() -> String {
    let mut parts = KUBERNETES_VERSION.trim_start_matches('v').split('.');
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let package = "k8s.io/component-base/version";
    format!(
        "-s -w -X {package}.gitVersion={KUBERNETES_VERSION} -X {package}.gitMajor={major} \
         -X {package}.gitMinor={minor} -X {package}.gitTreeState=clean"
    )
}
