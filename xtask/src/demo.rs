/*!
`demo`: installs the product, stops and starts a StoppableContainer, checks its files, and compares
the times with those of a plain pod.
*/

mod monitor;
mod panels;
mod picture;
mod show;
mod table;

use std::io::IsTerminal;
use std::path::Path;

use anyhow::Result;

use crate::images::{product, testing};
use crate::install;
use crate::progress::Progress;
use crate::target::Target;
use crate::workspace::Workspace;

#[cfg(test)]
pub(crate) use show::IMAGE;

use monitor::Monitor;

/// Runs the demo, and shows the chart's dashboard of it, also as a picture in a file.
pub(crate) fn run(
    workspace: &Workspace,
    progress: &Progress,
    registry: Option<&str>,
    dashboard: bool,
    picture: Option<&Path>,
) -> Result<()> {
    if std::env::var_os("KUBECONFIG").is_none_or(|paths| paths.is_empty()) {
        progress.estimate(slow_steps(workspace));
    }
    // Compiles while Kubernetes is built. Images for a registry use a different profile.
    let early = registry.is_none().then(|| product::compile_early(workspace));
    let target = Target::choose(workspace, progress, registry, None, None)?;
    progress.expect(product::STEPS + install::STEPS);
    if target.destination.takes_test_images() {
        progress.expect(testing::STEPS_OF_ONE);
        testing::provide_one(workspace, progress, &target.destination, show::IMAGE)?;
    }
    let tag = product::provide(workspace, progress, Some(&target.destination))?;
    drop(early);
    install::run(workspace, progress, &target, &tag, &install::Options::default())?;
    // Before the show, so that rates and quantiles are those of it.
    let monitor = if dashboard {
        progress.expect(monitor::STEPS);
        Some(Monitor::start(workspace, progress, &target)?)
    } else {
        None
    };
    let times = show::run(workspace, &target)?;
    println!("\n{}", table::render(&times));
    if let Some(monitor) = &monitor {
        monitor.print()?;
        if let Some(file) = picture {
            monitor.draw(file)?;
        }
        println!();
    }
    farewell(&target);
    let Some(monitor) = monitor.filter(|_| std::io::stdin().is_terminal()) else {
        return Ok(());
    };
    monitor.print_address(workspace);
    monitor.serve()
}

/// The steps on the local cluster that take minutes, if their products do not exist yet.
fn slow_steps(workspace: &Workspace) -> Vec<(&'static str, u32)> {
    let products = [
        ("Build Kubernetes", 8, workspace.tools().join("kube")),
        (
            "Test images: Debian base",
            2,
            workspace.target().join("images/base.stamp"),
        ),
        ("Compile static binaries", 3, workspace.dist().join("operator")),
        ("Build helm", 3, workspace.tools().join("helm")),
    ];
    let missing = products.into_iter().filter(|(_, _, product)| !product.exists());
    missing.map(|(step, minutes, _)| (step, minutes)).collect()
}

fn farewell(target: &Target<'_>) {
    println!("The cluster and the container keep running. To use them:");
    println!("  export KUBECONFIG={}", target.kubeconfig.display());
    println!("  kubectl -n {} get stopc,pods", show::NAMESPACE);
    if target.local {
        println!(
            "(if kubectl is not installed: {})",
            target.kubectl_path().display()
        );
        println!("To remove the cluster: cargo xtask cluster down");
    } else {
        println!(
            "To remove everything: kubectl delete namespace {0}; target/tools/helm uninstall {1} -n {2}",
            show::NAMESPACE,
            install::RELEASE,
            install::NAMESPACE
        );
    }
}
