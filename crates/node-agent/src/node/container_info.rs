/*!
What the runtime says about a container beyond CRI: the `info` of CRI's verbose `ContainerStatus`,
as containerd and CRI-O write it alike.
*/

use serde_json::Value;

use super::hooks::Hooks;

/// What the agent uses of it. Without that, nothing is known.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ContainerInfo {
    /// The container's first process, on the node.
    pub(crate) first: Option<i32>,
    /// What has to be repeated of its hooks. `None` if the runtime does not report hooks.
    pub(crate) hooks: Option<Hooks>,
}

// === impl ContainerInfo ===

impl ContainerInfo {
    pub(crate) fn parse(info: &str) -> Self {
        let info: Value = serde_json::from_str(info).unwrap_or_default();
        let first = info["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        let specification = info["runtimeSpec"].as_object();
        let no_hooks = &Value::Null;
        Self {
            first: first.filter(|pid| *pid > 0),
            hooks: specification.map(|of| Hooks::of(of.get("hooks").unwrap_or(no_hooks))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ContainerInfo;
    use crate::node::hooks::Hooks;

    fn first(info: &str) -> Option<i32> {
        ContainerInfo::parse(info).first
    }

    #[test]
    fn i3_the_first_process_is_the_runtimes_word() {
        let containerd = r#"{"sandboxID":"5f","pid":4711,"removing":false,"snapshotKey":"a","runtimeSpec":{"root":{"path":"rootfs"}}}"#;
        assert_eq!(first(containerd), Some(4711));
        let crio = r#"{"sandboxID":"5f","pid":12,"runtimeSpec":{},"privileged":false}"#;
        assert_eq!(first(crio), Some(12));
        for unknown in ["", "{}", r#"{"pid":0}"#, r#"{"pid":-1}"#, r#"{"pid":"1"}"#] {
            assert_eq!(first(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn i5_hooks_are_known_only_with_the_runtimes_specification() {
        let hooks = |info: &str| ContainerInfo::parse(info).hooks;
        for known in [r#"{"runtimeSpec":{}}"#, r#"{"runtimeSpec":{"hooks":null}}"#] {
            assert_eq!(hooks(known), Some(Hooks::default()), "{known}");
        }
        for unknown in ["", r#"{"pid":7}"#, r#"{"runtimeSpec":null}"#] {
            assert_eq!(hooks(unknown), None, "{unknown}");
        }
    }
}
