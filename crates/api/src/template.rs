/*!
The pod template and `spec.provider` as they are stored: text, decoded in parts when needed.

A decoded template is dropped before the next wait, so there are never more decoded templates than
threads.
*/

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, OnceLock};

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::bounds::{
    Excess, MAX_PROVIDER_BYTES, MAX_PROVIDER_NODES, MAX_TEMPLATE_BYTES, MAX_TEMPLATE_NODES, excesses,
};
use crate::container::ProviderSpec;
use crate::json::{Json, Misfit};
use crate::names::ANNOTATION_RESTARTED_AT;

/// A pod template. Fields that the types of this program do not know are kept as they are
/// (invariant I19).
#[derive(Clone)]
pub struct PodTemplate(Arc<Inner>);

struct Inner {
    json: Json,
    // Frequently used results, computed once.
    main: OnceLock<MainContainer>,
    restarted_at: OnceLock<Option<String>>,
    problem: OnceLock<Option<TemplateError>>,
}

/// Properties of a template's main (first) container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MainContainer {
    /// Its name. Empty in a template without containers.
    pub name: String,
    /// Its image. Empty if it is not set.
    pub image: String,
    /// `runAsUser` of the container, else of the pod.
    pub run_as_user: Option<i64>,
    /// Its limit on `ephemeral-storage`, as written.
    pub storage_limit: Option<String>,
}

/// `spec.provider`.
#[derive(Clone, PartialEq)]
pub struct Provider(Json);

/// Why a template or `spec.provider` cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A part of it exceeds its bound.
    #[error("{field}: {excess}")]
    TooLarge {
        /// Path of the field in the object.
        field: String,
        /// The size and the bound.
        excess: Excess,
    },
    /// A field does not have the type that it has in a pod.
    #[error("{field}: {message}")]
    Invalid {
        /// Path of the field in the object.
        field: String,
        /// What is wrong with it.
        message: String,
    },
}

/// Path of the template in both kinds.
const TEMPLATE: &str = "spec.template";
/// Path of the provider in both kinds.
const PROVIDER: &str = "spec.provider";

// === impl PodTemplate ===

impl PodTemplate {
    /// The template as it is stored.
    pub fn json(&self) -> &Json {
        &self.0.json
    }

    /// The decoded template, without fields that the types do not know. It has at most
    /// [`MAX_TEMPLATE_NODES`] values and takes up to about 15 MB, so drop it soon.
    ///
    /// # Errors
    /// When it exceeds the bounds, or is not a pod template.
    pub fn decode(&self) -> Result<PodTemplateSpec, TemplateError> {
        self.problem().cloned().map_or_else(|| self.0.decode(), Err)
    }

    /// The template with all its fields as a JSON value. Drop it soon, as for
    /// [`PodTemplate::decode`].
    ///
    /// # Errors
    /// As for [`PodTemplate::decode`].
    pub fn value(&self) -> Result<serde_json::Value, TemplateError> {
        let problem = self.problem().cloned();
        let read = || {
            self.0
                .json
                .read()
                .map_err(|misfit| TemplateError::invalid(TEMPLATE, misfit))
        };
        problem.map_or_else(read, Err)
    }

    /// Why the template cannot be used.
    pub fn problem(&self) -> Option<&TemplateError> {
        self.0.problem()
    }

    /// Its main container.
    pub fn main(&self) -> &MainContainer {
        self.0.main.get_or_init(|| main_container(&self.0.json))
    }

    /// The value of its annotation [`ANNOTATION_RESTARTED_AT`], with which the user asks for a
    /// restart.
    pub fn restarted_at(&self) -> Option<&str> {
        let read = || restarted_at(&self.0.json);
        self.0.restarted_at.get_or_init(read).as_deref()
    }

    /// All parts that exceed their bounds.
    pub fn excesses(&self) -> Vec<TemplateError> {
        too_large(TEMPLATE, &self.0.json, MAX_TEMPLATE_BYTES, MAX_TEMPLATE_NODES)
    }
}

impl From<Json> for PodTemplate {
    fn from(json: Json) -> Self {
        Self(Arc::new(Inner {
            json,
            main: OnceLock::new(),
            restarted_at: OnceLock::new(),
            problem: OnceLock::new(),
        }))
    }
}

impl PartialEq for PodTemplate {
    fn eq(&self, other: &Self) -> bool {
        self.0.json == other.0.json
    }
}

impl fmt::Debug for PodTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.json.fmt(f)
    }
}

impl<'de> Deserialize<'de> for PodTemplate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Json::deserialize(deserializer).map(Self::from)
    }
}

impl Serialize for PodTemplate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.json.serialize(serializer)
    }
}

impl JsonSchema for PodTemplate {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        PodTemplateSpec::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        PodTemplateSpec::json_schema(generator)
    }
}

// === impl Inner ===

impl Inner {
    fn problem(&self) -> Option<&TemplateError> {
        let find = || {
            let excesses = too_large(TEMPLATE, &self.json, MAX_TEMPLATE_BYTES, MAX_TEMPLATE_NODES);
            excesses.into_iter().next().or_else(|| self.decode().err())
        };
        self.problem.get_or_init(find).as_ref()
    }

    fn decode(&self) -> Result<PodTemplateSpec, TemplateError> {
        self.json
            .read()
            .map_err(|misfit| TemplateError::invalid(TEMPLATE, misfit))
    }
}

// === impl Provider ===

impl Provider {
    /// The decoded `spec.provider`.
    ///
    /// # Errors
    /// When it exceeds the bounds, or has fields of other types.
    pub fn decode(&self) -> Result<ProviderSpec, TemplateError> {
        if let Some(excess) = self.excesses().into_iter().next() {
            return Err(excess);
        }
        self.0
            .read()
            .map_err(|misfit| TemplateError::invalid(PROVIDER, misfit))
    }

    /// `spec.provider` as it is stored.
    pub fn json(&self) -> &Json {
        &self.0
    }

    /// All parts that exceed their bounds.
    pub fn excesses(&self) -> Vec<TemplateError> {
        too_large(PROVIDER, &self.0, MAX_PROVIDER_BYTES, MAX_PROVIDER_NODES)
    }
}

impl Default for Provider {
    fn default() -> Self {
        Self::from(&ProviderSpec::default())
    }
}

impl From<&ProviderSpec> for Provider {
    fn from(spec: &ProviderSpec) -> Self {
        // The keys of its maps are strings, so it has a text.
        Self(Json::of(spec).unwrap_or_else(|_| Json::empty()))
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

impl<'de> Deserialize<'de> for Provider {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Json::deserialize(deserializer).map(Self)
    }
}

impl Serialize for Provider {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl JsonSchema for Provider {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        ProviderSpec::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        ProviderSpec::json_schema(generator)
    }
}

// === impl TemplateError ===

impl TemplateError {
    /// Path of the field in the object.
    pub fn field(&self) -> &str {
        match self {
            Self::TooLarge { field, .. } | Self::Invalid { field, .. } => field,
        }
    }

    /// What is wrong with the field.
    pub fn message(&self) -> String {
        match self {
            Self::TooLarge { excess, .. } => excess.to_string(),
            Self::Invalid { message, .. } => message.clone(),
        }
    }

    fn invalid(of: &str, Misfit { field, message }: Misfit) -> Self {
        Self::Invalid {
            field: below(of, if field == "." { "" } else { &field }),
            message: format!("Invalid value: {message}"),
        }
    }
}

fn too_large(of: &str, json: &Json, bytes: usize, nodes: usize) -> Vec<TemplateError> {
    let error = |excess: Excess| TemplateError::TooLarge {
        field: below(of, &excess.field),
        excess,
    };
    excesses(json, bytes, nodes).into_iter().map(error).collect()
}

fn below(of: &str, field: &str) -> String {
    if field.is_empty() {
        of.to_owned()
    } else {
        format!("{of}.{field}")
    }
}

// === The main container ===

#[derive(Deserialize)]
struct Template {
    spec: Option<Spec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default, deserialize_with = "first")]
    containers: Option<Container>,
    security_context: Option<SecurityContext>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    #[serde(default)]
    name: String,
    image: Option<String>,
    security_context: Option<SecurityContext>,
    resources: Option<Resources>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SecurityContext {
    run_as_user: Option<i64>,
}

#[derive(Deserialize)]
struct Resources {
    limits: Option<Limits>,
}

#[derive(Deserialize)]
struct Limits {
    #[serde(rename = "ephemeral-storage")]
    storage: Option<Quantity>,
}

/// Reads the first container and skips everything else. The result is empty if the JSON is not a
/// template.
fn main_container(json: &Json) -> MainContainer {
    let Ok(Template { spec: Some(spec) }) = serde_json::from_str::<Template>(json.as_str()) else {
        return MainContainer::default();
    };
    let Some(main) = spec.containers else {
        return MainContainer::default();
    };
    let user = |context: Option<SecurityContext>| context.and_then(|context| context.run_as_user);
    MainContainer {
        name: main.name,
        image: main.image.unwrap_or_default(),
        run_as_user: user(main.security_context).or_else(|| user(spec.security_context)),
        storage_limit: main.resources.and_then(|r| Some(r.limits?.storage?.0)),
    }
}

// === The request for a restart ===

#[derive(Deserialize)]
struct Annotated {
    metadata: Option<Metadata>,
}

#[derive(Deserialize)]
struct Metadata {
    annotations: Option<Annotations>,
}

#[derive(Deserialize)]
struct Annotations {
    // As `ANNOTATION_RESTARTED_AT`.
    #[serde(rename = "stoppablecontainer.xtlsoft.top/restartedAt")]
    restarted_at: Option<String>,
}

fn restarted_at(json: &Json) -> Option<String> {
    // Few templates have it, and the others are not read for it.
    if !json.as_str().contains(ANNOTATION_RESTARTED_AT) {
        return None;
    }
    let template = serde_json::from_str::<Annotated>(json.as_str()).ok()?;
    template.metadata?.annotations?.restarted_at
}

fn first<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Container>, D::Error> {
    struct First;

    impl<'de> Visitor<'de> for First {
        type Value = Option<Container>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of containers")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let first = list.next_element()?;
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok(first)
        }
    }

    deserializer.deserialize_any(First)
}

#[cfg(test)]
mod tests;
