/*!
The local image registry: every registry name of the world resolves to it inside the cluster.
*/

use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::cgroups::CONTROL_PLANE;
use super::dir::ClusterDir;
use super::network::REGISTRY_PORT;
use super::process::Daemon;
use crate::progress::Step;
use crate::shell;
use crate::tools::Tools;

/// Name of the process.
pub(crate) const PROCESS: &str = "registry";
const PATIENCE: Duration = Duration::from_secs(30);

/// Address of the registry, as image names carry it.
pub(crate) fn address() -> String {
    format!("127.0.0.1:{REGISTRY_PORT}")
}

/// Starts the registry unless it runs, and waits until it listens.
pub(crate) fn start(dir: &ClusterDir, tools: &Tools) -> Result<()> {
    let data = dir.make("registry", 0o755)?;
    let config = serde_json::json!({
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": true}},
        "storage": {"filesystem": {"rootdirectory": data}, "delete": {"enabled": true}},
        "http": {"addr": address()},
    });
    let config = dir.write("registry.yml", &serde_json::to_vec_pretty(&config)?, 0o644)?;
    let mut command = Command::new(tools.unpacked("usr/bin/docker-registry"));
    command.arg("serve").arg(&config);
    let daemon = Daemon::new(dir, PROCESS);
    daemon.start(&command, CONTROL_PLANE, &tools.path())?;
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, REGISTRY_PORT)).is_err() {
        daemon.require_alive()?;
        if Instant::now() > deadline {
            bail!(
                "the image registry does not listen; see {}",
                daemon.log().display()
            );
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Copies every image of an OCI or Docker archive into the registry, and returns their names.
///
/// # Errors
/// When the file is neither, or an image in it has no name.
pub(crate) fn load(archive: &Path, step: &Step<'_>) -> Result<Vec<String>> {
    let (transport, names) = archive_images(archive)?;
    if names.is_empty() {
        bail!(
            "no image in {} has a name (a tag): name it when saving it",
            archive.display()
        );
    }
    for (index, name) in names.iter().enumerate() {
        // A Docker archive identifies its images by name, an OCI archive by annotation.
        let source = match transport {
            "docker-archive" => format!("{transport}:{}:@{index}", archive.display()),
            _ if names.len() == 1 => format!("{transport}:{}", archive.display()),
            _ => format!("{transport}:{}:{name}", archive.display()),
        };
        let copy = [
            "copy",
            "--quiet",
            "--dest-tls-verify=false",
            &source,
            &target(name),
        ];
        step.run(Command::new("skopeo").args(copy))?;
    }
    Ok(names)
}

/// Where skopeo puts an image so that pods get it by this name.
pub(crate) fn target(name: &str) -> String {
    format!("docker://{}/{}", address(), repository(name))
}

/// Whether the registry has an image.
pub(crate) fn has(name: &str) -> bool {
    shell::succeeds(
        "skopeo",
        ["inspect", "--raw", "--tls-verify=false", &target(name)],
    )
}

/// The name below the registry's host: what containerd asks a mirror for. `nginx:1.25` is
/// `library/nginx:1.25`, and the host of a full name is left out.
pub(crate) fn repository(name: &str) -> String {
    match name.split_once('/') {
        None => format!("library/{name}"),
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => {
            match rest.split_once('/') {
                None if host == "docker.io" => format!("library/{rest}"),
                _ => rest.to_owned(),
            }
        }
        Some(_) => name.to_owned(),
    }
}

/// What kind of archive it is, and the names of the images in it.
fn archive_images(archive: &Path) -> Result<(&'static str, Vec<String>)> {
    let read = |member: &str| -> Result<serde_json::Value> {
        let text = shell::output(Command::new("tar").arg("-xOf").arg(archive).arg(member))?;
        serde_json::from_str(&text).with_context(|| format!("reading {member} of {}", archive.display()))
    };
    if !archive.is_file() {
        bail!("{} is not a file", archive.display());
    }
    if let Ok(manifest) = read("manifest.json") {
        let images = manifest.as_array().into_iter().flatten();
        let names = images
            .filter_map(|image| image["RepoTags"][0].as_str().map(str::to_owned))
            .collect();
        return Ok(("docker-archive", names));
    }
    let index = read("index.json").with_context(|| {
        format!("{} is neither an OCI nor a Docker image archive (`buildah push IMAGE oci-archive:FILE.tar:NAME` makes one)", archive.display())
    })?;
    let manifests = index["manifests"].as_array().into_iter().flatten();
    let name = |manifest: &serde_json::Value| {
        let annotations = &manifest["annotations"];
        let full = annotations["io.containerd.image.name"].as_str();
        full.or(annotations["org.opencontainers.image.ref.name"].as_str())
            .map(str::to_owned)
    };
    Ok(("oci-archive", manifests.filter_map(name).collect()))
}

#[cfg(test)]
mod tests {
    use super::repository;

    #[test]
    fn repositories_are_what_a_mirror_is_asked_for() {
        let cases = [
            ("nginx:1.25", "library/nginx:1.25"),
            ("docker.io/nginx:1.25", "library/nginx:1.25"),
            ("docker.io/library/nginx:1.25", "library/nginx:1.25"),
            (
                "xtlsoft/stoppablecontainer-operator:0.1.0",
                "xtlsoft/stoppablecontainer-operator:0.1.0",
            ),
            ("localhost:5000/a/b:1", "a/b:1"),
            ("registry.k8s.io/pause:3.10", "pause:3.10"),
        ];
        for (name, expected) in cases {
            assert_eq!(repository(name), expected, "{name}");
        }
    }
}
