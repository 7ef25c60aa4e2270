//! What is not a good review gets no review in answer (H24).

use axum::body::Body;
use axum::http::{Request, StatusCode};
use proptest::prelude::*;
use serde_json::{Value, json};

use webhook_fixtures::{Harness, creation, pod};

fn review(change: impl FnOnce(&mut Value)) -> String {
    let request = creation("Pod", "", &pod());
    let mut review =
        json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request });
    change(&mut review);
    review.to_string()
}

#[rstest::rstest]
#[case::v1beta1(review(|r| r["apiVersion"] = json!("admission.k8s.io/v1beta1")))]
#[case::other_kind(review(|r| r["kind"] = json!("Pod")))]
#[case::no_request(review(|r| r["request"] = Value::Null))]
#[case::no_uid(review(|r| r["request"]["uid"] = json!("")))]
#[case::no_kind(review(|r| { r["request"].as_object_mut().unwrap().remove("kind"); }))]
#[case::unknown_operation(review(|r| r["request"]["operation"] = json!("EXPLODE")))]
#[case::not_json("nonsense".to_owned())]
#[case::empty(String::new())]
#[case::deep("[".repeat(10_000))]
#[case::deep_object("{\"a\":".repeat(10_000))]
#[tokio::test]
async fn h24_bad_reviews_are_bad_requests(#[case] body: String) {
    let (status, answer) = Harness::new().post("/mutate", body).await;
    assert_eq!(
        status,
        StatusCode::BAD_REQUEST,
        "{}",
        String::from_utf8_lossy(&answer)
    );
}

#[tokio::test]
async fn h24_a_body_over_7_mib_is_refused_and_one_below_is_read() {
    let harness = Harness::new();
    let padded = |length: usize| {
        review(|r| r["request"]["object"]["metadata"]["annotations"] = json!({ "x": "y".repeat(length) }))
    };
    let (status, _) = harness.post("/mutate", padded(8 << 20)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let (status, _) = harness.post("/mutate", padded(6 << 20)).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn h24_f10_a_body_that_does_not_arrive_is_given_up() {
    let never = Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let (status, _) = Harness::new().post("/mutate", never).await;
    assert_eq!(status, StatusCode::REQUEST_TIMEOUT);
}

#[tokio::test]
async fn only_post_of_json_to_the_three_paths() {
    let harness = Harness::new();
    let get = Request::get("/mutate").body(Body::empty()).unwrap();
    assert_eq!(harness.send(get).await.0, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(harness.post("/", "{}").await.0, StatusCode::NOT_FOUND);
    let text = Request::post("/mutate")
        .header("content-type", "text/plain")
        .body(Body::from("{}"))
        .unwrap();
    assert_eq!(harness.send(text).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let charset = Request::post("/mutate").header("content-type", "application/json; charset=utf-8");
    let charset = charset.body(Body::from(review(|_| ()))).unwrap();
    assert_eq!(harness.send(charset).await.0, StatusCode::OK);
}

#[tokio::test]
async fn answers_are_counted() {
    let harness = Harness::new();
    harness.mutated(&pod()).await;
    harness.final_state(&pod()).await;
    harness.post("/validate", "nonsense").await;
    let text = harness.metrics.encode().unwrap();
    for line in [
        r#"stoppablecontainer_admission_reviews_total{path="/mutate",outcome="allowed"} 1"#,
        r#"stoppablecontainer_admission_reviews_total{path="/validate-pod",outcome="denied"} 1"#,
        r#"stoppablecontainer_admission_reviews_total{path="/validate",outcome="error"} 1"#,
        r#"stoppablecontainer_admission_denials_total{path="/validate-pod",reason="Forbidden"} 1"#,
    ] {
        assert!(text.contains(line), "{line} not in {text}");
    }
}

/// A review in which something, anywhere, is replaced by something else.
fn spoilt() -> impl Strategy<Value = String> {
    let junk = prop_oneof![
        Just(Value::Null),
        Just(json!([])),
        Just(json!({})),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[/.$()a-z\\PC]{0,12}".prop_map(Value::from),
        Just(json!([{ "name": "main", "env": [{}], "command": ["$("] }])),
    ];
    let paths: Vec<String> = pointers(&serde_json::from_str(&review(|_| ())).unwrap(), "");
    let change = (prop::sample::select(paths), junk);
    prop::collection::vec(change, 1..4).prop_map(|changes| {
        review(|review| {
            for (path, junk) in changes {
                if let Some(place) = review.pointer_mut(&path) {
                    *place = junk;
                }
            }
        })
    })
}

fn pointers(value: &Value, at: &str) -> Vec<String> {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(k, v)| (k.replace('~', "~0").replace('/', "~1"), v))
            .collect(),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(k, v)| (k.to_string(), v))
            .collect(),
        _ => Vec::new(),
    };
    let below = children
        .into_iter()
        .flat_map(|(key, value)| pointers(value, &format!("{at}/{key}")));
    std::iter::once(at.to_owned()).chain(below).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn h24_a_spoilt_review_gets_an_answer_or_a_bad_request(body in spoilt()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let (mutate, validate) = runtime.block_on(async {
            let harness = Harness::new();
            (harness.post("/mutate", body.clone()).await, harness.post("/validate-pod", body.clone()).await)
        });
        for (status, _) in [mutate, validate] {
            prop_assert!(matches!(status, StatusCode::OK | StatusCode::BAD_REQUEST), "{status}");
        }
    }
}
