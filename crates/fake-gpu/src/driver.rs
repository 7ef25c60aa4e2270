/*!
The driver on the node, and the CDI specification that brings it into containers, in the shape of
those that nvidia-ctk generates.
*/

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::library::shared_object;

/// The devices: vendor and class.
pub(crate) const KIND: &str = "fake.example.com/gpu";
/// How many there are.
pub(crate) const DEVICES: usize = 16;
/// A directory of a container that every loader searches.
pub(crate) const SYSTEM: &str = "/usr/lib/x86_64-linux-gnu";
/// One that glibc's loader searches only through its cache.
const OWN: &str = "/opt/fake-gpu/lib";
/// A directory of a container with a link to each of its devices.
const LINKS: &str = "/opt/fake-gpu/devices";
/// The driver's directory on the node.
pub(crate) const DIRECTORY: &str = "/run/fake-gpu";
/// A file of the driver that a plugin mounts.
pub(crate) const FIRMWARE: &str = "firmware";
/// The file with the CDI specification.
const SPECIFICATION: &str = "fake-gpu.json";
/// NVIDIA's program for the hooks, which the image contains.
const NVIDIA_HOOK: &str = "nvidia-cdi-hook";

/// Makes the driver and its specification in directories of the node, and removes those of another
/// version. The directories have the same paths in this container as on the node.
pub(crate) fn install(directory: &Path, specifications: &Path, version: u32) -> Result<()> {
    for entry in fs::read_dir(directory).context("listing the driver")? {
        fs::remove_file(entry?.path()).context("removing the earlier driver")?;
    }
    for program in ["fake-gpu", NVIDIA_HOOK] {
        let content =
            fs::read(Path::new("/").join(program)).with_context(|| format!("reading /{program}"))?;
        write(&directory.join(program), &content)?;
    }
    write(
        &directory.join(FIRMWARE),
        format!("firmware {version}\n").as_bytes(),
    )?;
    let smi = format!("#!/bin/sh\necho Driver Version: {version}\n");
    write(&directory.join(format!("nvidia-smi.{version}")), smi.as_bytes())?;
    for (file, soname, function) in libraries(version) {
        write(&directory.join(file), &shared_object(soname, function, version))?;
    }
    let specification = specification(directory, version).to_string();
    let new = specifications.join("fake-gpu.new");
    write(&new, specification.as_bytes())?;
    fs::rename(&new, specifications.join(SPECIFICATION)).context("replacing the specification")
}

/// File, name and function of each library.
fn libraries(version: u32) -> [(String, &'static str, &'static str); 2] {
    [
        (format!("libcuda.so.{version}"), "libcuda.so.1", "cuDriverVersion"),
        (
            format!("libfake-ml.so.{version}"),
            "libfake-ml.so.1",
            "mlDriverVersion",
        ),
    ]
}

fn specification(directory: &Path, version: u32) -> Value {
    let mount = |file: &str, to: String| {
        json!({
            "hostPath": directory.join(file), "containerPath": to,
            "options": ["ro", "nosuid", "nodev", "rbind", "rprivate"],
        })
    };
    let [cuda, ml] = libraries(version).map(|(file, ..)| file);
    let hook = |arguments: &[&str]| {
        let program = directory.join(NVIDIA_HOOK);
        let arguments: Vec<_> = [NVIDIA_HOOK].iter().chain(arguments).collect();
        json!({"hookName": "createContainer", "path": program, "args": arguments})
    };
    let devices: Vec<_> = (0..DEVICES)
        .map(|number| {
            let link = format!("/dev/nvidia{number}::{LINKS}/{number}");
            json!({"name": number.to_string(), "containerEdits": {
                "deviceNodes": [{"path": format!("/dev/nvidia{number}"), "hostPath": "/dev/null"}],
                "env": [format!("FAKE_GPU_{number}=1")],
                "hooks": [hook(&["create-symlinks", "--link", &link])],
            }})
        })
        .collect();
    json!({
        "cdiVersion": "0.5.0",
        "kind": KIND,
        "devices": devices,
        "containerEdits": {
            "env": ["NVIDIA_VISIBLE_DEVICES=void"],
            "mounts": [
                mount(&cuda, format!("{SYSTEM}/{cuda}")),
                mount(&ml, format!("{OWN}/{ml}")),
                mount(&format!("nvidia-smi.{version}"), "/usr/bin/nvidia-smi".to_owned()),
            ],
            "hooks": [
                hook(&["create-symlinks", "--link", &format!("libcuda.so.1::{SYSTEM}/libcuda.so")]),
                hook(&["enable-cuda-compat", "--host-driver-version", &format!("{version}.54")]),
                hook(&["disable-device-node-modification"]),
                hook(&["update-ldcache", "--folder", SYSTEM, "--folder", OWN]),
                {"hookName": "createContainer", "path": directory.join("fake-gpu"), "args": ["fake-gpu", "hook"]},
                // The second and third are in an image, where they have other modes.
                hook(&[
                    "chmod", "--mode", "751", "--path", "/var/lib/fake-gpu", "--path", "/srv", "--path", "/etc/shells",
                ]),
            ],
        },
    })
}

/// Writes a file that every user may execute.
fn write(path: &Path, content: &[u8]) -> Result<()> {
    let context = || format!("writing {}", path.display());
    fs::write(path, content).with_context(context)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).with_context(context)
}
