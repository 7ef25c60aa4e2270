/*!
What the runtime says about a container beyond CRI: the `info` of CRI's verbose `ContainerStatus`,
as containerd and CRI-O write it alike.
*/

use serde_json::Value;

/// NVIDIA's hook for the libraries of CUDA's forward compatibility, and its option with the version
/// of the driver (`nvidia-cdi-hook enable-cuda-compat`).
const CUDA_HOOK: &str = "enable-cuda-compat";
const CUDA_DRIVER: &str = "host-driver-version";

/// What the agent uses of it. Without that, nothing is known.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ContainerInfo {
    /// The container's first process, on the node.
    pub(crate) first: Option<i32>,
    /// Major version of the driver of which a hook knows that looks for newer libraries of CUDA in
    /// the image.
    pub(crate) cuda_driver: Option<u32>,
}

// === impl ContainerInfo ===

impl ContainerInfo {
    pub(crate) fn parse(info: &str) -> Self {
        let info: Value = serde_json::from_str(info).unwrap_or_default();
        let first = info["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        let hooks = info["runtimeSpec"]["hooks"].as_object();
        let hooks = hooks.into_iter().flat_map(|kinds| kinds.values());
        let mut hooks = hooks.filter_map(Value::as_array).flatten();
        Self {
            first: first.filter(|pid| *pid > 0),
            cuda_driver: hooks.find_map(|hook| cuda_driver(hook["args"].as_array()?)),
        }
    }
}

/// The version in the arguments of NVIDIA's hook.
fn cuda_driver(arguments: &[Value]) -> Option<u32> {
    let mut arguments = arguments.iter().filter_map(Value::as_str);
    arguments.find(|argument| *argument == CUDA_HOOK)?;
    let mut version = None;
    while let Some(argument) = arguments.next() {
        let Some(rest) = argument.trim_start_matches('-').strip_prefix(CUDA_DRIVER) else {
            continue;
        };
        version = match rest.strip_prefix('=') {
            Some(version) => Some(version),
            None => arguments.next(),
        };
    }
    version?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::ContainerInfo;

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
    fn i5_the_version_that_the_hook_of_cuda_knows() {
        let with = |hooks: &str| {
            let info = format!(r#"{{"pid":1,"runtimeSpec":{{"hooks":{hooks}}}}}"#);
            ContainerInfo::parse(&info).cuda_driver
        };
        let of = |arguments: &str| {
            with(&format!(
                r#"{{"prestart":[],"createContainer":[{{"path":"/x"}},{{"path":"/y","args":[{arguments}]}}]}}"#
            ))
        };
        let hook = r#""nvidia-cdi-hook","enable-cuda-compat""#;
        for (arguments, expected) in [
            (format!(r#"{hook},"--host-driver-version=550.54.14""#), Some(550)),
            (format!(r#"{hook},"--host-driver-version","560""#), Some(560)),
            (format!(r#"{hook},"--host-driver-version""#), None),
            (format!(r#"{hook},"--host-driver-version=new""#), None),
            (hook.to_owned(), None),
            (
                r#""nvidia-ctk","hook","enable-cuda-compat","--host-driver-version=535.1""#.to_owned(),
                Some(535),
            ),
            (
                r#""nvidia-cdi-hook","chmod","--host-driver-version=550""#.to_owned(),
                None,
            ),
        ] {
            assert_eq!(of(&arguments), expected, "{arguments}");
        }
        for other in [
            "null",
            "[]",
            "{}",
            r#"{"createContainer":null}"#,
            r#"{"poststop":[1]}"#,
        ] {
            assert_eq!(with(other), None, "{other}");
        }
    }
}
