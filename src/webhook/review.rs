/*!
AdmissionReview `admission.k8s.io/v1`, in and out. Only what the decisions use is read; an object
stays text until its type is known.
*/

use axum::response::{IntoResponse, Response};
use json_patch::Patch;
use k8s_openapi::ByteString;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use stoppablecontainer_api::json::{Json, Keep};
use stoppablecontainer_api::truncate_utf8;

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// The API server passes on about this much of a warning (`WarningHeader` limit of `admission/v1`:
/// 256).
const WARNING_LENGTH: usize = 256;

/// Why a body is not a review that can be answered.
#[derive(Debug, thiserror::Error)]
pub enum BadReview {
    /// Not JSON, or not the shape of a review.
    #[error("not an AdmissionReview: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Another kind or version.
    #[error("expected {KIND} {API_VERSION}, got {kind} {api_version}")]
    Version {
        /// Its `kind`.
        kind: String,
        /// Its `apiVersion`.
        api_version: String,
    },
    /// Nothing is asked.
    #[error("the AdmissionReview has no request")]
    NoRequest,
    /// There is nothing to echo.
    #[error("the request has no uid")]
    NoUid,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    api_version: String,
    request: Option<Request>,
}

/// What the API server asks.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Echoed in the response.
    #[serde(default)]
    pub uid: String,
    /// Kind of the object.
    pub kind: Kind,
    /// The subresource, if any.
    #[serde(default)]
    pub sub_resource: Option<String>,
    /// Name of the object, empty if the API server is to generate it.
    #[serde(default)]
    pub name: String,
    /// Namespace of the object.
    #[serde(default)]
    pub namespace: String,
    /// What is done.
    pub operation: Operation,
    /// Who does it.
    #[serde(default)]
    pub user_info: User,
    /// The object as it is to be stored, null for DELETE. Text: a body of brackets would be a
    /// hundred times as large as values (H24).
    #[serde(default = "nothing", deserialize_with = "reviewed")]
    pub object: Json,
    /// The object as it is stored, null for CREATE.
    #[serde(default = "nothing", deserialize_with = "reviewed")]
    pub old_object: Json,
    /// Whether nothing will be stored.
    #[serde(default)]
    pub dry_run: Option<bool>,
}

/// Kind of an object.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Kind {
    /// API group, empty for the core.
    #[serde(default)]
    pub group: String,
    /// Name of the kind.
    #[serde(rename = "kind")]
    pub name: String,
}

/// What is done to an object.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Operation {
    /// Creation.
    Create,
    /// Replacement, patch or apply of an existing object.
    Update,
    /// Deletion.
    Delete,
    /// A subresource such as exec.
    Connect,
}

/// Who makes a request.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct User {
    /// Name, authenticated by the API server.
    #[serde(default)]
    pub username: String,
}

/// The decision.
#[derive(Clone, Debug, PartialEq)]
pub struct AdmissionDecision {
    decision: Result<Option<Patch>, Refusal>,
    warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
struct Refusal {
    code: u16,
    reason: &'static str,
    message: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AdmissionResponse<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<ByteString>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// `managedFields` are often larger than the object, and nothing here depends on them.
const REVIEWED: Keep = Keep::Except(&[("metadata", Some(Keep::Except(&[("managedFields", None)])))]);

fn reviewed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
    Json::trimmed(deserializer, REVIEWED)
}

fn nothing() -> Json {
    Json::null()
}

// === impl Request ===

impl Request {
    /// Reads a review.
    pub fn parse(body: &[u8]) -> Result<Self, BadReview> {
        let review: Review = serde_json::from_slice(body)?;
        if review.kind != KIND || review.api_version != API_VERSION {
            return Err(BadReview::Version {
                kind: review.kind,
                api_version: review.api_version,
            });
        }
        let request = review.request.ok_or(BadReview::NoRequest)?;
        if request.uid.is_empty() {
            Err(BadReview::NoUid)
        } else {
            Ok(request)
        }
    }

    /// Whether it is about an object (not a subresource) of this kind.
    pub fn is_about(&self, group: &str, kind: &str) -> bool {
        self.kind.group == group
            && self.kind.name == kind
            && self.sub_resource.as_deref().unwrap_or_default().is_empty()
    }
}

// === impl AdmissionDecision ===

impl AdmissionDecision {
    /// Allowed as it is.
    pub fn allow() -> Self {
        Self {
            decision: Ok(None),
            warnings: Vec::new(),
        }
    }

    /// Allowed with these changes; an empty patch is none.
    pub fn patch(patch: Patch) -> Self {
        let patch = Some(patch).filter(|p| !p.0.is_empty());
        Self {
            decision: Ok(patch),
            warnings: Vec::new(),
        }
    }

    /// Refused because of what the object says (422 Invalid).
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::refuse(422, "Invalid", message.into())
    }

    /// Refused because of who asks or what else was done to the object (403 Forbidden).
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::refuse(403, "Forbidden", message.into())
    }

    /// Refused for now: the same request may be allowed later (409 Conflict).
    pub fn not_yet(message: impl Into<String>) -> Self {
        Self::refuse(409, "Conflict", message.into())
    }

    fn refuse(code: u16, reason: &'static str, message: String) -> Self {
        Self {
            decision: Err(Refusal {
                code,
                reason,
                message,
            }),
            warnings: Vec::new(),
        }
    }

    /// The same decision, with warnings for the client.
    #[must_use]
    pub fn with_warnings(mut self, warnings: Vec<String>) -> Self {
        self.warnings.extend(warnings);
        self
    }

    /// Whether the request is allowed.
    pub fn is_allowed(&self) -> bool {
        self.decision.is_ok()
    }

    /// Reason of the denial, if the request is denied.
    pub(super) fn denial(&self) -> Option<&'static str> {
        self.decision.as_ref().err().map(|refusal| refusal.reason)
    }

    /// One line of log. Never the object: environments hold secrets.
    pub(super) fn log(&self, path: &str, request: &Request) {
        let Request {
            namespace,
            name,
            uid,
            kind,
            ..
        } = request;
        match &self.decision {
            Ok(changes) => {
                let operations = changes.as_ref().map_or(0, |p| p.0.len());
                tracing::debug!(
                    path,
                    kind = kind.name,
                    namespace,
                    name,
                    uid,
                    operations,
                    "allowed"
                );
            }
            Err(refusal) => {
                let Refusal { reason, message, .. } = refusal;
                tracing::info!(
                    path,
                    kind = kind.name,
                    namespace,
                    name,
                    uid,
                    reason,
                    message,
                    "denied"
                );
            }
        }
    }

    /// The review that answers `request`.
    pub(super) fn into_response(self, request: &Request) -> Response {
        let warnings = self.warnings.into_iter().map(|w| shortened(&w)).collect();
        let uid = request.uid.as_str();
        let none = AdmissionResponse {
            uid,
            allowed: true,
            status: None,
            patch: None,
            patch_type: None,
            warnings,
        };
        let response = match self.decision {
            Ok(None) => none,
            Ok(Some(patch)) => {
                // A list of operations on JSON values always serialises.
                let bytes = serde_json::to_vec(&patch).unwrap_or_default();
                AdmissionResponse {
                    patch: Some(ByteString(bytes)),
                    patch_type: Some("JSONPatch"),
                    ..none
                }
            }
            Err(Refusal {
                code,
                reason,
                message,
            }) => {
                let status =
                    json!({ "status": "Failure", "code": code, "reason": reason, "message": message });
                AdmissionResponse {
                    allowed: false,
                    status: Some(status),
                    ..none
                }
            }
        };
        axum::Json(json!({ "apiVersion": API_VERSION, "kind": KIND, "response": response })).into_response()
    }
}

fn shortened(text: &str) -> String {
    if text.len() <= WARNING_LENGTH {
        text.to_owned()
    } else {
        format!("{}...", truncate_utf8(text, WARNING_LENGTH - 3))
    }
}
