//! `node-agent orphans`: lists data on this node that belongs to no instance, or removes it.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow};

use crate::args;
use crate::filesystem::orphans::{self, Orphan};
use crate::node::{Disks, Host};
use crate::run::in_runtime;

/// `orphans`: lists them, or removes those that are named.
pub(crate) fn run(args: &args::Orphans) -> Result<()> {
    in_runtime(async {
        let host = Arc::new(Host::open().context("reach the node")?);
        let disks = Disks::new(&args.allowed_prefix);
        let client = apiserver::client()
            .await
            .context("configure access to the API server")?;
        let found = orphans::find(&host, &disks, &client, |_| false).await?.orphans;
        if args.remove.is_empty() {
            print(&found);
            return Ok(());
        }
        for key in &args.remove {
            let orphan = found.iter().find(|orphan| orphan.key == *key);
            let orphan = orphan.ok_or_else(|| {
                anyhow!("{key}: no data without an instance has this name on this node; `node-agent orphans` lists \
                them")
            })?;
            tokio::task::block_in_place(|| orphans::remove(&host, orphan)).with_context(|| key.clone())?;
            say(&format!("{orphan} removed"));
        }
        Ok(())
    })
}

fn print(found: &[Orphan]) {
    say("DIRECTORY\tINSTANCE");
    for orphan in found {
        say(&format!(
            "{orphan}\t{}",
            orphan.of.as_deref().unwrap_or("unknown")
        ));
    }
}

#[expect(clippy::print_stdout, reason = "the answer of a command")]
fn say(line: &str) {
    println!("{line}");
}
