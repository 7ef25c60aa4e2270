//! Any body for the admission webhook, which everybody on the pod network can reach: it gets an
//! answer to what it asked or a 400, and a patch that it is given applies and leaves nothing more
//! to do (H21, H24, I4).

#![no_main]

use axum::http::StatusCode;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use webhook_fixtures::{Answer, Harness};

struct World {
    harness: Harness,
    runtime: Runtime,
}

impl World {
    fn new() -> Self {
        // Time stands still but for what is waited for, so that waiting for an instance costs
        // nothing.
        let runtime = Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        Self {
            harness: Harness::new(),
            runtime,
        }
    }

    /// What `path` answers to `body`, with the request if it was one.
    fn ask(&self, path: &str, body: &[u8]) -> Option<(Value, Answer)> {
        let (status, answer) = self.runtime.block_on(self.harness.post(path, body.to_vec()));
        if status != StatusCode::OK {
            assert_eq!(status, StatusCode::BAD_REQUEST, "{path}");
            return None;
        }
        // The webhook skips fields that it does not use without parsing their values. `Value`
        // parses everything and rejects more.
        let mut review: Value = serde_json::from_slice(body).ok()?;
        let mut answer: Value = serde_json::from_slice(&answer).expect("an answer that is JSON");
        let answer = answer["response"].take();
        assert_eq!(answer["uid"], review["request"]["uid"], "{path}");
        Some((review["request"].take(), Answer(answer)))
    }
}

thread_local! {
    static WORLD: World = World::new();
}

fuzz_target!(|body: &[u8]| {
    WORLD.with(|world| {
        world.ask("/validate", body);
        world.ask("/validate-pod", body);
        let Some((mut request, answer)) = world.ask("/mutate", body) else {
            return;
        };
        if answer.0.get("patch").is_none() {
            return;
        }
        request["object"] = answer.applied(&request["object"]);
        let review = serde_json::json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request,
        });
        let (_, again) = world
            .ask("/mutate", review.to_string().as_bytes())
            .expect("the rewritten pod can be reviewed");
        assert!(again.0.get("patch").is_none(), "not a fixed point: {:?}", again.0);
    });
});
