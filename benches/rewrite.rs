/*!
The computation of an admission review: the rewrite alone, and a whole review from the bytes of the
request to those of the answer, in this process.

`cargo bench --bench rewrite` prints the estimates of criterion, and before them the quantiles of
single runs with their goals, because criterion does not have quantiles. No time is asserted.
*/

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use stoppablecontainer::rewrite::{Facts, Wrapper, rewrite};
use stoppablecontainer_api::StoppableContainerInstance;
use tokio::runtime::Runtime;
use webhook_fixtures::{Harness, Reviewer, consumer_of, creation, spec_with_variables, typical_spec};

/// Runs of which the quantiles are printed.
const RUNS: usize = 2_000;
/// Runs before them.
const WARM_UP: usize = 200;

/// A consumer pod, and what the webhook knows.
struct Case {
    name: &'static str,
    /// The most that 99 of 100 rewrites should take.
    goal: Duration,
    instance: StoppableContainerInstance,
    pod: Pod,
    reviewer: Reviewer,
    /// The body of the request.
    review: String,
}

// === impl Case ===

impl Case {
    fn new(name: &'static str, goal: Duration, spec: &Value) -> Self {
        let (instance, pod) = consumer_of(spec);
        let mut harness = Harness::new();
        harness.instance(&instance);
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": creation("Pod", "", &pod),
        });
        Self {
            name,
            goal,
            instance: serde_json::from_value(instance).unwrap(),
            pod: serde_json::from_value(pod).unwrap(),
            reviewer: harness.reviewer(),
            review: review.to_string(),
        }
    }

    fn rewrite(&self) {
        let wrapper = Wrapper {
            image: "example/wrapper:1".to_owned(),
            pull_secret: None,
        };
        let facts = Facts {
            wrapper: &wrapper,
            instance: &self.instance,
            node: None,
            scheduler_claims: &BTreeSet::new(),
            placement: None,
        };
        let _ = black_box(rewrite(black_box(&self.pod), &facts).unwrap());
    }

    fn review(&self, runtime: &Runtime) {
        let answer = runtime.block_on(self.reviewer.post("/mutate", self.review.clone()));
        assert!(answer.0.is_success());
        let _ = black_box(answer);
    }

    fn print(&self, what: &str, goal: Option<Duration>, run: impl Fn()) {
        for _ in 0..WARM_UP {
            run();
        }
        let times = (0..RUNS).map(|_| {
            let begin = Instant::now();
            run();
            begin.elapsed()
        });
        let mut times: Vec<_> = times.collect();
        times.sort_unstable();
        let quantile = |percent: usize| times[(times.len() * percent).div_ceil(100) - 1];
        let goal = goal.map(|goal| {
            let missed = if quantile(99) > goal { " **MISSED**" } else { "" };
            format!("≤ {goal:?}{missed}")
        });
        println!(
            "| {what}, {} | {RUNS} | {:?} | {:?} | {} |",
            self.name,
            quantile(50),
            quantile(99),
            goal.unwrap_or_default()
        );
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let cases = [
        Case::new("typical pod", Duration::from_micros(200), &typical_spec()),
        Case::new(
            "2,000 variables",
            Duration::from_millis(5),
            &spec_with_variables(2_000),
        ),
    ];
    // `cargo test --benches` only tries whether the benchmark works.
    if std::env::args().any(|argument| argument == "--bench") {
        println!("| computation | runs | p50 | p99 | goal of p99 |\n|---|---|---|---|---|");
        for case in &cases {
            case.print("rewrite", Some(case.goal), || case.rewrite());
            case.print("review", None, || case.review(&runtime));
        }
    }
    let mut criterion = Criterion::default().configure_from_args();
    for (name, run) in [
        ("rewrite", (|case, _| case.rewrite()) as fn(&Case, &Runtime)),
        ("review", Case::review as fn(&Case, &Runtime)),
    ] {
        let mut group = criterion.benchmark_group(name);
        for case in &cases {
            let id = BenchmarkId::from_parameter(case.name);
            group.bench_with_input(id, case, |bencher, case| bencher.iter(|| run(case, &runtime)));
        }
        group.finish();
    }
    criterion.final_summary();
}
