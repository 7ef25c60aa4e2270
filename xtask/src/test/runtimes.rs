/*!
`test --runtime`: the end-to-end tests whose outcome depends on the container runtime, on nodes with
another one than containerd.
*/

use anyhow::Result;

use super::{Options, deploy, e2e};
use crate::progress::Progress;
use crate::tools::Tools;
use crate::workspace::Workspace;

/// Beginnings of the names of these tests: start, stop and kept files, probes, exec and hooks,
/// users and layers of images, restarts of the agent and of the runtime, deletion.
const TESTS: &[&str] = &[
    "durability::survival::",
    "images::variants::",
    "lifecycle::deletion::h18_i11",
    "node::faults::f19_i9_consumers",
    "node::in_use::",
    "parity::i5",
    "security::hostile::images::",
    "security::hostile::wrapper::",
];

/// Tests among them whose plain pod differs there, and how (docs/portability.md).
const DIFFERENT: &[(&str, &str)] = &[(
    "parity::i5_an_unprivileged_user_behaves_as_in_a_plain_pod",
    "CRI-O mounts a passwd with the user of the plain pod over that of its image",
)];

/// Runs those tests, or the end-to-end tests that are named.
pub(super) fn run(workspace: &Workspace, progress: &Progress, options: &Options<'_>) -> Result<()> {
    progress.expect(2);
    Tools::prepare_tests(progress)?;
    let release = options.kubernetes.unwrap_or_default();
    let target = deploy(workspace, progress, options, release)?;
    let named: Vec<_> = options.names.iter().map(String::as_str).collect();
    let mut filters = if named.is_empty() { TESTS.to_vec() } else { named };
    if options.names.is_empty() {
        for (test, difference) in DIFFERENT {
            progress.say(format!("LEFT OUT: {test}: {difference}"));
            filters.extend(["--skip", test]);
        }
    }
    progress.step("End-to-end tests that depend on the container runtime", |step| {
        e2e::run(workspace, step, &filters, options, &target)
    })
}
