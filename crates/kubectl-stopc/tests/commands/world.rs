//! A command that runs against a scripted API server, and the objects of its answers.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use kubectl_stopc::args::Args;
use kubectl_stopc::failure::Failure;
use kubectl_stopc::run_in;
use kubectl_stopc::screen::Screen;
use kubectl_stopc::session::Session;
use serde_json::{Value, json};
use testkit::scripted::Scripted;
use tokio::task::JoinHandle;

/// Path of the objects in the session's namespace.
pub(crate) const ALL: &str =
    "/apis/stoppablecontainer.xtlsoft.top/v1alpha1/namespaces/team/stoppablecontainers";
/// Path of the object.
pub(crate) const WEB: &str =
    "/apis/stoppablecontainer.xtlsoft.top/v1alpha1/namespaces/team/stoppablecontainers/web";
/// Path of the instances in the session's namespace.
pub(crate) const INSTANCES: &str =
    "/apis/stoppablecontainer.xtlsoft.top/v1alpha1/namespaces/team/stoppablecontainerinstances";
/// Path of the pods in the session's namespace.
pub(crate) const PODS: &str = "/api/v1/namespaces/team/pods";
/// Path of the pod.
pub(crate) const POD: &str = "/api/v1/namespaces/team/pods/web";

/// A running command.
pub(crate) struct World {
    pub(crate) api: Scripted,
    task: JoinHandle<Result<(), Failure>>,
    out: Buffer,
    err: Buffer,
}

/// What a command left.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: u8,
    pub(crate) out: String,
    pub(crate) err: String,
}

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

// === impl World ===

impl World {
    /// Runs the command in namespace `team`, without a terminal.
    pub(crate) fn run(line: &str) -> Self {
        Self::start(line, None)
    }

    /// The same on a terminal, with this answer to a question.
    pub(crate) fn run_with_answer(line: &str, answer: &'static str) -> Self {
        Self::start(line, Some(answer))
    }

    fn start(line: &str, input: Option<&'static str>) -> Self {
        let args = Args::parse_from(std::iter::once("kubectl-stopc").chain(line.split(' ')));
        let (client, api) = Scripted::new();
        let (out, err) = (Buffer::default(), Buffer::default());
        let mut session = Session {
            client,
            namespace: "team".to_owned(),
            screen: Screen::new(out.clone(), err.clone(), input),
            kubectl_flags: Vec::new(),
        };
        let task = tokio::spawn(async move { run_in(&mut session, &args.command).await });
        Self { api, task, out, err }
    }

    /// Answers the list with which a watch of the object begins.
    pub(crate) async fn list(&mut self, path: &str, objects: &[Value]) -> String {
        let call = self.api.expect("GET", path).await;
        let query = call.query.clone();
        call.answer(&list(objects));
        query
    }

    /// Answers the lists with which two watches begin, in any order.
    pub(crate) async fn lists(&mut self, answers: [(&str, Value); 2]) {
        for _ in 0..answers.len() {
            let call = self.api.expect_any("a list").await;
            let answer = answers.iter().find(|(path, _)| *path == call.path);
            let (_, object) = answer.unwrap_or_else(|| panic!("{} {}", call.method, call.path));
            call.answer(&list(std::slice::from_ref(object)));
        }
    }

    /// Lets the watch be opened, and reports a change of the object.
    pub(crate) async fn change(&mut self, kind: &str, object: &Value) {
        self.api.quiet(Duration::from_secs(1)).await;
        let path = if object["kind"] == "Pod" {
            PODS
        } else if object["kind"] == "StoppableContainerInstance" {
            INSTANCES
        } else {
            ALL
        };
        self.api
            .tell_at(path, &[json!({ "type": kind, "object": object })]);
    }

    /// The end of the command, without another request.
    pub(crate) async fn ended(mut self) -> Ended {
        let end = async {
            loop {
                tokio::select! {
                    end = &mut self.task => break end.unwrap(),
                    () = self.api.quiet(Duration::from_secs(1)) => {}
                }
            }
        };
        let end = tokio::time::timeout(Duration::from_hours(1), end).await.unwrap();
        let code = end.as_ref().map_or_else(Failure::exit_code, |()| 0);
        let mut err = self.err.text();
        if let Err(failure) = end {
            err.push_str(&failure.to_string());
        }
        Ended {
            code,
            out: self.out.text(),
            err,
        }
    }
}

// === impl Ended ===

impl Ended {
    /// Asserts success and this output.
    pub(crate) fn printed(&self, out: &str) {
        assert_eq!((self.code, self.out.as_str()), (0, out), "{}", self.err);
    }

    /// Asserts this exit code, and these words among the errors.
    pub(crate) fn failed(&self, code: u8, words: &str) {
        assert!(
            self.code == code && self.err.contains(words),
            "{words:?} {self:#?}"
        );
    }

    /// The output without the times that waits took.
    pub(crate) fn timeless(mut self) -> Self {
        let lines = self.out.lines().map(|line| match line.rsplit_once(" (") {
            Some((line, time)) if time.ends_with("s)") => format!("{line}\n"),
            _ => format!("{line}\n"),
        });
        self.out = lines.collect();
        self
    }
}

// === impl Buffer ===

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

// === Objects ===

/// A list in the form of the API server.
pub(crate) fn list(objects: &[Value]) -> Value {
    json!({ "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": "10" }, "items": objects })
}

/// The object `web` with this generation, whose status describes `observed`.
pub(crate) fn web(running: bool, generation: i64, observed: i64, phase: &str) -> Value {
    let (status, reason) = match phase {
        "Running" => ("True", "AsRequested"),
        "Stopped" => ("True", "Stopped"),
        "Failed" => ("False", "FilesystemLost"),
        _ => ("False", "Starting"),
    };
    json!({
        "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainer",
        "metadata": {
            "name": "web", "namespace": "team", "uid": "u1", "generation": generation,
            "resourceVersion": generation.to_string(), "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {
            "running": running,
            "template": { "spec": { "containers": [{ "name": "main", "image": "nginx:1.25" }] } },
        },
        "status": {
            "phase": phase, "observedGeneration": observed, "nodeName": "node1", "instanceName": "web",
            "instanceUid": "11111111-2222-3333-4444-555555555555",
            "filesystem": { "usage": { "bytes": 1536, "inodes": 12 } },
            "conditions": [{
                "type": "Ready", "status": status, "reason": reason, "message": "as the test says",
                "lastTransitionTime": "2026-01-01T00:00:10Z",
            }],
        },
    })
}

/// A pod `web` that runs.
pub(crate) fn pod(uid: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "web", "namespace": "team", "uid": uid, "resourceVersion": "5",
            "ownerReferences": [{
                "apiVersion": "stoppablecontainer.xtlsoft.top/v1alpha1", "kind": "StoppableContainerInstance",
                "name": "web", "uid": "11111111-2222-3333-4444-555555555555", "controller": true,
            }],
        },
        "status": { "phase": "Running" },
    })
}
