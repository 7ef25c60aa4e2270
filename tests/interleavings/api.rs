/*!
A simulated API server: a tower service below kube's client. Requests are real; what they do is
decided by
[`store`], [`admission`] and [`patch`], and which of them meet with a fault by [`gate`].

It answers at once and in the order of the requests, and it has no clock, so a run with the same
faults is the same run.
*/

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use apiserver::{TIME_LIMIT, TimeLimitLayer};
use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tower::{Layer, service_fn};

use crate::api::gate::{Decision, Gate, Interrupt, ProcessId};
use crate::api::kind::{Key, Kind, NAMESPACE};
use crate::api::request::{Call, Verb};
use crate::api::store::{Deletion, Refusal, Store};
use crate::world::World;

mod admission;
pub(crate) mod gate;
pub(crate) mod kind;
mod patch;
pub(crate) mod request;
pub(crate) mod store;

/// The server; copies share it.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    shared: Arc<Mutex<Shared>>,
    interrupted: Arc<Notify>,
}

/// What the server and the driver of a run share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) world: World,
    pub(crate) gate: Gate,
}

// === impl Api ===

impl Api {
    pub(crate) fn new(world: World) -> Self {
        let gate = Gate::default();
        Self {
            shared: Arc::new(Mutex::new(Shared { world, gate })),
            interrupted: Arc::default(),
        }
    }

    /// What is shared. The lock is never held across an await point.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client of a process of the controller, with the time limit that the product's clients
    /// have.
    pub(crate) fn client(&self, process: ProcessId) -> Client {
        let api = self.clone();
        let service = service_fn(move |request| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.serve(process, request).await) }
        });
        Client::new(TimeLimitLayer::new(TIME_LIMIT).layer(service), NAMESPACE)
    }

    /// Returns when a request needs the driver.
    pub(crate) async fn interrupted(&self) -> Interrupt {
        loop {
            if let Some(interrupt) = self.lock().gate.interrupt.take() {
                return interrupt;
            }
            self.interrupted.notified().await;
        }
    }

    async fn serve(&self, process: ProcessId, request: Request<Body>) -> Response<Body> {
        let call = Call::read(request).await;
        let decision = {
            let mut shared = self.lock();
            let revision = shared.world.store.history().len();
            shared.gate.decide(process, &call, revision)
        };
        match decision {
            Decision::Serve => {}
            Decision::Refuse(refusal) => return answer(&Err(refusal)),
            Decision::ServeSilently => {
                // The client does not learn what came of it.
                drop(self.lock().carry_out(&call));
                self.interrupted.notify_one();
                return std::future::pending().await;
            }
            Decision::Ignore => {
                self.interrupted.notify_one();
                return std::future::pending().await;
            }
            Decision::Wait(go_on) => {
                self.interrupted.notify_one();
                if go_on.await.is_err() {
                    return std::future::pending().await;
                }
            }
        }
        let result = self.lock().carry_out(&call);
        answer(&result)
    }
}

// === impl Shared ===

impl Shared {
    /// Carries out a call of the controller.
    fn carry_out(&mut self, call: &Call) -> Result<Arc<Value>, Refusal> {
        if !call.is_write() {
            return read(&self.world, call);
        }
        let before = self.world.store.snapshot();
        let result = write(&mut self.world, call);
        if result.is_ok() {
            let mut monitor = std::mem::take(&mut self.world.monitor);
            monitor.judge(call, &before, &self.world);
            self.world.monitor = monitor;
        }
        result
    }
}

fn read(world: &World, call: &Call) -> Result<Arc<Value>, Refusal> {
    if call.verb == Verb::DryRun {
        return Ok(Arc::new(call.body.clone()));
    }
    world
        .store
        .get(&call.key)
        .cloned()
        .ok_or_else(|| Refusal::not_found(&call.key))
}

fn write(world: &mut World, call: &Call) -> Result<Arc<Value>, Refusal> {
    match call.verb {
        Verb::Create => {
            let object = admission::admit(world, call.key.kind, call.body.clone())?;
            world.store.create(call.key.kind, object)
        }
        Verb::Delete => world.store.delete(&call.key, &deletion(&call.body)),
        _ => patch(&mut world.store, call),
    }
}

fn patch(store: &mut Store, call: &Call) -> Result<Arc<Value>, Refusal> {
    let old = store
        .get(&call.key)
        .cloned()
        .ok_or_else(|| Refusal::not_found(&call.key))?;
    let new = patch::patched(&call.key, &old, &call.content_type, &call.body, call.status)?;
    store.replace(&call.key, new)
}

/// A server-side apply of the agent.
pub(crate) fn apply_filesystem(
    store: &mut Store,
    name: &str,
    uid: &str,
    filesystem: &Value,
) -> Result<Arc<Value>, Refusal> {
    let call = Call {
        verb: Verb::Patch,
        key: Key::new(Kind::Instance, name),
        status: true,
        content_type: "application/apply-patch+yaml".to_owned(),
        body: json!({ "metadata": { "name": name, "uid": uid }, "status": { "filesystem": filesystem } }),
    };
    patch(store, &call)
}

fn deletion(options: &Value) -> Deletion {
    let word = |value: &Value| value.as_str().map(str::to_owned);
    Deletion {
        uid: word(&options["preconditions"]["uid"]),
        version: word(&options["preconditions"]["resourceVersion"]),
        grace: options["gracePeriodSeconds"].as_i64(),
        policy: word(&options["propagationPolicy"]),
    }
}

fn answer(result: &Result<Arc<Value>, Refusal>) -> Response<Body> {
    let (code, body) = match result {
        Ok(object) => (200, object.to_string()),
        Err(refusal) => {
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "code": refusal.code, "reason": refusal.reason, "message": refusal.message,
            });
            (refusal.code, status.to_string())
        }
    };
    let mut response = Response::new(Body::from(body.into_bytes()));
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap();
    response
}
