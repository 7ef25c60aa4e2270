/*!
The bounds of a pod template, far above the size of ordinary pods. They limit the cost of one object
for the operator (invariant I18). The CRDs contain the bounds of lists. The validating webhook
checks all bounds. The operator checks them again for objects that were stored before the bounds
existed.
*/

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};

use crate::json::Json;

/// Maximum size of a template, in bytes of compact JSON. `kubectl apply` accepts 256 KiB; etcd
/// accepts 1.5 MiB for the whole object.
pub const MAX_TEMPLATE_BYTES: usize = 512 * 1024;

/// Maximum number of values in a template: fields, elements and objects. Each takes up to 3 KB
/// while the template is decoded.
pub const MAX_TEMPLATE_NODES: usize = 32_768;

/// Maximum size of `spec.provider`, in bytes of compact JSON.
pub(crate) const MAX_PROVIDER_BYTES: usize = 64 * 1024;

/// Maximum number of values in `spec.provider`.
pub(crate) const MAX_PROVIDER_NODES: usize = 4_096;

/// Maximum size and number of values of a consumer pod: the template, the image's environment, and
/// the additions of other admission webhooks.
const MAX_POD_BYTES: usize = 2 * 1024 * 1024;
/// See [`MAX_POD_BYTES`].
pub const MAX_POD_NODES: usize = 2 * MAX_TEMPLATE_NODES;

/// Lists that are often long, or whose elements take much memory.
const LISTS: [(&str, usize); 11] = [
    ("containers", 64),
    ("env", 2_000),
    ("envFrom", 256),
    ("ephemeralContainers", 64),
    ("initContainers", 64),
    ("ports", 256),
    ("sources", 256),
    ("tolerations", 256),
    ("volumeDevices", 256),
    ("volumeMounts", 1_000),
    ("volumes", 512),
];

/// Bound of any other list.
const OTHER_LIST: usize = 1_024;

/// Lists of plain values, such as arguments and groups. An element takes little more memory than
/// its text.
const PLAIN: [&str; 3] = ["args", "command", "supplementalGroups"];
const PLAIN_LIST: usize = 16_384;

/// Unit of the size of a list.
const ITEMS: &str = "items";

/// Maximum number of excesses that are reported for one object.
const MOST_REPORTED: usize = 10;

/// A part of a template that exceeds its bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excess {
    /// Path of the field, relative to the measured value. Empty for the value itself.
    pub field: String,
    /// The size and the bound: `31000 items`, `512 items`.
    size: usize,
    bound: usize,
    unit: &'static str,
}

/// Maximum number of elements of a list in the field `name`.
pub(crate) fn max_items(name: &str) -> usize {
    if PLAIN.contains(&name) {
        return PLAIN_LIST;
    }
    LISTS
        .iter()
        .find(|(list, _)| *list == name)
        .map_or(OTHER_LIST, |(_, most)| *most)
}

/// All excesses of a value: lists first, then the value as a whole.
pub(crate) fn excesses(json: &Json, bytes: usize, nodes: usize) -> Vec<Excess> {
    measured(json, bytes, nodes, max_items)
}

/// All excesses of a consumer pod.
pub fn pod_excesses(json: &Json) -> Vec<Excess> {
    let most = |list: &str| match list {
        // The image's config limits the number of its variables.
        "env" => usize::MAX,
        list => 2 * max_items(list),
    };
    measured(json, MAX_POD_BYTES, MAX_POD_NODES, most)
}

fn measured(json: &Json, bytes: usize, nodes: usize, most: impl Fn(&str) -> usize) -> Vec<Excess> {
    let mut found = Vec::new();
    let mut path = Vec::new();
    let lists = Lists {
        path: &mut path,
        found: &mut found,
        most: &most,
    };
    // The text comes from our serializer, so it is valid JSON.
    _ = lists.deserialize(&mut serde_json::Deserializer::from_str(json.as_str()));
    let whole = |size, bound, unit| (size > bound).then(|| Excess::new(String::new(), size, bound, unit));
    found.extend(whole(json.as_str().len(), bytes, "bytes of JSON"));
    found.extend(whole(json.nodes(), nodes, "values (fields and elements)"));
    found
}

// === impl Excess ===

impl Excess {
    fn new(field: String, size: usize, bound: usize, unit: &'static str) -> Self {
        Self {
            field,
            size,
            bound,
            unit,
        }
    }
}

impl Excess {
    /// The path, or `whole` for the value itself.
    pub fn field_or<'a>(&'a self, whole: &'a str) -> &'a str {
        if self.field.is_empty() { whole } else { &self.field }
    }
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            size, bound, unit, ..
        } = self;
        if *unit == ITEMS {
            return write!(f, "Too many: {size} {unit}, must have at most {bound}");
        }
        write!(
            f,
            "Too long: {size} {unit}, must have at most {bound}; move what is large into ConfigMaps or Secrets"
        )
    }
}

// === Looking for long lists ===

enum Step {
    Field(String),
    Element(usize),
}

struct Lists<'a> {
    path: &'a mut Vec<Step>,
    found: &'a mut Vec<Excess>,
    most: &'a dyn Fn(&str) -> usize,
}

impl Lists<'_> {
    fn below(&mut self) -> Lists<'_> {
        Lists {
            path: self.path,
            found: self.found,
            most: self.most,
        }
    }

    fn name(&self) -> String {
        let mut name = String::new();
        for step in self.path.iter() {
            match step {
                Step::Field(field) if name.is_empty() => name.push_str(field),
                Step::Field(field) => {
                    name.push('.');
                    name.push_str(field);
                }
                Step::Element(at) => {
                    name.push('[');
                    name.push_str(&at.to_string());
                    name.push(']');
                }
            }
        }
        name
    }
}

impl<'de> DeserializeSeed<'de> for Lists<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Lists<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        let most = match self.path.last() {
            Some(Step::Field(name)) => (self.most)(name),
            _ => (self.most)(""),
        };
        let mut count = 0;
        loop {
            self.path.push(Step::Element(count));
            let element = list.next_element_seed(self.below())?;
            self.path.pop();
            if element.is_none() {
                break;
            }
            count += 1;
        }
        if count > most && self.found.len() < MOST_REPORTED {
            let excess = Excess::new(self.name(), count, most, ITEMS);
            self.found.push(excess);
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key()? {
            self.path.push(Step::Field(name));
            map.next_value_seed(self.below())?;
            self.path.pop();
        }
        Ok(())
    }
}
