/*!
The admission webhook over HTTP: three paths, each a pure decision wrapped in
an AdmissionReview.

- `/mutate`: consumer pods, rewritten;
- `/validate-pod`: consumer pods as they will be stored (invariant I3);
- `/validate`: StoppableContainers and StoppableContainerInstances.

No answer has a side effect (I13) or needs a call to the API server: what a
decision needs comes from watches that fill [`Caches`].
*/

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::Request as HttpRequest;

use crate::metrics::AdmissionMetrics;
use crate::rewrite::Wrapper;

mod consumer;
mod facts;
mod final_state;
pub mod patch;
mod review;
pub mod server;
mod validate;

pub use facts::{CacheWriters, Caches, Watches};
pub use review::{BadReview, Request, Verdict};
pub use validate::{Problem, is_clean_path};

/// Longest body that is read, in bytes: what the API server's own library allows (`controller-runtime`,
/// `pkg/webhook/admission/http.go`). etcd's limit on objects is below it even with old and new object in one review.
pub const BODY_LIMIT: usize = 7 * 1024 * 1024;

/// How long a body may take to arrive. The API server waits no longer than `timeoutSeconds` (3) for the answer.
const BODY_TIMEOUT: Duration = Duration::from_secs(3);

/// What the webhook knows besides its caches.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The wrapper image.
    pub wrapper: Wrapper,
    /// Directories that `spec.hostPathPrefix` may name, compared exactly: a directory below an allowed one could lie in
    /// another object's data.
    pub allowed_prefixes: Vec<String>,
    /// User name of the controller's service account, the only one that may create consumer pods.
    pub controller: String,
}

/// The webhook: settings, caches and counters.
pub struct Webhook {
    settings: Settings,
    caches: Caches,
    metrics: AdmissionMetrics,
}

/// Why a request got no review in answer.
#[derive(Debug, thiserror::Error)]
enum HttpError {
    #[error("the body must be application/json")]
    ContentType,
    #[error("the body did not arrive within {} s", BODY_TIMEOUT.as_secs())]
    Slow,
    #[error("the body is longer than {BODY_LIMIT} bytes or was cut off")]
    Body(#[source] axum::Error),
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
        let start = Instant::now();
        let (outcome, response) = match self.review(path, request).await {
            Ok((request, verdict)) => {
                let outcome = if verdict.is_allowed() { "allowed" } else { "denied" };
                verdict.log(path.as_str(), &request);
                (outcome, verdict.into_response(&request))
            }
            Err(error) => {
                tracing::warn!(path = path.as_str(), %error, "refused a request that is not a review");
                ("error", error.into_response())
            }
        };
        self.metrics.observe(path.as_str(), outcome, start.elapsed());
        response
    }

    async fn review(&self, path: Path, request: HttpRequest<Body>) -> Result<(Request, Verdict), HttpError> {
        let content_type = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok());
        let media_type = content_type.and_then(|v| v.split(';').next()).map(str::trim);
        if media_type != Some("application/json") {
            return Err(HttpError::ContentType);
        }
        let body = tokio::time::timeout(BODY_TIMEOUT, to_bytes(request.into_body(), BODY_LIMIT));
        let body = body
            .await
            .map_err(|_| HttpError::Slow)?
            .map_err(HttpError::Body)?;
        let request = Request::parse(&body)?;
        let verdict = match path {
            Path::Mutate => consumer::mutate(&self.settings, &self.caches, &request).await,
            Path::ValidatePod => final_state::validate(&self.settings, &self.caches, &request).await,
            Path::Validate => validate::validate(&self.settings, &request),
        };
        Ok((request, verdict))
    }
}

// === impl HttpError ===

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Body(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Review(_) => StatusCode::BAD_REQUEST,
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
}
