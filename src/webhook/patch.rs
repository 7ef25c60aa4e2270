/*!
The difference of two JSON values as a JSON patch that adds and replaces as little as it can.

A plain positional diff of two lists turns one element put in front into a change of every element.
Fields that our types do not know would then end up in other elements. Here elements are matched by
the field that names them, so an insertion is one `add`. The patch does not touch fields that are
the same in both values.
*/

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation, ReplaceOperation};
use serde_json::Value;

/// The patch that makes `new` of `old`.
///
/// # Guarantees
/// Applied to `old` it gives `new`. Applied to a value that has more fields in its objects than
/// `old`, it keeps them, but in a list that has lost elements and changed in others, which is
/// replaced as a whole.
pub fn between(old: &Value, new: &Value) -> Patch {
    let mut operations = Vec::new();
    compare(&PointerBuf::new(), old, new, &mut operations);
    Patch(operations)
}

/// `typed` as far as `raw` has it. A value that went through Kubernetes' types has every list that
/// they require, also where the original has none or null; a patch that goes into such a list would
/// not apply to the original.
pub fn held(mut typed: Value, raw: &Value) -> Value {
    match (&mut typed, raw) {
        (Value::Object(typed), Value::Object(raw)) => {
            typed.retain(|key, _| raw.get(key).is_some_and(|raw| !raw.is_null()));
            for (key, value) in typed.iter_mut() {
                *value = held(value.take(), &raw[key]);
            }
        }
        (Value::Array(typed), Value::Array(raw)) => {
            for (value, raw) in typed.iter_mut().zip(raw) {
                *value = held(value.take(), raw);
            }
        }
        _ => {}
    }
    typed
}

fn compare(path: &PointerBuf, old: &Value, new: &Value, operations: &mut Vec<PatchOperation>) {
    match (old, new) {
        _ if old == new => {}
        (Value::Object(old), Value::Object(new)) => {
            for key in old.keys().filter(|key| !new.contains_key(*key)) {
                operations.push(PatchOperation::Remove(RemoveOperation {
                    path: path.with_trailing_token(key),
                }));
            }
            for (key, value) in new {
                let path = path.with_trailing_token(key);
                match old.get(key) {
                    Some(old) => compare(&path, old, value, operations),
                    None => operations.push(PatchOperation::Add(AddOperation {
                        path,
                        value: value.clone(),
                    })),
                }
            }
        }
        (Value::Array(old), Value::Array(new)) => match matched(old, new) {
            Some(matches) => {
                // In order: when an index is reached, everything before it is already as it must
                // be.
                for (at, (value, old)) in new.iter().zip(matches).enumerate() {
                    let path = path.with_trailing_token(at);
                    match old {
                        Some(old) => compare(&path, old, value, operations),
                        None => operations.push(PatchOperation::Add(AddOperation {
                            path,
                            value: value.clone(),
                        })),
                    }
                }
            }
            None => match taken_out(old, new) {
                // From the back, so that the others are still where they were.
                Some(gone) => operations.extend(gone.into_iter().rev().map(|at| {
                    PatchOperation::Remove(RemoveOperation {
                        path: path.with_trailing_token(at),
                    })
                })),
                None => operations.push(replace(path, &Value::Array(new.clone()))),
            },
        },
        _ => operations.push(replace(path, new)),
    }
}

fn replace(path: &PointerBuf, value: &Value) -> PatchOperation {
    PatchOperation::Replace(ReplaceOperation {
        path: path.clone(),
        value: value.clone(),
    })
}

/// Positions of the elements of `old` that `new` does not have, if it has all others as they were.
fn taken_out(old: &[Value], new: &[Value]) -> Option<Vec<usize>> {
    let mut rest = new.iter().peekable();
    let gone = old
        .iter()
        .enumerate()
        .filter(|(_, value)| rest.next_if_eq(value).is_none());
    let gone: Vec<_> = gone.map(|(at, _)| at).collect();
    rest.peek().is_none().then_some(gone)
}

/// For each element of `new` the element of `old` that it continues, all of `old` in order; `None`
/// if there is no such assignment.
fn matched<'a>(old: &'a [Value], new: &[Value]) -> Option<Vec<Option<&'a Value>>> {
    if !old.iter().chain(new).all(Value::is_object) || old.len() > new.len() {
        return None;
    }
    if old.len() == new.len() {
        return Some(old.iter().map(Some).collect());
    }
    // An unchanged element continues itself, whether it has a name or not.
    let same = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    // The others from the back, because an element put in front is new, and an appended one has a
    // name of its own.
    let mut rest = old[same..].iter().rev().peekable();
    let continues = |old: &Value, new: &Value| old == new || name(old).is_some() && name(old) == name(new);
    let mut matches: Vec<_> = new[same..]
        .iter()
        .rev()
        .map(|value| rest.next_if(|old| continues(old, value)))
        .collect();
    matches.reverse();
    if rest.next().is_some() {
        // Without names: what there was stays in front.
        let places = old.iter().map(Some).chain(std::iter::repeat(None));
        return Some(places.take(new.len()).collect());
    }
    Some(old[..same].iter().map(Some).chain(matches).collect())
}

/// What tells an element of a list in a pod from its neighbours.
fn name(element: &Value) -> Option<&Value> {
    ["mountPath", "devicePath", "name"]
        .iter()
        .find_map(|key| element.get(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn applied(patch: &Patch, to: &Value) -> Value {
        let mut value = to.clone();
        json_patch::patch(&mut value, patch).unwrap();
        value
    }

    #[test]
    fn i19_what_is_taken_out_of_a_list_leaves_the_others_as_they_are() {
        let gates = |names: &[&str]| json!({ "gates": names.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>() });
        let patch = between(&gates(&["a", "ours", "b", "ours"]), &gates(&["a", "b"]));
        let more = |name: &str| json!({ "name": name, "unknown": name });
        let actual = json!({ "gates": [more("a"), more("ours"), more("b"), more("ours")] });
        assert_eq!(
            applied(&patch, &actual),
            json!({ "gates": [more("a"), more("b")] })
        );
    }

    #[test]
    fn an_element_in_front_is_one_add_and_unknown_fields_stay_where_they_are() {
        let old = json!({ "env": [{ "name": "A", "value": "1" }] });
        let new = json!({ "env": [{ "name": "IMAGE", "value": "0" }, { "name": "A", "value": "2" }] });
        let patch = between(&old, &new);
        assert_eq!(patch.0.len(), 2);
        let actual = json!({ "env": [{ "name": "A", "value": "1", "unknown": true }] });
        let expected = json!({ "env": [{ "name": "IMAGE", "value": "0" }, { "name": "A", "value": "2", "unknown": true }] });
        assert_eq!(applied(&patch, &actual), expected);
    }

    /// Story: the requirement that pins a consumer to its node was put behind one of the
    /// template's. Neither has a name, so they were taken for each other, and a field that our
    /// types do not know went over to ours.
    #[test]
    fn i19_elements_without_names_keep_what_is_theirs() {
        let old = json!([{ "key": "a" }, { "key": "b" }]);
        let actual = json!([{ "key": "a", "unknown": 1 }, { "key": "b", "unknown": 2 }]);
        let appended = json!([{ "key": "a" }, { "key": "b" }, { "key": "ours" }]);
        let patched = applied(&between(&old, &appended), &actual);
        assert_eq!(patched, json!([actual[0], actual[1], { "key": "ours" }]));
        let changed = json!([{ "key": "A" }, { "key": "B" }, { "key": "ours" }]);
        let patched = applied(&between(&old, &changed), &actual);
        assert_eq!(patched[1], json!({ "key": "B", "unknown": 2 }));
    }

    /// Story: a fuzzer left `nodeSelectorTerms` out of an affinity. Our types have the list all the
    /// same, so the patch put a term into a list that was not there.
    #[test]
    fn h21_a_list_that_only_the_types_have_is_added_as_a_whole() {
        let typed = json!({ "required": { "terms": [] }, "list": [{ "a": [] }] });
        let new = json!({ "required": { "terms": [1] }, "list": [{ "a": [1] }] });
        for raw in [
            json!({ "required": {}, "list": [{ "unknown": 1 }] }),
            json!({ "required": { "terms": null }, "list": [{ "a": null }] }),
        ] {
            let patched = applied(&between(&held(typed.clone(), &raw), &new), &raw);
            assert_eq!(patched["required"], new["required"]);
            assert_eq!(patched["list"][0]["a"], json!([1]));
        }
    }

    #[test]
    fn keys_with_slashes_and_tildes_are_escaped() {
        let (old, new) = (json!({ "labels": {} }), json!({ "labels": { "a/b~c": "d" } }));
        assert_eq!(applied(&between(&old, &new), &old), new);
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(Value::from),
            "[a-c]{1,2}".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::hash_map("(name|[a-c])", inner, 0..5)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn h21_a_patch_applies_and_gives_the_new_value(old in value(), new in value()) {
            prop_assert_eq!(applied(&between(&old, &new), &old), new);
        }
    }
}
