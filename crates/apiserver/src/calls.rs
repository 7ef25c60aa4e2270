/*!
Counts calls to the API server by verb, resource and result, and measures them.

Paths are reduced to resources, so the labels have as many values as the programs use resources.
*/

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Method, Request, Response, Uri};
use kube::client::Body;
use metrics::{Metrics, catalogue};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;
use tower::{BoxError, Layer, Service};
use tracing::field::Empty;
use tracing::{Instrument, Span};

use crate::time_limit::{TimedOut, is_watch};

/// Upper bounds in seconds: an API server answers most calls in milliseconds, and
/// [`crate::TIME_LIMIT`] ends the longest.
const BUCKETS: [f64; 9] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0];

/// What is measured of all calls of a program.
#[derive(Clone, Debug)]
pub(crate) struct CallMetrics {
    requests: Family<Answered, Counter>,
    seconds: Family<Call, Histogram, fn() -> Histogram>,
}

/// A call, without the names in it.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Call {
    verb: &'static str,
    resource: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answered {
    verb: &'static str,
    resource: String,
    code: String,
}

/// Puts [`CountCalls`] around a client's service.
#[derive(Clone, Debug)]
pub(crate) struct CountCallsLayer(pub(crate) CallMetrics);

/// Counts calls.
#[derive(Clone, Debug)]
pub(crate) struct CountCalls<S> {
    inner: S,
    metrics: CallMetrics,
}

// === impl CallMetrics ===

impl CallMetrics {
    /// Registers the metrics.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let constructor: fn() -> Histogram = || Histogram::new(BUCKETS);
        let calls = Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(constructor),
        };
        metrics.register(&catalogue::API_REQUESTS, calls.requests.clone());
        metrics.register(&catalogue::API_REQUEST_SECONDS, calls.seconds.clone());
        calls
    }

    fn observe(&self, call: Call, code: String, begin: Instant) {
        let seconds = begin.elapsed().as_secs_f64();
        self.seconds.get_or_create(&call).observe(seconds);
        let Call { verb, resource } = call;
        let answered = Answered { verb, resource, code };
        self.requests.get_or_create(&answered).inc();
    }
}

// === impl Call ===

impl Call {
    fn of<B>(request: &Request<B>) -> Self {
        let (resource, named) = resource(request.uri().path());
        let verb = match *request.method() {
            _ if is_watch(request.uri()) => "watch",
            _ if is_dry_run(request.uri()) => "dry-run",
            Method::GET if named => "get",
            Method::GET => "list",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "other",
        };
        Self { verb, resource }
    }

    /// The span of a call that is part of another span. A watch outlives what began it.
    fn span(&self) -> Span {
        if self.verb == "watch" {
            return Span::none();
        }
        tracing::info_span!(
            target: telemetry::CALLS, "call of the API server",
            otel.name = format_args!("{} {}", self.verb, self.resource), otel.kind = "client", code = Empty,
        )
    }
}

/// Whether the call changes nothing, whatever its method is.
fn is_dry_run(uri: &Uri) -> bool {
    let mut parameters = uri.query().unwrap_or_default().split('&');
    parameters.any(|parameter| parameter == "dryRun=All")
}

/// The resource and subresource of a path (API concepts, "Resource URIs"), and whether it names one
/// object.
fn resource(path: &str) -> (String, bool) {
    let mut parts: &[&str] = &path.trim_matches('/').split('/').collect::<Vec<_>>();
    parts = match parts {
        ["api", _, rest @ ..] | ["apis", _, _, rest @ ..] => rest,
        _ => return (String::new(), false),
    };
    // `/namespaces/NAME` is a Namespace.
    if let ["namespaces", _, rest @ ..] = parts
        && !rest.is_empty()
    {
        parts = rest;
    }
    match parts {
        [] => (String::new(), false),
        [resource] => ((*resource).to_owned(), false),
        [resource, _] => ((*resource).to_owned(), true),
        [resource, _, subresource, ..] => (format!("{resource}/{subresource}"), true),
    }
}

// === impl CountCallsLayer ===

impl<S> Layer<S> for CountCallsLayer {
    type Service = CountCalls<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CountCalls {
            inner,
            metrics: self.0.clone(),
        }
    }
}

// === impl CountCalls ===

impl<S, B> Service<Request<Body>> for CountCalls<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (call, metrics, begin) = (Call::of(&request), self.metrics.clone(), Instant::now());
        let span = call.span();
        let answer = span
            .in_scope(|| self.inner.call(request))
            .instrument(span.clone());
        Box::pin(async move {
            let answer = answer.await;
            let code = match &answer {
                Ok(answer) => answer.status().as_str().to_owned(),
                Err(error) if error.is::<TimedOut>() => "timeout".to_owned(),
                Err(_) => "error".to_owned(),
            };
            span.record("code", code.as_str());
            metrics.observe(call, code, begin);
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Duration;

    use http::StatusCode;
    use http_body_util::Empty;
    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::TimeLimitLayer;

    #[test]
    fn calls_are_named_without_the_names_in_them() {
        let pod = "/api/v1/namespaces/ns/pods/web";
        for (method, uri, verb, resource) in [
            ("GET", pod, "get", "pods"),
            (
                "PATCH",
                &format!("{pod}/status?fieldManager=x"),
                "patch",
                "pods/status",
            ),
            ("DELETE", pod, "delete", "pods"),
            ("POST", "/api/v1/namespaces/ns/pods", "create", "pods"),
            (
                "POST",
                "/api/v1/namespaces/ns/pods?fieldValidation=Strict&dryRun=All",
                "dry-run",
                "pods",
            ),
            ("GET", "/api/v1/pods?limit=5", "list", "pods"),
            ("GET", "/api/v1/nodes?watch=true", "watch", "nodes"),
            ("GET", "/api/v1/namespaces/ns", "get", "namespaces"),
            (
                "PUT",
                "/apis/coordination.k8s.io/v1/namespaces/ns/leases/l",
                "update",
                "leases",
            ),
            ("GET", "/apis/storage.k8s.io/v1/csinodes/n1", "get", "csinodes"),
            ("GET", "/version", "list", ""),
        ] {
            let request = Request::builder().method(method).uri(uri).body(()).unwrap();
            let resource = resource.to_owned();
            assert_eq!(Call::of(&request), Call { verb, resource }, "{method} {uri}");
        }
    }

    async fn send<S>(metrics: &CallMetrics, service: S)
    where
        S: Service<Request<Body>, Response = Response<Empty<bytes::Bytes>>, Error = BoxError>
            + Send
            + 'static,
        S::Future: Send + 'static,
    {
        let limited = TimeLimitLayer::new(Duration::from_secs(1)).layer(service);
        let counted = CountCallsLayer(metrics.clone()).layer(limited);
        let request = Request::get("/api/v1/pods").body(Body::empty()).unwrap();
        drop(counted.oneshot(request).await);
    }

    #[tokio::test(start_paused = true)]
    async fn every_result_is_counted() {
        let metrics = Metrics::new("1.2.3");
        let calls = CallMetrics::new(&metrics);
        send(
            &calls,
            service_fn(async |_| {
                Ok(Response::builder()
                    .status(StatusCode::CONFLICT)
                    .body(Empty::new())?)
            }),
        )
        .await;
        send(&calls, service_fn(async |_| Err("refused".into()))).await;
        send(&calls, service_fn(|_| pending())).await;
        let text = metrics.encode().unwrap();
        assert_eq!(
            metrics::differences(&text, catalogue::COMMON),
            Vec::<String>::new(),
            "{text}"
        );
        for code in ["409", "error", "timeout"] {
            let line = format!("api_requests_total{{verb=\"list\",resource=\"pods\",code=\"{code}\"}} 1");
            assert!(text.contains(&line), "{text}");
        }
        assert!(
            text.contains("api_request_seconds_count{verb=\"list\",resource=\"pods\"} 3"),
            "{text}"
        );
    }
}
