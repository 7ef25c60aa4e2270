/*!
What tests speak CSI with.

`csi-test shim AGENT_SOCKET LISTEN_SOCKET VOLUME_CONTEXT` stands between the node agent and
csi-sanity, `csi-test call AGENT_SOCKET CALLS` makes calls that no kubelet would make, and `csi-test
noop NAME REGISTRY NODE` is a driver that does nothing. It is a test program: nothing of it is part
of the product.
*/

#![forbid(unsafe_code)]

mod call;
mod noop;
mod shim;

use std::path::Path;

use anyhow::{Result, bail};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["shim", agent, listen, context] => shim::serve(connect(agent), listen, context).await,
        ["call", agent, calls] => call::make(connect(agent), calls).await,
        ["noop", name, registry, node] => noop::serve(name, Path::new(registry), node).await,
        _ => bail!(
            "usage: csi-test shim AGENT_SOCKET LISTEN_SOCKET VOLUME_CONTEXT | call AGENT_SOCKET CALLS | \
             noop NAME REGISTRY NODE"
        ),
    }
}

fn connect(socket: &str) -> Channel {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://agent").connect_with_connector_lazy(connector)
}
