//! The hooks of `helm uninstall` and `helm test`.

use serde_json::{Value, json};

use crate::{Objects, args, name, render};

fn of_hook<'a>(objects: &'a Objects, hook: &str) -> Vec<&'a Value> {
    let hook = json!(hook);
    let objects = objects.0.iter();
    objects
        .filter(|object| object["metadata"]["annotations"]["helm.sh/hook"] == hook)
        .collect()
}

fn kinds(objects: &[&Value]) -> Vec<String> {
    objects
        .iter()
        .map(|object| object["kind"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn an_uninstallation_runs_the_check_unless_it_is_off() {
    let objects = render(&[]);
    let hook = of_hook(&objects, "pre-delete");
    assert_eq!(
        kinds(&hook),
        ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Job"]
    );
    assert_eq!(args(&hook[3]["spec"]["template"]), ["check-unused"]);
    let group = json!(["stoppablecontainer.xtlsoft.top"]);
    let kinds = json!(["stoppablecontainers", "stoppablecontainerinstances"]);
    let rules = json!([{"apiGroups": group, "resources": kinds, "verbs": ["list"]}]);
    assert_eq!(hook[1]["rules"], rules);
    assert!(of_hook(&render(&["uninstall.check=false"]), "pre-delete").is_empty());
}

#[test]
fn a_test_of_the_release_may_only_create_objects_in_its_namespace() {
    let objects = render(&["test.namespace=team"]);
    let hook = of_hook(&objects, "test");
    assert_eq!(kinds(&hook), ["ServiceAccount", "Role", "RoleBinding", "Job"]);
    assert_eq!(
        args(&hook[3]["spec"]["template"]),
        ["check-webhook", "--namespace=team"]
    );
    for object in &hook[1..3] {
        assert_eq!(object["metadata"]["namespace"], "team");
    }
    assert_eq!(hook[1]["rules"][0]["verbs"], json!(["create"]));
    assert_eq!(hook[1]["rules"][0]["resources"], json!(["stoppablecontainers"]));
}

/// The account and its permissions must exist before the job.
#[test]
fn the_job_of_a_hook_comes_last_with_its_own_account() {
    let objects = render(&[]);
    for hook in ["pre-delete", "test"] {
        let weight = |object: &Value| {
            let weight = object["metadata"]["annotations"]["helm.sh/hook-weight"]
                .as_str()
                .unwrap();
            weight.parse::<i32>().unwrap()
        };
        let objects = of_hook(&objects, hook);
        let weights: Vec<_> = objects.iter().map(|object| weight(object)).collect();
        assert_eq!(weights, [-2, -2, -1, 0]);
        let account = &objects[3]["spec"]["template"]["spec"]["serviceAccountName"];
        assert_eq!(*account, name(objects[0]));
        assert_eq!(objects[2]["subjects"][0]["name"], *account);
    }
}
