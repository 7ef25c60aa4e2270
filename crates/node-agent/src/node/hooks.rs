/*!
Hooks that the runtime ran on the root of a consumer's container, and what has to be repeated of
them. Such a hook sees the wrapper's image instead of the container's.

| hook | its work | what the agent does |
|---|---|---|
| `create-symlinks` | makes links | takes them over |
| `update-ldcache` | configures the loader, makes its cache | takes over, makes the cache anew |
| `disable-device-node-modification` | mounts a file in `/proc` | moves it with `/proc` |
| `enable-cuda-compat` | looks for libraries of the image | looks for them again |
| `chmod` | sets modes of what is there | sets them again, or refuses the start |
| any other | unknown | takes over what it made |

The names are those of NVIDIA's programs (`nvidia-cdi-hook`, and `nvidia-ctk hook`), which do
nothing for a name that they do not know.
*/

use std::path::Path;

use rootfs::HookMode;
use serde_json::Value;

/// Hooks that run before the command, on the container's root (OCI runtime specification, "POSIX-
/// platform Hooks").
const KINDS: [&str; 3] = ["prestart", "createRuntime", "createContainer"];
/// How NVIDIA's programs are called.
const PROGRAMS: [&str; 2] = ["nvidia-cdi-hook", "nvidia-ctk"];
/// The hook for the libraries of CUDA's forward compatibility, and its option with the version of
/// the driver.
const CUDA: (&str, &str) = ("enable-cuda-compat", "host-driver-version");
/// The hook for modes, and its options.
const CHMOD: &str = "chmod";
const MODE: &str = "mode";
const PATH: &str = "path";

/// What has to be repeated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hooks {
    /// Major version of the driver of which a hook knows that looks for newer libraries of CUDA in
    /// the image.
    pub(crate) cuda_driver: Option<u32>,
    /// Modes that hooks set, in their order.
    pub(crate) modes: Vec<HookMode>,
}

// === impl Hooks ===

impl Hooks {
    /// Reads the hooks of a runtime specification.
    pub(super) fn of(hooks: &Value) -> Self {
        let mut all = Self::default();
        let hooks = KINDS.iter().filter_map(|kind| hooks[kind].as_array()).flatten();
        for (name, options) in hooks.filter_map(of_nvidia) {
            let of = |name: &'static str| {
                let options = options.iter().filter(move |(option, _)| *option == name);
                options.map(|(_, value)| *value)
            };
            if name == CUDA.0 {
                let version = of(CUDA.1).next_back().and_then(major);
                all.cuda_driver = all.cuda_driver.or(version);
            }
            let mode = of(MODE)
                .next_back()
                .and_then(|mode| u32::from_str_radix(mode, 8).ok());
            if name == CHMOD
                && let Some(mode) = mode
            {
                let paths = of(PATH).flat_map(|paths| paths.split(','));
                all.modes.extend(paths.map(|path| HookMode {
                    path: Path::new("/").join(path),
                    mode,
                }));
            }
        }
        all
    }
}

/// Name and options of one of NVIDIA's hooks.
fn of_nvidia(hook: &Value) -> Option<(&str, Vec<(&str, &str)>)> {
    let mut arguments = hook["args"].as_array()?.iter().filter_map(Value::as_str);
    let called = [hook["path"].as_str(), arguments.next()];
    let mut called = called.into_iter().flatten().map(Path::new);
    if !called.any(|path| PROGRAMS.iter().any(|program| path.ends_with(program))) {
        return None;
    }
    let name = arguments.find(|argument| !argument.starts_with('-') && *argument != "hook")?;
    let mut options = Vec::new();
    while let Some(argument) = arguments.next() {
        let option = argument.trim_start_matches('-');
        match option.split_once('=') {
            Some(option) => options.push(option),
            None => options.extend(arguments.next().map(|value| (option, value))),
        }
    }
    Some((name, options))
}

/// The major version in `550.54.14`.
fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(arguments: &[&str]) -> Hooks {
        let hook = json!({"path": "/y", "args": arguments});
        Hooks::of(&json!({"prestart": [], "createContainer": [{"path": "/x"}, hook]}))
    }

    #[test]
    fn i5_the_version_that_the_hook_of_cuda_knows() {
        let hook = ["nvidia-cdi-hook", "enable-cuda-compat"];
        let with = |options: &[&str]| of(&[&hook[..], options].concat()).cuda_driver;
        assert_eq!(with(&["--host-driver-version=550.54.14"]), Some(550));
        assert_eq!(with(&["--host-driver-version", "560"]), Some(560));
        assert_eq!(with(&["--host-driver-version"]), None);
        assert_eq!(with(&["--host-driver-version=new"]), None);
        assert_eq!(with(&[]), None);
        for (arguments, expected) in [
            (
                &[
                    "/x/nvidia-ctk",
                    "--debug",
                    "hook",
                    "enable-cuda-compat",
                    "-host-driver-version=535.1",
                ][..],
                Some(535),
            ),
            (&["nvidia-cdi-hook", "chmod", "--host-driver-version=550"], None),
            (
                &["other", "enable-cuda-compat", "--host-driver-version=550"],
                None,
            ),
        ] {
            assert_eq!(of(arguments).cuda_driver, expected, "{arguments:?}");
        }
    }

    #[test]
    fn i5_the_modes_that_the_hook_for_modes_sets() {
        let mode = |path: &str, mode| HookMode {
            path: path.into(),
            mode,
        };
        for (arguments, expected) in [
            (
                &[
                    "nvidia-cdi-hook",
                    "chmod",
                    "--mode",
                    "755",
                    "--path",
                    "/opt/a",
                    "--path=b,/c",
                ][..],
                vec![mode("/opt/a", 0o755), mode("/b", 0o755), mode("/c", 0o755)],
            ),
            (
                &["nvidia-ctk", "hook", "chmod", "--path", "/dev/dri", "--mode=0711"],
                vec![mode("/dev/dri", 0o711)],
            ),
            // Not NVIDIA's: what it does is unknown.
            (&["chmod", "755", "/opt/a"], Vec::new()),
            (&["sh", "chmod", "--mode", "755", "--path", "/opt/a"], Vec::new()),
            // The hook fails, and with it the container.
            (
                &["nvidia-cdi-hook", "chmod", "--mode", "a+x", "--path", "/a"],
                Vec::new(),
            ),
            (&["nvidia-cdi-hook", "chmod", "--path", "/a"], Vec::new()),
        ] {
            assert_eq!(of(arguments).modes, expected, "{arguments:?}");
        }
        let hook =
            json!({"path": "/usr/bin/nvidia-cdi-hook", "args": ["x", "chmod", "--mode=1", "--path=/a"]});
        let of_kind = |kind: &str| Hooks::of(&json!({ kind: [hook] })).modes.len();
        assert_eq!(
            ["createRuntime", "startContainer", "poststop"].map(of_kind),
            [1, 0, 0]
        );
    }

    #[test]
    fn h12_hooks_that_are_no_hooks() {
        for other in [
            Value::Null,
            json!([]),
            json!({"createContainer": null}),
            json!({"createContainer": [1, {}, {"args": []}, {"args": [1]}, {"args": ["nvidia-cdi-hook"]}]}),
        ] {
            assert_eq!(Hooks::of(&other), Hooks::default(), "{other}");
        }
    }
}
