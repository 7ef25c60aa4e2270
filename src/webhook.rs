/*!
The admission webhook over HTTP: three paths, each a pure decision wrapped in an AdmissionReview.

- `/mutate`: consumer pods, rewritten;
- `/validate-pod`: consumer pods as they will be stored (invariant I3);
- `/validate`: StoppableContainers and StoppableContainerInstances.

No answer has a side effect (I13). What a decision on a pod needs comes from watches that fill
[`Caches`], never from a call to the API server.
*/

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::Request as HttpRequest;
use kube::Client;
use tracing::field::{Empty, debug};
use tracing::{Instrument, Span};

use crate::metrics::AdmissionMetrics;
use crate::rewrite::Wrapper;

mod body;
mod caches;
mod claims;
mod mutate_pod;
pub mod patch;
mod review;
mod validate_object;
mod validate_pod;

use body::{BodyError, Budget};

pub use crate::field_error::FieldError;
pub use body::BODY_LIMIT;
pub use caches::{CacheWriters, Caches};
pub use claims::ClaimsWriter;
pub use review::{AdmissionDecision, BadReview, Request};
pub use validate_object::is_clean_path;

/// What the webhook knows besides its caches.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The wrapper image.
    pub wrapper: Wrapper,
    /// Directories that `spec.hostPathPrefix` may name, compared exactly: a directory below an
    /// allowed one could lie in another object's data.
    pub allowed_prefixes: Vec<String>,
    /// Namespaces that the webhook configurations exclude.
    pub excluded_namespaces: Vec<String>,
    /// User name of the controller's service account, the only one that may create consumer pods.
    pub controller: String,
}

/// The webhook: settings, caches, counters, and a client for dry runs.
pub struct Webhook {
    settings: Settings,
    caches: Caches,
    metrics: AdmissionMetrics,
    client: Option<Client>,
    bodies: Budget,
}

/// Why a request was not answered with an AdmissionReview.
#[derive(Debug, thiserror::Error)]
enum HttpError {
    #[error("the body must be application/json")]
    ContentType,
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error(transparent)]
    Review(#[from] BadReview),
}

/// The paths.
#[derive(Clone, Copy, Debug)]
enum Path {
    Mutate,
    ValidatePod,
    Validate,
}

// === impl Webhook ===

impl Webhook {
    /// A webhook that answers from `caches`.
    pub fn new(settings: Settings, caches: Caches, metrics: AdmissionMetrics) -> Self {
        Self {
            settings,
            caches,
            metrics,
            client: None,
            bodies: Budget::default(),
        }
    }

    /// Asks the API server, in a dry run, whether it accepts the pod before an object of ours is
    /// stored.
    #[must_use]
    pub fn with_dry_run(self, client: Client) -> Self {
        Self {
            client: Some(client),
            ..self
        }
    }

    /// The routes. Everything but the three paths is 404, everything but POST 405.
    pub fn router(self) -> Router {
        let webhook = Arc::new(self);
        let route = |path| {
            post(
                move |State(webhook): State<Arc<Webhook>>, request: HttpRequest<Body>| async move {
                    webhook.answer(path, request).await
                },
            )
        };
        Router::new()
            .route("/mutate", route(Path::Mutate))
            .route("/validate-pod", route(Path::ValidatePod))
            .route("/validate", route(Path::Validate))
            .with_state(webhook)
    }

    async fn answer(&self, path: Path, request: HttpRequest<Body>) -> Response {
        let span = path.span();
        telemetry::link_to_caller(&span, request.headers());
        self.decide(path, request, &span).instrument(span.clone()).await
    }

    async fn decide(&self, path: Path, request: HttpRequest<Body>, span: &Span) -> Response {
        let start = Instant::now();
        let (outcome, response) = match self.review(path, request).await {
            Ok((request, decision)) => {
                let outcome = if decision.is_allowed() {
                    "allowed"
                } else {
                    "denied"
                };
                if let Some(reason) = decision.denial() {
                    self.metrics.denied(path.as_str(), reason);
                }
                decision.log(path.as_str(), &request);
                describe(span, &request, &decision);
                (outcome, decision.into_response(&request))
            }
            Err(error) => {
                tracing::warn!(path = path.as_str(), %error, "rejected a request that is not an AdmissionReview");
                telemetry::failed(span);
                ("error", error.into_response())
            }
        };
        span.record("outcome", outcome);
        self.metrics.observe(path.as_str(), outcome, start.elapsed());
        response
    }

    async fn review(
        &self,
        path: Path,
        request: HttpRequest<Body>,
    ) -> Result<(Request, AdmissionDecision), HttpError> {
        let content_type = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok());
        let media_type = content_type.and_then(|v| v.split(';').next()).map(str::trim);
        if media_type != Some("application/json") {
            return Err(HttpError::ContentType);
        }
        let body = self.bodies.read(request.into_body()).await?;
        let request = Request::parse(&body.bytes)?;
        drop(body);
        let _values = match path {
            Path::Mutate | Path::ValidatePod => Some(self.bodies.values(request.object.nodes()).await?),
            // Never decoded as a whole.
            Path::Validate => None,
        };
        let decision = match path {
            Path::Mutate => mutate_pod::mutate(&self.settings, &self.caches, &request).await,
            Path::ValidatePod => validate_pod::validate(&self.settings, &self.caches, &request).await,
            Path::Validate => {
                let client = self.client.as_ref();
                validate_object::validate(&self.settings, &self.caches, client, &request).await
            }
        };
        Ok((request, decision))
    }
}

// === impl HttpError ===

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Body(BodyError::Slow) => StatusCode::REQUEST_TIMEOUT,
            Self::Body(BodyError::Long) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Body(BodyError::Broken(_)) | Self::Review(_) => StatusCode::BAD_REQUEST,
        };
        (status, format!("{self}\n")).into_response()
    }
}

// === impl Path ===

impl Path {
    fn as_str(self) -> &'static str {
        match self {
            Self::Mutate => "/mutate",
            Self::ValidatePod => "/validate-pod",
            Self::Validate => "/validate",
        }
    }

    /// The span of a request. Its fields have the names that log lines have.
    fn span(self) -> Span {
        tracing::info_span!(
            target: telemetry::SPANS, "admission review",
            otel.name = self.as_str(), otel.kind = "server", otel.status_code = Empty,
            kind = Empty, namespace = Empty, name = Empty, uid = Empty, operation = Empty, dry_run = Empty,
            outcome = Empty, reason = Empty,
        )
    }
}

/// Puts into a span what was asked, and how it was decided: names, but nothing of the content of an
/// object, which may have secrets.
fn describe(span: &Span, request: &Request, decision: &AdmissionDecision) {
    span.record("kind", telemetry::bounded(&request.kind.name));
    span.record("namespace", telemetry::bounded(&request.namespace));
    span.record("name", telemetry::bounded(&request.name));
    span.record("uid", telemetry::bounded(&request.uid));
    span.record("operation", debug(request.operation));
    span.record("dry_run", request.dry_run.unwrap_or_default());
    if let Some(reason) = decision.denial() {
        span.record("reason", reason);
    }
}
