//! What tests do with pods: wait for them, run commands in them, ask them over HTTP.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::AttachParams;
use tokio::io::AsyncReadExt;

use crate::kubectl::Output;
use crate::namespace::Namespace;
use crate::port_forward;

impl Namespace {
    /// Waits until the pod is Ready.
    pub async fn pod_ready(&self, name: &str) -> Result<Pod> {
        self.wait(name, "the pod is Ready", is_ready).await
    }

    /// Waits until the pod exists, is Ready, and is not the one with this UID.
    pub async fn other_pod_ready(&self, name: &str, than_uid: &str) -> Result<Pod> {
        let other = |pod: &Pod| pod.metadata.uid.as_deref() != Some(than_uid) && is_ready(pod);
        self.wait(name, "another pod of that name is Ready", other).await
    }

    /// Waits until a container of the pod was started `count` times again and the pod is Ready.
    pub async fn pod_restarted(&self, name: &str, container: &str, count: i32) -> Result<Pod> {
        let restarted = |pod: &Pod| {
            let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
            is_ready(pod)
                && statuses.is_some_and(|s| s.iter().any(|c| c.name == container && c.restart_count >= count))
        };
        self.wait(name, "the container was restarted", restarted).await
    }

    /// Runs a command in a container and returns what it printed; `container` may be empty for the
    /// default one.
    pub async fn exec(&self, pod: &str, container: &str, command: &[&str]) -> Result<Output> {
        let mut params = AttachParams::default().stderr(true);
        if !container.is_empty() {
            params = params.container(container);
        }
        let mut process = self
            .api::<Pod>()
            .exec(pod, command.to_vec(), &params)
            .await
            .with_context(|| format!("cannot exec {command:?} in {pod}"))?;
        let status = process.take_status().context("exec without status")?;
        let (mut stdout, mut stderr) = (
            process.stdout().context("exec without stdout")?,
            process.stderr().context("exec without stderr")?,
        );
        let (mut out, mut err) = (Vec::new(), Vec::new());
        tokio::try_join!(stdout.read_to_end(&mut out), stderr.read_to_end(&mut err))?;
        let status = status.await.context("exec ended without status")?;
        process.join().await?;
        let code = match status.status.as_deref() {
            Some("Success") => 0,
            _ => status
                .details
                .and_then(|d| d.causes)
                .and_then(|causes| {
                    causes
                        .into_iter()
                        .find(|c| c.reason.as_deref() == Some("ExitCode"))
                })
                .and_then(|cause| cause.message)
                .and_then(|code| code.parse().ok())
                .with_context(|| format!("{command:?} in {pod}: {}", status.message.unwrap_or_default()))?,
        };
        Ok(Output {
            code,
            stdout: String::from_utf8_lossy(&out).into_owned(),
            stderr: String::from_utf8_lossy(&err).into_owned(),
        })
    }

    /// Runs a shell script in a container that has to succeed, and returns its standard output
    /// without the last line feed.
    pub async fn sh(&self, pod: &str, container: &str, script: &str) -> Result<String> {
        let output = self.exec(pod, container, &["/bin/sh", "-ec", script]).await?;
        ensure!(output.code == 0, "`{script}` in {pod}: {output:?}");
        Ok(output.stdout.trim_end_matches('\n').to_owned())
    }

    /// Fetches a page of a pod through the API server's proxy: works on every cluster.
    pub async fn http_get(&self, pod: &str, port: u16, path: &str) -> Result<String> {
        let url = format!("/api/v1/namespaces/{}/pods/{pod}:{port}/proxy{path}", self.name);
        Ok(self
            .client
            .request_text(http::Request::get(url).body(Vec::new())?)
            .await?)
    }

    /// See [`port_forward`].
    pub async fn port_forward(&self, pod: &str, port: u16) -> Result<(u16, tokio::process::Child)> {
        port_forward(&self.name, pod, port).await
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.is_some_and(|c| c.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}
