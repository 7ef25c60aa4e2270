//! `vault agent`, started by a shell script, which renders templates to files; and `vault-env`,
//! which is copied by one and puts secrets into the environment of the program that it becomes.
//! Every secret is [`SECRET`].

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use injectors::SECRET;
use serde_json::Value;

use super::terminated;

/// The scripts of the injected containers.
pub(crate) async fn shell(script: &str) -> Result<()> {
    let words: Vec<&str> = script.split_whitespace().collect();
    if script.contains("vault agent -config=") {
        agent().await
    } else if let ["cp", from, to] = words.as_slice() {
        let name = Path::new(from).file_name().unwrap_or_default();
        std::fs::copy(from, Path::new(to).join(name)).with_context(|| script.to_owned())?;
        Ok(())
    } else {
        bail!("no injected container runs this script: {script}")
    }
}

async fn agent() -> Result<()> {
    let config = STANDARD.decode(std::env::var("VAULT_CONFIG").context("VAULT_CONFIG")?)?;
    let config: Value = serde_json::from_slice(&config)?;
    let token = config["auto_auth"]["method"]["config"]["token_path"]
        .as_str()
        .unwrap_or_default();
    std::fs::read(token).with_context(|| format!("logging in with {token}"))?;
    for template in config["template"].as_array().into_iter().flatten() {
        let destination = template["destination"].as_str().unwrap_or_default();
        // As the agent renders: a file beside it, renamed.
        let partial = format!("{destination}.partial");
        std::fs::write(&partial, format!("password: {SECRET}\n")).with_context(|| partial.clone())?;
        std::fs::rename(&partial, destination).with_context(|| destination.to_owned())?;
    }
    if config["exit_after_auth"] == true {
        return Ok(());
    }
    terminated().await
}

/// Becomes the program, with the secrets in place of the references to them.
pub(crate) fn env(program: &str, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(program);
    command.args(arguments);
    for (name, value) in std::env::vars().filter(|(_, value)| value.starts_with("vault:")) {
        command.env(name, format!("{SECRET} of {}", &value["vault:".len()..]));
    }
    Err(command.exec()).with_context(|| format!("becoming {program}"))
}
