//! Sources of the webhook's certificate.

use serde_json::json;

use crate::{NAMESPACE, name, refused, render};

const CERT_MANAGER: &str = "certificates.source=cert-manager";

fn jobs(values: &[&str]) -> usize {
    let objects = render(values);
    let jobs = objects
        .of("Job")
        .filter(|job| job["metadata"]["annotations"].is_null());
    jobs.count()
}

#[test]
fn the_job_runs_only_for_certificates_of_the_operator() {
    assert_eq!(jobs(&[]), 1);
    for values in [
        "certificates.job.enabled=false",
        "certificates.source=supplied",
        CERT_MANAGER,
    ] {
        let objects = render(&[values]);
        assert_eq!(jobs(&[values]), 0, "{values}");
        let left: Vec<_> = objects
            .0
            .iter()
            .map(name)
            .filter(|name| name.ends_with("-certs"))
            .collect();
        assert!(
            left.iter()
                .all(|name| *name == "stoppablecontainer-webhook-certs"),
            "{left:?}"
        );
    }
}

#[test]
fn cert_manager_has_an_authority_of_its_own_without_an_issuer() {
    let objects = render(&[CERT_MANAGER, "certificates.authorityLifetime=10d"]);
    assert_eq!(
        objects.get("Issuer", "-self-signed")["spec"],
        json!({"selfSigned": {}})
    );
    let authority = objects.get("Certificate", "-webhook-ca");
    assert_eq!(authority["spec"]["isCA"], true);
    assert_eq!(authority["spec"]["duration"], "240h");
    assert_eq!(
        authority["spec"]["issuerRef"]["name"],
        "stoppablecontainer-self-signed"
    );
    let issuer = objects.get("Issuer", "-webhook-ca");
    assert_eq!(
        issuer["spec"]["ca"]["secretName"],
        authority["spec"]["secretName"]
    );
    let serving = objects.get("Certificate", "-webhook-certs");
    assert_eq!(
        serving["spec"]["issuerRef"],
        json!({"kind": "Issuer", "name": name(issuer)})
    );
    assert_eq!(serving["spec"]["duration"], "24h");
    let service = format!("{}.{NAMESPACE}", name(objects.get("Service", "-webhook")));
    assert_eq!(
        serving["spec"]["dnsNames"],
        json!([service, format!("{service}.svc")])
    );

    let injector = format!("{NAMESPACE}/{}", name(serving));
    for kind in ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"] {
        let annotations = &objects.get(kind, "")["metadata"]["annotations"];
        assert_eq!(*annotations, json!({"cert-manager.io/inject-ca-from": injector}));
    }
    let secret = format!(
        "--certificate-secret={}",
        serving["spec"]["secretName"].as_str().unwrap()
    );
    let args = crate::args(objects.controller());
    assert!(
        args.contains(&secret.as_str()) && args.contains(&"--certificate-source=supplied"),
        "{args:?}"
    );
}

#[test]
fn the_issuer_of_the_values_is_the_only_one() {
    let objects = render(&[
        CERT_MANAGER,
        "certificates.issuerRef.name=own",
        "certificates.issuerRef.kind=ClusterIssuer",
    ]);
    assert!(!objects.has("Issuer"));
    let serving = objects.get("Certificate", "");
    assert_eq!(
        serving["spec"]["issuerRef"],
        json!({"kind": "ClusterIssuer", "name": "own"})
    );
    assert!(refused(&["certificates.issuerRef.kind=Issuer"]).contains("issuerRef"));
}

#[test]
fn a_certificate_of_the_user_is_not_created_a_second_time() {
    let objects = render(&[CERT_MANAGER, "certificates.certificateName=own"]);
    assert!(!objects.has("Certificate") && !objects.has("Issuer"));
    let webhook = objects.get("ValidatingWebhookConfiguration", "");
    let annotation = &webhook["metadata"]["annotations"]["cert-manager.io/inject-ca-from"];
    assert_eq!(*annotation, format!("{NAMESPACE}/own"));
}

#[test]
fn the_old_names_of_the_job_work() {
    let objects = render(&[
        "certificates.timeoutSeconds=77",
        "certificates.resources.limits.memory=99Mi",
    ]);
    let job = objects
        .of("Job")
        .find(|job| job["metadata"]["annotations"].is_null())
        .unwrap();
    let template = &job["spec"]["template"];
    assert!(crate::args(template).contains(&"--timeout-seconds=77"));
    assert_eq!(
        crate::container(template)["resources"],
        json!({"limits": {"memory": "99Mi"}})
    );
}
