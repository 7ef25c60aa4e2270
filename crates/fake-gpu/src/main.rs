/*!
A GPU that does not exist, for tests of what a container runtime and hooks do to a container with a
device. It is not part of the product, and it proves nothing about real hardware.

- `fake-gpu install DIRECTORY CDI_DIRECTORY VERSION` makes a driver of this version, and the CDI
  specification of devices with it. The hooks in it are NVIDIA's program and this one.
- `fake-gpu plugin DIRECTORY` is the kubelet's device plugin for the devices.
- `fake-gpu hook` is a hook: it makes files of several kinds in the container's root.
*/

#![forbid(unsafe_code)]

mod driver;
mod hook;
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
        ["hook"] => hook::run(),
        _ => bail!("usage: fake-gpu install DIRECTORY CDI_DIRECTORY VERSION | plugin DIRECTORY | hook"),
    }
}
