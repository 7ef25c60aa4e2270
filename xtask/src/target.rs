/*!
The cluster that a command uses: the one of KUBECONFIG, or the local one.
*/

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cluster::Cluster;
use crate::images::{Destination, pause};
use crate::progress::Progress;
use crate::shell;
use crate::tools::{Release, Runtime, Tools};
use crate::workspace::Workspace;

/// A running cluster and the destination of its images.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    /// Kubeconfig for kubectl and helm.
    pub kubeconfig: PathBuf,
    /// Where the cluster gets images from.
    pub destination: Destination<'a>,
    /// Whether it is the local cluster, whose pods can be reached from this machine.
    pub local: bool,
    /// containerd's `ctr` on the nodes of the local cluster.
    pub ctr: PathBuf,
    /// Release of the local cluster.
    pub release: Release,
    kubectl: PathBuf,
}

// === impl Target ===

impl<'a> Target<'a> {
    /// Uses the cluster of KUBECONFIG, or starts the local one of this release and with this
    /// runtime, and prints which.
    ///
    /// # Errors
    /// If the cluster does not answer, or the destination of its images is unknown.
    pub(crate) fn choose(
        workspace: &'a Workspace,
        progress: &Progress,
        registry: Option<&str>,
        kubernetes: Option<Release>,
        runtime: Option<Runtime>,
    ) -> Result<Self> {
        let cluster = Cluster::new(workspace, progress, pause::provide)
            .with_release(kubernetes)
            .with_runtime(runtime);
        let ctr = cluster.tools().containerd("ctr");
        let release = cluster.tools().release();
        let given = std::env::var_os("KUBECONFIG").filter(|paths| !paths.is_empty());
        let given = given.map(|paths| absolute(&paths)).transpose()?;
        let named = given.as_ref().is_some_and(|path| *path == cluster.kubeconfig());
        if named && !cluster.is_own()? {
            // KUBECONFIG names the local cluster of another clone. It is used without starting or
            // stopping it.
            let kubectl = Self::any_kubectl(workspace, progress)?;
            progress.expect(1);
            Tools::prepare_images(progress)?;
            progress.say("using the local cluster, which another clone started");
            return Ok(Self {
                kubeconfig: cluster.kubeconfig(),
                destination: Destination::Embedded,
                local: true,
                ctr,
                release,
                kubectl,
            });
        }
        let Some(kubeconfig) = given.filter(|_| !named) else {
            progress.say("KUBECONFIG does not name another cluster: using the local cluster");
            cluster.up(1)?;
            let kubectl = cluster.tools().kubectl_link()?;
            return Ok(Self {
                kubeconfig: cluster.kubeconfig(),
                destination: Destination::Embedded,
                local: true,
                ctr,
                release,
                kubectl,
            });
        };
        if !std::env::split_paths(&kubeconfig).any(|path| path.is_file()) {
            bail!(
                "KUBECONFIG names {}, which does not exist: unset it to use the local cluster, or set it to a file",
                kubeconfig.display()
            );
        }
        let kubectl = Self::any_kubectl(workspace, progress)?;
        let mut target = Self {
            kubeconfig,
            destination: Destination::Embedded,
            local: false,
            ctr,
            release,
            kubectl,
        };
        let context = shell::output(target.kubectl().args(["config", "current-context"]))
            .context("reading KUBECONFIG")?;
        let context = context.trim();
        progress.say(format!(
            "using the cluster of {} (context {context})",
            target.kubeconfig.display()
        ));
        target.destination = match registry {
            Some(host) => Destination::Registry(host.trim_end_matches('/').to_owned()),
            None => match Destination::of_context(workspace, context) {
                Some(destination) => destination,
                None => bail!(
                    "the context {context} is not a kind, k3d or minikube cluster, so the images must be pushed to a registry that \
                     the cluster can pull from: set it with --registry, for example --registry registry.example.com/team"
                ),
            },
        };
        progress.expect(1);
        Tools::prepare_images(progress)?;
        shell::output(target.kubectl().args(["version", "--request-timeout=10s"]))
            .with_context(|| format!("the cluster of {} does not answer", target.kubeconfig.display()))?;
        Ok(target)
    }

    /// The installed kubectl, or one that is built here.
    fn any_kubectl(workspace: &Workspace, progress: &Progress) -> Result<PathBuf> {
        if let Some(path) = shell::which("kubectl") {
            return Ok(path);
        }
        progress.expect(1);
        let tools = Tools::of(workspace);
        tools.prepare_kube(workspace, progress)?;
        tools.kubectl_link()
    }

    /// kubectl for this cluster.
    pub(crate) fn kubectl(&self) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// The kubectl program itself.
    pub(crate) fn kubectl_path(&self) -> &Path {
        &self.kubectl
    }

    /// Runs kubectl and returns its output.
    pub(crate) fn kubectl_output(&self, args: &[&str]) -> Result<String> {
        shell::output(self.kubectl().args(args))
    }
}

/// A list of paths, all of them absolute because tests run in another directory.
fn absolute(paths: &OsStr) -> Result<PathBuf> {
    let paths = std::env::split_paths(paths).filter(|path| !path.as_os_str().is_empty());
    let paths = paths
        .map(std::path::absolute)
        .collect::<Result<Vec<_>, _>>()
        .context("reading KUBECONFIG")?;
    Ok(std::env::join_paths(paths).context("reading KUBECONFIG")?.into())
}
