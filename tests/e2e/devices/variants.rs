//! The ways to a device that Kubernetes and runtimes have, and the kinds of images and containers.

use serde_json::{Value, json};

use super::vendor::{CARD, CLAIM_TEMPLATE, GPU, LEGACY, NOTED};
use crate::support::shell_template;

/// A template with a device.
pub(super) struct Variant {
    pub(super) name: &'static str,
    pub(super) with: Value,
    /// The same, without the device.
    pub(super) without: Value,
    /// What the container prints if the device works, each before the version of the driver.
    pub(super) prints: &'static [&'static str],
}

/// What a container with a device of CDI prints.
const OF_CDI: &[&str] = &[
    "libcuda.so.1 ",
    "libcuda.so ",
    "libfake-ml.so.1 ",
    "linked ",
    "Driver Version: ",
];

/// All of them, with different names.
pub(super) fn all() -> Vec<Variant> {
    let gpu = |name, image, change: Value| {
        let mut without = template(image);
        json_patch::merge(main(&mut without), &change);
        Variant {
            name,
            with: with_device(&without, GPU),
            without,
            prints: OF_CDI,
        }
    };
    vec![
        gpu("glibc", "program", json!({})),
        gpu("no-cache", "no-cache", json!({})),
        gpu("ldconfig", "ldconfig", json!({})),
        gpu("musl", "musl", json!({})),
        // The image has files where the hooks make theirs.
        gpu("taken", "taken", json!({})),
        gpu(
            "read-only",
            "program",
            json!({"securityContext": {"readOnlyRootFilesystem": true}}),
        ),
        gpu("user", "program", unprivileged()),
        Variant {
            name: "annotations",
            with: with_device(&template("program"), NOTED),
            without: template("program"),
            prints: OF_CDI,
        },
        Variant {
            name: COMPATIBLE,
            with: with_device(&template("compat"), GPU),
            without: template("compat"),
            prints: &["libfake-ml.so.1 ", "Driver Version: "],
        },
        edits(),
        claim(),
        legacy(),
    ]
}

/// A container that sleeps, of an image with programs that use the driver.
pub(crate) fn template(image: &str) -> Value {
    let mut template = shell_template();
    let main = main(&mut template);
    main["image"] = json!(format!("test/gpu-{image}:1"));
    main["command"] = json!(["/bin/sleep", "1000000"]);
    template
}

/// What Pod Security's level `restricted` demands of a container.
pub(super) fn unprivileged() -> Value {
    json!({"securityContext": {
        "runAsUser": 1000, "runAsNonRoot": true, "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
    }})
}

/// The template with one device of a device plugin.
pub(crate) fn with_device(template: &Value, device: &str) -> Value {
    let mut template = template.clone();
    main(&mut template)["resources"] = json!({"limits": {device: "1"}});
    template
}

/// Devices, mounts and variables of a device plugin that does not use CDI, and what such programs
/// need besides: a /dev/shm of their size.
fn edits() -> Variant {
    let mut without = template("program");
    without["spec"]["volumes"] =
        json!([{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "48Mi"}}]);
    main(&mut without)["volumeMounts"] = json!([{"name": "shm", "mountPath": "/dev/shm"}]);
    Variant {
        name: "edits",
        with: with_device(&without, CARD),
        without,
        prints: &["firmware "],
    }
}

/// A claim for a device (DRA).
fn claim() -> Variant {
    let without = template("program");
    let mut with = without.clone();
    with["spec"]["resourceClaims"] = json!([{"name": "gpu", "resourceClaimTemplateName": CLAIM_TEMPLATE}]);
    main(&mut with)["resources"] = json!({"claims": [{"name": "gpu"}]});
    Variant {
        name: CLAIM,
        with,
        without,
        prints: OF_CDI,
    }
}

/// The variant whose image has a library of the driver 555.
pub(super) const COMPATIBLE: &str = "compatible";
/// The variant with a claim.
pub(super) const CLAIM: &str = "claim";

/// A hook of the runtime's class, which gives a device to each container whose variables ask for
/// one. The image's do.
fn legacy() -> Variant {
    let mut with = template("legacy");
    with["spec"]["runtimeClassName"] = json!(LEGACY);
    let mut without = with.clone();
    main(&mut without)["env"] = json!([{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}]);
    Variant {
        name: "legacy",
        with,
        without,
        prints: &["libcuda.so.1 ", "libfake-ml.so.1 ", "linked "],
    }
}

fn main(template: &mut Value) -> &mut Value {
    &mut template["spec"]["containers"][0]
}
