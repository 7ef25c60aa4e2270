/*!
Spans of reviews, as a collector gets them. The collector is a server on loopback that speaks
OTLP/HTTP: the peer in the protocol, not a part of this project.
*/

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::{Router, routing::post};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::json;
use telemetry::{LogFormat, LogOptions, Program, Telemetry, Traces};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tracing::subscriber::DefaultGuard;

use webhook_fixtures::{Harness, creation, pod};

const PROGRAM: Program = Program {
    name: "webhook-test",
    version: "1",
};
/// The header of a caller that wants its trace sampled (W3C Trace Context).
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A collector, and the exports that it got.
struct Collector {
    address: String,
    exports: mpsc::UnboundedReceiver<(HeaderMap, ExportTraceServiceRequest)>,
}

// === impl Collector ===

impl Collector {
    async fn start() -> Self {
        let (sender, exports) = mpsc::unbounded_channel();
        let router = Router::new()
            .route("/v1/traces", post(receive))
            .with_state(sender);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        // On a thread of its own: a flush blocks the test's.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let listener = listener.into_std().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                axum::serve(listener, router).await.unwrap();
            });
        });
        Self { address, exports }
    }

    /// The spans so far.
    fn spans(&mut self) -> Vec<Span> {
        let mut spans = Vec::new();
        while let Ok((headers, export)) = self.exports.try_recv() {
            assert_eq!(headers["content-type"], "application/x-protobuf");
            for resource in export.resource_spans {
                let described = attributes(&resource.resource.unwrap().attributes);
                let service = ("service.name".to_owned(), "webhook-test".to_owned());
                assert!(described.contains(&service), "{described:?}");
                let scopes = resource.scope_spans.into_iter();
                spans.extend(scopes.flat_map(|scope| scope.spans));
            }
        }
        spans
    }
}

async fn receive(
    State(sender): State<mpsc::UnboundedSender<(HeaderMap, ExportTraceServiceRequest)>>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let Ok(export) = ExportTraceServiceRequest::decode(body) else {
        return StatusCode::BAD_REQUEST;
    };
    drop(sender.send((headers, export)));
    StatusCode::OK
}

fn attributes(list: &[opentelemetry_proto::tonic::common::v1::KeyValue]) -> Vec<(String, String)> {
    let texts = list.iter().map(|pair| {
        let value = pair.value.as_ref().and_then(|value| value.value.as_ref());
        let text = match value {
            Some(AnyValue::StringValue(text)) => text.clone(),
            Some(AnyValue::BoolValue(value)) => value.to_string(),
            other => format!("{other:?}"),
        };
        (pair.key.clone(), text)
    });
    texts.collect()
}

/// Traces of this thread, as these variables of the environment configure them.
fn tracing_to(endpoint: &str, more: &[(&str, &str)]) -> (Telemetry, DefaultGuard) {
    let telemetry = match settings(endpoint, more) {
        Some(traces) => Telemetry::start(PROGRAM, &traces).unwrap(),
        None => Telemetry::off(),
    };
    let guard = subscribe(&telemetry, std::io::sink);
    (telemetry, guard)
}

fn settings(endpoint: &str, more: &[(&str, &str)]) -> Option<Traces> {
    let endpoint = format!("http://{endpoint}");
    let variable = |name: &str| {
        let more = more.iter().find(|(key, _)| *key == name);
        match (more, name) {
            (Some((_, value)), _) => Some((*value).to_owned()),
            (None, "OTEL_TRACES_EXPORTER") => Some("otlp".to_owned()),
            (None, "OTEL_EXPORTER_OTLP_ENDPOINT") => Some(endpoint.clone()),
            _ => None,
        }
    };
    Traces::from_variables(variable).unwrap()
}

fn subscribe<W>(telemetry: &Telemetry, writer: W) -> DefaultGuard
where
    W: for<'w> tracing_subscriber::fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    let options = LogOptions {
        log: "debug".to_owned(),
        log_format: LogFormat::Json,
    };
    tracing::subscriber::set_default(telemetry::subscriber(&options, telemetry, writer).unwrap())
}

/// A pod with a secret in everything that its author writes.
fn secretive_pod() -> serde_json::Value {
    let mut pod = pod();
    pod["metadata"]["annotations"]["note"] = json!("s3cret");
    pod["spec"]["containers"][0]["env"] = json!([{ "name": "TOKEN", "value": "s3cret" }]);
    pod["spec"]["containers"][0]["args"] = json!(["--token=s3cret"]);
    pod
}

#[tokio::test]
async fn a_review_is_a_span_with_names_and_the_decision_and_without_content() {
    let mut collector = Collector::start().await;
    let (telemetry, _guard) = tracing_to(&collector.address, &[]);
    let harness = Harness::new();
    let mut request = creation("Pod", "", &secretive_pod());
    assert!(harness.review("/mutate", &request).await.is_allowed());
    request["userInfo"]["username"] = json!("s3cret");
    assert!(!harness.review("/mutate", &request).await.is_allowed());
    let (status, _) = harness.post("/validate", "s3cret").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    telemetry.flush();
    let spans = collector.spans();
    assert_eq!(spans.len(), 3, "{spans:?}");
    let described: Vec<_> = spans.iter().map(|span| attributes(&span.attributes)).collect();
    let has = |span: usize, key: &str, value: &str| {
        assert!(
            described[span].contains(&(key.to_owned(), value.to_owned())),
            "{key}={value}: {:?}",
            described[span]
        );
    };
    assert_eq!(spans[0].name, "/mutate");
    for (key, value) in [
        ("kind", "Pod"),
        ("namespace", "team"),
        ("operation", "Create"),
        ("dry_run", "false"),
        ("outcome", "allowed"),
        ("uid", request["uid"].as_str().unwrap()),
    ] {
        has(0, key, value);
    }
    has(1, "outcome", "denied");
    has(1, "reason", "Forbidden");
    assert_eq!(spans[2].name, "/validate");
    has(2, "outcome", "error");
    assert_eq!(spans[2].status.as_ref().unwrap().code, 2, "an error");
    for span in &spans {
        assert!(span.events.is_empty(), "log lines stay out: {span:?}");
        assert!(!format!("{span:?}").contains("s3cret"), "{span:?}");
    }
}

#[tokio::test]
async fn i18_the_attributes_of_a_span_are_bounded() {
    let mut collector = Collector::start().await;
    let (telemetry, _guard) = tracing_to(&collector.address, &[]);
    let mut request = creation("Pod", "", &pod());
    for field in ["uid", "name", "namespace"] {
        request[field] = json!("ä".repeat(1 << 19));
    }
    request["kind"]["kind"] = json!("x".repeat(1 << 19));
    Harness::new().review("/mutate", &request).await;
    telemetry.flush();
    let spans = collector.spans();
    assert_eq!(spans.len(), 1);
    assert!(spans[0].encoded_len() < 2048, "{} bytes", spans[0].encoded_len());
}

/// The port does not authenticate clients: a client that reaches it must not write into traces of
/// others, or decide what is exported.
#[tokio::test]
async fn the_callers_trace_is_linked_and_decides_nothing() {
    let send = async |harness: &Harness, parent: &str| {
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": creation("Pod", "", &pod()),
        });
        let request = Request::post("/mutate")
            .header("content-type", "application/json")
            .header("traceparent", parent)
            .body(Body::from(review.to_string()));
        assert_eq!(harness.send(request.unwrap()).await.0, StatusCode::OK);
    };
    let mut collector = Collector::start().await;
    let harness = Harness::new();
    {
        let (telemetry, _guard) = tracing_to(&collector.address, &[]);
        for parent in [TRACEPARENT, "nonsense"] {
            send(&harness, parent).await;
        }
        telemetry.flush();
        let spans = collector.spans();
        assert_eq!(spans.len(), 2);
        assert!(spans.iter().all(|span| span.parent_span_id.is_empty()));
        let link = &spans[0].links[0];
        assert_eq!(
            link.trace_id,
            0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes()
        );
        assert_eq!(link.span_id, 0xb7ad_6b71_6920_3331_u64.to_be_bytes());
        assert_ne!(spans[0].trace_id, link.trace_id);
        assert!(spans[1].links.is_empty());
    }
    let nothing = [
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0"),
    ];
    let (telemetry, _guard) = tracing_to(&collector.address, &nothing);
    send(&harness, TRACEPARENT).await;
    telemetry.flush();
    assert!(collector.spans().is_empty(), "sampled by the caller");
}

#[tokio::test]
async fn without_traces_nothing_connects_and_no_span_exists() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (telemetry, _guard) = tracing_to(&address, &[("OTEL_TRACES_EXPORTER", "none")]);
    let span = tracing::info_span!(target: telemetry::SPANS, "x");
    assert!(span.is_disabled());
    let harness = Harness::new();
    let request = creation("Pod", "", &pod());
    assert!(harness.review("/mutate", &request).await.is_allowed());
    telemetry.flush();
    telemetry.shutdown();
    let accepted = futures::FutureExt::now_or_never(listener.accept());
    assert!(accepted.is_none(), "something connected");
}

/// The collector accepts connections and never answers; the queue is full long before the end.
#[tokio::test]
async fn a_collector_that_does_not_answer_delays_no_review() {
    const REVIEWS: usize = 3000;
    let black_hole = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = black_hole.local_addr().unwrap().to_string();
    let (telemetry, _guard) = tracing_to(&address, &[]);
    let harness = Harness::new();
    let request = creation("Pod", "", &pod());
    let mut allowed = 0;
    for _ in 0..REVIEWS {
        allowed += usize::from(harness.review("/mutate", &request).await.is_allowed());
    }
    assert_eq!(allowed, REVIEWS);
    // The exporter did connect, and still waits for the answer to its first batch.
    let (exporter, _) = black_hole.accept().unwrap();
    black_hole.set_nonblocking(true).unwrap();
    let second = black_hole.accept();
    assert!(second.is_err(), "the first batch is not answered: {second:?}");
    telemetry.shutdown();
    drop(exporter);
}

/// Most calls to the API server are watches and renewals, which are not part of anything.
#[tokio::test]
async fn a_call_to_the_api_server_is_a_span_only_inside_another_one() {
    let mut collector = Collector::start().await;
    let (telemetry, _guard) = tracing_to(&collector.address, &[]);
    let call = || drop(tracing::info_span!(target: telemetry::CALLS, "call").entered());
    call();
    let foreign = tracing::info_span!("a span of a library").entered();
    call();
    let step = tracing::info_span!(target: telemetry::SPANS, "step").entered();
    call();
    drop((step, foreign));
    telemetry.flush();
    let spans = collector.spans();
    let names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["call", "step"]);
    assert_eq!(spans[0].parent_span_id, spans[1].span_id);
    assert!(spans[1].parent_span_id.is_empty());
}

/// What is logged does not depend on traces.
#[tokio::test]
async fn spans_are_not_part_of_log_lines() {
    let collector = Collector::start().await;
    let lines = Arc::new(std::sync::Mutex::new(Vec::new()));
    let telemetry = Telemetry::start(PROGRAM, &settings(&collector.address, &[]).unwrap()).unwrap();
    let into = Arc::clone(&lines);
    let _guard = subscribe(&telemetry, move || Lines(Arc::clone(&into)));
    let request = creation("Pod", "", &pod());
    assert!(Harness::new().review("/mutate", &request).await.is_allowed());
    let text = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
    assert!(text.contains("\"allowed\""), "{text}");
    assert!(!text.contains("admission review"), "{text}");
    assert!(!text.contains("\"spans\""), "{text}");
}

/// The log of a test.
struct Lines(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
