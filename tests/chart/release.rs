//! Values that concern the whole release: CRDs, objects of the user, notes, the schema.

use serde_json::json;

use crate::{NAMESPACE, evaluate, refused, render, root};

#[test]
fn the_crds_are_kept_unless_the_values_say_otherwise() {
    let keep = |values: &[&str]| {
        let objects = render(values);
        let crds = objects.of("CustomResourceDefinition");
        let policy =
            |crd: &serde_json::Value| crd["metadata"]["annotations"]["helm.sh/resource-policy"].clone();
        crds.map(policy).collect::<Vec<_>>()
    };
    assert_eq!(keep(&["crds.enabled=true"]), [json!("keep"), json!("keep")]);
    assert_eq!(
        keep(&["crds.enabled=true", "crds.keep=false"]),
        [json!(null), json!(null)]
    );
    assert!(keep(&["crds.enabled=false"]).is_empty());
}

#[test]
fn objects_of_the_user_are_templates() {
    let objects = render(&[
        "extraObjects[0].kind=ConfigMap",
        "extraObjects[0].apiVersion=v1",
        "extraObjects[0].metadata.name=\\{\\{ .Release.Name \\}\\}-own",
        "extraObjects[1]=kind: Secret\nmetadata:\n  name: x\n  namespace: {{ .Release.Namespace }}",
    ]);
    assert_eq!(objects.get("ConfigMap", "-own")["apiVersion"], "v1");
    assert_eq!(objects.get("Secret", "x")["metadata"]["namespace"], NAMESPACE);
}

#[test]
fn a_parent_chart_may_set_its_condition_and_global_values() {
    render(&["enabled=false", "global.other=x"]);
}

#[test]
fn a_value_that_does_not_exist_is_refused() {
    let message = refused(&["controller.replica=3"]);
    assert!(message.contains("replica"), "{message}");
}

/// The warnings that the notes begin with. Helm prints notes only with a cluster.
fn warnings(value: &str) -> String {
    evaluate("include \"stoppablecontainer.oldValues\" .", &[value])
}

#[test]
fn the_notes_warn_about_old_names() {
    let notes = std::fs::read_to_string(root().join("charts/stoppablecontainer/templates/NOTES.txt"));
    assert!(
        notes
            .unwrap()
            .contains("include \"stoppablecontainer.oldValues\" .")
    );
    assert!(!warnings("enabled=true").contains("WARNING"));
    for (value, new) in [
        ("image.registry=r.example", "imageRegistry and imageNamespace"),
        (
            "certificates.resources.limits.cpu=1",
            "certificates.job.resources",
        ),
        (
            "certificates.timeoutSeconds=60",
            "certificates.job.timeoutSeconds",
        ),
        ("agent.logFormat=compact", "agent.logFormat=text"),
    ] {
        let (old, _) = value.split_once('=').unwrap();
        let text = warnings(value);
        assert!(
            text.contains("WARNING: ") && text.contains(&format!("replaced by {new}.")),
            "{old}: {text}"
        );
    }
}
