/*!
Devices: what the container runtime and the hooks of a vendor put into a container is there at every
start, as in a plain pod.

The device is a fake (`crates/fake-gpu`): its driver has shared objects that return the version, and
its device node is `/dev/null`. The kubelet, the container runtime, CDI and the hooks are real: one
is NVIDIA's own program, the other makes files of further kinds.
*/

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use serde_json::{Value, json};
use stoppablecontainer_api::StoppableContainer;
use stoppablecontainer_api::names::{PROVIDER_CONTAINER, provider_pod_name};
use testkit::{Namespace, in_namespace};

use self::vendor::{DEVICES, GPU, Vendor, with_devices};
use crate::support::{run, shell_template, start, stop};

mod vendor;

/// What a container sees of its device. The numbers of devices and the random names of the hook's
/// files differ between two containers. Of the loader's cache these are the lines of the driver and
/// one of the image, without the link of the linker: when the hook's ldconfig looks at that link in
/// a plain pod, its target is not there yet.
const LOOK: &str = r#"
for call in libcuda.so.1:cuDriverVersion libcuda.so:cuDriverVersion libfake-ml.so.1:mlDriverVersion; do
    python3 - "$call" 2>&1 <<'END' | tail -n 1
import ctypes, sys
name, function = sys.argv[1].split(":")
print(name, getattr(ctypes.CDLL(name), function)())
END
done
nvidia-smi 2>&1 || true
/sbin/ldconfig -p | grep -E 'cuda|fake-ml|libc\.so' | grep -v 'libcuda.so ' | sort
ls -ln /usr/lib/x86_64-linux-gnu/libcuda* /opt/fake-gpu/lib 2>&1 | awk '{print $1, $3, $4, $5, $9, $10, $11}' | grep -v ^total
stat -c '%n %F %a %u:%g %t:%T %N' /var/lib/fake-gpu /var/lib/fake-gpu/* 2>&1 || true
cat /var/lib/fake-gpu/link 2>&1 || true
ls /etc/ld.so.conf.d 2>&1 | sed -E 's/-nvcr-[0-9]+/-nvcr-/'
ls -l /dev | grep nvidia | sed -E 's/nvidia[0-9]+/nvidiaN/' | awk '{print $1, $3, $4, $5, $6, $NF}'
{ env; tr '\0' '\n' < /proc/1/environ; } | grep -E '^(FAKE_GPU|NVIDIA)' | sed -E 's/_[0-9]+=/_N=/' | sort
"#;

/// What is left of a driver: files, and names in the cache of the loader.
const LEFT: &str = r"
find / -xdev \( -name '*libcuda*' -o -name '*fake-*' -o -name 'nvidia*' -o -name '*-nvcr-*' \) 2>/dev/null || true
/sbin/ldconfig -p | grep -E 'cuda|fake-ml' || true
ls /dev | grep nvidia || true
";

/// A GPU at the first start, after a stop, after an upgrade of the driver, and gone.
#[tokio::test]
async fn i5_a_device_with_hooks_is_as_in_a_plain_pod_at_every_start() {
    in_namespace("gpu", async |ns| {
        require_cdi(&ns).await?;
        with_devices(&ns, async |vendor| every_start(&ns, vendor).await).await
    })
    .await;
}

async fn every_start(ns: &Namespace, vendor: &Vendor<'_>) -> Result<()> {
    let variants = variants();
    vendor.install("550").await?;
    let expected = plain_pods(ns, &variants, "550").await?;
    try_join_all(
        variants
            .iter()
            .map(|(name, template)| run(ns, name, template.clone())),
    )
    .await?;
    compare(ns, &expected).await?;
    has_no_device(ns, "default").await?;

    // As the installation of a package with a library does.
    ns.sh("default", "main", "echo kept > /kept; /sbin/ldconfig")
        .await?;
    let found = ns.sh("default", "main", LOOK).await?;
    ensure!(
        found.contains("libcuda.so.1 550"),
        "after ldconfig in the container: {found}"
    );
    stop_all(ns, &variants).await?;

    // All devices are free.
    let mut all = template();
    all["spec"]["containers"][0]["resources"]["limits"][GPU] = json!(DEVICES.to_string());
    plain_pod(ns, "all", &all, "550").await?;

    start_all(ns, &variants).await?;
    compare(ns, &expected).await?;
    stop_all(ns, &variants).await?;

    vendor.install("560").await?;
    let expected = plain_pods(ns, &variants, "560").await?;
    start_all(ns, &variants).await?;
    compare(ns, &expected).await?;
    let old = ns
        .sh(
            "default",
            "main",
            "find / -xdev -name '*.so.550' 2>/dev/null || true",
        )
        .await?;
    ensure!(old.is_empty(), "left of the old driver: {old}");

    // Without the device nothing of it is left, and the user's files are there.
    stop(ns, "default").await?;
    let without = json!({"spec": {"template": without_device()}});
    ns.patch::<StoppableContainer>("default", without).await?;
    start(ns, "default").await?;
    let left = ns.sh("default", "main", LEFT).await?;
    ensure!(left.is_empty(), "left of the device: {left}");
    let kept = ns.sh("default", "main", "cat /kept").await?;
    ensure!(kept == "kept", "{kept:?}");
    Ok(())
}

/// The container runtimes of all nodes give containers devices of CDI. Debian's containerd 1.6 does
/// not know them, and `cargo xtask test` leaves the tests out there.
async fn require_cdi(ns: &Namespace) -> Result<()> {
    for node in ns.cluster_api::<Node>().list(&ListParams::default()).await? {
        let info = node.status.and_then(|status| status.node_info);
        let runtime = info
            .context("a node without information")?
            .container_runtime_version;
        ensure!(
            !runtime.starts_with("containerd://1."),
            "{runtime} does not give containers devices of CDI: run this test with `--kubernetes 1.36`"
        );
    }
    Ok(())
}

fn without_device() -> Value {
    let mut template = shell_template();
    template["spec"]["containers"][0]["image"] = json!("python:3.11");
    template
}

fn template() -> Value {
    let mut template = without_device();
    template["spec"]["containers"][0]["resources"] = json!({"limits": {GPU: "1"}});
    template
}

/// Templates with a device, by name.
fn variants() -> Vec<(&'static str, Value)> {
    let with = |context: Value| {
        let mut template = template();
        template["spec"]["containers"][0]["securityContext"] = context;
        template
    };
    vec![
        ("default", template()),
        ("read-only", with(json!({"readOnlyRootFilesystem": true}))),
        (
            // What Pod Security's level `restricted` demands.
            "restricted",
            with(json!({
                "runAsUser": 1000, "runAsNonRoot": true, "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
            })),
        ),
    ]
}

/// What each template's container sees as a plain pod, by the name of the template.
async fn plain_pods<'a>(
    ns: &Namespace,
    variants: &[(&'a str, Value)],
    version: &str,
) -> Result<Vec<(&'a str, String)>> {
    let look = variants
        .iter()
        .map(async |(name, template)| Ok((*name, plain_pod(ns, name, template, version).await?)));
    try_join_all(look).await
}

/// What the template's container sees as a plain pod, in which the driver works. The pod is gone
/// afterwards.
async fn plain_pod(ns: &Namespace, name: &str, template: &Value, version: &str) -> Result<String> {
    let name = format!("plain-{name}");
    let mut pod = template.clone();
    pod["metadata"] = json!({"name": name});
    ns.create_json::<Pod>(pod).await?;
    ns.pod_ready(&name).await?;
    let seen = ns.sh(&name, "main", LOOK).await?;
    ns.delete::<Pod>(&name).await?;
    for words in [
        "libcuda.so.1 ",
        "libcuda.so ",
        "libfake-ml.so.1 ",
        "Driver Version: ",
    ] {
        let words = format!("{words}{version}");
        ensure!(seen.contains(&words), "{name}: {words:?} is missing:\n{seen}");
    }
    Ok(seen)
}

/// Compares every kept container with its plain pod.
async fn compare(ns: &Namespace, expected: &[(&str, String)]) -> Result<()> {
    for (name, plain) in expected {
        let seen = ns.sh(name, "main", LOOK).await?;
        ensure!(seen == *plain, "{name}.\nplain pod:\n{plain}\nours:\n{seen}");
    }
    Ok(())
}

async fn stop_all(ns: &Namespace, variants: &[(&str, Value)]) -> Result<()> {
    try_join_all(variants.iter().map(|(name, _)| stop(ns, name)))
        .await
        .map(drop)
}

async fn start_all(ns: &Namespace, variants: &[(&str, Value)]) -> Result<()> {
    try_join_all(variants.iter().map(|(name, _)| start(ns, name)))
        .await
        .map(drop)
}

/// The provider holds no device, and tells NVIDIA's runtime to give it none.
async fn has_no_device(ns: &Namespace, name: &str) -> Result<()> {
    let look = "ls /dev | grep nvidia || true; echo $NVIDIA_VISIBLE_DEVICES; env | grep FAKE_GPU || true";
    let seen = ns.sh(&provider_pod_name(name), PROVIDER_CONTAINER, look).await?;
    ensure!(seen == "void", "the provider has a device: {seen}");
    Ok(())
}
