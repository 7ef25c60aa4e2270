/*!
Authorization of scrapers, because the metrics name tenants: the API server reviews the bearer
token, and whether its user may `get` the path `/metrics` (a `nonResourceURL` in RBAC), as with
Kubernetes' own components.

The agent caches results for a minute. It limits the rate of its reviews, so that a pod with made-up
tokens cannot cause one review for each.
*/

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};
use ring::digest::{SHA256, digest};
use tokio::time::Instant;

use crate::rate_limit::TokenBucket;

/// How long an answer of the API server counts.
const KEPT: Duration = Duration::from_mins(1);
/// Answers that are kept. Clusters have a scraper or two.
const MAX_KEPT: usize = 64;
/// Questions at once, and time until one more may be asked.
const BURST: u32 = 10;
const PACE: Duration = Duration::from_secs(1);

/// Lets scrapers in.
pub(crate) struct Scrapers {
    client: Client,
    known: Mutex<Known>,
    questions: TokenBucket,
}

/// By digest: tokens are not kept.
type Digest = [u8; 32];

struct Known {
    answers: HashMap<Digest, (Instant, Result<(), Refusal>)>,
}

/// Why a request gets no metrics.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("metrics name tenants: send a bearer token whose user may get the non-resource URL /metrics")]
    NoToken,
    #[error("the API server does not know the bearer token")]
    NotAuthenticated,
    #[error(
        "user {0} may not get the non-resource URL /metrics; bind a ClusterRole that allows it, see docs/metrics.md"
    )]
    NotAllowed(String),
    #[error("too many unknown bearer tokens; try again in a second")]
    Busy,
    #[error("cannot ask the API server: {0}")]
    Unknown(String),
}

// === impl Scrapers ===

impl Scrapers {
    /// Asks with this client.
    pub(crate) fn new(client: Client) -> Self {
        let known = Known {
            answers: HashMap::new(),
        };
        Self {
            client,
            known: Mutex::new(known),
            questions: TokenBucket::new(PACE, BURST),
        }
    }

    /// Whether a request with these headers may read the metrics.
    pub(crate) async fn admit(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let token = bearer(headers).ok_or(Refusal::NoToken)?;
        let key = key(token);
        if let Some(answer) = self.kept(&key) {
            return answer;
        }
        if self.questions.try_take().is_err() {
            return Err(Refusal::Busy);
        }
        let answer = self.ask(token).await;
        if !matches!(answer, Err(Refusal::Unknown(_))) {
            self.keep(key, answer.clone());
        }
        answer
    }

    async fn ask(&self, token: &str) -> Result<(), Refusal> {
        let unknown = |error: kube::Error| Refusal::Unknown(error.to_string());
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: None,
            },
            ..TokenReview::default()
        };
        let reviews = Api::<TokenReview>::all(self.client.clone());
        let reviewed = reviews
            .create(&PostParams::default(), &review)
            .await
            .map_err(unknown)?;
        let status = reviewed.status.unwrap_or_default();
        let user = status
            .user
            .filter(|_| status.authenticated == Some(true))
            .ok_or(Refusal::NotAuthenticated)?;
        let name = user.username.clone().unwrap_or_default();
        let reviews = Api::<SubjectAccessReview>::all(self.client.clone());
        let reviewed = reviews
            .create(&PostParams::default(), &access(user))
            .await
            .map_err(unknown)?;
        let allowed = reviewed.status.is_some_and(|status| status.allowed);
        allowed.then_some(()).ok_or(Refusal::NotAllowed(name))
    }

    fn kept(&self, key: &Digest) -> Option<Result<(), Refusal>> {
        let known = self.lock();
        let (since, answer) = known.answers.get(key)?;
        (since.elapsed() < KEPT).then(|| answer.clone())
    }

    fn keep(&self, key: Digest, answer: Result<(), Refusal>) {
        let mut known = self.lock();
        if known.answers.len() >= MAX_KEPT {
            known.answers.retain(|_, (since, _)| since.elapsed() < KEPT);
        }
        if known.answers.len() >= MAX_KEPT {
            // Refusals first: they are what strangers can make.
            known.answers.retain(|_, (_, answer)| answer.is_ok());
        }
        known.answers.insert(key, (Instant::now(), answer));
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty()).then(|| token.trim())
}

fn key(token: &str) -> Digest {
    let mut key = Digest::default();
    key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    key
}

fn access(user: UserInfo) -> SubjectAccessReview {
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: user.username,
            uid: user.uid,
            groups: user.groups,
            extra: user.extra,
            non_resource_attributes: Some(NonResourceAttributes {
                path: Some("/metrics".to_owned()),
                verb: Some("get".to_owned()),
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}

// === impl Refusal ===

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self {
            Self::NoToken | Self::NotAuthenticated => StatusCode::UNAUTHORIZED,
            Self::NotAllowed(_) => StatusCode::FORBIDDEN,
            Self::Busy => StatusCode::TOO_MANY_REQUESTS,
            Self::Unknown(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, format!("{self}\n")).into_response()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use testkit::scripted::Scripted;

    use super::*;

    const TOKENS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
    const ACCESS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";

    fn with(token: &str) -> HeaderMap {
        let value = format!("Bearer {token}").parse().unwrap();
        HeaderMap::from_iter([(header::AUTHORIZATION, value)])
    }

    fn tokens(authenticated: bool) -> serde_json::Value {
        json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {},
            "status": { "authenticated": authenticated, "user": { "username": "prometheus", "groups": ["g"] } } })
    }

    fn allowed(allowed: bool) -> serde_json::Value {
        json!({ "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {},
            "status": { "allowed": allowed } })
    }

    /// Every client that reached the port could read the names of a node's tenants.
    #[tokio::test]
    async fn i8_metrics_are_for_whom_the_api_server_lets_read_them() {
        let (client, mut api) = Scripted::new();
        let scrapers = Scrapers::new(client);
        assert_eq!(scrapers.admit(&HeaderMap::new()).await, Err(Refusal::NoToken));
        let good = with("good");
        let (admitted, ()) = tokio::join!(scrapers.admit(&good), async {
            let call = api.expect("POST", TOKENS).await;
            assert_eq!(call.body["spec"]["token"], "good");
            call.answer(&tokens(true));
            let call = api.expect("POST", ACCESS).await;
            assert_eq!(call.body["spec"]["nonResourceAttributes"]["path"], "/metrics");
            assert_eq!(call.body["spec"]["groups"][0], "g");
            call.answer(&allowed(true));
        });
        assert_eq!(admitted, Ok(()));
        assert_eq!(
            scrapers.admit(&good).await,
            Ok(()),
            "kept: no call is answered here"
        );
        let other = with("other");
        let (admitted, ()) = tokio::join!(scrapers.admit(&other), async {
            api.expect("POST", TOKENS).await.answer(&tokens(true));
            api.expect("POST", ACCESS).await.answer(&allowed(false));
        });
        assert_eq!(admitted, Err(Refusal::NotAllowed("prometheus".to_owned())));
    }

    #[tokio::test(start_paused = true)]
    async fn i18_tokens_that_are_made_up_do_not_all_reach_the_api_server() {
        let (client, mut api) = Scripted::new();
        let scrapers = Scrapers::new(client);
        for made_up in 0..BURST {
            let token = with(&format!("x{made_up}"));
            let (admitted, ()) = tokio::join!(scrapers.admit(&token), async {
                api.expect("POST", TOKENS).await.answer(&tokens(false));
            });
            assert_eq!(admitted, Err(Refusal::NotAuthenticated));
        }
        assert_eq!(scrapers.admit(&with("one more")).await, Err(Refusal::Busy));
        tokio::time::advance(PACE).await;
        assert!(scrapers.questions.try_take().is_ok(), "one a second");
        assert!(scrapers.questions.try_take().is_err());
    }
}
