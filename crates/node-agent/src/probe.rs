/*!
`node-agent probe`, for the kubelet's probes: calls Probe of the agent in the same container.
*/

use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use csi_proto::csi::ProbeRequest;
use csi_proto::csi::identity_client::IdentityClient;
use hyper_util::rt::TokioIo;
use rootfs::Proc;
use rustix::fs::OFlags;
use tokio::net::UnixStream;
use tonic::transport::{Endpoint, Uri};

use crate::args;
use crate::csi::{SOCKET, plugin_directory};

/// How long the agent may take.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Fails if the agent does not answer or, where asked for, is not ready.
pub(crate) fn run(args: &args::Probe) -> Result<()> {
    let root = Proc::open()?.init_root()?;
    let socket = root.open(&plugin_directory(&args.kubelet_dir).join(SOCKET), OFlags::PATH)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(async {
        let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://agent")
            .timeout(TIMEOUT)
            .connect_timeout(TIMEOUT);
        let channel = endpoint
            .connect_with_connector(connector)
            .await
            .context("connect")?;
        let answer = IdentityClient::new(channel)
            .probe(ProbeRequest {})
            .await
            .context("probe")?
            .into_inner();
        if args.ready && answer.ready != Some(true) {
            bail!("not ready");
        }
        Ok(())
    })
}
