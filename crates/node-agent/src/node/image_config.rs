/*!
The part of an image's config (OCI image specification, "Image Configuration") that a container's
process depends on. It ignores volumes, labels and other fields.
*/

use serde::Deserialize;
use stoppablecontainer_api::ImageFacts;

/// Largest sum of an image's facts, in bytes: they become part of an object of the API, which ends
/// at 1.5 MiB.
const MAX_FACTS: usize = 256 << 10;

/// A config that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is none.
    #[error("container runtime: the response has no image config")]
    Missing,
    /// It is not as the OCI image specification describes.
    #[error("the image's config is not valid: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The CRI response would be too large.
    #[error("the image's config is too large: its CRI response exceeds {0} bytes")]
    Unreadable(usize),
    /// It is too large.
    #[error(
        "the image's config has {0} bytes of environment and commands; at most {MAX_FACTS} are supported"
    )]
    TooLarge(usize),
}

/// The part of `info` that containerd and CRI-O share.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Info {
    image_spec: Option<Spec>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    config: Option<Config>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Config {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
}

/// The facts of the image `reference` with this `id`, from the `info` of CRI's verbose
/// `ImageStatus`.
pub fn facts(reference: &str, id: &str, info: &str) -> Result<ImageFacts, ConfigError> {
    let info: Info = serde_json::from_str(info)?;
    let config = info
        .image_spec
        .ok_or(ConfigError::Missing)?
        .config
        .unwrap_or_default();
    let facts = ImageFacts {
        reference: reference.to_owned(),
        id: id.to_owned(),
        repo_digest: String::new(),
        entrypoint: config.entrypoint.unwrap_or_default(),
        cmd: config.cmd.unwrap_or_default(),
        env: config.env.unwrap_or_default(),
        working_dir: config.working_dir.unwrap_or_default(),
        user: config.user.unwrap_or_default(),
        stop_signal: config.stop_signal.unwrap_or_default(),
    };
    let lists = facts.entrypoint.iter().chain(&facts.cmd).chain(&facts.env);
    let size = lists.map(|s| s.len() + 1).sum::<usize>()
        + [&facts.working_dir, &facts.user, &facts.stop_signal]
            .map(String::len)
            .iter()
            .sum::<usize>();
    if size > MAX_FACTS {
        Err(ConfigError::TooLarge(size))
    } else {
        Ok(facts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(info: &str) -> Result<ImageFacts, ConfigError> {
        facts("nginx:1.25", "sha256:1", info)
    }

    #[test]
    fn what_containerd_says() {
        let facts = read(
            r#"{"chainID":"sha256:x","imageSpec":{"architecture":"amd64","config":{"User":"app:grp","ExposedPorts":{"80/tcp":{}},
            "Env":["PATH=/bin","A=b=c"],"Entrypoint":["/e.sh"],"Cmd":["nginx","-g","daemon off;"],"WorkingDir":"/w","StopSignal":"SIGQUIT"},
            "rootfs":{"type":"layers"}}}"#,
        );
        let facts = facts.unwrap();
        assert_eq!(
            (facts.reference.as_str(), facts.id.as_str()),
            ("nginx:1.25", "sha256:1")
        );
        assert_eq!(facts.entrypoint, ["/e.sh"]);
        assert_eq!(facts.cmd, ["nginx", "-g", "daemon off;"]);
        assert_eq!(facts.env, ["PATH=/bin", "A=b=c"]);
        assert_eq!(
            (
                facts.working_dir.as_str(),
                facts.user.as_str(),
                facts.stop_signal.as_str()
            ),
            ("/w", "app:grp", "SIGQUIT")
        );
    }

    /// As CRI-O 1.34 writes it: no `chainID`, and ids without an algorithm.
    #[test]
    fn what_cri_o_says() {
        let info = r#"{"imageSpec":{"architecture":"amd64","os":"linux","config":{"User":"app","Env":["PATH=/bin","FOO=bar"],
            "Cmd":["sleep","1000"],"WorkingDir":"/tmp","StopSignal":"SIGUSR1"},"rootfs":{"type":"layers","diff_ids":["sha256:d5"]}}}"#;
        let facts = facts("docker.io/library/web:1", "b7ca209f", info).unwrap();
        assert_eq!(facts.id, "b7ca209f");
        assert_eq!(
            (facts.user.as_str(), facts.stop_signal.as_str()),
            ("app", "SIGUSR1")
        );
        assert_eq!(facts.entrypoint, Vec::<String>::new());
        assert_eq!(facts.cmd, ["sleep", "1000"]);
    }

    #[test]
    fn h10_null_is_nothing() {
        let facts = read(r#"{"imageSpec":{"config":{"Env":null,"Cmd":null,"User":null}}}"#).unwrap();
        assert_eq!(
            facts,
            ImageFacts {
                reference: "nginx:1.25".into(),
                id: "sha256:1".into(),
                ..ImageFacts::default()
            }
        );
        assert!(read(r#"{"imageSpec":{"config":null}}"#).is_ok());
    }

    #[test]
    fn h10_wrong_types_and_huge_values_are_refused() {
        for config in [r#"{"Env":"A=b"}"#, r#"{"Cmd":[1]}"#, r#"{"User":0}"#, "7"] {
            assert!(
                read(&format!(r#"{{"imageSpec":{{"config":{config}}}}}"#)).is_err(),
                "{config}"
            );
        }
        assert!(matches!(read("{}"), Err(ConfigError::Missing)));
        let huge = format!(
            r#"{{"imageSpec":{{"config":{{"Env":["A={}"]}}}}}}"#,
            "x".repeat(MAX_FACTS)
        );
        assert!(matches!(read(&huge), Err(ConfigError::TooLarge(_))));
    }
}
