/*!
Which of the machine's two local clusters a process works with. The second one lives beside the
first, in a network namespace of its own, while the tests run on both.

A variable and not an option says which, because every program that a test or a node starts must
work with the same cluster.
*/

use std::env;
use std::process::Command;

/// The variable. Any value but the empty one stands for the second cluster.
const VARIABLE: &str = "STOPPABLECONTAINER_CLUSTER";
/// Its value for the second cluster, with a hyphen the end of its names.
const BESIDE: &str = "beside";

/// Runs its arguments with a loopback interface. The namespace ends with its last process.
const WITH_LOOPBACK: &str = r#"ip link set lo up && exec "$@""#;

/// The name of a directory or a control group that each cluster has one of.
pub(crate) fn own(name: &str) -> String {
    if is_beside() {
        of_second(name)
    } else {
        name.to_owned()
    }
}

/// The second cluster's name of the same, unless this process works with the second cluster.
pub(crate) fn beside(name: &str) -> Option<String> {
    (!is_beside()).then(|| of_second(name))
}

/// A command of this program that works with the second cluster, in a new network namespace.
///
/// # Errors
/// If the path of this program is unknown.
pub(crate) fn command(args: &[&str]) -> std::io::Result<Command> {
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", WITH_LOOPBACK, "sh"]);
    command.arg(env::current_exe()?).args(args).env(VARIABLE, BESIDE);
    Ok(command)
}

/// Makes a program without this process's environment work with the same cluster.
pub(crate) fn hand_on(command: &mut Command) {
    if is_beside() {
        command.env(VARIABLE, BESIDE);
    }
}

fn is_beside() -> bool {
    env::var_os(VARIABLE).is_some_and(|value| !value.is_empty())
}

fn of_second(name: &str) -> String {
    format!("{name}-{BESIDE}")
}
