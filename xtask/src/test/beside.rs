/*!
The tests of another release of Kubernetes, on a second local cluster beside the first: most tests
that have a cluster for themselves wait, so two clusters fit on a machine.
*/

use anyhow::{Context, Result};

use super::e2e::{self, ON_OTHER_RELEASE, ON_SEVERAL_NODES};
use super::{OTHER_RELEASE, Options, deploy};
use crate::cluster::Cluster;
use crate::images::pause;
use crate::progress::Progress;
use crate::second_cluster;
use crate::tools::Runtime;
use crate::workspace::Workspace;

/// The subcommand of this program that calls [`run`].
const SUBCOMMAND: &str = "test-other-release";

/// Runs the tests in a network namespace of their own, and prints what they printed.
pub(super) fn start(progress: &Progress) -> Result<()> {
    progress.expect(1);
    let title = format!("Kubernetes {} in a second cluster", OTHER_RELEASE.name());
    progress.step(&title, |step| {
        let mut command = second_cluster::command(&[SUBCOMMAND]).context("finding this program")?;
        let result = step.run(&mut command);
        for line in std::fs::read_to_string(step.log()).unwrap_or_default().lines() {
            step.say(format!("    | {line}"));
        }
        result
    })
}

/// Brings the second cluster up, runs the tests, and removes the cluster whatever their outcome.
pub(crate) fn run(workspace: &Workspace, progress: &Progress) -> Result<()> {
    let options = Options {
        class: None,
        kernels: &[],
        registry: None,
        skip_e2e: false,
        all: false,
        kubernetes: Some(OTHER_RELEASE),
        runtime: Runtime::default(),
        names: &[],
    };
    let parts = [&ON_OTHER_RELEASE, &ON_SEVERAL_NODES];
    let result = deploy(workspace, progress, &options, OTHER_RELEASE)
        .and_then(|target| e2e::run_parts(workspace, progress, &parts, &options, &target));
    result.and(Cluster::new(workspace, progress, pause::provide).down())
}
