/*!
A GPU that does not exist, for tests of what a container runtime and hooks do to a container with a
device. It is not part of the product, and it proves nothing about real hardware.

- `fake-gpu install DIRECTORY CDI_DIRECTORY VERSION` makes a driver of this version, and the CDI
  specification of devices with it. The hooks in it are NVIDIA's program and this one.
- `fake-gpu plugin DIRECTORY` is the kubelet's device plugin for the devices.
- `fake-gpu claims REGISTRY DIRECTORY POOL` is the kubelet's driver of claims for a device (DRA).
- `fake-gpu hook` is a hook: it makes files of several kinds in the container's root.
- `fake-gpu legacy` is a hook that does the work of NVIDIA's hook from before CDI.
*/

#![forbid(unsafe_code)]

mod bundle;
mod claims;
mod driver;
mod hook;
mod legacy;
mod library;
mod plugin;

use std::path::Path;

use anyhow::{Result, bail};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["install", directory, specifications, version] => {
            driver::install(Path::new(directory), Path::new(specifications), version.parse()?)
        }
        ["plugin", directory] => plugin::serve(Path::new(directory)).await,
        ["claims", registry, directory, pool] => {
            claims::serve(Path::new(registry), Path::new(directory), pool).await
        }
        ["hook"] => hook::run(),
        ["legacy"] => legacy::run(),
        _ => bail!(
            "usage: fake-gpu install DIRECTORY CDI_DIRECTORY VERSION | plugin DIRECTORY |
             claims REGISTRY DIRECTORY POOL | hook | legacy"
        ),
    }
}
