//! The manifest for krew, by krew's own rules.

use serde_json::Value;

const MANIFEST: &str = include_str!("../../../../config/krew/stopc.yaml");

#[test]
fn the_manifest_is_what_krew_accepts() {
    let manifest: Value = serde_saphyr::from_str(MANIFEST).unwrap();
    assert_eq!(
        manifest["apiVersion"],
        "krew.googlecontainertools.github.com/v1alpha2"
    );
    assert_eq!(manifest["kind"], "Plugin");
    // The plugin `x-y` is `kubectl x y`, and the file is named after the plugin.
    assert_eq!(manifest["metadata"]["name"], "stopc");
    let spec = &manifest["spec"];
    let version = format!("v{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(
        spec["version"],
        version.as_str(),
        "the version of this clone, with a v"
    );
    let short = spec["shortDescription"].as_str().unwrap();
    assert!(short.len() <= 50 && !short.ends_with('.'), "{short:?}");
    for text in ["homepage", "description"] {
        assert!(spec[text].as_str().is_some_and(|text| !text.is_empty()), "{text}");
    }
    let platforms = spec["platforms"].as_array().unwrap();
    assert!(!platforms.is_empty());
    for platform in platforms {
        let labels = &platform["selector"]["matchLabels"];
        assert!(labels["os"].is_string() && labels["arch"].is_string());
        let uri = platform["uri"].as_str().unwrap();
        assert!(
            uri.starts_with("https://") && uri.ends_with(".tar.gz") && uri.contains(&version),
            "{uri}"
        );
        let sum = platform["sha256"].as_str().unwrap();
        let is_sum = sum.len() == 64 && sum.chars().all(|c| c.is_ascii_hexdigit());
        assert!(
            is_sum || sum == "SHA256",
            "a checksum, or what a release replaces by it"
        );
        assert_eq!(platform["bin"], "kubectl-stopc", "the program of this crate");
        let files = platform["files"].as_array().unwrap();
        assert!(
            files
                .iter()
                .any(|file| file["from"] == "kubectl-stopc" && file["to"] == ".")
        );
    }
}
