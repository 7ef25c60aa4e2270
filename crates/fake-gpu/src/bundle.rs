/*!
The container that a hook is run for: its state, which the runtime writes to the standard input, and
the configuration in its bundle (OCI runtime specification, "State" and "Filesystem Bundle").
*/

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

pub(crate) struct Bundle {
    /// The container's root on the node.
    pub(crate) root: PathBuf,
    /// The container's first process, by its number on the node.
    pub(crate) process: Option<i64>,
    /// Its variables, `NAME=VALUE`.
    pub(crate) environment: Vec<String>,
}

// === impl Bundle ===

impl Bundle {
    pub(crate) fn read() -> Result<Self> {
        let state: Value = serde_json::from_reader(std::io::stdin()).context("reading the state")?;
        let bundle = PathBuf::from(state["bundle"].as_str().context("a state without bundle")?);
        let config = fs::read(bundle.join("config.json")).context("reading the bundle's config.json")?;
        let config: Value = serde_json::from_slice(&config).context("parsing the bundle's config.json")?;
        let root = config["root"]["path"].as_str().context("a bundle without root")?;
        let environment = config["process"]["env"].as_array().into_iter().flatten();
        Ok(Self {
            root: bundle.join(root),
            process: state["pid"].as_i64(),
            environment: environment
                .filter_map(|variable| variable.as_str().map(str::to_owned))
                .collect(),
        })
    }
}
