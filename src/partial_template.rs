/*!
Finds the parts of an author's template that an API server cannot decode: fields of another type,
and invalid quantities. The webhook reports each with its path, which the API server does not do for
a quantity, and takes it out, so that it can check the rest in the same answer.
*/

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde::Deserialize;
use serde_json::{Map, Value};
use serde_path_to_error::{Path, Segment};
use stoppablecontainer_api::{PodTemplate, Provider, whole_quantity};

use crate::field_error::FieldError;

/// Most mistakes of one sort that are looked for; an author with more corrects these first.
const MOST: usize = 10;

/// A template without the fields that cannot be decoded.
#[derive(Clone, Debug)]
pub(crate) struct PartialTemplate {
    /// What is left of it; null if nothing can be made of it.
    pub(crate) template: Value,
    /// What is wrong with it.
    pub(crate) problems: Vec<FieldError>,
}

// === impl PartialTemplate ===

impl PartialTemplate {
    /// Takes a template apart. One that is too large is not looked at any further.
    pub(crate) fn of(template: &PodTemplate) -> Self {
        let excesses = template.excesses();
        if !excesses.is_empty() {
            return Self::nothing(excesses.iter().map(FieldError::from).collect());
        }
        let mut value: Value = template.json().read().unwrap_or_default();
        let mut problems = Vec::new();
        if !take_misfits(&mut value, &mut problems) {
            return Self::nothing(problems);
        }
        take_quantities(&mut value, "spec.template", &mut problems);
        Self {
            template: value,
            problems,
        }
    }

    fn nothing(problems: Vec<FieldError>) -> Self {
        Self {
            template: Value::Null,
            problems,
        }
    }
}

/// What no API server could decode of `spec.provider`.
pub(crate) fn provider_problems(provider: &Provider) -> Vec<FieldError> {
    if let Err(error) = provider.decode() {
        return vec![FieldError::from(&error)];
    }
    let mut problems = Vec::new();
    let mut value: Value = provider.json().read().unwrap_or_default();
    take_quantities(&mut value, "spec.provider", &mut problems);
    problems
}

/// Takes out what has another type than in a pod. `false` if something is left that has.
fn take_misfits(template: &mut Value, problems: &mut Vec<FieldError>) -> bool {
    for _ in 0..MOST {
        let Err(error) = serde_path_to_error::deserialize::<_, PodTemplateSpec>(&*template) else {
            return true;
        };
        let field = match error.path().to_string() {
            whole if whole == "." => "spec.template".to_owned(),
            field => format!("spec.template.{field}"),
        };
        problems.push(FieldError::new(
            field,
            format!("Invalid value: {}", error.inner()),
        ));
        if !remove(template, error.path()) {
            return false;
        }
    }
    PodTemplateSpec::deserialize(&*template).is_ok()
}

/// Takes out a field. An element of a list stays, as the reported paths have the positions of the
/// others.
fn remove(value: &mut Value, path: &Path) -> bool {
    let mut steps: Vec<_> = path.iter().collect();
    let Some(Segment::Map { key: last }) = steps.pop() else {
        return false;
    };
    let mut at = value;
    for step in steps {
        let next = match step {
            Segment::Map { key } => at.get_mut(key),
            Segment::Seq { index } => at.get_mut(index),
            Segment::Enum { .. } | Segment::Unknown => None,
        };
        let Some(next) = next else { return false };
        at = next;
    }
    at.as_object_mut()
        .is_some_and(|object| object.remove(last).is_some())
}

/// Takes out invalid quantities.
fn take_quantities(value: &mut Value, path: &str, problems: &mut Vec<FieldError>) {
    match value {
        Value::Object(object) => {
            for name in ["sizeLimit", "divisor"] {
                if let Some(problem) = object
                    .get(name)
                    .and_then(|v| no_quantity(v, &format!("{path}.{name}")))
                {
                    problems.push(problem);
                    object.remove(name);
                }
            }
            for (name, child) in object.iter_mut() {
                let path = format!("{path}.{name}");
                match (name.as_str(), &mut *child) {
                    ("resources", Value::Object(resources)) => {
                        for list in ["limits", "requests"] {
                            if let Some(Value::Object(quantities)) = resources.get_mut(list) {
                                take_from(quantities, &format!("{path}.{list}"), problems);
                            }
                        }
                    }
                    ("overhead", Value::Object(quantities)) => take_from(quantities, &path, problems),
                    _ => {}
                }
                take_quantities(child, &path, problems);
            }
        }
        Value::Array(list) => {
            for (at, element) in list.iter_mut().enumerate() {
                take_quantities(element, &format!("{path}[{at}]"), problems);
            }
        }
        _ => {}
    }
}

fn take_from(quantities: &mut Map<String, Value>, path: &str, problems: &mut Vec<FieldError>) {
    quantities.retain(|name, value| {
        let problem = no_quantity(value, &format!("{path}[{name}]"));
        let good = problem.is_none();
        problems.extend(problem);
        good
    });
}

fn no_quantity(value: &Value, path: &str) -> Option<FieldError> {
    let text = value.as_str().filter(|text| whole_quantity(text).is_none())?;
    let message = format!("Invalid value: {text:?}: must be a quantity such as 500m, 2, 64Mi or 1.5Gi");
    Some(FieldError::new(path, message))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn draft(template: &Value) -> PartialTemplate {
        PartialTemplate::of(&serde_json::from_value(template.clone()).unwrap())
    }

    #[test]
    fn i12_every_mistake_of_a_template_is_named() {
        let draft = draft(&json!({ "spec": {
            "hostNetwork": "yes",
            "overhead": { "cpu": "x" },
            "volumes": [{ "name": "v", "emptyDir": { "sizeLimit": "big" } }],
            "containers": [{
                "name": "main", "image": "i", "ports": [{ "containerPort": "http" }],
                "resources": { "requests": { "cpu": "abc", "memory": "1Gi" }, "limits": { "cpu": 0.5 } },
            }],
        } }));
        let fields: Vec<_> = draft.problems.iter().map(|p| p.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "spec.template.spec.containers[0].ports[0].containerPort",
                "spec.template.spec.hostNetwork",
                "spec.template.spec.containers[0].resources.requests[cpu]",
                "spec.template.spec.overhead[cpu]",
                "spec.template.spec.volumes[0].emptyDir.sizeLimit",
            ]
        );
        assert_eq!(
            draft.template["spec"]["containers"][0]["resources"],
            json!({ "requests": { "memory": "1Gi" }, "limits": { "cpu": 0.5 } }),
            "the rest can be looked at"
        );
    }

    #[test]
    fn i12_a_bad_quantity_of_the_provider_is_named() {
        let of = |value: Value| {
            let problems = provider_problems(&serde_json::from_value(value).unwrap());
            problems
                .into_iter()
                .map(|problem| problem.field)
                .collect::<Vec<_>>()
        };
        let bad = json!({ "resources": { "limits": { "cpu": "abc", "memory": "1Gi" } } });
        assert_eq!(of(bad), ["spec.provider.resources.limits[cpu]"]);
        assert_eq!(
            of(json!({ "resources": { "requests": { "cpu": true } } })),
            ["spec.provider.resources.requests.cpu"]
        );
        assert!(of(json!({})).is_empty());
    }

    #[test]
    fn nothing_is_made_of_what_cannot_be_read_at_all() {
        for odd in [json!(3), json!({ "spec": { "containers": [3] } })] {
            let draft = draft(&odd);
            assert_eq!((draft.template, draft.problems.len()), (Value::Null, 1), "{odd}");
        }
    }
}
