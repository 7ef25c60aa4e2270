/*!
JSON as text. Decoded into Kubernetes' types, a value takes up to two hundred times its bytes in
etcd (a `Volume` with only a name takes 3 KB). A value that is only stored, compared and passed on
therefore stays text (invariant I18).

Reading and trimming are one step: fields that are not kept are skipped while the input is read, and
are never in memory.
*/

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// The parts of a value that are kept when it is read.
#[derive(Clone, Copy, Debug)]
pub enum Keep {
    /// The whole value.
    All,
    /// These fields of an object, or of every element of a list.
    Fields(&'static [(&'static str, Keep)]),
    /// All fields of an object; of the listed fields only the given parts, or nothing.
    Except(&'static [(&'static str, Option<Keep>)]),
    /// The fields of an object whose names have this prefix.
    Prefixed(&'static str),
    /// At most this number of elements of a list, and these parts of each.
    First(usize, &'static Keep),
}

/// A JSON value as compact text with sorted keys: equal values have equal texts.
#[derive(Clone)]
pub struct Json {
    text: Arc<str>,
    nodes: usize,
}

/// The text does not fit the type that it was decoded as. The error has the path of the first such
/// field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Misfit {
    /// Path of the field, `.` for the value itself.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

// === impl Json ===

impl Json {
    /// Reads the parts of a value that `keep` selects.
    ///
    /// # Errors
    /// Those of `from`.
    pub fn trimmed<'de, D: Deserializer<'de>>(from: D, keep: Keep) -> Result<Self, D::Error> {
        let mut text = Text::default();
        Copy { to: &mut text, keep }.deserialize(from)?;
        let nodes = text.nodes;
        let text = String::from_utf8(text.bytes).map_err(D::Error::custom)?;
        Ok(Self {
            text: text.into(),
            nodes,
        })
    }

    /// The text of a serializable value, such as all of Kubernetes' types.
    ///
    /// # Errors
    /// When a key is not a string.
    pub fn of(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        Self::parse(&serde_json::to_string(value)?)
    }

    /// Any JSON text.
    ///
    /// # Errors
    /// When the text is not JSON.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let mut reader = serde_json::Deserializer::from_str(text);
        let json = Self::trimmed(&mut reader, Keep::All)?;
        reader.end()?;
        Ok(json)
    }

    /// Null.
    pub fn null() -> Self {
        Self {
            text: "null".into(),
            nodes: 1,
        }
    }

    /// An object without fields.
    pub fn empty() -> Self {
        Self {
            text: "{}".into(),
            nodes: 1,
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Number of values: the value itself, and all values in its fields and elements.
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// Decodes it as `T`.
    ///
    /// # Errors
    /// The first field that does not fit.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Misfit> {
        let mut reader = serde_json::Deserializer::from_str(&self.text);
        serde_path_to_error::deserialize(&mut reader).map_err(|error| Misfit {
            field: error.path().to_string(),
            message: without_position(&error.inner().to_string()),
        })
    }
}

/// The message without the position in the text, because users do not see the text.
fn without_position(message: &str) -> String {
    let end = message.rfind(" at line ").unwrap_or(message.len());
    message[..end].to_owned()
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.text, &other.text) || self.text == other.text
    }
}

impl Eq for Json {}

impl fmt::Debug for Json {
    /// Only the size, because environments contain secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Json({} bytes)", self.text.len())
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::trimmed(deserializer, Keep::All)
    }
}

impl Serialize for Json {
    /// Only for JSON serializers, which receive the text unchanged.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.text).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

// === Copying ===

#[derive(Default)]
struct Text {
    bytes: Vec<u8>,
    nodes: usize,
}

/// Copies one value.
struct Copy<'a> {
    to: &'a mut Text,
    keep: Keep,
}

/// Position of a field in the text: start of the key, end of the key, end of the value.
type Place = [u32; 3];

impl Text {
    fn scalar<E: serde::de::Error>(&mut self, value: &impl Serialize) -> Result<(), E> {
        self.nodes += 1;
        serde_json::to_writer(&mut self.bytes, value).map_err(E::custom)
    }

    /// Sorts the fields from `start` on. Of several fields with one name the last is kept, as other
    /// JSON readers do.
    fn sort(&mut self, start: usize, places: &mut [Place]) {
        let old = self.bytes.split_off(start);
        let part = |from: u32, to: u32| &old[from as usize - start..to as usize - start];
        places.sort_by(|a, b| part(a[0], a[1]).cmp(part(b[0], b[1])));
        for (at, place) in places.iter().enumerate() {
            let again = places
                .get(at + 1)
                .is_some_and(|next| part(next[0], next[1]) == part(place[0], place[1]));
            if again {
                continue;
            }
            if self.bytes.len() > start {
                self.bytes.push(b',');
            }
            self.bytes.extend_from_slice(part(place[0], place[2]));
        }
    }
}

impl Keep {
    /// The parts of the field `name` that are kept. `None` if the field is dropped.
    fn field(self, name: &str) -> Option<Self> {
        match self {
            Self::All => Some(Self::All),
            Self::Fields(fields) => fields
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, keep)| *keep),
            Self::Except(fields) => {
                let named = fields.iter().find(|(known, _)| *known == name);
                named.map_or(Some(Self::All), |(_, keep)| *keep)
            }
            Self::Prefixed(prefix) => name.starts_with(prefix).then_some(Self::All),
            Self::First(_, each) => each.field(name),
        }
    }

    /// The number of elements that are kept, and the parts of each.
    fn elements(self) -> (usize, Self) {
        match self {
            Self::First(most, each) => (most, *each),
            keep => (usize::MAX, keep),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Copy<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Copy<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.to.scalar(&value)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.to.scalar(&value)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.to.scalar(&value)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        self.to.scalar(&value)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        self.to.scalar(&value)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.to.scalar(&())
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<(), E> {
        self.to.scalar(&())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let (most, keep) = self.keep.elements();
        let to = self.to;
        to.nodes += 1;
        to.bytes.push(b'[');
        let start = to.bytes.len();
        for _ in 0..most {
            let end = to.bytes.len();
            if end > start {
                to.bytes.push(b',');
            }
            if list.next_element_seed(Copy { to, keep })?.is_none() {
                to.bytes.truncate(end);
                break;
            }
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        to.bytes.push(b']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let to = self.to;
        to.nodes += 1;
        to.bytes.push(b'{');
        let start = to.bytes.len();
        let mut places: Vec<Place> = Vec::new();
        let mut in_order = true;
        while let Some(name) = map.next_key::<Cow<'_, str>>()? {
            let Some(keep) = self.keep.field(&name) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if to.bytes.len() > start {
                to.bytes.push(b',');
            }
            let begins = to.bytes.len();
            serde_json::to_writer(&mut to.bytes, &*name).map_err(A::Error::custom)?;
            let key_ends = to.bytes.len();
            to.bytes.push(b':');
            map.next_value_seed(Copy { to, keep })?;
            if let Some([from, until, _]) = places.last() {
                in_order &= to.bytes[*from as usize..*until as usize] < to.bytes[begins..key_ends];
            }
            let place = |at: usize| u32::try_from(at).map_err(A::Error::custom);
            places.push([place(begins)?, place(key_ends)?, place(to.bytes.len())?]);
        }
        if !in_order {
            to.sort(start, &mut places);
        }
        to.bytes.push(b'}');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn trimmed(value: &Value, keep: Keep) -> String {
        Json::trimmed(value, keep).unwrap().as_str().to_owned()
    }

    #[test]
    fn i19_a_value_is_its_text_whichever_way_it_came() {
        let value = json!({ "b": [1, -2, 0.5, "x\"\n\u{1}é"], "a": { "d": null, "c": true }, "": {} });
        let expected = value.to_string();
        let sorted = Json::parse(&expected).unwrap();
        assert_eq!(sorted.as_str(), expected);
        assert_eq!(sorted.nodes(), 10);
        let unsorted = r#" { "b": [1, -2, 0.5, "x\"\n\u0001é"], "": {}, "a": {"d": null, "c": true} } "#;
        assert_eq!(Json::parse(unsorted).unwrap(), sorted);
        assert_eq!(serde_json::from_value::<Json>(value.clone()).unwrap(), sorted);
        assert_eq!(serde_json::to_value(&sorted).unwrap(), value);
        assert_eq!(
            serde_json::to_string(&[&sorted]).unwrap(),
            format!("[{expected}]")
        );
        assert_eq!(sorted.read::<Value>().unwrap(), value);
    }

    #[test]
    fn of_a_field_that_is_there_twice_the_last_counts() {
        let twice = Json::parse(r#"{"b":1,"a":{"x":1},"b":2,"a":3}"#).unwrap();
        assert_eq!(twice.as_str(), r#"{"a":3,"b":2}"#);
        assert_eq!(Json::parse(r#"{"a":1,"a":2}"#).unwrap().as_str(), r#"{"a":2}"#);
    }

    #[test]
    fn i18_what_is_not_kept_is_skipped() {
        const ALMOST: Keep = Keep::Except(&[("a", None), ("l", Some(Keep::First(0, &Keep::All)))]);
        const KEEP: Keep = Keep::Fields(&[
            ("a", Keep::Fields(&[("b", Keep::All)])),
            ("l", Keep::First(2, &Keep::Fields(&[("n", Keep::All)]))),
            ("labels", Keep::Prefixed("ours/")),
        ]);
        let value = json!({
            "a": { "b": { "c": 1 }, "d": [1, 2] }, "big": ["x"], "labels": { "ours/x": "1", "theirs/x": "2" },
            "l": [{ "n": 1, "m": 2 }, { "m": 2 }, { "n": 3 }],
        });
        let expected = r#"{"a":{"b":{"c":1}},"l":[{"n":1},{}],"labels":{"ours/x":"1"}}"#;
        assert_eq!(trimmed(&value, KEEP), expected);
        let almost = r#"{"big":["x"],"l":[],"labels":{"ours/x":"1","theirs/x":"2"}}"#;
        assert_eq!(trimmed(&value, ALMOST), almost);
        assert_eq!(
            trimmed(&json!({ "a": [{ "b": 1, "c": 2 }, 3] }), KEEP),
            r#"{"a":[{"b":1},3]}"#
        );
    }

    #[test]
    fn a_misfit_names_the_field() {
        #[derive(Debug, Deserialize)]
        struct Inner {
            #[serde(rename = "b")]
            _b: Vec<u8>,
        }
        let json = Json::parse(r#"{"a":{"b":[1,"x"]}}"#).unwrap();
        let misfit = json
            .read::<std::collections::BTreeMap<String, Inner>>()
            .unwrap_err();
        assert_eq!(misfit.field, "a.b[1]");
        assert_eq!(misfit.message, "invalid type: string \"x\", expected u8");
    }

    #[test]
    fn h17_a_value_is_not_in_its_debug_output() {
        assert_eq!(
            format!("{:?}", Json::parse(r#"{"password":"x"}"#).unwrap()),
            "Json(16 bytes)"
        );
    }
}
