/*!
`lint`: static checks of the sources.
*/

mod documents;
pub(crate) mod ids;
mod imports;
mod prose;
mod reasons;

use std::process::Command;

use anyhow::Result;

use crate::codegen;
use crate::progress::Progress;
use crate::tools::{Release, Tools};
use crate::workspace::Workspace;

/// Values that change which templates the chart renders.
const CHART_VALUES: &[&str] = &[
    "certificates.source=self-managed",
    "certificates.source=supplied,networkPolicy.enabled=true",
    "certificates.source=cert-manager",
    "metrics.serviceMonitor.enabled=true,metrics.serviceMonitor.interval=30s,metrics.prometheusRule.enabled=true,\
     metrics.grafanaDashboard.enabled=true,metrics.readers[0].name=prometheus,metrics.readers[0].namespace=monitoring",
    "metrics.podMonitor.enabled=true,metrics.podMonitor.agentTokenSecret.name=token,\
     metrics.podMonitor.agentTokenSecret.key=token",
    "tracing.enabled=true,tracing.endpoint=https://collector:4318,tracing.caSecret=ca",
];

/// Checks formatting, lints, generated files and the chart.
pub(crate) fn run(workspace: &Workspace, progress: &Progress) -> Result<()> {
    progress.expect(9 + codegen::STEPS);
    let cargo = |args: &[&str]| {
        let mut command = Command::new("cargo");
        command.current_dir(workspace.root()).args(args);
        command
    };
    progress.step("Formatting", |step| {
        step.run(&mut cargo(&["fmt", "--all", "--check"]))?;
        let fuzz = ["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"];
        step.run(&mut cargo(&fuzz))
    })?;
    progress.step("Ids", |_| ids::check(workspace))?;
    progress.step("Prose", |_| prose::check(workspace))?;
    progress.step("Reasons", |_| reasons::check(workspace))?;
    progress.step("Links", |_| documents::check(workspace))?;
    progress.step("Imports", |_| imports::check(workspace))?;
    progress.step("Clippy", |step| {
        step.run(&mut cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]))
    })?;
    let tools = Tools::of(workspace);
    tools.prepare_helm(progress)?;
    progress.step("Chart", |step| {
        let chart = workspace.join("charts/stoppablecontainer");
        // A helm that is built from its Go module does not have a default Kubernetes version.
        let version = ["--kube-version", Release::default().version()];
        step.run(tools.helm().args(["lint", "--strict"]).args(version).arg(&chart))?;
        for values in CHART_VALUES {
            let template = ["template", "stoppablecontainer", "--set", values];
            step.output(tools.helm().args(template).args(version).arg(&chart))?;
        }
        Ok(())
    })?;
    codegen::run(workspace, progress, true)
}
