/*!
A privileged pod with the node's PID namespace: what an administrator has on the node, to kill
processes, look at mounts and data, stop containers.
*/

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use crate::kubectl::Output;
use crate::namespace::{Namespace, wait_in};

/// A shell on one node.
pub struct NodeShell<'a> {
    namespace: &'a Namespace,
    pod: String,
}

impl<'a> NodeShell<'a> {
    /// Starts a shell on `node`, in the test's own namespace.
    pub async fn on(namespace: &'a Namespace, node: &str) -> Result<Self> {
        let pod = format!("node-shell-{node}");
        let object: Pod = serde_json::from_value(json!({
            "metadata": {"name": pod},
            "spec": {
                "nodeName": node, "hostPID": true, "hostNetwork": true, "restartPolicy": "Always",
                "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false,
                "tolerations": [{"operator": "Exists"}],
                "containers": [{
                    "name": "shell", "image": "ubuntu:22.04", "command": ["sleep", "infinity"],
                    "securityContext": {"privileged": true},
                }],
            }
        }))?;
        let api = namespace.api::<Pod>();
        match api.create(&PostParams::default(), &object).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error).context("cannot start a shell on the node"),
        }
        wait_in(api, &pod, "the node shell runs", |p: &Pod| {
            p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running")
        })
        .await?;
        Ok(Self { namespace, pod })
    }

    /// Runs a script as root in the node's mount namespace; it has to succeed.
    pub async fn sh(&self, script: &str) -> Result<String> {
        let command = [
            "nsenter", "--target", "1", "--mount", "--", "/bin/sh", "-ec", script,
        ];
        let output = self.namespace.exec(&self.pod, "shell", &command).await?;
        ensure!(output.code == 0, "`{script}` on the node: {output:?}");
        Ok(output.stdout.trim_end_matches('\n').to_owned())
    }

    /// Runs a command in the shell's own pod, where the node's root is `/proc/1/root`.
    pub(crate) async fn in_pod(&self, command: &[&str]) -> Result<Output> {
        self.namespace.exec(&self.pod, "shell", command).await
    }

    /// PIDs, on the node, of the processes of one container of a pod, the oldest first.
    /// `container_id` as the API reports it (`containerd://...`).
    async fn processes(&self, container_id: &str) -> Result<Vec<u32>> {
        let id = container_id.rsplit('/').next().unwrap_or(container_id);
        let script = format!("grep -l '{id}' /proc/[0-9]*/cgroup 2>/dev/null | cut -d/ -f3 | sort -n");
        self.sh(&script)
            .await?
            .lines()
            .map(|line| Ok(line.parse()?))
            .collect()
    }

    /// Kills the first process of a container, as `kill -9` on the node does.
    pub async fn kill_first(&self, container_id: &str) -> Result<()> {
        self.signal_first(container_id, "KILL").await
    }

    /// Sends a signal, such as `STOP`, to the first process of a container.
    pub async fn signal_first(&self, container_id: &str, signal: &str) -> Result<()> {
        let first = self.first(container_id).await?;
        self.sh(&format!("kill -{signal} {first}")).await.map(drop)
    }

    /// Starts a process that keeps the mounts of a container, whatever becomes of the container, as
    /// one does that hangs in the kernel. Returns its number on the node; it ends with the shell.
    pub async fn hold_mounts_of(&self, container_id: &str) -> Result<u32> {
        let first = self.first(container_id).await?;
        let hold = format!(
            "setsid nsenter --target {first} --mount -- sleep infinity </dev/null >/dev/null 2>&1 & holder=$!
             theirs=$(readlink /proc/{first}/ns/mnt)
             until [ \"$(readlink /proc/$holder/ns/mnt)\" = \"$theirs\" ]; do sleep 0.1; done; echo $holder"
        );
        Ok(self.sh(&hold).await?.parse()?)
    }

    /// Runs a command of the node in the network namespace of a container; it has to succeed.
    pub async fn in_network_of(&self, container_id: &str, command: &str) -> Result<String> {
        let first = self.first(container_id).await?;
        self.sh(&format!("nsenter --target {first} --net -- {command}"))
            .await
    }

    /// The first process of a container, by its number on the node.
    pub async fn first(&self, container_id: &str) -> Result<u32> {
        let processes = self.processes(container_id).await?;
        processes
            .first()
            .copied()
            .with_context(|| format!("no process of {container_id} on the node"))
    }

    /// Every line of every process's mount table that mentions `text`; what is left behind after a
    /// deletion.
    pub async fn mounts_with(&self, text: &str) -> Result<String> {
        self.sh(&format!(
            "cat /proc/[0-9]*/mountinfo 2>/dev/null | grep -F '{text}' || true"
        ))
        .await
    }

    /// Removes the shell.
    pub async fn close(self) -> Result<()> {
        self.namespace
            .api::<Pod>()
            .delete(&self.pod, &DeleteParams::default().grace_period(0))
            .await?;
        Ok(())
    }
}
