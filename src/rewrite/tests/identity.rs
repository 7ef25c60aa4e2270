//! User, groups and runAsNonRoot.

use super::*;

fn web() -> Value {
    json!({ "user": "web", "uid": 33, "gid": 34, "supplementalGroups": [35, 36] })
}

fn user(name: &str) -> Value {
    json!({ "user": name })
}

#[rstest::rstest]
#[case::from_the_image(json!({}), json!({}), json!({ "runAsUser": 33, "runAsGroup": 34 }))]
#[case::group_of_the_template(json!({ "runAsGroup": 7 }), json!({}), json!({ "runAsUser": 33, "runAsGroup": 7 }))]
#[case::group_of_the_pod(json!({}), json!({ "runAsGroup": 7 }), json!({ "runAsUser": 33 }))]
#[case::other_fields_stay(
    json!({ "capabilities": { "drop": ["ALL"] } }), json!({}),
    json!({ "capabilities": { "drop": ["ALL"] }, "runAsUser": 33, "runAsGroup": 34 })
)]
fn i5_ids_come_from_the_image_where_the_template_is_silent(
    #[case] container: Value,
    #[case] pod: Value,
    #[case] expected: Value,
) {
    let spec = json!({
        "securityContext": pod,
        "containers": [{ "name": "main", "image": "i", "securityContext": container }],
    });
    let main = Case::of_spec(&spec).image(&user("web")).identity(&web()).main();
    assert_eq!(
        serde_json::to_value(main.security_context.unwrap()).unwrap(),
        expected
    );
}

#[rstest::rstest]
#[case::of_the_container(json!({ "runAsUser": 5 }), json!({}), json!({ "runAsUser": 5, "runAsGroup": 50 }))]
#[case::of_the_pod(json!({}), json!({ "runAsUser": 5 }), json!({ "runAsGroup": 50 }))]
fn i5_a_user_of_the_template_gets_the_group_that_the_image_gives_it(
    #[case] container: Value,
    #[case] pod: Value,
    #[case] expected: Value,
) {
    let spec = json!({
        "securityContext": pod,
        "containers": [{ "name": "main", "image": "i", "securityContext": container }],
    });
    let case = Case::of_spec(&spec)
        .image(&user("web"))
        .identity(&json!({ "user": "5", "uid": 5, "gid": 50 }));
    assert_eq!(
        serde_json::to_value(case.main().security_context.unwrap()).unwrap(),
        expected
    );
}

#[test]
fn i5_a_user_put_in_by_another_webhook_gets_no_group_of_another_user() {
    let case = Case::new(&json!({})).image(&user("web")).identity(&web());
    let case = case.pod(|pod| pod["spec"]["securityContext"] = json!({ "runAsUser": 1000 }));
    assert_eq!(case.main().security_context, None);
}

#[rstest::rstest]
#[case::plain_root(0, Value::Null)]
#[case::root_with_another_group(7, json!({ "runAsUser": 0, "runAsGroup": 7 }))]
fn i6_root_is_written_out_only_where_it_must_be(#[case] gid: i64, #[case] expected: Value) {
    let main = Case::new(&json!({}))
        .identity(&json!({ "user": "", "uid": 0, "gid": gid }))
        .main();
    assert_eq!(serde_json::to_value(main.security_context).unwrap(), expected);
}

#[rstest::rstest]
#[case::added(json!({ "supplementalGroups": [1, 36] }), json!([1, 36, 35]))]
#[case::strict(json!({ "supplementalGroups": [1], "supplementalGroupsPolicy": "Strict" }), json!([1]))]
fn h12_groups_of_the_image(#[case] pod: Value, #[case] expected: Value) {
    let spec = json!({ "securityContext": pod, "containers": [{ "name": "main", "image": "i" }] });
    let spec = Case::of_spec(&spec)
        .image(&user("web"))
        .identity(&web())
        .pod_spec();
    assert_eq!(
        serde_json::to_value(spec.security_context.unwrap().supplemental_groups).unwrap(),
        expected
    );
}

/// As many as there can be, all of them in the template too, and one more.
#[test]
fn h12_more_groups_than_a_process_can_have_are_refused() {
    let most: Vec<_> = (1..=65536).collect();
    let case = |own: &[i64]| {
        let spec = json!({
            "securityContext": { "supplementalGroups": own }, "containers": [{ "name": "main", "image": "i" }],
        });
        let identity = json!({ "user": "web", "uid": 33, "gid": 34, "supplementalGroups": most });
        Case::of_spec(&spec).image(&user("web")).identity(&identity)
    };
    let groups = case(&most[..1])
        .pod_spec()
        .security_context
        .unwrap()
        .supplemental_groups;
    assert_eq!(groups.unwrap(), most);
    let denial = case(&[70000]).denial();
    assert!(
        denial
            .to_string()
            .starts_with("spec.securityContext.supplementalGroups: 65537 groups"),
        "{denial}"
    );
}

#[rstest::rstest]
#[case::image_in_container(json!({ "runAsNonRoot": true }), json!({}), "", "container has runAsNonRoot and image will run as root")]
#[case::image_in_pod(json!({}), json!({ "runAsNonRoot": true }), "root", "container has runAsNonRoot and image will run as root")]
#[case::template(json!({ "runAsNonRoot": true, "runAsUser": 0 }), json!({}), "0", "container's runAsUser breaks non-root policy")]
fn h11_run_as_non_root_is_never_root(
    #[case] container: Value,
    #[case] pod: Value,
    #[case] name: &str,
    #[case] sentence: &str,
) {
    let spec = json!({
        "securityContext": pod,
        "containers": [{ "name": "main", "image": "i", "securityContext": container }],
    });
    let image = if container["runAsUser"].is_null() {
        name
    } else {
        "web"
    };
    let identity = json!({ "user": name, "uid": 0, "gid": 0 });
    let denial = Case::of_spec(&spec)
        .image(&user(image))
        .identity(&identity)
        .denial()
        .to_string();
    assert!(
        denial.starts_with("spec.containers[0].securityContext.") && denial.contains(sentence),
        "{denial}"
    );
}

#[test]
fn h11_run_as_non_root_with_a_named_user_is_checked_by_its_number() {
    let case = Case::new(&json!({ "securityContext": { "runAsNonRoot": true } }));
    let context = case
        .image(&user("web"))
        .identity(&web())
        .main()
        .security_context
        .unwrap();
    assert_eq!(
        (context.run_as_user, context.run_as_non_root),
        (Some(33), Some(true))
    );
}

#[test]
fn h11_a_user_that_was_not_resolved_is_waited_for() {
    let case = Case::new(&json!({ "securityContext": { "runAsUser": 5 } }))
        .image(&user("web"))
        .identity(&web());
    let denial = case.denial();
    assert!(
        matches!(&denial, Denial::IdentityOutdated { resolved, requested, .. } if resolved == "web" && requested == "5")
    );
    assert!(denial.is_transient());
}
