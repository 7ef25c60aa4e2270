//! Only authorized scrapers may read the agents' metrics, because they contain names of tenants.

use anyhow::{Context, ensure};
use testkit::in_namespace;

use crate::support::metrics::{agents, read, scraped, token};

/// Story: every client that reached the port could read the names of a node's tenants.
#[tokio::test]
async fn i8_metrics_name_tenants_to_scrapers_alone() {
    in_namespace("metrics", async |ns| {
        let stranger = token(&ns, "stranger").await?;
        for agent in agents(&ns).await? {
            for (token, status) in [
                (None, "401"),
                (Some("made-up"), "401"),
                (Some(stranger.as_str()), "403"),
            ] {
                let error = read(&agent, token)
                    .await
                    .err()
                    .context("metrics without the right to them")?;
                let error = format!("{error:#}");
                ensure!(error.contains(&format!("HTTP/1.1 {status}")), "{error}");
                ensure!(!error.contains("stoppablecontainer_disk"), "{error}");
            }
        }
        for text in scraped(&ns).await? {
            ensure!(text.contains("stoppablecontainer_disk_free_bytes"), "{text}");
        }
        Ok(())
    })
    .await;
}
