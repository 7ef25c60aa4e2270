//! Images and the Secrets for pulling them.

use serde_json::json;

use crate::{Objects, args, container, render};

/// The images of controller, agent, exec-wrapper and certificate job.
fn images(objects: &Objects) -> [String; 4] {
    let image = |template| container(template)["image"].as_str().unwrap().to_owned();
    let controller = objects.controller();
    let wrapper = args(controller)
        .into_iter()
        .find_map(|arg| arg.strip_prefix("--wrapper-image="));
    let job = objects
        .of("Job")
        .find(|job| job["metadata"]["annotations"].is_null())
        .unwrap();
    [
        image(controller),
        image(objects.agent()),
        wrapper.unwrap().to_owned(),
        image(&job["spec"]["template"]),
    ]
}

fn assert_images(values: &[&str], prefix: &str, suffix: &str) {
    let expected = ["operator", "node-agent", "exec-wrapper", "certs"]
        .map(|program| format!("{prefix}/stoppablecontainer-{program}{suffix}"));
    assert_eq!(images(&render(values)), expected, "{values:?}");
}

#[test]
fn all_images_have_the_registry_the_namespace_and_the_tag_of_the_values() {
    assert_images(&[], "docker.io/xtlsoft", ":0.1.0");
    assert_images(
        &["imageRegistry=r.example:5000", "image.tag=t"],
        "r.example:5000/xtlsoft",
        ":t",
    );
    assert_images(
        &["imageRegistry=r.example", "imageNamespace=a/b"],
        "r.example/a/b",
        ":0.1.0",
    );
    assert_images(
        &["imageRegistry=r.example", "imageNamespace="],
        "r.example",
        ":0.1.0",
    );
    assert_images(
        &["global.imageRegistry=mirror.example"],
        "mirror.example/xtlsoft",
        ":0.1.0",
    );
}

#[test]
fn the_old_registry_is_the_whole_prefix() {
    assert_images(&["image.registry=r.example/own"], "r.example/own", ":0.1.0");
    assert_images(&["image.registry=r.example"], "r.example", ":0.1.0");
}

#[test]
fn each_image_can_differ() {
    let digest = format!("sha256:{}", "0".repeat(64));
    let keys = [
        "controller.image",
        "agent.image",
        "wrapper.image",
        "certificates.job.image",
    ];
    for (at, key) in keys.into_iter().enumerate() {
        let values = [
            "global.imageRegistry=mirror.example".to_owned(),
            format!("{key}.registry=r.example"),
            format!("{key}.repository=own/name"),
            format!("{key}.tag=t"),
            format!("{key}.digest={digest}"),
        ];
        let images = images(&render(&values.each_ref().map(String::as_str)));
        for (other, image) in images.iter().enumerate() {
            if other == at {
                assert_eq!(*image, format!("r.example/own/name:t@{digest}"));
            } else {
                assert!(
                    image.starts_with("mirror.example/xtlsoft/") && image.ends_with(":0.1.0"),
                    "{image}"
                );
            }
        }
    }
}

#[test]
fn the_pull_policy_is_that_of_the_image_or_of_all() {
    let objects = render(&["image.pullPolicy=Always", "agent.image.pullPolicy=Never"]);
    assert_eq!(container(objects.controller())["imagePullPolicy"], "Always");
    assert_eq!(container(objects.agent())["imagePullPolicy"], "Never");
}

#[test]
fn all_pods_have_the_global_and_the_own_pull_secrets() {
    let objects = render(&[
        "global.imagePullSecrets[0]=text",
        "global.imagePullSecrets[1].name=object",
        "imagePullSecrets[0].name=own",
        "imagePullSecrets[1].name=text",
    ]);
    for workload in objects.workloads() {
        let secrets = &workload["spec"]["template"]["spec"]["imagePullSecrets"];
        assert_eq!(
            *secrets,
            json!([{"name": "text"}, {"name": "object"}, {"name": "own"}])
        );
    }
    let objects = render(&[]);
    for workload in objects.workloads() {
        assert!(workload["spec"]["template"]["spec"]["imagePullSecrets"].is_null());
    }
}
