/*!
A time limit on every call.

kube limits only how long a connection takes to be established: an API server that took a request
and never answers would hold its caller for ever.
*/

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, Uri};
use http_body::Body as HttpBody;
use http_body_util::Either;
use kube::client::Body;
use tower::{BoxError, Layer, Service};
use tower_http::timeout::TimeoutBody;

/// Puts [`TimeLimit`] around a client's service.
#[derive(Clone, Copy, Debug)]
pub struct TimeLimitLayer {
    limit: Duration,
}

/// Ends calls that take too long.
///
/// The head of the answer has to be there within the limit, and no two parts of its body may be
/// further apart than that. The body of a watch has no limit: it lasts for minutes, and kube's
/// watcher notices itself when it falls silent (the watch's `timeoutSeconds` and a margin).
#[derive(Clone, Debug)]
pub struct TimeLimit<S> {
    inner: S,
    limit: Duration,
}

/// The API server did not answer in time. Whether it carried out the request is not known.
#[derive(Debug, thiserror::Error)]
#[error("the API server did not answer {method} {path} within {} s", limit.as_secs())]
pub struct TimedOut {
    method: Method,
    path: String,
    limit: Duration,
}

// === impl TimeLimitLayer ===

impl TimeLimitLayer {
    /// A layer whose calls take `limit` at most.
    pub fn new(limit: Duration) -> Self {
        Self { limit }
    }
}

impl<S> Layer<S> for TimeLimitLayer {
    type Service = TimeLimit<S>;

    fn layer(&self, inner: S) -> Self::Service {
        TimeLimit {
            inner,
            limit: self.limit,
        }
    }
}

// === impl TimeLimit ===

impl<S, B> Service<Request<Body>> for TimeLimit<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Either<B, TimeoutBody<B>>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let limit = self.limit;
        let endless = is_watch(request.uri());
        let late = TimedOut {
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            limit,
        };
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = tokio::time::timeout(limit, answer).await.map_err(|_| late)?;
            let answer = answer.map_err(Into::into)?;
            Ok(answer.map(|body| {
                if endless {
                    Either::Left(body)
                } else {
                    Either::Right(TimeoutBody::new(limit, body))
                }
            }))
        })
    }
}

/// Whether the call is a watch or follows a log.
pub(crate) fn is_watch(uri: &Uri) -> bool {
    let mut parameters = uri.query().unwrap_or_default().split('&');
    parameters.any(|parameter| matches!(parameter, "watch=true" | "watch=1" | "follow=true"))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::future::pending;
    use futures::stream::{self, StreamExt};
    use http_body_util::{BodyExt, Full, StreamBody};
    use tower::{ServiceExt, service_fn};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(15);

    fn request(uri: &str) -> Request<Body> {
        Request::get(uri).body(Body::empty()).unwrap()
    }

    /// An answer whose body stops after its first part.
    async fn half(
        _: Request<Body>,
    ) -> Result<Response<impl HttpBody<Data = Bytes, Error = BoxError> + Send>, Infallible> {
        let part = stream::iter([Ok::<_, BoxError>(http_body::Frame::data(Bytes::from("{")))]);
        Ok(Response::new(StreamBody::new(Box::pin(
            part.chain(stream::pending()),
        ))))
    }

    /// A connection that the network dropped silently stopped the whole process.
    #[tokio::test(start_paused = true)]
    async fn i18_a_call_that_gets_no_answer_ends() {
        let silent = service_fn(|_| pending::<Result<Response<Full<Bytes>>, Infallible>>());
        let limited = TimeLimitLayer::new(LIMIT).layer(silent);
        let error = limited
            .oneshot(request("/api/v1/nodes?limit=5"))
            .await
            .err()
            .unwrap();
        assert_eq!(
            error.to_string(),
            "the API server did not answer GET /api/v1/nodes within 15 s",
            "without the query, which may hold names"
        );
        assert!(error.is::<TimedOut>());
    }

    #[tokio::test(start_paused = true)]
    async fn i18_an_answer_that_stops_halfway_ends() {
        let limited = TimeLimitLayer::new(LIMIT).layer(service_fn(half));
        let answer = limited.oneshot(request("/api/v1/nodes")).await.unwrap();
        assert!(answer.into_body().collect().await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_has_begun_goes_on() {
        let limited = TimeLimitLayer::new(LIMIT).layer(service_fn(half));
        let answer = limited.oneshot(request("/api/v1/nodes?watch=true&limit=5")).await;
        let mut body = Box::pin(answer.unwrap().into_body());
        assert!(body.frame().await.unwrap().is_ok());
        let rest = tokio::time::timeout(LIMIT * 100, body.frame()).await;
        assert!(rest.is_err(), "still open");
    }

    #[test]
    fn watches_are_told_from_lists() {
        for (uri, expected) in [
            ("/api/v1/pods?watch=true", true),
            ("/api/v1/pods?limit=5&watch=1", true),
            ("/api/v1/pods?labelSelector=watch%3Dtrue", false),
            ("/api/v1/pods?watch=false", false),
            ("/api/v1/pods", false),
        ] {
            assert_eq!(is_watch(&uri.parse().unwrap()), expected, "{uri}");
        }
    }
}
