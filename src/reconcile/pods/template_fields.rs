/*!
Short hashes of the parts of a template. A consumer carries them, so that the controller can name
the fields that were edited since. It does not show their values: they may be secrets.
*/

use std::collections::BTreeMap;

use serde_json::{Value, json};
use stoppablecontainer_api::StoppableContainerInstance;

use crate::reconcile::pods::{restart, template_hash};

/// Most parts that are distinguished, and the bytes that they may take: a template has some dozens.
/// With more, each list of containers is one part, and then everything is one.
const MAX_PARTS: usize = 256;
pub(crate) const MAX_BYTES: usize = 16 << 10;
/// The paths of everything, if that is one part, of the annotations, and of the provider's.
const WHOLE: &str = "spec.template";
pub(crate) const ANNOTATIONS: &str = "spec.template.metadata.annotations";
const PROVIDER: &str = "spec.provider";

/// The value of the annotation `ANNOTATION_TEMPLATE_FIELDS` on a consumer that is made of
/// `instance` now.
pub(crate) fn annotation(instance: &StoppableContainerInstance) -> String {
    let mut hashes = parts(instance);
    hashes.insert(restart::REQUEST.to_owned(), restart::answered(instance));
    serde_json::to_string(&hashes).unwrap_or_default()
}

/// Paths of the parts that changed. The parts of an unchanged template are not looked at.
pub(crate) fn edited(
    instance: &StoppableContainerInstance,
    mut before: BTreeMap<String, String>,
    same_template: bool,
) -> Vec<String> {
    before.remove(restart::REQUEST);
    let now = if same_template && !before.contains_key(WHOLE) {
        before.retain(|path, _| path.starts_with(PROVIDER));
        let mut parts = BTreeMap::new();
        split_into(&mut parts, PROVIDER, &json!(instance.spec.provider), false);
        parts
    } else {
        parts(instance)
    };
    let changed = now.iter().filter(|(path, hash)| before.get(*path) != Some(hash));
    let gone = before.iter().filter(|(path, _)| !now.contains_key(*path));
    let mut paths: Vec<_> = changed.chain(gone).map(|(path, _)| path.clone()).collect();
    paths.sort_unstable();
    paths
}

/// The value of the annotation when `before` of a pod is changed to the template's parts at
/// `paths`.
pub(crate) fn with(
    instance: &StoppableContainerInstance,
    mut before: BTreeMap<String, String>,
    paths: &[String],
) -> String {
    let mut now = parts(instance);
    for path in paths {
        match now.remove(path) {
            Some(hash) => before.insert(path.clone(), hash),
            None => before.remove(path),
        };
    }
    serde_json::to_string(&before).unwrap_or_default()
}

/// Hashes by path, up to the bounds above.
fn parts(instance: &StoppableContainerInstance) -> BTreeMap<String, String> {
    if instance.spec.template.problem().is_some() {
        // Not to be taken apart, see [`stoppablecontainer_api::TemplateError`].
        let hash = short(&json!(instance.spec.template.json().as_str()));
        return BTreeMap::from([("spec.template".to_owned(), hash)]);
    }
    let mut spec = json!({ "provider": instance.spec.provider, "template": instance.spec.template });
    restart::remove_request(&mut spec["template"]);
    let bearable = |parts: &BTreeMap<String, String>| {
        let bytes: usize = parts.iter().map(|(path, hash)| path.len() + hash.len() + 6).sum();
        parts.len() <= MAX_PARTS && bytes <= MAX_BYTES
    };
    let split = [true, false].into_iter().map(|containers| {
        let mut parts = BTreeMap::new();
        split_into(&mut parts, "spec", &spec, containers);
        parts
    });
    let whole = || BTreeMap::from([(WHOLE.to_owned(), short(&spec))]);
    split.into_iter().find(bearable).unwrap_or_else(whole)
}

/// Fields of the objects that are looked into become parts of their own, and so does every element
/// of the lists that are.
fn split_into(parts: &mut BTreeMap<String, String>, path: &str, value: &Value, containers: bool) {
    let lists = [
        "spec.template.spec.containers",
        "spec.template.spec.initContainers",
    ];
    // A container, and its amounts of CPU and memory, which can change while it runs.
    let of_container = || {
        let in_list = |list: &&str| path.strip_prefix(*list);
        let within = lists.iter().find_map(in_list).unwrap_or_default();
        let (index, rest) = within.split_once('.').unwrap_or((within, ""));
        containers
            && is_index(index)
            && ["", "resources", "resources.limits", "resources.requests"].contains(&rest)
    };
    match value {
        Value::Object(fields)
            if [
                "spec",
                "spec.provider",
                "spec.template",
                "spec.template.metadata",
                "spec.template.spec",
            ]
            .contains(&path)
                || of_container() =>
        {
            for (name, value) in fields {
                split_into(parts, &format!("{path}.{name}"), value, containers);
            }
        }
        Value::Array(elements) if containers && lists.contains(&path) => {
            for (at, value) in elements.iter().enumerate() {
                split_into(parts, &format!("{path}[{at}]"), value, containers);
            }
        }
        // A part that is missing may be written out.
        Value::Null => {}
        value => {
            parts.insert(path.to_owned(), short(value));
        }
    }
}

/// `[7]`.
fn is_index(text: &str) -> bool {
    let index = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    index.is_some_and(|index| !index.is_empty() && index.bytes().all(|b| b.is_ascii_digit()))
}

/// Half a hash. That the template differs at all is known from a whole one.
pub(crate) fn short(value: &Value) -> String {
    let mut hash = template_hash(value);
    hash.truncate(8);
    hash
}
