/*!
One program for the webhook server and for everything that its injections run: it stands in for the
programs of the originals as far as a kubelet can tell, and knows which by its name and arguments,
because the pods are in the originals' shape and the image is its own.
*/

#![forbid(unsafe_code)]

mod programs;
mod server;

use anyhow::{Result, bail};

use programs::{istio, linkerd, vault};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args();
    let program = arguments.next().unwrap_or_default();
    let name = program.rsplit('/').next().unwrap_or_default().to_owned();
    let arguments: Vec<String> = arguments.collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match (name.as_str(), words.as_slice()) {
        ("injectors", ["webhook"]) => server::run().await,
        // Redirecting traffic and draining a proxy: there is none.
        ("injectors", ["istio-iptables", ..])
        | ("pilot-agent", ["request", ..])
        | ("linkerd2-proxy-init", _) => Ok(()),
        // Istio's images have pilot-agent as entrypoint; hooks name it.
        ("injectors", ["proxy", "sidecar", ..]) => istio::proxy().await,
        ("pilot-agent", ["wait"]) => istio::wait().await,
        // The proxy's entrypoint takes no arguments.
        ("injectors", []) if linkerd::is_asked_for() => linkerd::proxy().await,
        ("linkerd-await", _) => linkerd::wait().await,
        ("sh", [_, script]) => vault::shell(script).await,
        ("vault-env", [program, arguments @ ..]) => vault::env(program, arguments),
        _ => bail!("nothing that this stands in for is called as {name} {words:?}"),
    }
}
