/*!
An API server that answers what the test tells it to, one call after the other.

A test says which call it expects next, looks at it, and answers it. A call that is not expected, or
does not come, ends the test with what came instead. Watches are kept open and silent: what a watch
would tell, tests put into caches.
*/

use std::time::Duration;

use http::{Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use stoppablecontainer_api::names::{
    ANNOTATION_MAIN_CONTAINER, ANNOTATION_PLACEMENT, CSI_DRIVER, GATE, LABEL_ROLE, ROLE_CONSUMER,
    VOLUME_MOUNT_PATH, VOLUME_NAME, WRAPPER_IN_IMAGE,
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;
use tower_test::mock::{Handle, SendResponse, pair};

/// Longest wait for a call that is expected. Only a test that fails ever waits that long.
const PATIENCE: Duration = Duration::from_secs(30);

/// The server's side.
pub struct Scripted {
    handle: Handle<Request<Body>, Response<Body>>,
    /// Open watches with their paths. They are kept, because a dropped one would end the watch.
    watches: Vec<(String, SendResponse<Response<Body>>)>,
}

/// A call that waits for its answer.
pub struct Call {
    /// `GET`, `POST`, ...
    pub method: String,
    /// Path, without the query.
    pub path: String,
    /// Query; empty if there is none.
    pub query: String,
    /// Body; null if there is none.
    pub body: Value,
    respond: SendResponse<Response<Body>>,
}

// === impl Scripted ===

impl Scripted {
    /// A client and the server that it talks to.
    pub fn new() -> (Client, Self) {
        let (service, handle) = pair::<Request<Body>, Response<Body>>();
        (
            Client::new(service, "default"),
            Self {
                handle,
                watches: Vec::new(),
            },
        )
    }

    /// The next call, which must be this one.
    pub async fn expect(&mut self, method: &str, path: &str) -> Call {
        let call = self.expect_any(&format!("{method} {path}")).await;
        assert_eq!(
            format!("{method} {path}"),
            format!("{} {}", call.method, call.path),
            "body: {:#}",
            call.body
        );
        call
    }

    /// The next call, for a test that can only describe it in words.
    pub async fn expect_any(&mut self, what: &str) -> Call {
        let Ok(call) = timeout(PATIENCE, self.next()).await else {
            panic!("{what} did not come");
        };
        let Some(call) = call else {
            panic!("the client is gone; expected {what}")
        };
        call
    }

    /// Asserts that no call comes for so long; with paused time that takes none.
    pub async fn quiet(&mut self, time: Duration) {
        if let Ok(Some(call)) = timeout(time, self.next()).await {
            panic!(
                "nothing was to come, but: {} {} {:#}",
                call.method, call.path, call.body
            );
        }
    }

    /// Watches that are open.
    pub fn watches(&self) -> usize {
        self.watches.len()
    }

    /// Sends `events` on the watch that was opened last, and ends it, so that the client opens
    /// another.
    pub fn tell(&mut self, events: &[Value]) {
        let Some((_, watch)) = self.watches.pop() else {
            panic!("no watch is open")
        };
        send_events(watch, events);
    }

    /// Sends `events` on the watch of this path, and ends it, so that the client opens another.
    pub fn tell_at(&mut self, path: &str, events: &[Value]) {
        let Some(at) = self.watches.iter().position(|(of, _)| of == path) else {
            panic!("no watch of {path} is open")
        };
        let (_, watch) = self.watches.remove(at);
        send_events(watch, events);
    }

    async fn next(&mut self) -> Option<Call> {
        loop {
            let (request, respond) = self.handle.next_request().await?;
            let (parts, body) = request.into_parts();
            let query = parts.uri.query().unwrap_or_default().to_owned();
            if query.split('&').any(|pair| pair == "watch=true") {
                self.watches.push((parts.uri.path().to_owned(), respond));
                continue;
            }
            let body = match body.collect_bytes().await {
                Ok(bytes) if bytes.is_empty() => Value::Null,
                Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or(Value::Null),
                Err(error) => panic!("body of the request: {error}"),
            };
            let (method, path) = (parts.method.to_string(), parts.uri.path().to_owned());
            return Some(Call {
                method,
                path,
                query,
                body,
                respond,
            });
        }
    }
}

/// A client whose calls are all answered with what they sent, and the bodies of its calls. For
/// events, which do not decide anything: a test looks at those that it is about.
pub fn recording() -> (Client, UnboundedReceiver<Value>) {
    let (service, mut handle) = pair::<Request<Body>, Response<Body>>();
    let (sender, bodies) = unbounded_channel();
    tokio::spawn(async move {
        while let Some((request, respond)) = handle.next_request().await {
            let body = match request.into_body().collect_bytes().await {
                Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or(Value::Null),
                Err(error) => panic!("body of the request: {error}"),
            };
            let mut object: Value = body;
            object["metadata"]["uid"] = json!("recorded");
            respond.send_response(Response::new(Body::from(object.to_string().into_bytes())));
            // The test may be over.
            let _ = sender.send(object);
        }
    });
    (Client::new(service, "default"), bodies)
}

// === impl Call ===

impl Call {
    /// Answers with an object.
    pub fn answer(self, object: &Value) {
        self.send(StatusCode::OK, object);
    }

    /// Answers with what was sent, as the API server stores it: with a UID and a resourceVersion,
    /// and a consumer pod with the marks of the webhook's rewrite.
    pub fn create(self, uid: &str) -> Value {
        let mut object = self.body.clone();
        if object["metadata"]["labels"][LABEL_ROLE] == ROLE_CONSUMER {
            mark_rewritten(&mut object);
        }
        object["metadata"]["uid"] = json!(uid);
        object["metadata"]["resourceVersion"] = json!("1");
        self.send(StatusCode::CREATED, &object);
        object
    }

    /// Refuses, as the API server words it.
    pub fn refuse(self, code: u16, reason: &str, message: &str) {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure",
            "code": code, "reason": reason, "message": message,
        });
        self.send(
            StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            &status,
        );
    }

    /// Answers with what was sent as the API server stores it where no webhook of ours saw it.
    pub fn create_unseen(self, uid: &str) -> Value {
        let mut object = self.body.clone();
        object["metadata"]["uid"] = json!(uid);
        object["metadata"]["resourceVersion"] = json!("1");
        self.send(StatusCode::CREATED, &object);
        object
    }

    fn send(self, code: StatusCode, body: &Value) {
        let mut response = Response::new(Body::from(body.to_string().into_bytes()));
        *response.status_mut() = code;
        self.respond.send_response(response);
    }
}

fn send_events(watch: SendResponse<Response<Body>>, events: &[Value]) {
    let mut lines = events.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
    lines.push('\n');
    watch.send_response(Response::new(Body::from(lines.into_bytes())));
}

/// What the controller looks for in a consumer pod; the whole rewrite is the webhook's. The node of
/// the filesystem is `n1`.
fn mark_rewritten(pod: &mut Value) {
    let is_placed = pod["metadata"]["annotations"][ANNOTATION_PLACEMENT].is_null();
    let spec = &mut pod["spec"];
    if let Some(gates) = spec["schedulingGates"].as_array_mut() {
        gates.retain(|gate| gate["name"] != GATE);
    }
    let is_gated = spec["schedulingGates"]
        .as_array()
        .is_some_and(|gates| !gates.is_empty());
    if !is_gated && is_placed {
        spec["nodeName"] = json!("n1");
    }
    spec["volumes"] = json!([{ "name": VOLUME_NAME, "csi": { "driver": CSI_DRIVER, "readOnly": true } }]);
    let main = &mut spec["containers"][0];
    main["command"] = json!([WRAPPER_IN_IMAGE, "run", "--"]);
    main["volumeMounts"] = json!([{ "name": VOLUME_NAME, "mountPath": VOLUME_MOUNT_PATH, "readOnly": true }]);
    let name = main["name"].clone();
    pod["metadata"]["annotations"][ANNOTATION_MAIN_CONTAINER] = name;
}
