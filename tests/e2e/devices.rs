/*!
Devices: what the container runtime and the hooks of a vendor put into a container is there at every
start, as in a plain pod.

The device is a fake (`crates/fake-gpu`): its driver has shared objects that return the version, and
its device nodes are `/dev/null` and `/dev/zero`. The kubelet, the container runtime, CDI and the
hooks are real: one is NVIDIA's own program, the others make files of further kinds or do the work
of NVIDIA's hook from before CDI.
*/

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use stoppablecontainer_api::StoppableContainer;
use stoppablecontainer_api::names::{PROVIDER_CONTAINER, provider_pod_name};
use testkit::Namespace;

use self::variants::Variant;
use self::vendor::{DEVICES, GPU, Vendor, with_devices};
use crate::support::{run, start, stop};

mod hostile;
mod one_of_two;
mod permissions;
mod suites;
mod trainer;
pub(crate) mod variants;
pub(crate) mod vendor;

/// What a container sees of its device. The numbers of devices and the random names of the hook's
/// files differ between two containers. Of the loader's cache these are the lines of the driver and
/// one of the image, without the link of the linker: when the hook's ldconfig looks at that link in
/// a plain pod, its target is not there yet. Their directory is `/lib`, also where the hook named
/// `/usr/lib` on ldconfig's command line, which is the same one.
const LOOK: &str = r#"
for call in libcuda.so.1:cuDriverVersion libcuda.so:cuDriverVersion libfake-ml.so.1:mlDriverVersion; do
    dlopen "${call%:*}" "${call#*:}" || true
done
linked 2>&1 || true
nvidia-smi 2>&1 || true
[ ! -x /sbin/ldconfig ] || /sbin/ldconfig -p | grep -E 'cuda|fake-ml|own|libc\.so' | grep -v 'libcuda.so ' | sed 's#> /usr/lib/#> /lib/#' | sort
cat /etc/ld-musl-x86_64.path 2>&1 || true
ls -ln /usr/lib/x86_64-linux-gnu/libcuda* /opt/fake-gpu/lib 2>&1 | awk '{print $1, $3, $4, $5, $9, $10, $11}' | grep -v ^total
stat -c '%n %F %a %u:%g %t:%T %N' /var/lib/fake-gpu /var/lib/fake-gpu/* 2>&1 || true
stat -c '%n %F %a %u:%g' /srv /etc/shells 2>&1 || true
cat /var/lib/fake-gpu/link /usr/lib/firmware/fake-card 2>&1 || true
ls /etc/ld.so.conf.d 2>&1 | sed -E 's/-(nvcr|compat)-[0-9]+/-\1-/'
ls -l /dev/ /dev/infiniband 2>&1 | grep -E 'nvidia|fake|verbs|infiniband' | sed -E 's/([a-z])[0-9]+$/\1N/' | awk '{print $1, $3, $4, $5, $6, $NF}'
head -c 1 "$(ls -d /dev/fake-card* | head -n 1)" 2>&1 | wc -c
grep ' /dev/shm ' /proc/mounts
grep 'locked memory' /proc/1/limits
{ env; tr '\0' '\n' < /proc/1/environ; } | grep -E '^(FAKE_|NVIDIA)' | sed -E 's/_[0-9]+=/_N=/' | sort
"#;

/// What is left of a driver: files, the configuration of the loader, and names in its cache. Which
/// of two directories a name has there depends on the program that made the cache.
const LEFT: &str = r"
find / -xdev \( -name '*libcuda*' -o -name '*libfake*' -o -name '*fake-gpu*' -o -name '*fake-card*' -o -name 'nvidia*' \) 2>/dev/null || true
ls /etc/ld.so.conf.d /etc/ld.so.cache /etc/ld.so.conf /etc/ld-musl-x86_64.path 2>&1 || true
[ ! -x /sbin/ldconfig ] || /sbin/ldconfig -p 2>&1 | grep '=>' | awk '{print $1}' | sort -u
stat -c '%n %F %a %u:%g' /srv /etc/shells 2>&1 || true
cat /var/lib/fake-gpu/settings /usr/lib/x86_64-linux-gnu/libcuda.so 2>&1 || true
ls /dev /dev/infiniband 2>&1 | grep -E 'nvidia|fake|verbs' || true
";

/// Every way to a device and every kind of image, at the first start, after a stop, after an
/// upgrade of the driver, and without the device.
#[tokio::test]
async fn i5_a_device_with_hooks_is_as_in_a_plain_pod_at_every_start() {
    with_devices("gpu", every_start).await;
}

async fn every_start(ns: &Namespace, vendor: &Vendor<'_>) -> Result<()> {
    let variants = variants::all();
    vendor.install("550").await?;
    let expected = plain_pods(ns, &variants, "550").await?;
    let run = variants
        .iter()
        .map(|variant| run(ns, variant.name, variant.with.clone()));
    try_join_all(run).await?;
    compare(ns, &variants, &expected, LOOK).await?;
    try_join_all(variants.iter().map(|variant| has_no_device(ns, variant.name))).await?;

    // As the installation of a package with a library does.
    ns.sh("glibc", "main", "echo kept > /kept; /sbin/ldconfig")
        .await?;
    let found = ns.sh("glibc", "main", LOOK).await?;
    let newer = ns.sh(variants::COMPATIBLE, "main", "linked").await?;
    ensure!(
        newer == "linked 555",
        "{newer}, although the image has a newer library than the driver"
    );
    ensure!(
        found.contains("libcuda.so.1 550"),
        "after ldconfig in the container: {found}"
    );
    stop_all(ns, &variants).await?;

    // All devices are free.
    let mut all = variants::with_device(&variants::template("program"), GPU);
    all["spec"]["containers"][0]["resources"]["limits"][GPU] = json!(DEVICES.to_string());
    plain_pod(ns, "all", &all, LOOK).await?;

    start_all(ns, &variants).await?;
    compare(ns, &variants, &expected, LOOK).await?;
    stop_all(ns, &variants).await?;

    vendor.install("560").await?;
    let expected = plain_pods(ns, &variants, "560").await?;
    start_all(ns, &variants).await?;
    compare(ns, &variants, &expected, LOOK).await?;
    let old = "find / -xdev -name '*.so.550' 2>/dev/null || true";
    let nothing = vec![String::new(); variants.len()];
    compare(ns, &variants, &nothing, old).await?;
    stop_all(ns, &variants).await?;

    // Without the device nothing of it is left, and the user's files are there.
    let plain = variants
        .iter()
        .map(|variant| plain_pod(ns, variant.name, &variant.without, LEFT));
    let expected = try_join_all(plain).await?;
    for variant in &variants {
        let containers = &variant.without["spec"]["containers"];
        let spec =
            json!({"containers": containers, "resourceClaims": variant.without["spec"]["resourceClaims"]});
        ns.patch::<StoppableContainer>(variant.name, json!({"spec": {"template": {"spec": spec}}}))
            .await?;
    }
    start_all(ns, &variants).await?;
    compare(ns, &variants, &expected, LEFT).await?;
    let kept = ns.sh("glibc", "main", "cat /kept").await?;
    ensure!(kept == "kept", "{kept:?}");
    Ok(())
}

/// What each variant's container sees as a plain pod, in which the driver works.
async fn plain_pods(ns: &Namespace, variants: &[Variant], version: &str) -> Result<Vec<String>> {
    let look = variants
        .iter()
        .map(|variant| plain_pod(ns, variant.name, &variant.with, LOOK));
    let seen = try_join_all(look).await?;
    for (variant, seen) in variants.iter().zip(&seen) {
        for words in variant.prints {
            let words = format!("{words}{version}");
            ensure!(
                seen.contains(&words),
                "{}: {words:?} is missing:\n{seen}",
                variant.name
            );
        }
    }
    Ok(seen)
}

/// What the template's container sees as a plain pod. The pod is gone afterwards.
async fn plain_pod(ns: &Namespace, name: &str, template: &Value, look: &str) -> Result<String> {
    let name = format!("plain-{name}");
    let mut pod = template.clone();
    pod["metadata"] = json!({"name": name});
    ns.create_json::<Pod>(pod).await?;
    ns.pod_ready(&name).await?;
    let seen = ns.sh(&name, "main", look).await?;
    ns.delete::<Pod>(&name).await?;
    Ok(seen)
}

/// Compares what every kept container sees with what its plain pod saw.
async fn compare(ns: &Namespace, variants: &[Variant], expected: &[String], look: &str) -> Result<()> {
    let mut differences = Vec::new();
    for (variant, plain) in variants.iter().zip(expected) {
        let seen = ns.sh(variant.name, "main", look).await?;
        if seen != *plain {
            let name = variant.name;
            differences.push(format!("{name}.\nplain pod:\n{plain}\nours:\n{seen}\n"));
        }
    }
    ensure!(differences.is_empty(), "{}", differences.concat());
    Ok(())
}

async fn stop_all(ns: &Namespace, variants: &[Variant]) -> Result<()> {
    try_join_all(variants.iter().map(|variant| stop(ns, variant.name)))
        .await
        .map(drop)
}

async fn start_all(ns: &Namespace, variants: &[Variant]) -> Result<()> {
    try_join_all(variants.iter().map(|variant| start(ns, variant.name)))
        .await
        .map(drop)
}

/// The provider holds no device, and tells NVIDIA's runtime to give it none.
async fn has_no_device(ns: &Namespace, name: &str) -> Result<()> {
    let look = "ls /dev | grep -E 'nvidia|fake|infiniband' || true
                echo $NVIDIA_VISIBLE_DEVICES
                env | grep ^FAKE_ || true
                grep fake-gpu /proc/1/mountinfo || true";
    let seen = ns.sh(&provider_pod_name(name), PROVIDER_CONTAINER, look).await?;
    ensure!(seen == "void", "the provider of {name} has a device: {seen}");
    Ok(())
}
