//! A bad network between API server and webhook: slow, cut, or silent (F10).

use std::time::Instant;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};
use stoppablecontainer_api::StoppableContainer;
use testkit::{Namespace, alone_in_namespace};

use super::load::{callable, dry_run};
use crate::support::release::Release;
use crate::support::{creation_refused, run, running, shell_template};

/// A TCP proxy. The content of `/tmp/mode` applies to every piece of data when it arrives, also on
/// existing connections: `pass`, `delay SECONDS`, `reset`, or `hole`, which delays all data until
/// the mode changes.
const PROXY: &str = r#"
import itertools, socket, struct, threading, time

turn = itertools.count()

def read(name):
    with open("/tmp/" + name) as file:
        return file.read().split()

def reset(*connections):
    for connection in connections:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

def pump(source, sink):
    try:
        while data := source.recv(65536):
            mode = read("mode")
            while mode[0] == "hole":
                time.sleep(0.05)
                mode = read("mode")
            if mode[0] == "delay":
                time.sleep(float(mode[1]))
            if mode[0] == "reset":
                break
            sink.sendall(data)
    except OSError:
        pass
    try:
        reset(source, sink)
    except OSError:
        pass

def serve(client):
    targets = read("targets")
    try:
        server = socket.create_connection((targets[next(turn) % len(targets)], 8443), 5)
    except OSError:
        return reset(client)
    print("a connection", flush=True)
    threading.Thread(target=pump, args=(client, server), daemon=True).start()
    pump(server, client)

for name, text in ("mode", "pass"), ("targets", ""):
    with open("/tmp/" + name, "w") as file:
        file.write(text)
listener = socket.create_server(("", 8443), backlog=128)
while True:
    client, _ = listener.accept()
    threading.Thread(target=serve, args=(client,), daemon=True).start()
"#;

/// The behaviour of the network, and the expected message of the API server.
const TROUBLES: [(&str, &[&str]); 3] = [
    // Five seconds for each piece of a handshake. The API server waits `timeoutSeconds` in total.
    ("delay 5", &["context deadline exceeded", "Client.Timeout"]),
    ("reset", &["connection reset by peer", "EOF"]),
    ("hole", &["context deadline exceeded", "Client.Timeout"]),
];

#[tokio::test]
async fn f10_a_bad_network_to_the_webhook_is_reported_and_disturbs_no_other_pod() {
    alone_in_namespace("bad-network", async |ns, _alone| {
        run(&ns, "kept", shell_template()).await?;
        ns.sh("kept", "main", "echo kept > /root/file").await?;
        let release = Release::find(&ns.client).await?;
        release
            .without_endpoints(async || {
                let outcome = async {
                    put_between(&ns, &release).await?;
                    for (trouble, words) in TROUBLES {
                        suffer(&ns, trouble, words).await?;
                    }
                    anyhow::Ok(())
                }
                .await;
                let slices = release.api::<EndpointSlice>();
                let removed = slices.delete(&ns.name, &DeleteParams::default()).await;
                outcome?;
                removed?;
                Ok(())
            })
            .await?;
        // Deletes the pod together with the API servers' connections through it.
        ns.delete::<Pod>("proxy").await?;
        callable(&ns, 20).await
    })
    .await;
}

/// One fault, from its start until everything works again.
async fn suffer(ns: &Namespace, trouble: &str, words: &[&str]) -> Result<()> {
    ns.sh("proxy", "", &format!("echo {trouble} > /tmp/mode")).await?;
    let begun = Instant::now();
    let refused = dry_run(&ns.api::<StoppableContainer>()).await;
    println!("{trouble}: the API server answered after {:?}", begun.elapsed());
    let refused = refused.err().map(|error| error.to_string()).unwrap_or_default();
    ensure!(
        refused.contains("failed calling webhook") && words.iter().any(|word| refused.contains(word)),
        "with `{trouble}` the API server said {refused:?}"
    );

    // Consumers wait, and the object reports it.
    ns.api::<Pod>().delete("kept", &DeleteParams::default()).await?;
    creation_refused(ns, "kept").await?;
    // Other pods are not affected, and existing objects can be changed without a change of their
    // spec.
    let mut plain = shell_template();
    plain["metadata"] = json!({"name": "plain"});
    ns.create_json::<Pod>(plain).await?;
    ns.pod_ready("plain").await?;
    ns.create_json::<ConfigMap>(json!({"metadata": {"name": "plain"}}))
        .await?;
    ns.delete::<ConfigMap>("plain").await?;
    let at_once = DeleteParams::default().grace_period(0);
    ns.api::<Pod>().delete("plain", &at_once).await?;
    ns.wait_gone::<Pod>("plain").await?;

    ns.sh("proxy", "", "echo pass > /tmp/mode").await?;
    running(ns, "kept").await?;
    ensure!(
        ns.sh("kept", "main", "cat /root/file").await? == "kept",
        "the file is gone"
    );
    Ok(())
}

/// Redirects the API servers to the webhook through the proxy.
async fn put_between(ns: &Namespace, release: &Release) -> Result<()> {
    let proxy = ns.create_json::<Pod>(json!({
        "metadata": {"name": "proxy"},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "proxy", "image": "python:3.11", "command": ["python3", "-c", PROXY],
                "readinessProbe": {"tcpSocket": {"port": 8443}, "periodSeconds": 1},
            }],
        },
    }));
    proxy.await?;
    let proxy = ns.pod_ready("proxy").await?;
    let slice = slice(ns, release, &proxy)?;
    release
        .api::<EndpointSlice>()
        .create(&PostParams::default(), &slice)
        .await?;
    release.replace_controllers().await?;
    let controllers = release.controllers().await?;
    let addresses = controllers
        .iter()
        .filter_map(|pod| pod.status.as_ref()?.pod_ip.clone());
    let addresses = addresses.collect::<Vec<_>>().join(" ");
    ns.sh("proxy", "", &format!("echo {addresses} > /tmp/targets"))
        .await?;
    callable(ns, 3).await?;
    let connections = ns.kubectl(&["logs", "proxy"]).await?.success()?;
    ensure!(
        connections.contains("a connection"),
        "the API server calls the webhook past the proxy"
    );
    Ok(())
}

fn slice(ns: &Namespace, release: &Release, proxy: &Pod) -> Result<EndpointSlice> {
    let address = proxy
        .status
        .as_ref()
        .and_then(|s| s.pod_ip.clone())
        .unwrap_or_default();
    let kind = if address.contains(':') { "IPv6" } else { "IPv4" };
    let slice: Value = json!({
        "metadata": {"name": ns.name, "labels": {
            "kubernetes.io/service-name": release.service,
            "endpointslice.kubernetes.io/managed-by": "e2e",
        }},
        "addressType": kind,
        "ports": [{"name": "webhook", "port": 8443, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
    });
    Ok(serde_json::from_value(slice)?)
}
